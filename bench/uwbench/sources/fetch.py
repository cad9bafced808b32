"""`uwbench data fetch`: a task's X-ARES shards from Zenodo, by its record API, into `--data`.

A fetch that was cut off goes on where it was; one that is complete asks for the record and downloads nothing.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from uwbench.base.atomic import write_atomically
from uwbench.base.json_text import parse_json
from uwbench.cards.card import Card
from uwbench.errors import FetchError, UsageError
from uwbench.sources.download import Patience, download, file_md5, get
from uwbench.sources.resolve import card_folders
from uwbench.sources.unpack import SCRATCH, gunzip_tar, need_space, unpack_zip

ZENODO = "https://zenodo.org"
_RECORD_LIMIT = 16 << 20  # bytes
_STATE = ".fetched.json"  # what was verified, so that a second run need not hash gigabytes again
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_+=,@ ()-][A-Za-z0-9_.+=,@ ()-]*")

Progress = Callable[[str, int, int], None]  # file, bytes that are there of all files, bytes in all


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a record."""

    name: str
    url: str
    size: int
    md5: str


def fetch_task(
    card: Card,
    data: Path,
    *,
    source: Literal["shards", "hub"] | None = None,
    base_url: str = ZENODO,
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> list[Path]:
    """Download the shards of `card` into `data/<X-ARES's folder>` and return their paths.

    With `source` "hub", and for a card that names no shards, its Hugging Face dataset is streamed into `data/<name>`.

    Sizes and md5 sums are the record's; zips are unpacked and removed. Raises UsageError where the card names no
    record, FetchError where the server, the files or the disk do not allow it; what is complete stays.
    """
    shards = card.sources.shards
    tell = progress or (lambda *_: None)
    if source == "hub" or (source is None and shards is None and card.sources.hub is not None):
        from uwbench.sources.hub import fetch_hub

        return fetch_hub(card, data / card.name, progress=lambda clips: tell(f"{clips} clips", 0, 0))
    if shards is None:
        raise UsageError("has no shards to fetch", where=card.name, remedy="see its card for where its data come from")
    patient = patience or Patience()
    # A record may serve two tasks (LibriSpeech): what one of them fetched is not fetched again for the other.
    fetched = [folder for folder in card_folders(card, data) if (folder / _STATE).is_file()]
    folder = fetched[0] if fetched else data / shards.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".fetch.lock"):
            return _fetch(shards.zenodo, folder, base_url, tell, patient)
    except OSError as error:
        raise FetchError(f"cannot be written ({error.strerror or error})", where=error.filename or folder) from error


def read_record(zenodo: int, *, base_url: str = ZENODO, patience: Patience | None = None) -> list[RemoteFile]:
    """Return the files of a Zenodo record; raise FetchError where it is not to be had or not what the API describes."""
    url = f"{base_url.rstrip('/')}/api/records/{zenodo}"
    try:
        record = parse_json(get(url, patience or Patience(), _RECORD_LIMIT))
        files = [_remote(entry, url) for entry in record["files"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FetchError(f"is not a Zenodo record ({error!r})", where=url) from error
    if not files:
        raise FetchError("holds no files", where=url)
    if len({file.name.casefold() for file in files}) < len(files):
        raise FetchError("lists a file twice", where=url)
    return files


def _remote(entry: Any, url: str) -> RemoteFile:
    name, checksum, size = entry["key"], entry["checksum"], entry["size"]
    kind, _, digest = checksum.partition(":")
    if not _PLAIN_NAME.fullmatch(name):
        raise FetchError(f"names a file {name!r}, which is not a plain file name", where=url)
    if kind != "md5" or not re.fullmatch(r"[0-9a-f]{32}", digest):
        raise FetchError(f"gives {checksum!r} as the checksum of {name}; an md5 is expected", where=url)
    if not isinstance(size, int) or size < 0:
        raise FetchError(f"gives {size!r} as the size of {name}", where=url)
    return RemoteFile(name, entry["links"]["self"], size, digest)


def _fetch(zenodo: int, folder: Path, base_url: str, progress: Progress, patience: Patience) -> list[Path]:
    for left in folder.glob(f"{SCRATCH}*"):  # by a run that was killed
        shutil.rmtree(left, ignore_errors=True)
    files = read_record(zenodo, base_url=base_url, patience=patience)
    state = _read_state(folder)
    wanted = [file for file in files if not _is_there(file, folder, state)]
    total = sum(file.size for file in files)
    have = sum((folder / f"{file.name}.part").stat().st_size for file in wanted if _part(folder, file).exists())
    archives = [file.size for file in wanted if file.name.lower().endswith((".zip", ".tar.gz", ".tgz"))]
    # While an archive is unpacked, it and its content are both on the disk.
    needed = sum(file.size for file in wanted) - have + max(archives, default=0)
    need_space(folder, needed, f"Zenodo record {zenodo}")
    done = total - sum(file.size for file in wanted)
    for file in wanted:

        def step(count: int, file: RemoteFile = file, before: int = done) -> None:
            progress(file.name, before + count, total)

        target = folder / file.name
        download(file.url, target, size=file.size, md5=file.md5, patience=patience, progress=step)
        state[file.name] = {"md5": file.md5, "files": _unpacked(target, folder)}
        _write_state(folder, state)
        done += file.size
    _write_state(folder, state)
    progress("", total, total)
    return sorted(folder / name for file in files for name in state[file.name]["files"])


def _unpacked(target: Path, folder: Path) -> dict[str, int]:
    """Unpack what is an archive of shards; return the names and sizes of the files that are to stay."""
    lower = target.name.lower()
    if lower.endswith(".zip"):
        kept = unpack_zip(target, folder)
        target.unlink()
    elif lower.endswith((".tar.gz", ".tgz")):
        kept = [gunzip_tar(target)]
        target.unlink()
    else:
        kept = [target]
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in kept}


def _is_there(file: RemoteFile, folder: Path, state: dict[str, Any]) -> bool:
    """Say whether a file, or what was unpacked from it, is complete; files put there by hand are hashed once."""
    known = state.get(file.name)
    if known is not None and known["md5"] == file.md5:
        sizes = {name: (folder / name).stat().st_size for name in known["files"] if (folder / name).is_file()}
        if sizes == known["files"]:
            return True
    path = folder / file.name
    if path.is_file() and path.stat().st_size == file.size and file_md5(path) == file.md5:
        state[file.name] = {"md5": file.md5, "files": _unpacked(path, folder)}
        return True
    return False


def _part(folder: Path, file: RemoteFile) -> Path:
    return folder / f"{file.name}.part"


def _write_state(folder: Path, state: dict[str, Any]) -> None:
    write_atomically(folder / _STATE, json.dumps(state, indent=1, sort_keys=True).encode())


def _read_state(folder: Path) -> dict[str, Any]:
    """Return what earlier fetches verified; a damaged note only costs hashing again."""
    try:
        state = parse_json((folder / _STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    entries = state.items() if isinstance(state, dict) else ()
    return {
        name: entry
        for name, entry in entries
        if isinstance(entry, dict) and isinstance(entry.get("files"), dict) and isinstance(entry.get("md5"), str)
    }
