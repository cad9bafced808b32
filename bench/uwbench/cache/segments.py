"""The segment pyramids of many clips as one array, read from files when they are needed.

Those of ESC-50 at 1,280 dimensions and 32 layers take 5 GB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from uwbench.cache.frames import FileRows

LEVELS = (1, 2, 4, 8)  # parts that a clip is cut into, level by level
SEGMENTS = sum(LEVELS)  # vectors per layer, in the order of the levels, then of time


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """The pyramids of a part's clips, one row each, and the stored layers that are wanted."""

    rows: FileRows
    stored: int  # layers in a row
    layers: Sequence[int]


class Segments:
    """Pyramids of `n` clips, float32 `(n, layers, SEGMENTS, dim)`; that of clip i is row `row[i]` of `files[file[i]]`.

    Indexed like an array by rows, which reads just those.
    """

    def __init__(self, files: Sequence[SegmentFile], file: np.ndarray, row: np.ndarray, shape: tuple[int, int]) -> None:
        self._files, self._file, self._row = tuple(files), file, row
        layers, dim = shape
        self.shape = (len(file), layers, SEGMENTS, dim)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """The bytes of the whole array."""
        return 4 * int(np.prod(self.shape))

    def all(self) -> np.ndarray:
        """Return the pyramids of all clips."""
        return self[np.arange(len(self))]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        out = np.empty((len(rows), *self.shape[1:]), np.float32)
        owner = self._file[rows]
        for index in np.unique(owner):
            file, inside = self._files[index], np.flatnonzero(owner == index)
            stored = file.rows[self._row[rows[inside]]].reshape(len(inside), file.stored, SEGMENTS, -1)
            out[inside] = stored if len(file.layers) == file.stored else stored[:, list(file.layers)]
        return out
