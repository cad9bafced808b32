"""Where a number comes from: package versions, memory, the state of the checkout."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path
from typing import Any

_PACKAGES = (
    "torch",
    "transformers",
    "scikit-learn",
    "faiss-cpu",
    "faiss-gpu",
    "numpy",
    "soundfile",
    "av",
    "soxr",
    "pyarrow",
)


def versions() -> dict[str, str]:
    """Return the versions of Python, uwbench and the installed packages that can change a number."""
    from uwbench import __version__

    installed = {"python": sys.version.split()[0], "uwbench": __version__}
    for package in _PACKAGES:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def git_state() -> dict[str, Any] | None:
    """Return the commit of the checkout that uwbench runs from and if it is dirty; None outside a checkout."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    return None if commit is None else {"commit": commit, "dirty": bool(_git(root, "status", "--porcelain"))}


def peak_memory_mb() -> float | None:
    """Return the peak resident memory of this process in MB; None on systems that do not report it."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(used / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)


def _git(root: Path, *words: str) -> str | None:
    try:
        process = subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return process.stdout.strip()
