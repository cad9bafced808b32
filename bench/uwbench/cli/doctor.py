"""What works on this machine, and what to do about the rest."""

from __future__ import annotations

import importlib.metadata
import io
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from uwbench.cli.options import Cache, Data, Json, Results, print_json
from uwbench.errors import printable

if TYPE_CHECKING:
    from uwbench.options import Folders

_NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "ceph", "9p", "afs"} | {
    "virtiofs",
    "wekafs",
    *(f"fuse.{name}" for name in ("sshfs", "s3fs", "gcsfuse", "glusterfs", "rclone")),
}
_MOUNTS = Path("/proc/mounts")
# What a broken build raises on import: a library that is missing is an OSError, a module of the same name lacks names.
_BROKEN = (ImportError, OSError, AttributeError)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    ok: bool
    text: str
    remedy: str = ""


def register(app: typer.Typer) -> None:
    """Add the command of this module to the command line."""
    app.command("doctor")(doctor)


def doctor(cache: Cache = None, data: Data = None, results: Results = None, as_json: Json = False) -> None:
    """Say what works on this machine, and what to do about the rest."""
    from uwbench import api

    findings = examine(api.folders(cache, data, results))
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            print(printable(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.subject:<12} {finding.text}"))
            if finding.remedy:
                print(f"      {'':<12} -> {finding.remedy}")
    raise typer.Exit(0 if all(finding.ok for finding in findings) else 1)


def examine(folders: Folders) -> list[Finding]:
    """Look at torch, FAISS, codecs, threads, memory, folders and the hub; nothing but a temporary file is written."""
    looks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _torch,
        _faiss,
        _codecs,
        _threads,
        lambda: _folder("cache", folders.cache),
        lambda: _folder("results", folders.results),
        lambda: _data(folders.data),
        _hub,
    )
    return [finding for look in looks for finding in look()]


def _torch() -> Iterator[Finding]:
    try:
        import torch

        version = torch.__version__
    except _BROKEN as error:
        yield Finding("torch", False, f"cannot be imported: {error}", "pip install --force-reinstall torch")
        return
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if devices:
        yield Finding("torch", True, f"{version} with {', '.join(devices)}")
    elif Path("/proc/driver/nvidia/version").exists() and torch.version.cuda is None:
        remedy = "install a CUDA build: https://pytorch.org/get-started/locally"
        yield Finding("torch", False, f"{version} is a CPU build, and this machine has an NVIDIA driver", remedy)
    elif Path("/proc/driver/nvidia/version").exists():
        yield Finding("torch", False, f"{version} sees no GPU, and this machine has an NVIDIA driver", "see nvidia-smi")
    else:
        yield Finding("torch", True, f"{version} on the CPU, {torch.get_num_threads()} threads")


def _faiss() -> Iterator[Finding]:
    builds = [
        dist.metadata["Name"]
        for dist in importlib.metadata.distributions()
        if (dist.metadata["Name"] or "").lower().startswith("faiss")
    ]
    if len(builds) > 1:
        remedy = f"pip uninstall {' '.join(builds)}, then install one of them"
        yield Finding(
            "faiss", False, f"{' and '.join(builds)} both install the module faiss and shadow each other", remedy
        )
        return
    try:
        import faiss

        version = faiss.__version__
    except _BROKEN as error:
        yield Finding("faiss", False, f"cannot be imported: {error}", "pip install --force-reinstall faiss-cpu")
        return
    yield Finding("faiss", True, f"{version} ({', '.join(builds) or 'unknown build'})")


def _codecs() -> Iterator[Finding]:
    import numpy as np

    try:
        import soundfile
    except _BROKEN as error:
        remedy = "pip install --force-reinstall soundfile, whose wheels carry libsndfile"
        yield Finding("audio", False, f"soundfile cannot be imported: {error}", remedy)
        return
    broken = []
    for name, subtype in (("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")):
        try:
            file = io.BytesIO()
            soundfile.write(file, np.zeros(4096, np.float32), 16000, format=name, subtype=subtype)
            file.seek(0)
            soundfile.read(file)
        except (soundfile.SoundFileError, ValueError) as error:
            broken.append(f"{name} ({error})")
    version = f"soundfile {soundfile.__version__}, {soundfile.__libsndfile_version__}"
    if broken:
        remedy = "pip install --force-reinstall soundfile, whose wheels carry libsndfile with MP3"
        yield Finding("audio", False, f"{version} cannot handle {', '.join(broken)}", remedy)
    else:
        yield Finding("audio", True, f"{version}: WAV, FLAC, Ogg and MP3 work")


