"""Pooling of frames into one vector per layer, over a clip's valid frames and across its chunks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from uwbench.extraction.segments import Cuts, leaf_bounds, leaf_means

if TYPE_CHECKING:
    import torch

_ARRAYS = ("mean", "mean_all", "squares", "max", "first")
STATISTICS = len(_ARRAYS)
_OPTIONAL = ("squares", "max", "first", "leaves", "leaf_frames")


@dataclass(frozen=True, slots=True)
class Pooled:
    """Statistics of one window (a clip or a chunk of it); each array is float64 `(layers, dim)`."""

    n_frames: int  # valid ones
    n_emitted: int  # all that the encoder returned for this window, padding of batch mates excluded
    mean: np.ndarray
    mean_all: np.ndarray
    squares: np.ndarray | None  # sum of squared deviations from `mean`
    max: np.ndarray | None
    first: np.ndarray | None
    leaves: np.ndarray | None = None  # mean frames of its parts, `(LEAVES, layers, dim)`, if a pyramid is wanted
    leaf_frames: np.ndarray | None = None  # their numbers of frames, `(LEAVES,)`


def reduce_frames(
    frames: torch.Tensor,
    valid: torch.Tensor,
    emitted: torch.Tensor,
    poolings: Sequence[str],
    cuts: Cuts | None = None,
) -> dict[str, torch.Tensor]:
    """Return the statistics of a batch by their names in `Pooled`, float32 `(batch, layers, dim)`, on the device.

    With `cuts`, that are on the device too, `leaves` are among them, `(batch, LEAVES, layers, dim)`.

    `frames` is `(batch, layers, frames, dim)`, `valid` and `emitted` are counts `(batch,)`. Frames from `emitted` on
    are padding of batch mates and never enter; those from `valid` on enter `mean-all` only. Nothing is read back, so
    that a device that works asynchronously does not stop.
    """
    import torch

    frames = frames.float()
    steps = torch.arange(frames.shape[2], device=frames.device)
    inside = steps < valid[:, None]

    def average(mask: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        weights = mask.to(frames.dtype) / count[:, None]
        return torch.matmul(weights[:, None, None, :], frames).squeeze(2)

    mean = average(inside, valid)
    mean_all = mean if emitted is valid else average(steps < emitted[:, None], emitted)
    outputs = {"mean": mean, "mean_all": mean_all}
    if "std" in poolings:
        deviation = (frames - mean[:, :, None]).square_()
        outputs["squares"] = torch.matmul(inside.to(frames.dtype)[:, None, None, :], deviation).squeeze(2)
    if "max" in poolings:
        outputs["max"] = frames.masked_fill(~inside[:, None, :, None], -torch.inf).amax(2)
    if "first" in poolings:
        outputs["first"] = frames[:, :, 0]
    if cuts is not None:
        outputs["leaves"] = leaf_means(frames, leaf_bounds(valid, cuts))
    return outputs


def as_pooled(
    outputs: Mapping[str, torch.Tensor], valid: torch.Tensor, emitted: torch.Tensor, cuts: Cuts | None = None
) -> list[Pooled]:
    """Return the output of `reduce_frames` as one record per window, in float64; the other tensors are on the host."""
    arrays = {name: tensor.cpu().double().numpy() for name, tensor in outputs.items()}
    if cuts is not None:
        arrays["leaf_frames"] = leaf_bounds(valid, cuts).diff(dim=1).numpy()
    counts = zip(valid.tolist(), emitted.tolist(), strict=True)
    return [
        Pooled(
            n,
            m,
            arrays["mean"][i],
            arrays["mean_all"][i],
            *(arrays[name][i] if name in arrays else None for name in _OPTIONAL),
        )
        for i, (n, m) in enumerate(counts)
    ]


def copied(pooled: Pooled, buffer: np.ndarray) -> Pooled:
    """Return the same statistics, without leaves, with their arrays in `buffer`, float64 `(STATISTICS, layers, dim)`.

    Small arrays allocated between a forward's large ones fragment memory: two megabytes per window of a long clip.
    """
    copies: list[np.ndarray | None] = []
    for place, array in zip(buffer, (getattr(pooled, name) for name in _ARRAYS), strict=True):
        if array is not None:
            place[...] = array
        copies.append(None if array is None else place)
    mean, mean_all, *others = copies
    assert mean is not None
    assert mean_all is not None
    return Pooled(pooled.n_frames, pooled.n_emitted, mean, mean_all, *others)


def merge(chunks: Sequence[Pooled]) -> dict[str, np.ndarray]:
    """Merge a clip's chunks, weighted by their valid frames; return float32 `(layers, dim)` per pooling.

    Deviations are merged by the formula of Chan, Golub and LeVeque (1979), which avoids cancellation.
    """
    n_frames = np.array([chunk.n_frames for chunk in chunks], np.float64)
    n_emitted = np.array([chunk.n_emitted for chunk in chunks], np.float64)
    means = np.stack([chunk.mean for chunk in chunks])
    mean = np.tensordot(n_frames / n_frames.sum(), means, 1)
    mean_all = np.tensordot(n_emitted / n_emitted.sum(), np.stack([chunk.mean_all for chunk in chunks]), 1)
    vectors = {"mean": mean, "mean-all": mean_all}
    if chunks[0].squares is not None:
        between = np.tensordot(n_frames, (means - mean) ** 2, 1)
        squares = sum((chunk.squares for chunk in chunks if chunk.squares is not None), start=between)
        vectors["std"] = np.sqrt(squares / n_frames.sum())
    if chunks[0].max is not None:
        vectors["max"] = np.max([chunk.max for chunk in chunks if chunk.max is not None], axis=0)
    if chunks[0].first is not None:
        vectors["first"] = chunks[0].first
    return {name: vector.astype(np.float32) for name, vector in vectors.items()}
