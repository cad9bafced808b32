"""What a probe sees of a task: vectors or frames, labels, splits and groups; no audio, no encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from uwbench.card import Card
from uwbench.clip import Labels


@dataclass(frozen=True, slots=True)
class Frames:
    """Valid frames of all clips, end to end: clip i owns `values[offsets[i]:offsets[i + 1]]`.

    `values` float16 `(total, dim)`, possibly memory-mapped; frame t of a clip is centred at `(t + 0.5) * hop_s`
    seconds.
    """

    values: np.ndarray
    offsets: np.ndarray
    hop_s: float


@dataclass(frozen=True, slots=True)
class TaskData:
    """One task under one encoder, `n` clips in the clip table's order.

    Exactly one of `splits` (`train`, `valid`, `test`) and `folds` is set. `pooled` is float32 `(n, layers, dim)`;
    `frames` is set for tasks that need them.
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
