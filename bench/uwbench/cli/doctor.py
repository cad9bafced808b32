"""The command `uwbench doctor`: check this machine and say how to fix what fails."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from uwbench import api
from uwbench.api import printable
from uwbench.cli import options as opt

if TYPE_CHECKING:
    from uwbench.options import Folders

_NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "ceph", "9p", "afs"} | {
    "virtiofs",
    "wekafs",
    *(f"fuse.{name}" for name in ("sshfs", "s3fs", "gcsfuse", "glusterfs", "rclone")),
}
_MOUNTS = Path("/proc/mounts")
# Errors of a broken build on import: a missing library is an OSError, another module of that name lacks attributes.
_BROKEN = (ImportError, OSError, AttributeError)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One check of this machine: its subject, the result, and how to fix it if it failed."""

    subject: str
    ok: bool
    text: str
    remedy: str = ""


def register(app: typer.Typer) -> None:
    """Add the command of this module to the command line."""
    app.command("doctor")(doctor)


def doctor(
    cache: opt.Cache = None, data: opt.Data = None, results: opt.Results = None, as_json: opt.Json = False
) -> None:
    """Check this machine and say how to fix what fails."""
    diagnoses = examine(api.folders(cache, data, results))
    if as_json:
        opt.print_json([asdict(diagnosis) for diagnosis in diagnoses])
    else:
        for diagnosis in diagnoses:
            print(printable(f"{'ok  ' if diagnosis.ok else 'FAIL'}  {diagnosis.subject:<12} {diagnosis.text}"))
            if diagnosis.remedy:
                print(printable(f"      {'':<12} -> {diagnosis.remedy}"))
    raise typer.Exit(0 if all(diagnosis.ok for diagnosis in diagnoses) else 1)


def examine(folders: Folders) -> list[Diagnosis]:
    """Check torch, FAISS, codecs, threads, memory, folders and Hugging Face; write only a temporary file."""
    checks: tuple[Callable[[], Iterator[Diagnosis]], ...] = (
        _torch,
        _torch_audio,
        _faiss,
        _codecs,
        _threads,
        lambda: _folder("cache", folders.cache),
        lambda: _folder("results", folders.results),
        lambda: _data(folders.data),
        _hub,
    )
    return [diagnosis for check in checks for diagnosis in check()]


def _torch() -> Iterator[Diagnosis]:
    try:
        import torch

        version = torch.__version__
    except _BROKEN as error:
        yield Diagnosis("torch", False, f"cannot be imported: {error}", "pip install --force-reinstall torch")
        return
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if devices:
        yield Diagnosis("torch", True, f"{version} with {', '.join(devices)}")
    elif Path("/proc/driver/nvidia/version").exists() and torch.version.cuda is None:
        remedy = "install a CUDA build: https://pytorch.org/get-started/locally"
        yield Diagnosis("torch", False, f"{version} is a CPU build, and this machine has an NVIDIA driver", remedy)
    elif Path("/proc/driver/nvidia/version").exists():
        yield Diagnosis(
            "torch", False, f"{version} sees no GPU, and this machine has an NVIDIA driver", "see nvidia-smi"
        )
    else:
        yield Diagnosis("torch", True, f"{version} on the CPU, {torch.get_num_threads()} threads")


