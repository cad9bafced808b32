"""The embeddings cache: clip tables, vectors by content, and the manifests that make them visible.

    clips/<task>-<data8>.parquet                  labels, splits, groups, keys: independent of encoders
    <slug>-<fp8>/encoder.json                     the encoder that made the vectors
    <slug>-<fp8>/<task>/pooled-00000.arrow        key, frames, chunks and one vector per pooling; one row per clip
    <slug>-<fp8>/<task>/pooled-00000-noise_10dB.arrow  the same of corrupted clips, which have other keys
    <slug>-<fp8>/<task>/pooled-00000-segmented.arrow  the same of clips whose segments are stored too
    <slug>-<fp8>/<task>/segments-00000-segmented.arrow  key and segment pyramid in float32
    <slug>-<fp8>/<task>/frames-00000.arrow        key and valid frames in float16, for tasks that need them
    <slug>-<fp8>/<task>/manifest.json             the parts that count, with sizes and checksums

A part is written beside its final name, synced, renamed, and only then entered in the manifest; a part that no manifest
names does not exist. No file holds a time stamp, so the same work gives the same bytes.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from uwbench.audio.corruption import Corruption, corruption_of_file
from uwbench.base.atomic import make_folder, sync_folder, write_atomically
from uwbench.base.disk import disk_error
from uwbench.base.sharing import file_mode
from uwbench.cache.frames import Spill
from uwbench.cache.parts import PooledRows, damage, read_index, write_frames, write_pooled, write_segments
from uwbench.cache.records import (
    EncoderRecord,
    Manifest,
    Part,
    encoder_text,
    manifest_text,
    read_encoder,
    read_manifest,
)
from uwbench.cache.task_vectors import READERS, IndexedPart, TaskVectors, find_keys, key_array
from uwbench.cache.verified import State, VerifiedFiles, file_state
from uwbench.errors import StoreError

_CORRUPTED = re.compile(r"pooled-\d+-(?P<corruption>[a-z]+_.+?)(-[0-9a-f]{8})?\.arrow")


@dataclass(frozen=True, slots=True)
class _Filters:
    """The conditions under which a part counts."""

    corruption: Corruption | None
    needs_frames: bool
    needs_segments: bool

    def passes(self, part: Part) -> bool:
        return (
            (part.frames is not None or not self.needs_frames)
            and (part.segments is not None or not self.needs_segments)
            and corruption_of_part(part.name) == self.corruption
        )


@dataclass(frozen=True, slots=True)
class Damage:
    """A file of the cache that is not what the manifest says."""

    path: Path
    what: str


@dataclass(slots=True)
class EncoderStore:
    """The vectors of one encoder."""

    root: Path  # the cache
    record: EncoderRecord
    verified: VerifiedFiles = field(default_factory=VerifiedFiles)
    _manifests: dict[str, tuple[State, Manifest]] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.root / self.record.folder

    def tasks(self) -> list[str]:
        """Return the names of the tasks that have a manifest."""
        return sorted(path.parent.name for path in self.folder.glob("*/manifest.json"))

    def manifest(self, task: str) -> Manifest | None:
        """Return a task's manifest, None if there is none; raise StoreError if it is damaged.

        A manifest is read again only after it changed.
        """
        state = file_state(self._manifest_path(task))
        if state is None:
            return None
        if task not in self._manifests or self._manifests[task][0] != state:
            manifest = self._read_manifest(task)
            if manifest is None:
                return None
            self._manifests[task] = (state, manifest)
        return self._manifests[task][1]

    def create(self) -> None:
        """Write encoder.json if it does not exist."""
        path = self.folder / "encoder.json"
        if path.is_file():
            if read_encoder(path).fingerprint != self.record.fingerprint:
                raise StoreError("holds another encoder with the same short fingerprint", where=path.parent)
            return
        write_atomically(path, encoder_text(self.record).encode())

    def set_table(self, task: str, table: str) -> None:
        """Record in the task's manifest, creating it if needed, which clip table its vectors are for."""
        current = self.manifest(task)
        if current is not None and current.table == table:
            return
        with self._lock(f"{task}.manifest"):
            manifest = self._read_manifest(task) or Manifest(task, self.record.fingerprint, table)
            self._write_manifest(replace(manifest, table=table))

    def write_part(
        self, task: str, name: str, rows: PooledRows, frames: Sequence[np.ndarray] | Spill | None = None
    ) -> Part:
        """Write one part, whose claim the caller holds, and return its manifest entry; it counts once `enter` took it.

        `name` is the part's number, as in `pooled-<name>.arrow`. `frames` holds each clip's valid frames, float16
        `(frames, dim)`, in memory or spilled to disk; a spill is not closed.
        """
        folder = self.folder / task
        pooled = folder / f"pooled-{name}.arrow"
        file = write_pooled(pooled, rows)
        part = Part(pooled.name, len(rows.keys), file.bytes, file.xxh3_128)
        if frames is not None:
            path = folder / f"frames-{name}.arrow"
            file = write_frames(path, rows.keys, frames)
            part = replace(part, frames=path.name, frames_bytes=file.bytes, frames_xxh3_128=file.xxh3_128)
        if rows.segments is not None:
            path = folder / f"segments-{name}.arrow"
            file = write_segments(path, rows.keys, rows.segments)
            part = replace(part, segments=path.name, segments_bytes=file.bytes, segments_xxh3_128=file.xxh3_128)
        sync_folder(folder)
        return part

    def enter(self, task: str, table: str, parts: Sequence[Part]) -> None:
        """Add written parts to the task's manifest, which is created for the clip table `table` if there is none."""
        names = {part.name for part in parts}
        with self._lock(f"{task}.manifest"):
            manifest = self._read_manifest(task) or Manifest(task, self.record.fingerprint, table)
            others = [part for part in manifest.parts if part.name not in names]
            entries = tuple(sorted([*others, *parts], key=lambda entry: entry.name))
            self._write_manifest(replace(manifest, parts=entries))

    def spill(self, task: str, name: str) -> Spill:
        """Return a file for the frames of the part `name`, whose claim the caller holds, until the part is written."""
        return Spill(self.folder / task / f".frames-{name}.tmp", self.record.dim)

    def drop_part(self, task: str, part: Part) -> None:
        """Remove a part from the manifest, then its files."""
        with self._lock(f"{task}.manifest"):
            manifest = self._read_manifest(task)
            if manifest is not None:
                remaining = tuple(other for other in manifest.parts if other.name != part.name)
                self._write_manifest(replace(manifest, parts=remaining))
        for name in part.files():
            (self.folder / task / name).unlink(missing_ok=True)

    def damaged(self, task: str) -> Iterator[tuple[Part, Damage]]:
        """Yield each part of a task that differs from its size or checksum; files that are right are then verified."""
        manifest = self.manifest(task)
        for part in manifest.parts if manifest else ():
            for name, expected in part.files().items():
                path = self.folder / task / name
                state = file_state(path)
                what = damage(path, expected)
                if what is not None:
                    yield part, Damage(path, what)
                    break
                self.verified.add(path, state)

    def part_keys(self, task: str, part: Part) -> list[bytes]:
        """Return the keys of a part's rows."""
        return self._index(self.folder / task / part.name).column("key").to_pylist()

    def wider(self) -> list[EncoderStore]:
        """Return the stores that hold this encoder's vectors with more layers or poolings."""
        others = (store.record for store in open_encoders(self.root)[0])
        return [EncoderStore(self.root, record, self.verified) for record in others if record.covers(self.record)]

    def open_task(
        self,
        task: str,
        keys: Sequence[bytes],
        *,
        needs_frames: bool = False,
        needs_segments: bool = False,
        wider: bool = True,
        corruption: Corruption | None = None,
    ) -> TaskVectors:
        """Find the clips with these keys: in the parts of `task` first, then in the encoder's other tasks.

        Clips that are in neither are taken from the stores of the same encoder with more layers, unless `wider` is off.
        With `needs_frames`, only parts that hold frames of the same layer count, with `needs_segments`, those that hold
        segments, and with `corruption`, parts of clips corrupted so, else of clean clips.
        """
        wanted = key_array(keys)
        parts: list[IndexedPart] = []
        rows = np.full(len(keys), -1)  # in all parts end to end
        filters = _Filters(corruption, needs_frames, needs_segments)
        for more in self._candidates(task, filters, wider=wider):
            missing = np.flatnonzero(rows < 0)
            places = find_keys(wanted.take(missing), more)
            rows[missing] = np.where(places < 0, -1, places + sum(part.index.num_rows for part in parts))
            parts.extend(more)
            if (rows >= 0).all():
                break
        return TaskVectors(self.folder, self.record, task, self.verified, tuple(parts), rows)

    def _candidates(self, task: str, filters: _Filters, *, wider: bool) -> Iterator[list[IndexedPart]]:
        """Yield the parts that may hold a task's clips, task by task and store by store, the nearest first."""
        for name in self._tasks_from(task):
            yield self._indexed(name, filters)
        for store in self.wider() if wider else ():
            if filters.needs_frames and store.record.layers[-1] != self.record.layers[-1]:
                continue
            for name in store._tasks_from(task):
                try:
                    yield store._indexed(name, filters)
                except StoreError:  # damaged: the clips count as missing here, and its own encoder reports it
                    continue

    def _tasks_from(self, first: str) -> Iterator[str]:
        yield first
        yield from (name for name in self.tasks() if name != first)

    def _indexed(self, task: str, filters: _Filters) -> list[IndexedPart]:
        """Read the index of each part of a task whose file is there and that passes the filters."""
        manifest, folder = self.manifest(task), self.folder / task
        parts = [part for part in manifest.parts if (folder / part.name).is_file()] if manifest else []
        # Parts without segments first, so that a score from pooled vectors stays what it was once there are segments.
        parts = sorted(filter(filters.passes, parts), key=lambda part: part.segments is not None)
        with ThreadPoolExecutor(READERS) as pool:
            indexes = pool.map(lambda part: self._index(folder / part.name), parts)
            return [IndexedPart(folder, part, index, self.record) for part, index in zip(parts, indexes, strict=True)]

    def _index(self, path: Path) -> Any:
        return read_index(path, self.record.poolings, self.record.width)

    @contextmanager
    def claim(self, task: str, name: str, *, wait: bool) -> Iterator[bool]:
        """Lock a part for this process; yield False if another process has it and `wait` is off.

        The operating system releases the lock of a process that dies.
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
        make_folder(folder)
        return filelock.FileLock(folder / f"{name}.lock", mode=file_mode(folder), thread_local=False)

    def _manifest_path(self, task: str) -> Path:
        return self.folder / task / "manifest.json"

    def _read_manifest(self, task: str) -> Manifest | None:
        path = self._manifest_path(task)
        if not path.is_file():
            return None
        manifest = read_manifest(path)
        if manifest.fingerprint != self.record.fingerprint:
            raise StoreError("belongs to another encoder", where=path, remedy="run uwbench cache verify")
        return manifest

    def _write_manifest(self, manifest: Manifest) -> None:
        write_atomically(self._manifest_path(manifest.task), manifest_text(manifest).encode(), locked=True)


def corruption_of_part(name: str) -> Corruption | None:
    """Return the corruption of the clips in a part, from the name of its file; None if they are clean."""
    match = _CORRUPTED.fullmatch(name)
    return corruption_of_file(match["corruption"]) if match else None


def open_encoders(root: Path) -> tuple[list[EncoderStore], list[str]]:
    """Return the encoders in a cache, sorted by folder, and one error line for each that cannot be read."""
    stores, problems = [], []
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        path = folder / "encoder.json"
        if folder.is_dir() and not os.access(folder, os.R_OK | os.X_OK):
            problems.append(str(disk_error(PermissionError(errno.EACCES, "Permission denied", str(folder)))))
        if not os.access(folder, os.X_OK) or not path.is_file():
            continue
        try:
            stores.append(EncoderStore(root, read_encoder(path)))
        except StoreError as error:
            problems.append(str(error))
    return stores, problems


def slug_of(name: str) -> str:
    """Return a folder name for a model's name: `org/model` becomes `org__model`, odd characters become `-`."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", name.replace("/", "__")).strip("-.")
    return slug[:80] or "model"


def free_bytes(folder: Path) -> int:
    """Return the free space on the disk that holds `folder` or its nearest parent that exists."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