def _threads() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        value = os.environ.get(variable, "")
        if value.isdigit() and int(value) > cores:
            yield Finding("threads", False, f"{variable}={value} on {cores} cores", f"export {variable}={cores}")
            return
    yield Finding("threads", True, f"{cores} cores for this process")
    if (available := _available_memory()) is not None:
        text = f"{available / 1e9:.1f} GB available"
        remedy = "" if available > 2e9 else "close other programs, or use --batch-seconds 30"
        yield Finding("memory", available > 2e9, text, remedy)


def _folder(subject: str, folder: Path) -> Iterator[Finding]:
    from uwbench.cache.store import free_bytes

    nearest = folder
    while not nearest.exists():
        nearest = nearest.parent
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        yield Finding(subject, False, f"{folder} cannot be written ({error.strerror})", f"use another --{subject}")
        return
    free = free_bytes(folder)
    if free < 1e9:
        yield Finding(
            subject, False, f"{folder}: {free / 1e9:.2f} GB free", f"free some space or use another --{subject}"
        )
        return
    kind = _file_system(nearest)
    if subject == "cache" and kind in _NETWORK_FILE_SYSTEMS:
        text = f"{folder} is on a network drive ({kind}); locks may not work there, and reading is slow"
        yield Finding(subject, False, text, "use a --cache on a local disk")
        return
    yield Finding(subject, True, f"{folder}: {free / 1e9:.0f} GB free")


def _data(folder: Path | None) -> Iterator[Finding]:
    if folder is None:
        yield Finding("data", True, "no folder of datasets; give --data DIR for tasks other than mini and your own")
    elif not folder.is_dir():
        yield Finding("data", False, f"{folder} is no folder", "create it, or give another --data")
    else:
        yield Finding("data", True, f"{folder}: {sum(path.is_dir() for path in folder.iterdir())} folders")


def _hub() -> Iterator[Finding]:
    import urllib.error
    import urllib.request

    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        yield Finding("hub", True, "not asked (HF_HUB_OFFLINE is set); models come from folders or the local hub cache")
        return
    if not endpoint.startswith(("https://", "http://")):
        yield Finding("hub", False, f"HF_ENDPOINT={endpoint} is no web address", "unset HF_ENDPOINT")
        return
    try:
        with urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=5):
            pass
    except urllib.error.HTTPError as error:
        yield Finding("hub", True, f"{endpoint} answers ({error.code})")
    except (OSError, ValueError) as error:
        remedy = "models from folders work without it: -m FOLDER; set HF_ENDPOINT for a mirror"
        yield Finding("hub", False, f"{endpoint} cannot be reached ({error})", remedy)
    else:
        yield Finding("hub", True, f"{endpoint} answers")


def _file_system(path: Path) -> str | None:
    """Return the type of the file system that holds `path`, from the longest matching mount point."""
    if not _MOUNTS.is_file():
        return None
    best, kind = "", None
    resolved = str(path.resolve())
    for line in _MOUNTS.read_text().splitlines():
        _, point, name, *_ = line.split()
        point = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), point)  # \040 is a space
        inside = resolved == point or resolved.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, name
    return kind


def _available_memory() -> int | None:
    """Return the bytes that this process may still take: the machine's, or less where a control group says so."""
    found = [left for left in (_machine_memory(), group_memory()) if left is not None]
    return min(found, default=None)


def _machine_memory() -> int | None:
    info = Path("/proc/meminfo")
    if not info.is_file():
        return None
    for line in info.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def group_memory(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return what the control group (a container, a batch job) leaves of its limit, by version 2's or 1's files.

    Files that the system holds in memory and could let go of do not count as taken.
    """
    for limit, used, stat in (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    ):
        try:
            most, now = (root / limit).read_text().strip(), (root / used).read_text().strip()
            held = dict(line.split(maxsplit=1) for line in (root / stat).read_text().splitlines())
        except (OSError, ValueError):
            continue
        if most.isdigit() and now.isdigit():
            return max(0, int(most) - int(now) + int(held.get("inactive_file", 0)))
    return None
