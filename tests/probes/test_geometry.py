"""The geometry of vectors against scipy and numpy on plain arrays, and on clouds whose figures are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import pdist, squareform

from probes.made_data import multi_label, single_label
from uwbench.cards.find import find_protocol
from uwbench.probes.methods.clips import block_counts, blocks_of, jackknife
from uwbench.probes.methods.geometry import describe
from uwbench.probes.run import run_probes
from uwbench.results.items import read_items

UWBENCH = find_protocol("uwbench-1")


def reference(vectors: np.ndarray, k: int) -> dict[str, float]:
    """The figures of `describe` from the formulas of their papers, with other routines."""
    n, dim = vectors.shape
    centred = np.linalg.svd(vectors - vectors.mean(0), compute_uv=False)
    plain = np.linalg.svd(vectors, compute_uv=False)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    distances = squareform(pdist(unit))
    np.fill_diagonal(distances, np.inf)
    occurrences = np.bincount(np.argsort(distances, axis=1)[:, :k].ravel(), minlength=n)
    variances = np.diag(np.cov(np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)[2] @ vectors.T))
    variances = np.concatenate([variances, np.zeros(dim - len(variances))])
    defect = np.linalg.norm(np.sqrt(dim) * variances / np.linalg.norm(variances) - 1) / np.sqrt(2 * (dim - dim**0.5))
    used = (dim - defect**2 * (dim - dim**0.5)) ** 2 / dim**2
    effective = float(np.exp(stats.entropy(centred)))
    return {
        "rank share": effective / min(n - 1, dim),
        "effective rank": effective,
        "rankme": float(np.exp(stats.entropy(plain))),
        "isotropy": float((dim * used - 1) / (dim - 1)),
        "uniformity": float(-np.log(np.exp(-2 * pdist(unit, "sqeuclidean")).mean())),
        "hubness": float(stats.skew(occurrences)),
        "hubs": float((occurrences > 2 * k).mean()),
    }


@pytest.mark.parametrize("shape", [(120, 16), (30, 64)])
def test_figures_are_those_of_the_papers(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=shape) @ np.diag(np.geomspace(1, 0.05, shape[1])) + 0.3).astype(np.float32)
    figures = describe(vectors, 10)
    assert figures == pytest.approx(reference(vectors.astype(np.float64), 10), rel=2e-4, abs=1e-4)


def test_known_clouds() -> None:
    rng = np.random.default_rng(1)
    ball = describe(rng.normal(size=(4000, 16)), 10)
    assert ball["effective rank"] == pytest.approx(16, rel=0.01)
    assert ball["isotropy"] > 0.98
    line = describe(np.outer(rng.normal(size=200), np.ones(8)) + 5.0, 10)
    assert line["effective rank"] == pytest.approx(1)
    assert line["isotropy"] == pytest.approx(0, abs=1e-6)
    assert ball["uniformity"] > line["uniformity"]
    high = describe(rng.normal(size=(1000, 200)), 10)  # hubs appear as the dimension grows
    assert high["hubness"] > 2 * ball["hubness"]
    same = describe(np.ones((50, 4)), 10)
    assert (same["effective rank"], same["isotropy"], same["uniformity"]) == pytest.approx((0, 0, 0), abs=1e-6)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31), scale=st.floats(0.01, 100))
def test_turning_and_scaling_changes_nothing(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(40, 6)) + rng.normal(size=6)
    turned = vectors @ np.linalg.qr(rng.normal(size=(6, 6)))[0] * scale
    assert describe(turned, 5) == pytest.approx(describe(vectors, 5), rel=1e-3, abs=1e-3)


def test_the_method_describes_every_layer_and_looks_at_no_label() -> None:
    data = single_label()
    doubled = replace(data, pooled=np.concatenate([data.pooled, data.pooled**3], axis=1), layers=("a", "b"))
    score = run_probes(doubled, UWBENCH, methods=["geometry"]).scores["geometry"]
    test = np.array(data.splits) == "test"
    for layer, power in (("a", 1), ("b", 3)):
        figures = score.chosen["layers"][layer]
        assert figures == pytest.approx(describe(data.pooled[test, 0] ** power, 10), rel=1e-3, abs=1e-3)
    assert score.main_score == score.chosen["layers"]["b"]["rank share"]
    labels = np.roll(np.array(data.labels), 7).tolist()
    other = run_probes(replace(doubled, labels=tuple(labels)), UWBENCH, methods=["geometry"]).scores["geometry"]
    assert other.chosen["layers"] == score.chosen["layers"]
    assert run_probes(multi_label(), UWBENCH, methods=["geometry"]).scores["geometry"].raw["rankme"] > 1


def test_the_interval_is_that_of_a_jackknife_over_groups() -> None:
    outcome = run_probes(single_label(), UWBENCH, methods=["geometry"])
    items = read_items(outcome.predictions, "geometry", "rank-share")
    assert items.n_clusters == 20
    assert items.counts is not None
    mean = items.counts[0, :, 0].sum() / items.counts[0, :, 1].sum()
    assert mean == pytest.approx(outcome.scores["geometry"].main_score, abs=0.02)


@given(values=st.lists(st.floats(-5, 5), min_size=8, max_size=60), smooth=st.booleans())
def test_the_jackknife_of_a_mean_is_the_mean_of_blocks(values: list[float], smooth: bool) -> None:
    """For a mean of equal blocks, the pseudo-values are the blocks' means; no two blocks change it together."""
    sample = np.array(values[: len(values) // 4 * 4])
    blocks = np.repeat(np.arange(4), len(sample) // 4)
    pseudo = jackknife(float(sample.mean()), blocks, lambda rest: float(sample[rest].mean()), smooth=smooth)
    assert pseudo == pytest.approx([sample[blocks == block].mean() for block in range(4)], abs=1e-6)
    counts = block_counts(pseudo[blocks], blocks)
    assert counts[:, 1].sum() == pytest.approx(4)


def test_the_jackknife_does_not_count_pairs_of_blocks_twice() -> None:
    """The squared mean of n normal values around c has the variance 4 c² / n + 2 / n², of which 2 / n² is of pairs."""
    n, centre, variances = 20, 0.3, []
    for seed in range(1000):
        sample = centre + np.random.default_rng(seed).normal(size=n)
        square = sample.mean() ** 2
        values = jackknife(square, np.arange(n), lambda rest, x=sample: float(x[rest].mean() ** 2), smooth=True)
        assert values.mean() == pytest.approx(square)
        variances.append(values.var(ddof=1) / n)
    assert np.mean(variances) == pytest.approx(4 * centre**2 / n + 2 / n**2, rel=0.1)


@given(groups=st.lists(st.integers(0, 30), min_size=1, max_size=200), count=st.integers(2, 20))
def test_blocks_hold_whole_groups_and_are_of_like_size(groups: list[int], count: int) -> None:
    of_clip = np.array(groups)
    blocks = blocks_of(of_clip, count)
    assert all(len(np.unique(blocks[of_clip == group])) == 1 for group in np.unique(of_clip))
    sizes = np.bincount(blocks)
    assert len(sizes) == min(count, len(np.unique(of_clip)))
    assert sizes.max() - sizes.min() <= np.bincount(of_clip).max()
