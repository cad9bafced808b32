"""Drops and their paired intervals against plain computations, and the noise at which 5 points are lost."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from uwbench.cards.protocol import Bootstrap
from uwbench.results.averages import interval
from uwbench.results.items import Items, read_items
from uwbench.results.record import CorruptedScore
from uwbench.results.robustness import limit_text, mean_cosine, noise_limit, score_corrupted

BOOTSTRAP = Bootstrap(resamples=2000, level=0.95, seed=0)
SEEDS, CLIPS, GROUPS = 3, 120, 30


def table(right: np.ndarray) -> pa.Table:
    """Return predictions of one class or another, `right` `(seeds, clips)`; clips of a group follow each other."""
    seeds, clips = right.shape
    texts = np.where(right, json.dumps("a"), json.dumps("b"))
    return pa.table(
        {
            "method": ["mlp"] * right.size,
            "seed": pa.array(np.repeat(np.arange(seeds), clips), pa.int32()),
            "fold": pa.array([None] * right.size, pa.string()),
            "id": [f"{clip:04d}" for clip in range(clips)] * seeds,
            "group": [f"g{clip * GROUPS // clips}" for clip in range(clips)] * seeds,
            "truth": [json.dumps("a")] * right.size,
            "prediction": texts.ravel().tolist(),
        }
    )


def items(right: np.ndarray) -> Items:
    return read_items(table(right), "mlp", "accuracy")


def drop(clean: np.ndarray, corrupted: np.ndarray, bootstrap: Bootstrap = BOOTSTRAP) -> CorruptedScore:
    return score_corrupted(items(clean), {"noise": items(corrupted)}, bootstrap)["noise"]


def predictions(rng: np.random.Generator, clean: float, corrupted: float) -> tuple[np.ndarray, np.ndarray]:
    """Return which clips are right, clean and corrupted: hard clips and groups are hard both times, for all seeds."""
    hard = rng.normal(size=GROUPS).repeat(CLIPS // GROUPS) + rng.normal(size=CLIPS)
    changed = rng.normal(size=CLIPS) * np.array([[0.0], [0.8]])  # by the corruption
    noise = 0.2 * rng.normal(size=(2, SEEDS, CLIPS))
    cut = np.sqrt([2.04, 2.68]) * np.array([_quantile(clean), _quantile(corrupted)])
    return tuple((hard + changed[:, None] + noise) < cut[:, None, None])


def _quantile(share: float) -> float:
    from scipy import stats

    return float(stats.norm.ppf(share))


def test_the_drop_and_its_interval_equal_a_plain_paired_bootstrap() -> None:
    rng = np.random.default_rng(0)
    clean, corrupted = predictions(rng, 0.8, 0.65)
    score = drop(clean, corrupted)
    assert score.score == pytest.approx(corrupted.mean())
    assert score.drop == pytest.approx(clean.mean() - corrupted.mean())
    difference = (clean.astype(float) - corrupted).reshape(SEEDS, GROUPS, -1).mean(axis=2)
    draws = [
        difference[rng.integers(0, SEEDS, SEEDS)][:, rng.integers(0, GROUPS, GROUPS)].mean() for _ in range(20_000)
    ]
    from scipy import stats

    reach = stats.t.ppf(0.975, GROUPS - 1) * np.std(draws) * np.sqrt(GROUPS / (GROUPS - 1))
    assert score.ci95 == pytest.approx((score.drop - reach, score.drop + reach), abs=0.01)
    low, high = interval(table(corrupted), "mlp", "accuracy", BOOTSTRAP)
    assert score.ci95[1] - score.ci95[0] < high - low  # hard clips are hard both times


def test_intervals_of_the_drop_cover_the_truth() -> None:
    rng, inside = np.random.default_rng(1), 0
    few = BOOTSTRAP.model_copy(update={"resamples": 300})
    for _ in range(200):
        clean, corrupted = predictions(rng, 0.8, 0.7)
        low, high = drop(clean, corrupted, few).ci95
        inside += low <= 0.1 <= high
    # 0.975 in 1,000 trials: seeds and groups are drawn apart, which counts the noise of single predictions twice.
    assert inside / 200 == pytest.approx(0.97, abs=0.03)


def test_nothing_is_lost_where_nothing_changes() -> None:
    clean, _ = predictions(np.random.default_rng(2), 0.8, 0.7)
    score = drop(clean, clean)
    assert score.drop == 0
    assert score.ci95[0] <= 0 <= score.ci95[1]


def test_a_corruption_scores_the_same_alone_and_beside_others() -> None:
    rng = np.random.default_rng(3)
    clean, louder = predictions(rng, 0.8, 0.5)
    _, quieter = predictions(rng, 0.8, 0.7)
    both = {"noise:0dB": items(louder), "noise:20dB": items(quieter)}
    together = score_corrupted(items(clean), both, BOOTSTRAP)
    assert together == {"noise:0dB": drop(clean, louder), "noise:20dB": drop(clean, quieter)}
    assert together["noise:0dB"].drop > together["noise:20dB"].drop


@pytest.mark.parametrize(
    ("drops", "expected"),
    [
        ({}, None),
        ({"white": {10.0: 0.2}}, None),
        ({"white": {20.0: 0.01, 10.0: 0.09, 0.0: 0.4}}, ("white", 15.0, "at")),
        ({"white": {0.0: 0.4, 10.0: 0.09, 20.0: 0.01}}, ("white", 15.0, "at")),  # in any order
        ({"white": {20.0: 0.06, 10.0: 0.09}}, ("white", 20.0, "above")),
        ({"white": {20.0: -0.01, 10.0: 0.049}}, ("white", 10.0, "below")),
        ({"white": {20.0: 0.0, 10.0: 0.05}}, ("white", 10.0, "at")),
        # Not monotone: the first crossing from the least noise on.
        ({"white": {30.0: 0.0, 20.0: 0.1, 10.0: 0.02, 0.0: 0.3}}, ("white", 25.0, "at")),
        ({"pink": {20.0: 0.0, 10.0: 0.1}, "white": {10.0: 0.3}}, ("pink", 15.0, "at")),
    ],
)
def test_the_noise_that_costs_five_points(
    drops: dict[str, dict[float, float]], expected: tuple[str, float, str] | None
) -> None:
    limit = noise_limit(drops)
    if expected is None:
        assert limit is None
        return
    assert limit is not None
    assert (limit.colour, limit.bound) == (expected[0], expected[2])
    assert limit.snr_db == pytest.approx(expected[1])
    assert f"{limit.snr_db:.3g} dB of {limit.colour} noise" in limit_text(limit)


def test_the_cosine_is_that_of_numpy() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 20, 5)).astype(np.float32)
    plain = np.mean([x @ y / np.linalg.norm(x) / np.linalg.norm(y) for x, y in zip(a, b, strict=True)])
    assert mean_cosine(a, b) == pytest.approx(plain, abs=1e-6)
    assert mean_cosine(np.zeros((2, 3)), np.ones((2, 3))) == 0
