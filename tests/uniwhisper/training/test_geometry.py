"""The effective rank: known values, and bounds for any vectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from uniwhisper.training.geometry import effective_rank


def test_known_spreads_have_their_rank() -> None:
    eye = torch.eye(6)
    cross = torch.cat([eye, -eye])  # six directions of equal size, centred
    assert effective_rank(cross) == pytest.approx(6)
    assert effective_rank(cross[:, :1]) == pytest.approx(1)
    assert effective_rank(torch.ones(5, 3)) == 1
    stretched = cross * torch.tensor([3.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    shares = np.array([0.75, 0.25])
    assert effective_rank(stretched) == pytest.approx(float(np.exp(-(shares * np.log(shares)).sum())))


@given(st.integers(2, 8), st.integers(1, 8), st.integers(0, 2**16), st.floats(0.01, 100))
def test_it_is_bounded_and_knows_no_scale_or_place(clips: int, dim: int, seed: int, scale: float) -> None:
    vectors = torch.randn(clips, dim, generator=torch.Generator().manual_seed(seed)).double()
    rank = effective_rank(vectors)
    assert 1 - 1e-9 <= rank <= min(clips - 1, dim) + 1e-9
    assert effective_rank(scale * vectors + 3) == pytest.approx(rank, rel=1e-6)
