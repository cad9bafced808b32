"""The embeddings cache: clip tables, vectors by content, and the manifests that make them visible.

    clips/<task>-<data8>.parquet                  labels, splits, groups, keys: independent of encoders
    <slug>-<fp8>/encoder.json                     what made the vectors
    <slug>-<fp8>/<task>/pooled-00000.arrow        key, frames, chunks and one vector list a pooling; a row a clip
    <slug>-<fp8>/<task>/frames-00000.arrow        key and valid frames in float16, for tasks that need them
    <slug>-<fp8>/<task>/manifest.json             the parts that count, with sizes and checksums

A part is written beside its final name, synced, renamed, and only then entered in the manifest; what the manifest
does not name does not exist. Nothing here holds a time stamp, so the same work gives the same bytes.
"""

from __future__ import annotations

import re
import shutil
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from uwbench.base.atomic import sync_folder, write_atomically
from uwbench.cache.frames import MappedRows, Spill
from uwbench.cache.parts import (
    KEY_BYTES,
    Expected,
    PooledRows,
    damage,
    fetch_keys,
    open_frames,
    open_pooled,
    read_vectors,
    write_frames,
    write_pooled,
)
from uwbench.cache.records import (
    EncoderRecord,
    Manifest,
    Part,
    encoder_text,
    manifest_text,
    read_encoder,
    read_manifest,
)
from uwbench.errors import StoreError

if TYPE_CHECKING:
    import pyarrow as pa

_AGAIN = "run uwbench cache verify, then extract again"
_READERS = 3  # parts read at once: two fill the memory's lanes, one more waits for the disk


@dataclass(frozen=True, slots=True)
class Damage:
    """A file of the cache that is not what the manifest says."""

    path: Path
    what: str


class _Entering:
    """The parts, by task, that threads wait to enter, and whose turn it is; a copy in another process has none."""

    def __init__(self) -> None:
        self.turn = threading.Lock()
        self.waiting: dict[str, deque[tuple[Part, ...]]] = {}

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return _Entering, ()


