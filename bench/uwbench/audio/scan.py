"""Look at every clip once: the sha256 of its bytes and its length, remembered while the file does not change.

The memory (`clips/<task>.scan.parquet`) is trusted for a file whose size, times and inode are as they were, and only
where the file was at rest for two seconds when it was read: an edit within one tick of the clock would else go unseen.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from uwbench.audio.clip import Audio, AudioArray, AudioBytes, AudioFile, AudioMember, Clip, read_bytes
from uwbench.audio.decode import read_header
from uwbench.base.atomic import write_atomically
from uwbench.base.hashing import clip_key, sha256_bytes, sha256_file
from uwbench.errors import AudioError

WHOLE_FILE = 32 << 20  # bytes; larger files are read block by block, and never held
_AT_REST_NS = 2_000_000_000
_Where = tuple[bytes, int, int]  # a file's name as the system has it, which need not be UTF-8; offset and size in it
_COLUMNS = ("path", "offset", "size", "stat", "at", "sha256", "duration_s")


@dataclass(frozen=True, slots=True)
class Scanned:
    """What is known of a clip's audio: content hash, key, and length in seconds as its header has it."""

    sha256: str
    key: bytes
    duration_s: float


@dataclass(frozen=True, slots=True)
class _Seen:
    stat: str
    at: int
    sha256: str
    duration_s: float


def scan_clips(clips: Sequence[Clip], memory: Path | None) -> list[Scanned | AudioError]:
    """Return, for each clip, what its audio is, or the error that keeps it from being read.

    `memory` is the file that remembers hashes between runs; None remembers nothing.
    """
    known = _load(memory)
    seen: dict[_Where, _Seen] = {}

    def look(clip: Clip) -> Scanned | AudioError:
        try:
            where, entry = _look(clip, known)
        except AudioError as error:
            return error
        if where is not None:
            seen[where] = entry
        return _scanned(clip, entry)

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        found = list(pool.map(look, clips))
    if memory is not None and seen != known:
        _save(memory, seen)
    return found


def _look(clip: Clip, known: dict[_Where, _Seen]) -> tuple[_Where | None, _Seen]:
    audio = clip.audio
    match audio:
        case AudioFile(path):
            where = (os.fsencode(path), 0, -1)
        case AudioMember(path, offset, size, _):
            where = (os.fsencode(path), offset, size)
        case AudioBytes() | AudioArray():
            data = read_bytes(audio)
            return None, _Seen("", 0, sha256_bytes(data), read_header(audio, data).duration_s)
    now = time.time_ns()
    try:
        status = path.stat()
    except OSError as error:
        raise AudioError(f"cannot be read ({error.strerror or error})", where=str(audio)) from error
    stat = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
    entry = known.get(where)
    changed_ns = max(status.st_mtime_ns, status.st_ctime_ns)
    if entry is not None and entry.stat == stat and changed_ns < entry.at - _AT_REST_NS:
        return where, entry
    if isinstance(audio, AudioFile) and status.st_size > WHOLE_FILE:
        return where, _Seen(stat, now, sha256_of(audio), read_header(audio).duration_s)
    data = read_bytes(audio)
    return where, _Seen(stat, now, sha256_bytes(data), read_header(audio, data).duration_s)


def sha256_of(audio: Audio) -> str:
    """Return the sha256 of what identifies the audio; a file is read block by block. Raises AudioError."""
    if not isinstance(audio, AudioFile):
        return sha256_bytes(read_bytes(audio))
    try:
        return sha256_file(audio.path)
    except OSError as error:
        raise AudioError(f"cannot be read ({error.strerror or error})", where=str(audio)) from error


def _scanned(clip: Clip, entry: _Seen) -> Scanned | AudioError:
    start = clip.start_s or 0.0
    end = entry.duration_s if clip.end_s is None else min(clip.end_s, entry.duration_s)
    if end <= start:
        what = (
            "holds no samples" if clip.start_s is None else f"is {entry.duration_s:.3f} s long, the clip starts later"
        )
        return AudioError(what, where=str(clip.audio))
    return Scanned(entry.sha256, clip_key(entry.sha256, clip.start_s, clip.end_s), end - start)


def _load(memory: Path | None) -> dict[_Where, _Seen]:
    """Return what was remembered; a memory that cannot be read remembers nothing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if memory is None or not memory.is_file():
        return {}
    texts, numbers = dict.fromkeys(("stat", "sha256"), pa.string()), ("offset", "size", "at")
    wanted = {"path": pa.binary(), **texts, **dict.fromkeys(numbers, pa.int64()), "duration_s": pa.float64()}
    try:
        table = pq.read_table(pa.BufferReader(memory.read_bytes()), columns=list(_COLUMNS))
        if any(table.schema.field(name).type != wanted[name] or table.column(name).null_count for name in _COLUMNS):
            return {}
        columns = table.to_pydict()
    except (OSError, KeyError, ValueError, pa.ArrowException):
        return {}
    rows: Iterable = zip(*(columns[name] for name in _COLUMNS), strict=True)
    return {
        (path, offset, size): _Seen(stat, at, sha, duration) for path, offset, size, stat, at, sha, duration in rows
    }


def _save(memory: Path, seen: dict[_Where, _Seen]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [(*where, one.stat, one.at, one.sha256, one.duration_s) for where, one in sorted(seen.items())]
    columns = {name: [row[i] for row in rows] for i, name in enumerate(_COLUMNS)}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    try:
        write_atomically(memory, sink.getvalue())
    except OSError:  # a read-only cache, or a full disk: the next run hashes again
        return
