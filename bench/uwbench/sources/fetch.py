"""Fetch a task's X-ARES shards from Zenodo into `--data` (`uwbench data fetch`).

An interrupted fetch is resumed. If everything is there, only the record's description is requested.
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
_STATE = ".fetched.json"  # files verified so far, so that another run need not hash gigabytes again
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_+=,@ ()-][A-Za-z0-9_.+=,@ ()-]*")

Progress = Callable[[str, int, int], None]  # file, bytes on disk of all files, total bytes


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a Zenodo record."""

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

    With `source` "hub", or if the card has no shards, its Hugging Face dataset is streamed into `data/<name>`.

    Sizes and md5 sums are checked against the record; archives are unpacked and deleted. Raises UsageError if the card
    names no record, FetchError if the download fails; complete files are kept.
    """
    shards = card.sources.shards
    report = progress or (lambda *_: None)
    if source == "hub" or (source is None and shards is None and card.sources.hub is not None):
        from uwbench.sources.hub import fetch_hub

        return fetch_hub(card, data / card.name, progress=lambda clips: report(f"{clips} clips", 0, 0))
    if shards is None:
        raise UsageError("has no shards to fetch", where=card.name, remedy="see its card for where to get the data")
    # Two tasks may share a record (LibriSpeech): what was fetched for one is used for the other.
    fetched = [folder for folder in card_folders(card, data) if (folder / _STATE).is_file()]
    folder = fetched[0] if fetched else data / shards.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".fetch.lock"):
            return _fetch(shards.zenodo, folder, base_url, report, patience or Patience())
    except OSError as error:
        raise FetchError(f"cannot write ({error.strerror or error})", where=error.filename or folder) from error


def read_record(zenodo: int, *, base_url: str = ZENODO, patience: Patience | None = None) -> list[RemoteFile]:
    """Return the files of a Zenodo record; raise FetchError if it cannot be fetched or is malformed."""
    url = f"{base_url.rstrip('/')}/api/records/{zenodo}"
    try:
        record = parse_json(get(url, patience or Patience(), _RECORD_LIMIT))
        files = [_remote(entry, url) for entry in record["files"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FetchError(f"is not a Zenodo record ({error!r})", where=url) from error
    if not files:
        raise FetchError("contains no files", where=url)
    if len({file.name.casefold() for file in files}) < len(files):
        raise FetchError("lists a file twice", where=url)
    return files


def _remote(entry: Any, url: str) -> RemoteFile:
    name, checksum, size = entry["key"], entry["checksum"], entry["size"]
    kind, _, digest = checksum.partition(":")
    if not _PLAIN_NAME.fullmatch(name):
        raise FetchError(f"has a file {name!r}, which is not a plain file name", where=url)
    if kind != "md5" or not re.fullmatch(r"[0-9a-f]{32}", digest):
        raise FetchError(f"gives {checksum!r} as the checksum of {name}, but an md5 is expected", where=url)
    if not isinstance(size, int) or size < 0:
        raise FetchError(f"gives {size!r} as the size of {name}", where=url)
    return RemoteFile(name, entry["links"]["self"], size, digest)


def _fetch(zenodo: int, folder: Path, base_url: str, progress: Progress, patience: Patience) -> list[Path]:
    for leftover in folder.glob(f"{SCRATCH}*"):  # from a killed run
        shutil.rmtree(leftover, ignore_errors=True)
    files = read_record(zenodo, base_url=base_url, patience=patience)
    state = _read_state(folder)
    missing = [file for file in files if not _is_complete(file, folder, state)]
    missing_bytes = sum(file.size for file in missing)
    parts = [folder / f"{file.name}.part" for file in missing]
    part_bytes = sum(part.stat().st_size for part in parts if part.exists())
    archives = [file.size for file in missing if file.name.lower().endswith((".zip", ".tar.gz", ".tgz"))]
    # While an archive is unpacked, both it and its content are on the disk.
    need_space(folder, missing_bytes - part_bytes + max(archives, default=0), f"Zenodo record {zenodo}")
    total = sum(file.size for file in files)
    completed = total - missing_bytes
    for file in missing:

        def report_bytes(count: int, name: str = file.name, before: int = completed) -> None:
            progress(name, before + count, total)

        target = folder / file.name
        download(file.url, target, size=file.size, md5=file.md5, patience=patience, progress=report_bytes)
        state[file.name] = {"md5": file.md5, "files": _unpack(target, folder)}
        _write_state(folder, state)
        completed += file.size
    _write_state(folder, state)
    progress("", total, total)
    return sorted(folder / name for file in files for name in state[file.name]["files"])


def _unpack(target: Path, folder: Path) -> dict[str, int]:
    """Unpack and delete `target` if it is an archive; return the names and sizes of the resulting files."""
    lower = target.name.lower()
    if lower.endswith(".zip"):
        paths = unpack_zip(target, folder)
        target.unlink()
    elif lower.endswith((".tar.gz", ".tgz")):
        paths = [gunzip_tar(target)]
        target.unlink()
    else:
        paths = [target]
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}


def _is_complete(file: RemoteFile, folder: Path, state: dict[str, Any]) -> bool:
    """Return True if a file, or what was unpacked from it, is complete; files copied there by hand are hashed once."""
    verified = state.get(file.name)
    if verified is not None and verified["md5"] == file.md5:
        sizes = {name: (folder / name).stat().st_size for name in verified["files"] if (folder / name).is_file()}
        if sizes == verified["files"]:
            return True
    path = folder / file.name
    if path.is_file() and path.stat().st_size == file.size and file_md5(path) == file.md5:
        state[file.name] = {"md5": file.md5, "files": _unpack(path, folder)}
        return True
    return False


def _write_state(folder: Path, state: dict[str, Any]) -> None:
    write_atomically(folder / _STATE, json.dumps(state, indent=1, sort_keys=True).encode())


def _read_state(folder: Path) -> dict[str, Any]:
    """Return the files that earlier fetches verified; if the record of them is damaged, files are hashed again."""
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