@dataclass(slots=True)
class EncoderStore:
    """The vectors of one encoder."""

    root: Path  # the cache
    record: EncoderRecord
    _opened: dict[Path, pa.Table] = field(default_factory=dict)
    _entering: _Entering = field(default_factory=_Entering)

    @property
    def folder(self) -> Path:
        return self.root / self.record.folder

    def tasks(self) -> list[str]:
        """Return the names of the tasks that have a manifest."""
        return sorted(path.parent.name for path in self.folder.glob("*/manifest.json"))

    def manifest(self, task: str) -> Manifest | None:
        """Return a task's manifest, None where there is none; raise StoreError where it is damaged."""
        path = self.folder / task / "manifest.json"
        if not path.is_file():
            return None
        manifest = read_manifest(path)
        if manifest.fingerprint != self.record.fingerprint:
            raise StoreError("belongs to another encoder", where=path, remedy="run uwbench cache verify")
        return manifest

    def create(self) -> None:
        """Write encoder.json where it is not there yet."""
        path = self.folder / "encoder.json"
        if path.is_file():
            if read_encoder(path).fingerprint != self.record.fingerprint:
                raise StoreError("holds another encoder whose short fingerprint is the same", where=path.parent)
            return
        write_atomically(path, encoder_text(self.record).encode())

    def set_table(self, task: str, table: str) -> None:
        """Note in the task's manifest, made where there is none, which clip table its vectors are for."""
        found = self.manifest(task)
        if found is not None and found.table == table:
            return
        with self._manifest_lock(task):
            manifest = self.manifest(task) or Manifest(task, self.record.fingerprint, table)
            self._write_manifest(replace(manifest, table=table))

    def write_part(
        self,
        task: str,
        name: str,
        table: str,
        rows: PooledRows,
        frames: Sequence[np.ndarray] | Spill | None,
        *,
        enter: bool = True,
    ) -> Part:
        """Write one part, whose claim the caller holds, and enter it in the manifest, made for `table` if it is new.

        With `enter` off the part is written and does not count yet: `enter` is called with it elsewhere.

        `name` is the part's number, as in `pooled-<name>.arrow`. `frames`, where given, holds each clip's valid frames,
        float16 `(frames, dim)`, in memory or spilt to disk; a spill is not closed.
        """
        folder = self.folder / task
        pooled = folder / f"pooled-{name}.arrow"
        file = write_pooled(pooled, rows)
        part = Part(pooled.name, len(rows.keys), file.bytes, file.xxh3_128)
        if frames is not None:
            path = folder / f"frames-{name}.arrow"
            file = write_frames(path, rows.keys, frames)
            part = replace(part, frames=path.name, frames_bytes=file.bytes, frames_xxh3_128=file.xxh3_128)
        if enter:
            self.enter(task, table, [part])
        else:
            sync_folder(folder)
        return part

    def enter(self, task: str, table: str, parts: Sequence[Part]) -> None:
        """Enter parts that were written in the task's manifest, made for `table` if it is new.

        Parts that other threads wait to enter meanwhile go in together: the folder is synced and the manifest written
        once for all of them.
        """
        own = tuple(parts)
        waiting = self._entering.waiting.setdefault(task, deque())
        waiting.append(own)
        with self._entering.turn:
            if not any(other is own for other in waiting):
                return  # another thread's turn took them along
            taken = [waiting.popleft() for _ in range(len(waiting))]
            try:
                self._enter(task, table, [part for others in taken for part in others])
            except BaseException:
                waiting.extend(others for others in taken if others is not own)  # those threads try for themselves
                raise

    def _enter(self, task: str, table: str, parts: Sequence[Part]) -> None:
        names = {part.name for part in parts}
        for name in names:
            self._opened.pop(self.folder / task / name, None)
        if parts:  # else nothing was written, perhaps not even the folder
            sync_folder(self.folder / task)
        with self._manifest_lock(task):
            manifest = self.manifest(task) or Manifest(task, self.record.fingerprint, table)
            others = [other for other in manifest.parts if other.name not in names]
            entries = tuple(sorted([*others, *parts], key=lambda entry: entry.name))
            self._write_manifest(replace(manifest, parts=entries))

    def spill(self, task: str, name: str) -> Spill:
        """Return where frames of the part `name`, whose claim the caller holds, wait for the part to be written."""
        return Spill(self.folder / task / f".frames-{name}.tmp", self.record.dim)

    def drop_part(self, task: str, part: Part) -> None:
        """Take a part out of the manifest, then remove its files."""
        with self._manifest_lock(task):
            manifest = self.manifest(task)
            if manifest is not None:
                kept = tuple(other for other in manifest.parts if other.name != part.name)
                self._write_manifest(replace(manifest, parts=kept))
        for name in filter(None, (part.name, part.frames)):
            self._opened.pop(self.folder / task / name, None)
            (self.folder / task / name).unlink(missing_ok=True)

    def damaged(self, task: str) -> Iterator[tuple[Part, Damage]]:
        """Check every part of a task against its size and checksum; yield those that differ."""
        manifest = self.manifest(task)
        for part in manifest.parts if manifest else ():
            for file, expected in part.files().items():
                path = self.folder / task / file
                what = damage(path, expected)
                if what is not None:
                    yield part, Damage(path, what)
                    break

    def part_keys(self, task: str, part: Part) -> list[bytes]:
        """Return the keys of a part's rows."""
        return self._pooled(self.folder / task / part.name).column("key").to_pylist()

    def locate(self, keys: Sequence[bytes], *, first: str, frames: bool = False, whole: bool = False) -> Located:
        """Find which part and row holds each key, in all tasks of the encoder, the task `first` before others.

        `whole` says that the vectors of `first` are read next.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        tables: list[tuple[Path, Path | None]] = []
        read_next: list[Path] = []
        for task in [first, *(name for name in self.tasks() if name != first)]:
            manifest = self.manifest(task)
            for part in manifest.parts if manifest else ():
                if frames and part.frames is None:
                    continue
                path = self.folder / task / part.name
                if not path.is_file():
                    continue
                tables.append((path, self.folder / task / part.frames if part.frames else None))
                if path in self._opened:
                    continue
                if whole and task == first:
                    read_next.append(path)
                else:
                    fetch_keys(path, part.rows)
        with ThreadPoolExecutor(_READERS) as pool:
            list(pool.map(lambda path: self._pooled(path, whole=True), read_next))
        found = [self._pooled(path).column("key").combine_chunks() for path, _ in tables]
        if not set(map(len, keys)) <= {KEY_BYTES}:
            raise ValueError(f"a key has {KEY_BYTES} bytes")
        joined = pa.py_buffer(b"".join(keys))  # faster than an array of one key after the other
        wanted = pa.FixedSizeBinaryArray.from_buffers(pa.binary(KEY_BYTES), len(keys), [None, joined])
        if not found:
            return Located([], np.full(len(keys), -1), np.zeros(len(keys), np.int64))
        starts = np.cumsum([0, *(len(part) for part in found)])
        everything = pa.concat_arrays(found)
        if wanted.equals(everything):  # clips of one length lie in the order of their table
            return Located(tables, np.repeat(np.arange(len(found)), np.diff(starts)), _within(starts))
        flat = (
            pc.call_function("index_in", [wanted], pc.SetLookupOptions(everything))
            .fill_null(-1)
            .to_numpy(zero_copy_only=False)
            .astype(np.int64)
        )
        part = np.where(flat < 0, -1, np.searchsorted(starts, flat, side="right") - 1)
        return Located(tables, part, np.where(flat < 0, 0, flat - starts[part]))

    def read_pooled(self, keys: Sequence[bytes], *, task: str, pooling: str = "mean") -> np.ndarray:
        """Return float32 `(n, layers, dim)` for `keys`; raise StoreError where one is missing or a part is damaged."""
        if pooling not in self.record.poolings:
            raise StoreError(
                f"holds no {pooling!r} pooling, only {', '.join(self.record.poolings)}",
                where=self.folder,
                remedy=f"extract again with --pooling {','.join([*self.record.poolings, pooling])}",
            )
        located = self.locate(keys, first=task, whole=True)
        self._require_all(located, task)
        out = np.empty((len(keys), len(self.record.layers), self.record.dim), np.float32)
        expected = self._expected({path for path, _ in located.parts})

        order = np.argsort(located.part, kind="stable")
        starts = np.flatnonzero(np.diff(located.part[order])) + 1

        def copy(places: np.ndarray) -> tuple[Path, str | None]:
            path = located.parts[located.part[places[0]]][0]
            return path, read_vectors(path, expected[path], pooling, located.row[places], out, places)

        with ThreadPoolExecutor(_READERS) as pool:
            for path, what in pool.map(copy, np.split(order, starts) if len(order) else ()):
                _require_whole(path, what)
        return out

    def read_counts(self, keys: Sequence[bytes], *, task: str) -> tuple[np.ndarray, np.ndarray]:
        """Return each clip's number of valid frames and of chunks."""
        located = self.locate(keys, first=task)
        self._require_all(located, task)
        out = np.zeros((2, len(keys)), np.int64)
        for index, (path, _) in enumerate(located.parts):
            rows = np.flatnonzero(located.part == index)
            for line, name in enumerate(("frames", "chunks")):
                out[line, rows] = self._pooled(path).column(name).to_numpy()[located.row[rows]]
        return out[0], out[1]

    def read_frames(self, keys: Sequence[bytes], *, task: str) -> MappedRows:
        """Return the valid frames of all clips, in the order of `keys`, as they are stored, memory-mapped.

        Clip i owns the rows from `offsets[i]` to `offsets[i + 1]`.
        """
        located = self.locate(keys, first=task, frames=True)
        self._require_all(located, task)
        used = [index for index in range(len(located.parts)) if (located.part == index).any()]
        for path, expected in self._expected({path for index in used if (path := located.parts[index][1])}).items():
            _require_whole(path, damage(path, expected))
        parts: list[np.ndarray] = []
        part, start, counts = (np.zeros(len(keys), np.int64) for _ in range(3))
        for index in used:
            path = located.parts[index][1]
            assert path is not None
            table = self._frames(path)
            if not table.column("key").equals(self._pooled(located.parts[index][0]).column("key")):
                raise StoreError("holds frames of other clips than its part", where=path, remedy=_AGAIN)
            column = table.column("frames").chunk(0)
            rows = np.flatnonzero(located.part == index)
            bounds = column.offsets.to_numpy()
            at = located.row[rows]
            part[rows], start[rows], counts[rows] = len(parts), bounds[at], bounds[at + 1] - bounds[at]
            parts.append(column.values.flatten().to_numpy().reshape(-1, self.record.dim))
        return MappedRows(parts or [np.zeros((0, self.record.dim), np.float16)], part, start, counts)

    @contextmanager
    def claim(self, task: str, name: str, *, wait: bool) -> Iterator[bool]:
        """Hold a part for this process; yield False where another holds it (and `wait` is off).

        The lock is the operating system's, so it goes with a process that dies.
        """
        import filelock

        lock = self._lock(f"{task}-{name}")
        try:
            lock.acquire(timeout=-1 if wait else 0)
        except filelock.Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def _lock(self, name: str) -> Any:
        import filelock

        folder = self.root / ".locks" / self.record.folder
        folder.mkdir(parents=True, exist_ok=True)
        return filelock.FileLock(folder / f"{name}.lock", thread_local=False)

    def _manifest_lock(self, task: str) -> Any:
        return self._lock(f"{task}.manifest")

    def _write_manifest(self, manifest: Manifest) -> None:
        path = self.folder / manifest.task / "manifest.json"
        write_atomically(path, manifest_text(manifest).encode(), locked=True)

    def _pooled(self, path: Path, *, whole: bool = False) -> pa.Table:
        if path not in self._opened:
            self._opened[path] = open_pooled(path, self.record.poolings, self.record.width, whole=whole)
        return self._opened[path]

    def _frames(self, path: Path) -> pa.Table:
        if path not in self._opened:
            self._opened[path] = open_frames(path, self.record.dim)
        return self._opened[path]

    def _require_all(self, located: Located, task: str) -> None:
        missing = int((located.part < 0).sum())
        if missing:
            raise StoreError(
                f"{missing:,} of {len(located.part):,} clips of {task} have no embedding",
                where=self.folder,
                remedy=f"run: uwbench extract --model {self.record.name} --task {task}",
            )

    def _expected(self, paths: set[Path]) -> dict[Path, Expected]:
        """Return what the manifests say of some files."""
        names: dict[str, set[str]] = {}
        for path in paths:
            names.setdefault(path.parent.name, set()).add(path.name)
        found = {}
        for task, wanted in names.items():
            manifest = self.manifest(task)
            for part in manifest.parts if manifest else ():
                for name, expected in part.files().items():
                    if name in wanted:
                        found[self.folder / task / name] = expected
        return found


