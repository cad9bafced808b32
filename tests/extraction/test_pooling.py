"""Pooling equals a float64 computation, for any padding and any way to cut a clip into chunks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from uwbench.cache.records import POOLINGS
from uwbench.extraction.pooling import Pooled, as_pooled, merge, reduce_frames


def pool(frames: torch.Tensor, valid: torch.Tensor, emitted: torch.Tensor, poolings: Sequence[str]) -> list[Pooled]:
    return as_pooled(reduce_frames(frames, valid, emitted, poolings), valid, emitted)


@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    extra=st.integers(0, 10),
    scale=st.floats(1e-2, 1e2),
    offset=st.floats(-100, 100),
    seed=st.integers(0, 2**16),
)
def test_poolings_equal_float64(counts: list[int], extra: int, scale: float, offset: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    frames = (offset + scale * rng.standard_normal((len(counts), 2, max(counts) + extra, 3))).astype(np.float32)
    valid = torch.tensor(counts)
    everything = torch.full_like(valid, frames.shape[2])
    pooled = pool(torch.from_numpy(frames), valid, everything, POOLINGS)
    tolerance = 1e-5 * (abs(offset) + scale)
    for clip, count, statistics in zip(frames.astype(np.float64), counts, pooled, strict=True):
        vectors = merge([statistics])
        inside = clip[:, :count]
        expected = {
            "mean": inside.mean(1),
            "mean-all": clip.mean(1),
            "std": inside.std(1),
            "max": inside.max(1),
            "first": clip[:, 0],
        }
        for name, value in expected.items():
            np.testing.assert_allclose(vectors[name], value, rtol=1e-4, atol=3 * tolerance, err_msg=name)


@given(cuts=st.lists(st.integers(1, 30), min_size=1, max_size=6), seed=st.integers(0, 2**16), offset=st.floats(-50, 50))
def test_chunks_join_to_the_whole(cuts: list[int], seed: int, offset: float) -> None:
    frames = (offset + np.random.default_rng(seed).standard_normal((1, 1, sum(cuts), 4))).astype(np.float32)
    edges = np.cumsum([0, *cuts])
    chunks = []
    for start, end in pairwise(edges.tolist()):
        count = torch.tensor([end - start])
        chunks += pool(torch.from_numpy(frames[:, :, start:end]), count, count, POOLINGS)
    merged = merge(chunks)
    whole = frames[0].astype(np.float64)
    for name, value in (("mean", whole.mean(1)), ("std", whole.std(1)), ("max", whole.max(1)), ("first", whole[:, 0])):
        np.testing.assert_allclose(merged[name], value, rtol=1e-4, atol=1e-4 * (1 + abs(offset)), err_msg=name)


def test_padding_of_batch_mates_never_enters() -> None:
    frames = torch.ones((2, 1, 5, 1))
    frames[0, :, 2:] = 1000.0
    pooled = pool(frames, torch.tensor([2, 5]), torch.tensor([2, 5]), ("mean", "mean-all", "max", "std"))
    assert [float(merge([clip])[name][0, 0]) for clip in pooled for name in ("mean", "mean-all", "max")] == [1.0] * 6
