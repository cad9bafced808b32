"""Frames of many clips as one array: read from files as they are needed, spilled to disk while they are written.

The frames of MAESTRO at 1,280 dimensions take 90 GB, so they are never in memory as a whole.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from uwbench.base.atomic import make_folder
from uwbench.errors import StoreError


class FileRows:
    """Rows `(count, dim)` of a file, `at` bytes from its start; a file cut off meanwhile is a StoreError.

    Rows are read and not memory-mapped: touching a page of a mapped file that was cut off would end the process.
    """

    def __init__(self, path: Path, at: int, count: int, dim: int, dtype: DTypeLike = np.float16) -> None:
        self.shape = (count, dim)
        self.dtype = np.dtype(dtype)
        self._path, self._at = path, at
        self._file = path.open("rb", buffering=0)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        if isinstance(rows, slice):
            first, last, _ = rows.indices(self.shape[0])
            out = np.empty((max(0, last - first), self.shape[1]), self.dtype)
            self._read(first, out)
            return out
        order = np.argsort(rows, kind="stable")
        out = np.empty((len(rows), self.shape[1]), self.dtype)
        for run in np.split(order, np.flatnonzero(np.diff(rows[order]) != 1) + 1):
            if len(run):  # consecutive rows, read at once
                block = np.empty((len(run), self.shape[1]), self.dtype)
                self._read(int(rows[run[0]]), block)
                out[run] = block
        return out

    def _read(self, first: int, out: np.ndarray) -> None:
        row_bytes = self.dtype.itemsize * self.shape[1]
        block = out.reshape(-1).view(np.uint8).data
        done = 0
        while done < len(block):
            try:
                count = os.preadv(self._file.fileno(), [block[done:]], self._at + first * row_bytes + done)
            except OSError as error:
                raise StoreError(f"cannot be read ({error.strerror})", where=self._path) from error
            if not count:
                remedy = f"run: uwbench extract --task {self._path.parent.name}; it re-encodes this part only"
                raise StoreError("was cut off while it was read", where=self._path, remedy=remedy)
            done += count


class ClipRows:
    """Rows `(total, dim)` of `n` clips end to end; those of clip i start at row `start[i]` of `parts[part[i]]`.

    Indexed like an array by a slice or an array of rows, which reads just those. `dtype` is that of the parts.
    """

    def __init__(
        self, parts: Sequence[np.ndarray | FileRows], part: np.ndarray, start: np.ndarray, counts: np.ndarray
    ) -> None:
        self._parts = tuple(parts)
        self._part = np.asarray(part, np.int64)
        self._start = np.asarray(start, np.int64)
        self.offsets = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self.dtype = parts[0].dtype
        self.shape = (int(self.offsets[-1]), parts[0].shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        return self._slice(rows) if isinstance(rows, slice) else self._gather(np.asarray(rows, np.int64))

    def _slice(self, rows: slice) -> np.ndarray:
        first, last, step = rows.indices(len(self))
        if step != 1:
            raise IndexError("rows are taken in steps of one")
        if first >= last:
            return np.zeros((0, self.shape[1]), self.dtype)
        clip = int(np.searchsorted(self.offsets, first, side="right")) - 1
        pieces = []
        while first < last:
            end = min(last, int(self.offsets[clip + 1]))
            if first < end:  # a clip may have no frames
                at = int(self._start[clip]) + first - int(self.offsets[clip])
                pieces.append(self._parts[int(self._part[clip])][at : at + end - first])
            first, clip = end, clip + 1
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _gather(self, rows: np.ndarray) -> np.ndarray:
        out = np.empty((len(rows), self.shape[1]), self.dtype)
        if len(rows) and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {len(self)}")
        clips = np.searchsorted(self.offsets, rows, side="right") - 1
        local = self._start[clips] + rows - self.offsets[clips]
        part = self._part[clips]
        for index in np.unique(part):
            inside = part == index
            out[inside] = self._parts[index][local[inside]]
        return out


class Spill:
    """Frames of a part that is being filled, float16, in a file: those of three hours of audio would fill the memory.

    `counts` has the number of frames of each clip that `end_clip` closed.
    """

    def __init__(self, path: Path, dim: int) -> None:
        make_folder(path.parent)
        self.path, self.dim = path, dim
        self.counts: list[int] = []
        self._open_rows = 0
        self._file = path.open("wb")

    def append(self, frames: np.ndarray) -> None:
        """Add frames `(frames, dim)` to the current clip."""
        self._file.write(np.ascontiguousarray(frames, np.float16).data)
        self._open_rows += len(frames)

    def end_clip(self) -> None:
        """Close the current clip and start the next."""
        self.counts.append(self._open_rows)
        self._open_rows = 0

    def drop_clip(self) -> None:
        """Discard the frames of the current clip."""
        self._file.seek(2 * self.dim * sum(self.counts))
        self._file.truncate()
        self._open_rows = 0

    def values(self) -> np.ndarray:
        """Return all frames of the closed clips, `(frames, dim)`, memory-mapped."""
        self._file.flush()
        shape = (sum(self.counts), self.dim)
        return np.memmap(self.path, np.float16, "r", shape=shape) if shape[0] else np.zeros(shape, np.float16)

    def close(self) -> None:
        """Remove the file."""
        self._file.close()
        self.path.unlink(missing_ok=True)