@dataclass(frozen=True, slots=True)
class Located:
    """Where keys are: `part[i]` indexes `parts` (pooled file, frames file) or is -1, `row[i]` is the row in it."""

    parts: list[tuple[Path, Path | None]]
    part: np.ndarray
    row: np.ndarray


def open_encoders(root: Path) -> tuple[list[EncoderStore], list[str]]:
    """Return the encoders in a cache, sorted by folder, and an error line for each that cannot be read."""
    stores, problems = [], []
    for path in sorted(root.glob("*/encoder.json")):
        try:
            stores.append(EncoderStore(root, read_encoder(path)))
        except StoreError as error:
            problems.append(str(error))
    return stores, problems


def _within(starts: np.ndarray) -> np.ndarray:
    """Return the place of each row in its own part, for parts that begin at `starts`, the end of the last included."""
    return np.arange(starts[-1]) - np.repeat(starts[:-1], np.diff(starts))


def _require_whole(path: Path, what: str | None) -> None:
    """Raise StoreError where something is wrong with a file that is about to be used."""
    if what is not None:
        remedy = f"run uwbench extract --task {path.parent.name} again; it redoes this part alone"
        raise StoreError(what, where=path, remedy=remedy)


def slug_of(name: str) -> str:
    """Return a folder name for a model's name: `org/model` becomes `org__model`, odd characters become `-`."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", name.replace("/", "__")).strip("-.")
    return slug[:80] or "model"


def free_bytes(folder: Path) -> int:
    """Return the free space on the disk that holds `folder` or its nearest parent that exists."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
