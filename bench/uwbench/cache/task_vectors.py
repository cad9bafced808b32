"""The vectors and frames of one task's clips under one encoder, wherever they lie in the cache."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from uwbench.cache.frames import ClipRows, FileRows
from uwbench.cache.parts import INDEX, KEY_BYTES, PartReader, damage, damaged_part, open_frames, open_segments
from uwbench.cache.records import EncoderRecord, Part
from uwbench.cache.segments import SEGMENTS, SegmentFile, Segments
from uwbench.cache.verified import VerifiedFiles, file_state
from uwbench.errors import StoreError

if TYPE_CHECKING:
    import pyarrow as pa

READERS = 3  # parts read at once: two use the memory's bandwidth, the third waits for the disk


@dataclass(frozen=True, slots=True)
class IndexedPart:
    """A part, the folder it is in, and its index: key, number of frames and number of chunks of each row."""

    folder: Path
    part: Part
    index: pa.Table
    record: EncoderRecord  # of the store it is in, which may hold more layers and poolings


@dataclass(frozen=True, slots=True)
class TaskVectors:
    """`n` clips of a task, found once: `rows[i]` is clip i's row in all `parts` end to end, -1 if it is in none.

    Files are checked as they are read. What is read raises StoreError if a clip is missing or a part damaged.
    """

    folder: Path  # the encoder's, for errors
    record: EncoderRecord
    task: str
    verified: VerifiedFiles
    parts: tuple[IndexedPart, ...]
    rows: np.ndarray

    @property
    def missing(self) -> np.ndarray:
        """The clips that have no vector, as ascending indices."""
        return np.flatnonzero(self.rows < 0)

    def keep(self, clips: Sequence[int]) -> TaskVectors:
        """Return the vectors of some clips, by index."""
        return replace(self, rows=self.rows[list(clips)])

    def pooled(self, pooling: str = "mean") -> np.ndarray:
        """Return float32 `(n, layers, dim)`."""
        if pooling not in self.record.poolings:
            raise StoreError(
                f"holds no {pooling!r} pooling, only {', '.join(self.record.poolings)}",
                where=self.folder,
                remedy=f"extract again with --pooling {','.join([*self.record.poolings, pooling])}",
            )
        self._require_all()
        out = np.empty((len(self.rows), len(self.record.layers), self.record.dim), np.float32)
        used = self._used()

        def read(share: Sequence[tuple[IndexedPart, np.ndarray, np.ndarray]]) -> None:
            reader = PartReader()
            for part, clips, rows in share:
                vectors = self._vectors(reader, part, pooling).reshape(-1, len(part.record.layers), self.record.dim)
                layers = [part.record.layers.index(layer) for layer in self.record.layers]
                out[_span(clips)] = vectors[_span(rows)][:, _span(np.array(layers))]

        with ThreadPoolExecutor(READERS) as pool:
            list(pool.map(read, [used[first::READERS] for first in range(READERS)]))
        return out

    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        """Return each clip's number of valid frames and its number of chunks."""
        self._require_all()
        counts = np.zeros((2, len(self.rows)), np.int64)
        for part, clips, rows in self._used():
            counts[:, clips] = [part.index.column(name).to_numpy()[rows] for name in INDEX[1:]]
        return counts[0], counts[1]

    def frames(self) -> ClipRows:
        """Return the valid frames of all clips, end to end, which are read from the parts when they are indexed.

        Clip i has the rows from `offsets[i]` to `offsets[i + 1]`. Needs a task opened with `needs_frames`.
        """
        self._require_all()
        used = self._used()
        for part, _, _ in used:
            self._verify(part, part.part.frames)
        parts: list[np.ndarray | FileRows] = []
        part_of, start, n_frames = (np.zeros(len(self.rows), np.int64) for _ in range(3))
        for part, clips, rows in used:
            bounds, frames = self._open_frames(part)
            part_of[clips], start[clips] = len(parts), bounds[rows]
            n_frames[clips] = bounds[rows + 1] - bounds[rows]
            parts.append(frames)
        return ClipRows(parts or [np.zeros((0, self.record.dim), np.float16)], part_of, start, n_frames)

    def segments(self) -> Segments:
        """Return the segment pyramids of all clips, which are read from the parts when they are indexed.

        Needs a task opened with `needs_segments`.
        """
        self.require_segments()
        files: list[SegmentFile] = []
        file_of, row_of = np.zeros((2, len(self.rows)), np.int64)
        for part, clips, rows in self._used():
            self._verify(part, part.part.segments)
            file_of[clips], row_of[clips] = len(files), rows
            files.append(self._open_segments(part))
        return Segments(files, file_of, row_of, (len(self.record.layers), self.record.dim))

    def require_segments(self) -> None:
        """Raise StoreError, with the command to run, if a clip has no segments."""
        layers = f" --layers {','.join(self.record.layers)}" if len(self.record.layers) > 1 else ""
        self._require_all("segments", f"{layers} --segments")

    def _require_all(self, what: str = "embedding", options: str = "") -> None:
        if len(self.missing):
            raise StoreError(
                f"{len(self.missing):,} of {len(self.rows):,} clips of {self.task} have no {what}",
                where=self.folder,
                remedy=f"run: uwbench extract --model {self.record.name} --task {self.task}{options}",
            )

    def _used(self) -> list[tuple[IndexedPart, np.ndarray, np.ndarray]]:
        """Return each part that holds a clip, with its clips and their rows in it, in the order of the rows."""
        order = np.argsort(self.rows, kind="stable")
        starts = np.cumsum([0, *(part.index.num_rows for part in self.parts)])
        bounds = np.searchsorted(self.rows[order], starts)
        shares = [order[first:last] for first, last in pairwise(bounds)]
        return [
            (part, clips, self.rows[clips] - start)
            for part, clips, start in zip(self.parts, shares, starts, strict=False)
            if len(clips)
        ]

    def _vectors(self, reader: PartReader, part: IndexedPart, pooling: str) -> np.ndarray:
        """Return all vectors of a part, valid until the reader's next call."""
        path = part.folder / part.part.name
        state, verify = file_state(path), path not in self.verified
        expected = part.part.files()[part.part.name]
        table = reader.table(path, expected, part.record.poolings, part.record.width, verify=verify)
        if not table.select(INDEX).equals(part.index):
            raise damaged_part(path, "changed while it was read")
        self.verified.add(path, state)
        return table.column(pooling).chunk(0).flatten().to_numpy()

    def _verify(self, part: IndexedPart, name: str | None) -> None:
        """Raise StoreError if the file `name` of a part is damaged."""
        assert name is not None
        path = part.folder / name
        if path in self.verified:
            return
        state = file_state(path)
        what = damage(path, part.part.files()[path.name])
        if what is not None:
            raise damaged_part(path, what)
        self.verified.add(path, state)

    def _open_frames(self, part: IndexedPart) -> tuple[np.ndarray, FileRows]:
        assert part.part.frames is not None
        path = part.folder / part.part.frames
        keys, bounds, frames = open_frames(path, self.record.dim)
        _require_same(keys, part, path)
        return bounds, frames

    def _open_segments(self, part: IndexedPart) -> SegmentFile:
        assert part.part.segments is not None
        path, stored = part.folder / part.part.segments, part.record.layers
        keys, rows = open_segments(path, len(stored) * SEGMENTS * self.record.dim)
        _require_same(keys, part, path)
        return SegmentFile(rows, len(stored), [stored.index(layer) for layer in self.record.layers])


