"""The data that a probe works on: vectors or frames, labels, splits and groups; no audio, no encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from uwbench.audio.clip import Labels
from uwbench.cache.frames import ClipRows
from uwbench.cache.segments import Segments
from uwbench.cards.card import Card
from uwbench.probes.sentences import TextVectors

Inputs = Callable[[np.ndarray], np.ndarray]  # row numbers -> float32 (rows, dim), or (rows, layers, dim)
_ROWS_AT_ONCE = 16_384  # rows read at once for means and deviations


@dataclass(frozen=True, slots=True)
class Frames:
    """Valid frames of all clips, end to end: clip i owns `values[offsets[i]:offsets[i + 1]]`.

    `values` is `(total, dim)` in the stored precision, usually float16, and memory-mapped: the frames of MAESTRO take
    90 GB. Frame t of a clip is centred at `(t + 0.5) * hop_s` seconds.
    """

    values: np.ndarray | ClipRows
    offsets: np.ndarray
    hop_s: float

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.offsets) - 1

    def __getitem__(self, clip: int) -> np.ndarray:
        """Return a clip's frames `(frames, dim)`, a view of the stored ones."""
        if not 0 <= clip < len(self):
            raise IndexError(f"clip {clip} of {len(self)}")
        return self.values[int(self.offsets[clip]) : int(self.offsets[clip + 1])]

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """Return frames by their row in `values`, float32 `(len(rows), dim)`."""
        taken = np.asarray(self.values[rows])
        if taken.dtype != np.float16:
            return np.asarray(taken, dtype=np.float32)
        import torch

        return torch.from_numpy(taken).float().numpy()  # six times as fast as numpy, and as exact


def spread_rows(offsets: np.ndarray, clips: np.ndarray, limit: int) -> np.ndarray:
    """Return the rows of at most `limit` frames of the clips, evenly spaced; `offsets` as Frames has them."""
    counts = offsets[clips + 1] - offsets[clips]
    total, ends = int(counts.sum()), np.cumsum(counts)
    limit = min(limit, total)
    places = ((np.arange(limit) + 0.5) * total / max(limit, 1)).astype(np.int64)
    owner = np.searchsorted(ends, places, side="right")
    return offsets[clips[owner] + 1] - (ends[owner] - places)


@dataclass(frozen=True, slots=True)
class CorruptedVectors:
    """Vectors of tested clips, found by the clips' rows in the clip table."""

    tested: np.ndarray  # rows, ascending
    values: np.ndarray  # float32 (tested, dim)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Return float32 `(len(rows), dim)`."""
        return self.values[np.searchsorted(self.tested, rows)]


class SharedSpace(Protocol):
    """Clips and texts as vectors in one space."""

    def clips(self) -> np.ndarray:
        """Return the vectors of all clips, float32 `(n, dim)`, of length 1."""
        ...

    def texts(self, texts: Sequence[str], /) -> np.ndarray:
        """Return the vectors of texts, float32 `(len(texts), dim)`, of length 1."""
        ...

    def tower_hash(self) -> str:
        """Return the start of the hash of what embeds the texts."""
        ...


@dataclass(frozen=True, slots=True)
class TaskData:
    """One task under one encoder, `n` clips in the clip table's order.

    Exactly one of `splits` (`train`, `valid`, `test`) and `folds` is set. `pooled` is float32 `(n, layers, dim)`;
    `frames` is set for tasks that need them, `text` for retrieval once a text encoder is named, `joint` for an
    encoder that embeds texts if a method asks for it. `corrupted` has the last layer's vectors of the tested clips
    under each corruption, by its name. `segments` is set for methods that take them, `segment_layers` names their
    layers.
    """

    card: Card
    ids: Sequence[str]
    labels: Sequence[Labels]
    splits: Sequence[str] | None
    folds: Sequence[str] | None
    groups: Sequence[str | None]
    durations_s: np.ndarray
    layers: tuple[str, ...]
    pooled: np.ndarray
    frames: Frames | None = None
    text: TextVectors | None = None
    joint: SharedSpace | None = None
    corrupted: Mapping[str, CorruptedVectors] = field(default_factory=dict)
    segments: Segments | np.ndarray | None = None  # float32 (n, layers, SEGMENTS, dim)
    segment_layers: tuple[str, ...] = ()


def statistics(inputs: Inputs, rows: np.ndarray, at_once: int = _ROWS_AT_ONCE) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the inverse standard deviation of each dimension, float32 `(dim,)`, summed in float64.

    The inputs of `at_once` rows are read at a time; they may give several vectors per row. A dimension that hardly
    varies (deviation below 1e-6 of its size) is centred and not scaled.
    """
    count = 0
    total = squares = 0.0
    shift = inputs(rows[:1]).astype(np.float64)[0]  # against cancellation
    for start in range(0, len(rows), at_once):
        block = inputs(rows[start : start + at_once]) - shift
        total, squares = total + block.sum(axis=0), squares + (block * block).sum(axis=0)
        count += len(block)
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean * mean, 0))
    flat = deviation <= 1e-6 * np.maximum(np.abs(shift + mean), 1e-6)
    scale = 1 / np.where(flat, 1.0, deviation)
    return (shift + mean).astype(np.float32), scale.astype(np.float32)
