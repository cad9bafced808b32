"""Frames of many clips read where they lie: memory-mapped parts behind one array of rows, nothing copied until asked.

The frames of MAESTRO at 1,280 dimensions take 90 GB; what is mapped costs address space, and the pages that were read
are the system's to take back.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class MappedRows:
    """Rows `(total, dim)` of `n` clips end to end, clip i's lying in `parts[part[i]]` from row `start[i]` on.

    Reads as an array does: `rows[a:b]` and `rows[index_array]`. A slice within one clip is a view of the part,
    read-only where the part is a file; anything else is a copy. `dtype` is what the parts hold.
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
        return self._stretch(rows) if isinstance(rows, slice) else self._gather(np.asarray(rows, np.int64))

    def _stretch(self, rows: slice) -> np.ndarray:
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
            own = part == index
            out[own] = self._parts[index][local[own]]
        return out
