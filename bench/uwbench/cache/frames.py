"""Frames of many clips as one array: memory-mapped when read, spilled to disk while they are written.

The frames of MAESTRO at 1,280 dimensions take 90 GB. Mapped files cost address space only: the system takes back pages
that were read when it needs them. So frames, unlike vectors, must not be cut off while they are in use.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from uwbench.base.atomic import make_folder


class MappedRows:
    """Rows `(total, dim)` of `n` clips end to end; those of clip i start at row `start[i]` of `parts[part[i]]`.

    Indexed like an array: `rows[a:b]` and `rows[index_array]`. A slice within one clip is a view of the part, read-only
    if the part is a file; anything else is a copy. `dtype` is that of the parts.
    """

    def __init__(self, parts: Sequence[np.ndarray], part: np.ndarray, start: np.ndarray, counts: np.ndarray) -> None:
        self._parts = tuple(parts)
        self._part = np.asarray(part, np.int64)
        self._start = np.asarray(start, np.int64)
        self.offsets = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self.dtype = np.result_type(*parts)
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
