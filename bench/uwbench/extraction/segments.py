"""The segment pyramid: the means of a clip's valid frames over 1, 2, 4 and 8 parts of the clip.

Part i of k covers the frames from floor(i n / k + 1/2) up to floor((i + 1) n / k + 1/2) of a clip's n valid frames. A
clip of several chunks is cut at the same shares of its samples: a chunk of m samples with n frames, in which a cut lies
after s samples, is cut before its frame floor(s n / m + 1/2). So the parts of a level split the frames, and those of a
level lie in those of the level above.

A part without a frame, as in clips of fewer than 8, is the nearest part of its level that has one, the earlier of two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from uwbench.cache.segments import LEVELS

if TYPE_CHECKING:
    import torch

LEAVES = LEVELS[-1]


class Place(NamedTuple):
    """The place of a window in its clip, in samples."""

    start: int
    clip: int  # the length of the clip


class Cuts(NamedTuple):
    """Where windows are cut into leaves, the smallest parts: int64 tensors.

    Cut j of window b lies after the share `numerator[b, j] / denominator[b]` of it, 0 to 1; there are `LEAVES` + 1.
    """

    numerator: torch.Tensor
    denominator: torch.Tensor


def cuts_of(lengths: Sequence[int], places: Sequence[Place]) -> Cuts:
    """Return the cuts of windows of `lengths` samples. What goes beyond the length of a clip is in its last leaf."""
    import torch

    shares = []
    for length, place in zip(lengths, places, strict=True):
        inner = (min(max(j * place.clip - LEAVES * place.start, 0), LEAVES * length) for j in range(1, LEAVES))
        shares.append([0, *inner, LEAVES * length])
    return Cuts(torch.tensor(shares, dtype=torch.int64), LEAVES * torch.tensor(lengths, dtype=torch.int64))


def leaf_bounds(valid: torch.Tensor, cuts: Cuts) -> torch.Tensor:
    """Return the frames before which windows of `valid` frames `(batch,)` are cut, int64 `(batch, LEAVES + 1)`."""
    denominator = 2 * cuts.denominator[:, None]
    return (2 * valid.long()[:, None] * cuts.numerator + cuts.denominator[:, None]) // denominator


def leaf_means(frames: torch.Tensor, bounds: torch.Tensor) -> torch.Tensor:
    """Return the mean frame of each leaf, float32 `(batch, LEAVES, layers, dim)`; zeros for a leaf without frames.

    `frames` is float32 `(batch, layers, frames, dim)`.
    """
    import torch

    steps = torch.arange(frames.shape[2], device=frames.device)
    inside = (steps >= bounds[:, :-1, None]) & (steps < bounds[:, 1:, None])
    weights = inside.to(frames.dtype) / bounds.diff(dim=1).clamp(min=1)[:, :, None]
    return torch.matmul(weights[:, None], frames).transpose(1, 2)


class Pyramid:
    """A clip's leaves, to which its windows are added in any order."""

    def __init__(self) -> None:
        self._sums = np.zeros((LEAVES, 0, 0))  # of the frames of each leaf, (LEAVES, layers, dim)
        self._frames = np.zeros(LEAVES, np.int64)

    def add(self, means: np.ndarray, n_frames: np.ndarray) -> None:
        """Add a window's leaves: mean frames `(LEAVES, layers, dim)` and their numbers of frames `(LEAVES,)`."""
        if not self._frames.any():
            self._sums = np.zeros(means.shape)
        for leaf in np.flatnonzero(n_frames):
            self._sums[leaf] += n_frames[leaf] * means[leaf]
        self._frames += n_frames

    def vectors(self, mean: np.ndarray) -> np.ndarray:
        """Return the pyramid, float32 `(layers, SEGMENTS, dim)`: the clip's `mean` `(layers, dim)`, then its parts."""
        parts = [mean]
        for level in LEVELS[1:]:
            frames = self._frames.reshape(level, -1).sum(axis=1)
            sums = self._sums.reshape(level, -1, *mean.shape).sum(axis=1)
            filled = np.flatnonzero(frames)
            nearest = filled[np.abs(filled - np.arange(level)[:, None]).argmin(axis=1)]
            parts.extend((sums[part] / frames[part]).astype(np.float32) for part in nearest)
        return np.stack(parts, axis=1).astype(np.float32, copy=False)
