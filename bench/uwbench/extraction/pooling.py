"""From frames to vectors: every pooling of every layer, over a clip's valid frames, across its chunks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


_ARRAYS = ("mean", "mean_all", "squares", "max", "first")
STATISTICS = len(_ARRAYS)


@dataclass(frozen=True, slots=True)
class Pooled:
    """Statistics of one window (a clip or a chunk of it); each array is float64 `(layers, dim)`.

    `frames` counts the valid frames, `emitted` all frames that the encoder gave for this window alone.
    """

    frames: int
    emitted: int
    mean: np.ndarray
    mean_all: np.ndarray
    squares: np.ndarray | None  # sum of squared deviations from `mean`
    max: np.ndarray | None
    first: np.ndarray | None


def pool_frames(
    frames: torch.Tensor, valid: torch.Tensor, emitted: torch.Tensor, poolings: Sequence[str]
) -> list[Pooled]:
    """Pool a batch: `frames` `(batch, layers, frames, dim)`, counts `(batch,)`; on the frames' device, in float32.

    Frames from `emitted` on are another clip's padding and never enter; those from `valid` on enter `mean-all` alone.
    """
    return as_pooled(reduce_frames(frames, valid, emitted, poolings), valid, emitted)


def reduce_frames(
    frames: torch.Tensor, valid: torch.Tensor, emitted: torch.Tensor, poolings: Sequence[str]
) -> dict[str, torch.Tensor]:
    """Return the statistics of `pool_frames` by their names in Pooled, float32 `(batch, layers, dim)`, on the device.

    Nothing is read back: a device that works behind the program goes on working.
    """
    import torch

    frames = frames.float()
    steps = torch.arange(frames.shape[2], device=frames.device)
    inside = steps < valid[:, None]

    def average(kept: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        weights = kept.to(frames.dtype) / count[:, None]
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
    return outputs


def as_pooled(outputs: Mapping[str, torch.Tensor], valid: torch.Tensor, emitted: torch.Tensor) -> list[Pooled]:
    """Return what `reduce_frames` gave as a record a window, in float64."""
    arrays = {name: tensor.cpu().double().numpy() for name, tensor in outputs.items()}
    counts = zip(valid.tolist(), emitted.tolist(), strict=True)
    return [
        Pooled(
            n,
            m,
            arrays["mean"][i],
            arrays["mean_all"][i],
            *(arrays[name][i] if name in arrays else None for name in ("squares", "max", "first")),
        )
        for i, (n, m) in enumerate(counts)
    ]


def moved(pooled: Pooled, into: np.ndarray) -> Pooled:
    """Return the same statistics with their arrays in `into`, float64 `(5, layers, dim)`.

    Small arrays that stay where a forward's large ones come and go keep the allocator from using that space again: two
    megabytes a window of a long clip.
    """
    kept: list[np.ndarray | None] = []
    for place, array in zip(into, (getattr(pooled, name) for name in _ARRAYS), strict=True):
        if array is not None:
            place[...] = array
        kept.append(None if array is None else place)
    mean, mean_all, *others = kept
    assert mean is not None
    assert mean_all is not None
    return Pooled(pooled.frames, pooled.emitted, mean, mean_all, *others)


def merge(chunks: Sequence[Pooled]) -> dict[str, np.ndarray]:
    """Join a clip's chunks, weighted by their valid frames; return float32 `(layers, dim)` by pooling.

    The deviations are joined by Chan, Golub and LeVeque's formula (1979), which does not cancel.
    """
    frames = np.array([chunk.frames for chunk in chunks], np.float64)
    emitted = np.array([chunk.emitted for chunk in chunks], np.float64)
    means = np.stack([chunk.mean for chunk in chunks])
    mean = np.tensordot(frames / frames.sum(), means, 1)
    everything = np.tensordot(emitted / emitted.sum(), np.stack([chunk.mean_all for chunk in chunks]), 1)
    vectors = {"mean": mean, "mean-all": everything}
    if chunks[0].squares is not None:
        between = np.tensordot(frames, (means - mean) ** 2, 1)
        squares = sum((chunk.squares for chunk in chunks if chunk.squares is not None), start=between)
        vectors["std"] = np.sqrt(squares / frames.sum())
    if chunks[0].max is not None:
        vectors["max"] = np.max([chunk.max for chunk in chunks if chunk.max is not None], axis=0)
    if chunks[0].first is not None:
        vectors["first"] = chunks[0].first
    return {name: vector.astype(np.float32) for name, vector in vectors.items()}
