"""The scan of a task's clips: the sha256 of each and its length, remembered while the file does not change.

The memory (`clips/<task>.scan.parquet`) is trusted for a file whose size, times and inode are as they were, and only if
the file had been unchanged for two seconds when it was read: an edit within one tick of the clock leaves no trace.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from uwbench.audio import media
from uwbench.audio.clip import Audio, AudioArray, AudioBytes, AudioFile, AudioMember, Clip, read_bytes
from uwbench.audio.decode import Header, read_header
from uwbench.base.atomic import write_atomically
from uwbench.base.hashing import clip_key, sha256_bytes, sha256_file
from uwbench.errors import AudioError

WHOLE_FILE = 32 << 20  # bytes; larger files are read block by block
END_TOLERANCE_S = 0.05  # a clip's end may be after its file's by this much, from rounding
_AT_REST_NS = 2_000_000_000
_DECODER = " by "  # before the decoder in an entry's state
_Place = tuple[bytes, int, int]  # file name, which need not be UTF-8, offset and size
_COLUMNS = ("path", "offset", "size", "stat", "at", "sha256", "duration_s")


@dataclass(frozen=True, slots=True)
class Scanned:
    """A clip's audio: content hash, key, and length in seconds according to its header."""

    sha256: str
    key: bytes
    duration_s: float


@dataclass(frozen=True, slots=True)
class _Entry:
    """The memory of one file: its state, the time it was read at, and what was found.

    `stat` ends with the decoder if that is not libsndfile, so that another version of it reads the file again.
    """

    stat: str
    at: int
    sha256: str
    duration_s: float

    @property
    def decoder(self) -> str:
        return self.stat.partition(_DECODER)[2]


def scan_clips(
    clips: Sequence[Clip], memory: Path | None, progress: Callable[[], None] = lambda: None
) -> list[Scanned | AudioError]:
    """Return the scan of each clip, or the error that keeps it from being read.

    `memory` is the file that remembers hashes between runs; None remembers nothing. `progress` is called once per clip.
    """
    known = _load(memory)
    current: dict[_Place, _Entry] = {}

    def scan(clip: Clip) -> Scanned | AudioError:
        try:
            place, entry = _read(clip, known)
        except AudioError as error:
            return error
        if place is not None:
            current[place] = entry
        return _scanned(clip, entry)

    scans = []
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for scanned in pool.map(scan, clips):
            scans.append(scanned)
            progress()
    if memory is not None and current != known:
        _save(memory, current)
    return scans


def _read(clip: Clip, known: dict[_Place, _Entry]) -> tuple[_Place | None, _Entry]:
    audio = clip.audio
    match audio:
        case AudioFile(path):
            place = (os.fsencode(path), 0, -1)
        case AudioMember(path, offset, size, _):
            place = (os.fsencode(path), offset, size)
        case AudioBytes() | AudioArray():
            data = read_bytes(audio)
            return None, _entry("", 0, sha256_bytes(data), read_header(audio, data))
    now = time.time_ns()
    try:
        status = path.stat()
    except OSError as error:
        raise AudioError(f"cannot be read ({error.strerror or error})", where=str(audio)) from error
    stat = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
    entry = known.get(place)
    changed_ns = max(status.st_mtime_ns, status.st_ctime_ns)
    same = entry is not None and entry.stat in (stat, f"{stat}{_DECODER}{media.decoder()}")
    if entry is not None and same and changed_ns < entry.at - _AT_REST_NS:
        return place, entry
    if isinstance(audio, AudioFile) and status.st_size > WHOLE_FILE:
        return place, _entry(stat, now, sha256_of(audio), read_header(audio))
    data = read_bytes(audio)
    return place, _entry(stat, now, sha256_bytes(data), read_header(audio, data))


def _entry(stat: str, at: int, sha256: str, header: Header) -> _Entry:
    return _Entry(f"{stat}{_DECODER}{header.decoder}" if header.decoder else stat, at, sha256, header.duration_s)


def sha256_of(audio: Audio) -> str:
    """Return the sha256 of the bytes that identify the audio, read block by block; raise AudioError."""
    if not isinstance(audio, AudioFile):
        return sha256_bytes(read_bytes(audio))
    try:
        return sha256_file(audio.path)
    except OSError as error:
        raise AudioError(f"cannot be read ({error.strerror or error})", where=str(audio)) from error


def _scanned(clip: Clip, entry: _Entry) -> Scanned | AudioError:
    start = clip.start_s or 0.0
    end = entry.duration_s if clip.end_s is None else min(clip.end_s, entry.duration_s)
    if end <= start:
        what = (
            "holds no samples" if clip.start_s is None else f"is {entry.duration_s:.3f} s long, the clip starts later"
        )
        return AudioError(what, where=str(clip.audio))
    return Scanned(entry.sha256, clip_key(entry.sha256, clip.start_s, clip.end_s, entry.decoder), end - start)


def _load(memory: Path | None) -> dict[_Place, _Entry]:
    """Return the remembered entries; none if the memory cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if memory is None or not memory.is_file():
        return {}
    texts, numbers = dict.fromkeys(("stat", "sha256"), pa.string()), ("offset", "size", "at")
    types = {"path": pa.binary(), **texts, **dict.fromkeys(numbers, pa.int64()), "duration_s": pa.float64()}
    try:
        table = pq.read_table(pa.BufferReader(memory.read_bytes()), columns=list(_COLUMNS))
        if any(table.schema.field(name).type != types[name] or table.column(name).null_count for name in _COLUMNS):
            return {}
        columns = table.to_pydict()
    except (OSError, KeyError, ValueError, pa.ArrowException):
        return {}
    rows: Iterable = zip(*(columns[name] for name in _COLUMNS), strict=True)
    return {
        (path, offset, size): _Entry(stat, at, sha, duration) for path, offset, size, stat, at, sha, duration in rows
    }


def _save(memory: Path, entries: dict[_Place, _Entry]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [(*place, *(getattr(entry, name) for name in _COLUMNS[3:])) for place, entry in sorted(entries.items())]
    columns = {name: [row[i] for row in rows] for i, name in enumerate(_COLUMNS)}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    try:
        write_atomically(memory, sink.getvalue())
    except OSError:  # a read-only cache, or a full disk: the next run hashes again
        return
