"""The effective rank and the clusters of vectors: known values, and bounds for any vectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from uniwhisper.training.geometry import cluster_quality, effective_rank


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


def test_clusters_are_measured_by_their_silhouette() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(8, 64, generator=generator)
    near = centres.repeat(5, 1) + 0.01 * torch.randn(40, 64, generator=generator)
    unit = torch.nn.functional.normalize(near - near.mean(dim=0), dim=1)
    distances = 1 - (unit @ unit.T).numpy()
    group = np.arange(40) % 8
    means = np.stack([distances[:, group == c].sum(1) / (5 - (group == c)) for c in range(8)], axis=1)
    inside = means[np.arange(40), group]
    means[np.arange(40), group] = np.inf
    outside = means.min(axis=1)
    expected = float(((outside - inside) / np.maximum(inside, outside)).mean())
    assert cluster_quality(near) == pytest.approx(expected, abs=1e-5)
    assert expected > 0.9
    scattered = cluster_quality(torch.randn(400, 64, generator=generator))
    assert scattered is not None
    assert -0.1 < scattered < 0.1


def test_few_or_equal_vectors_have_no_clusters() -> None:
    assert cluster_quality(torch.randn(15, 4)) is None
    assert cluster_quality(torch.ones(20, 4)) == 0