def _torch_audio() -> Iterator[Diagnosis]:
    """Yield torchaudio and torchcodec if they are installed and do not work: encoders import them."""
    for name in ("torchaudio", "torchcodec"):
        try:
            if importlib.util.find_spec(name) is not None:
                importlib.import_module(name)
        except (*_BROKEN, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            remedy = f"pip install --force-reinstall {name} in the version for this torch, or pip uninstall {name}"
            yield Diagnosis(name, False, f"cannot be imported: {reason}", remedy)


def _faiss() -> Iterator[Diagnosis]:
    import importlib.metadata

    builds = [
        dist.metadata["Name"]
        for dist in importlib.metadata.distributions()
        if (dist.metadata["Name"] or "").lower().startswith("faiss")
    ]
    if len(builds) > 1:
        remedy = f"pip uninstall {' '.join(builds)}, then install one of them"
        yield Diagnosis(
            "faiss", False, f"{' and '.join(builds)} both install the module faiss and shadow each other", remedy
        )
        return
    try:
        import faiss

        version = faiss.__version__
    except _BROKEN as error:
        yield Diagnosis("faiss", False, f"cannot be imported: {error}", "pip install --force-reinstall faiss-cpu")
        return
    yield Diagnosis("faiss", True, f"{version} ({', '.join(builds) or 'unknown build'})")


def _codecs() -> Iterator[Diagnosis]:
    import io

    import numpy as np

    try:
        import soundfile
    except _BROKEN as error:
        remedy = "pip install --force-reinstall soundfile, whose wheels carry libsndfile"
        yield Diagnosis("audio", False, f"soundfile cannot be imported: {error}", remedy)
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
        yield Diagnosis("audio", False, f"{version} cannot handle {', '.join(broken)}", remedy)
    else:
        yield Diagnosis("audio", True, f"{version}: WAV, FLAC, Ogg and MP3 work; {_media()}")


def _media() -> str:
    """Return what decodes formats that libsndfile does not read."""
    formats = "m4a, aac, mp4, webm and wma"
    try:
        import av  # type: ignore[import-not-found]
    except ImportError:
        return f"{formats} need pip install 'uwbench[media]'"
    return f"{formats} work with PyAV {av.__version__}"


def _threads() -> Iterator[Diagnosis]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        value = os.environ.get(variable, "")
        if value.isdigit() and int(value) > cores:
            yield Diagnosis("threads", False, f"{variable}={value} on {cores} cores", f"export {variable}={cores}")
            return
    yield Diagnosis("threads", True, f"{cores} cores for this process")
    if (available := _available_memory()) is not None:
        text = f"{available / 1e9:.1f} GB available"
        remedy = "" if available > 2e9 else "close other programs, or use --batch-seconds 30"
        yield Diagnosis("memory", available > 2e9, text, remedy)


def _folder(subject: str, folder: Path) -> Iterator[Diagnosis]:
    import shutil
    import tempfile

    nearest = folder
    while not nearest.exists():
        nearest = nearest.parent
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        text = f"{folder} cannot be written ({error.strerror}: {api.describe_access(nearest)})"
        yield Diagnosis(subject, False, text, f"use another --{subject}")
        return
    problem = api.access_problem(folder)
    if problem is not None:
        yield Diagnosis(subject, False, f"{folder}: {problem[0]}", problem[1])
        return
    free = shutil.disk_usage(nearest).free
    if free < 1e9:
        yield Diagnosis(
            subject, False, f"{folder}: {free / 1e9:.2f} GB free", f"free some space or use another --{subject}"
        )
        return
    kind = _file_system(nearest)
    if subject == "cache" and kind in _NETWORK_FILE_SYSTEMS:
        text = f"{folder} is on a network drive ({kind}); locks may not work there, and reading is slow"
        yield Diagnosis(subject, False, text, "use a --cache on a local disk")
        return
    yield Diagnosis(subject, True, f"{folder}: {free / 1e9:.0f} GB free")


def _data(folder: Path | None) -> Iterator[Diagnosis]:
    if folder is None:
        text = "no folder of datasets; mini tasks and your own data need none, other tasks need --data DIR"
        yield Diagnosis("data", True, text)
    elif not folder.is_dir():
        yield Diagnosis("data", False, f"{folder} is not a folder", "create it, or use another --data")
    else:
        yield Diagnosis("data", True, f"{folder}: {sum(path.is_dir() for path in folder.iterdir())} folders")


def _hub() -> Iterator[Diagnosis]:
    import urllib.error
    import urllib.request

    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        yield Diagnosis("hub", True, "not checked (HF_HUB_OFFLINE is set); models come from folders or the local cache")
        return
    if not endpoint.startswith(("https://", "http://")):
        yield Diagnosis("hub", False, f"HF_ENDPOINT={endpoint} is not a web address", "unset HF_ENDPOINT")
        return
    try:
        with urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=5):
            pass
    except urllib.error.HTTPError as error:
        yield Diagnosis("hub", True, f"{endpoint} answers ({error.code})")
    except (OSError, ValueError) as error:
        remedy = "models in folders work without it: -m FOLDER; or set HF_ENDPOINT to a mirror"
        yield Diagnosis("hub", False, f"{endpoint} cannot be reached ({error})", remedy)
    else:
        yield Diagnosis("hub", True, f"{endpoint} answers")


def _file_system(path: Path) -> str | None:
    """Return the type of the file system that holds `path`, from the longest matching mount point."""
    if not _MOUNTS.is_file():
        return None
    best, kind = "", None
    resolved = str(path.resolve())
    for line in _MOUNTS.read_text().splitlines():
        _, point, name, *_ = line.split()
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), point)  # \040 is a space
        inside = resolved == point or resolved.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, name
    return kind


def _available_memory() -> int | None:
    """Return the bytes that this process may still allocate: the machine's, or less if a control group limits it."""
    limits = [limit for limit in (_machine_memory(), group_memory()) if limit is not None]
    return min(limits, default=None)


def _machine_memory() -> int | None:
    info = Path("/proc/meminfo")
    if not info.is_file():
        return None
    for line in info.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def group_memory(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return the bytes left of the limit of the control group (a container, a batch job), version 2 or 1.

    Cached files that the system could drop do not count as used.
    """
    for limit, used, stat in (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    ):
        try:
            most, current = (root / limit).read_text().strip(), (root / used).read_text().strip()
            counters = dict(line.split(maxsplit=1) for line in (root / stat).read_text().splitlines())
        except (OSError, ValueError):
            continue
        if most.isdigit() and current.isdigit():
            return max(0, int(most) - int(current) + int(counters.get("inactive_file", 0)))
    return None
