"""Metrics equal scikit-learn's, or a count by hand if it has none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from uwbench.errors import ProbeError
from uwbench.results import metrics

SEEDS = st.integers(0, 10_000)


@given(SEEDS, st.integers(1, 60), st.integers(1, 6))
def test_label_metrics_equal_scikit_learn(seed: int, n: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    truth, predicted = rng.integers(0, classes, n), rng.integers(0, classes + 1, n)
    assert metrics.accuracy(truth, predicted) == pytest.approx(sk.accuracy_score(truth, predicted))
    assert metrics.macro_f1(truth, predicted) == pytest.approx(sk.f1_score(truth, predicted, average="macro"))


@given(SEEDS, st.integers(1, 60), st.booleans())
def test_average_precision_equals_scikit_learn(seed: int, n: int, tied: bool) -> None:
    rng = np.random.default_rng(seed)
    relevant, scores = rng.random((n, 4)) < 0.3, rng.random((n, 4))
    if tied:
        scores = scores.round(1)
    present = relevant.any(axis=0)
    expected = [sk.average_precision_score(relevant[:, c], scores[:, c]) for c in np.flatnonzero(present)]
    mean = pytest.approx(np.mean(expected) if expected else 0, abs=1e-12)
    assert metrics.mean_average_precision(relevant, scores) == mean
    assert metrics.weighted_map(relevant, scores, np.arange(n), np.ones((n, 2), np.float32)).tolist() == [mean, mean]


@given(SEEDS, st.integers(1, 60), st.integers(1, 60), st.booleans())
def test_weighted_average_precision_equals_scikit_learn(seed: int, n: int, groups: int, tied: bool) -> None:
    rng = np.random.default_rng(seed)
    clusters = rng.integers(0, groups, n)
    weights = rng.integers(0, 4, (groups, 3)).astype(np.float32)
    relevant, scores = rng.random((n, 4)) < 0.3, rng.random((n, 4))
    if tied:
        scores = scores.round(1)
    values = metrics.weighted_map(relevant, scores, clusters, weights)
    for value, drawn in zip(values, weights.T, strict=True):
        of_items = drawn[clusters]
        present = [c for c in range(4) if of_items[relevant[:, c]].sum() > 0]
        expected = [sk.average_precision_score(relevant[:, c], scores[:, c], sample_weight=of_items) for c in present]
        assert value == pytest.approx(np.mean(expected) if expected else 0, abs=1e-12)


@given(SEEDS, st.integers(1, 40), st.sampled_from(["micro", "macro"]))
def test_segment_f1_equals_scikit_learn(seed: int, n: int, average: str) -> None:
    rng = np.random.default_rng(seed)
    truth, predicted = rng.random((n, 5)) < 0.4, rng.random((n, 5)) < 0.4
    truth[:, 0] = predicted[:, 0] = True
    present = (truth | predicted).any(axis=0)  # scikit-learn would count an absent class as 0
    counts = metrics.segment_counts(truth, predicted)
    expected = sk.f1_score(truth[:, present], predicted[:, present], average=average)
    assert metrics.f1_from_counts(counts, average=average) == pytest.approx(expected)


def test_f1_of_nothing_is_zero() -> None:
    assert metrics.f1_from_counts(np.zeros(6), average="macro") == 0
    assert metrics.f1_from_counts(np.zeros(6), average="micro") == 0


@pytest.mark.parametrize(
    ("truth", "predicted", "errors", "words"),
    [
        ("a b c", "a b c", 0, 3),
        ("a b c", "a x c d", 2, 3),
        ("a b c", "", 3, 3),
        ("", "a b", 2, 0),
    ],
)
def test_word_errors(truth: str, predicted: str, errors: int, words: int) -> None:
    assert metrics.word_errors(truth, predicted) == (errors, words)


def test_one_minus_wer_never_falls_below_zero() -> None:
    assert metrics.one_minus_wer(1, 4) == 0.75
    assert metrics.one_minus_wer(9, 4) == 0
    assert metrics.one_minus_wer(0, 0) == 1


def test_recall_at_1_takes_the_first_of_equals() -> None:
    similarity = np.array([[0.9, 0.1, 0.3], [0.5, 0.5, 0.1], [0.1, 0.2, 0.8]])
    relevant = np.eye(3, dtype=bool)
    assert metrics.recall_at_1(similarity, relevant).tolist() == [True, False, True]


def test_nothing_to_score_is_an_error() -> None:
    with pytest.raises(ProbeError, match="at least one"):
        metrics.accuracy(np.zeros(0, int), np.zeros(0, int))
    with pytest.raises(ProbeError, match="as many predictions"):
        metrics.macro_f1(np.zeros(2, int), np.zeros(3, int))
