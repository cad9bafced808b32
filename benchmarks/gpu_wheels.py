"""Collect the packages that a GPU machine without a network lacks, as one archive; unpack it there.

    python benchmarks/gpu_wheels.py build/gpu-packages.tar.xz       where there is a network (make gpu-wheels)
    python benchmarks/gpu.py --packages build/gpu-packages.tar.xz   on the GPU machine

The machine is Linux on x86-64 with Python 3.12. `--has` names what it has; whatever else uwbench and its tests on the
device import comes in. What no program here loads is left out of packages: tests, headers, Arrow's Flight and
Substrait. The archive's SHA-256 stands beside it and is checked before it is unpacked.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 64 << 20  # bytes that travel, the tree included
PYTHON = "3.12"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
CONSTRAINTS = str(ROOT / "constraints.txt")
HAS = ("torch", "transformers", "pandas", "scipy", "scikit-learn", "pyarrow")
ALSO = ("pytest", "hypothesis")  # for the tests on the device
# They come with transformers, or no part of gpu.py imports them.
NOT_NEEDED = ("datasets", "vl-convert-python", "jinja2", "huggingface-hub", "safetensors", "pyyaml", "numpy")
DROPPED = ("tests", "test", "include", "benchmarks", "__pycache__", "bin")  # folders
DROPPED_FILES = ("libarrow_flight", "libarrow_substrait", "flight.", "substrait.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--has", action="append", help=f"a package of the machine; repeats; default: {', '.join(HAS)}")
    parser.add_argument("--unpack", type=Path, metavar="FOLDER", help="check the archive and unpack it instead")
    options = parser.parse_args()
    if options.unpack is not None:
        unpack(options.archive, options.unpack)
        return
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder, "site")
        has = options.has or HAS
        packages = install(wanted(has), has, site)
        dropped = strip(site)
        pack(site, options.archive)
    print(", ".join(packages))
    size = options.archive.stat().st_size / 2**20
    print(f"{options.archive}: {size:.1f} MiB, {dropped / 2**20:.0f} MiB left out before packing")
    room = (LIMIT - tree_bytes()) / 2**20
    if size > room:
        sys.exit(f"gpu_wheels.py: more than the {room:.1f} MiB that the tree leaves: name what the machine has (--has)")


def wanted(has: Iterable[str]) -> list[str]:
    """Return the requirements of uwbench, and of its tests on the device, that the machine lacks."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {name_of(line): line for line in [*project["dependencies"], *ALSO]}
    if missing := [name for name in NOT_NEEDED if name not in named]:
        sys.exit(f"gpu_wheels.py: NOT_NEEDED names {missing[0]}, which uwbench does not require")
    return [line for name, line in named.items() if name not in {*has, *NOT_NEEDED}]


def name_of(requirement: str) -> str:
    """Return the normalised name of a requirement such as `Soundfile>=0.13`."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def install(requirements: Iterable[str], has: Iterable[str], site: Path) -> list[str]:
    """Install the requirements and what they depend on, but for what the machine has, as its Python takes them."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        pip("--dry-run", "--ignore-installed", "--report", str(report), "--constraint", CONSTRAINTS, *requirements)
        resolved = [item["metadata"] for item in json.loads(report.read_text(encoding="utf-8"))["install"]]
    left = {*has, "numpy"}
    pinned = [f"{item['name']}=={item['version']}" for item in resolved if name_of(item["name"]) not in left]
    pip("--no-deps", "--no-compile", "--target", str(site), *pinned)
    return pinned


def pip(*words: str) -> None:
    """Run `pip install` for the machine's Python and system."""
    platforms = [word for tag in PLATFORMS for word in ("--platform", tag)]
    target = ["--python-version", PYTHON, "--only-binary", ":all:", *platforms, "--quiet"]
    scratch = [] if "--target" in words else ["--target", tempfile.gettempdir()]  # pip asks for one
    subprocess.run([sys.executable, "-m", "pip", "install", *target, *scratch, *words], check=True)


def strip(site: Path) -> int:
    """Delete what no program here loads and return its size in bytes."""
    dropped = 0
    for path in sorted(site.rglob("*")):
        if path.is_dir() and path.name in DROPPED:
            dropped += sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            shutil.rmtree(path)
        elif path.is_file() and path.name.lstrip("_").startswith(DROPPED_FILES):
            dropped += path.stat().st_size
            path.unlink()
    return dropped


def pack(site: Path, archive: Path) -> None:
    """Write the folder as a tar.xz, and its SHA-256 beside it."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:xz", preset=9) as tar:
        for path in sorted(site.iterdir()):
            tar.add(path, path.name)
    sum_of(archive).write_text(
        f"{hashlib.sha256(archive.read_bytes()).hexdigest()}  {archive.name}\n", encoding="utf-8"
    )


def unpack(archive: Path, folder: Path) -> None:
    """Unpack an archive whose SHA-256 is that of the file beside it; stop if it is not."""
    if not archive.is_file() or not sum_of(archive).is_file():
        sys.exit(f"{archive}: is missing, or {sum_of(archive).name} beside it; make both with make gpu-wheels")
    expected = sum_of(archive).read_text(encoding="utf-8").split()[0]
    if hashlib.sha256(archive.read_bytes()).hexdigest() != expected:
        sys.exit(f"{archive}: does not have the SHA-256 in {sum_of(archive).name}; copy both again")
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")


def sum_of(archive: Path) -> Path:
    return archive.with_name(archive.name + ".sha256")


def tree_bytes() -> int:
    """Return the size of what git tracks here."""
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], check=True, capture_output=True, text=True).stdout
    return sum((ROOT / name).stat().st_size for name in listed.split("\0") if name and (ROOT / name).is_file())


if __name__ == "__main__":
    main()