def _require_same(keys: pa.Array, part: IndexedPart, path: Path) -> None:
    """Raise StoreError if a file of a part is of other clips than its pooled vectors."""
    if keys.to_pylist() != part.index.column("key").to_pylist():
        remedy = "run uwbench cache verify, then extract again"
        raise StoreError("is of other clips than its part", where=path, remedy=remedy)


def key_array(keys: Sequence[bytes]) -> pa.Array:
    """Return keys as an Arrow array."""
    import pyarrow as pa

    if not set(map(len, keys)) <= {KEY_BYTES}:
        raise ValueError(f"a key has {KEY_BYTES} bytes")
    joined = pa.py_buffer(b"".join(keys))  # faster than building an array key by key
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(KEY_BYTES), len(keys), [None, joined])


def find_keys(keys: pa.Array, parts: Sequence[IndexedPart]) -> np.ndarray:
    """Return the row of each key in all parts end to end, its first if it is there twice, -1 if it is in none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    chunks = [chunk for part in parts for chunk in part.index.column("key").chunks]
    stored = pa.chunked_array(chunks, keys.type)
    if stored.equals(pa.chunked_array([keys])):  # a task that was extracted once; looking up takes far longer
        return np.arange(len(keys))
    rows = pc.call_function("index_in", [keys], pc.SetLookupOptions(stored))
    return rows.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)


def _span(indices: np.ndarray) -> slice | np.ndarray:
    """Return a slice if the indices are consecutive, which numpy copies in one piece."""
    consecutive = len(indices) and bool((np.diff(indices) == 1).all())
    return slice(int(indices[0]), int(indices[-1]) + 1) if consecutive else indices
