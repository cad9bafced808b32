"""Neighbours and votes equal a plain float64 computation, ties included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.made_data import single_label
from uwbench.cards.find import find_protocol
from uwbench.probes.knn import Neighbours, class_scores, elect, neighbours, unit_rows, xares_bank
from uwbench.probes.run import run_probes


def plain(bank: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    similarity = (queries.astype(np.float64) @ bank.astype(np.float64).T).round(6)
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(similarity, order, axis=1), order


@given(st.integers(0, 1000), st.integers(1, 80), st.sampled_from([1, 5, 20]), st.sampled_from([1, 3, 24]))
@settings(max_examples=25)
def test_neighbours_equal_a_plain_search(seed: int, n: int, k: int, repeats: int) -> None:
    rng = np.random.default_rng(seed)
    bank = unit_rows(np.repeat(rng.normal(size=(n, 8)), repeats, axis=0))  # `repeats` equal vectors: ties
    queries = unit_rows(np.concatenate([rng.normal(size=(7, 8)), bank[:2]]))
    similarity, order = plain(bank, queries, k)
    near = neighbours(bank, queries, k)
    np.testing.assert_allclose(near.similarity, similarity, atol=2e-6)
    np.testing.assert_array_equal(near.index, order)


def test_all_equal_vectors_come_in_the_order_of_the_bank() -> None:
    near = neighbours(unit_rows(np.ones((100, 4))), unit_rows(np.ones((3, 4))), 5)
    assert near.index.tolist() == [[0, 1, 2, 3, 4]] * 3


def test_a_large_bank_is_searched_whole() -> None:
    """20,000 vectors of 200 dimensions, with ties far apart."""
    rng = np.random.default_rng(0)
    bank = unit_rows(rng.normal(size=(20_000, 200)))
    bank[[3, 17_000, 19_999]] = bank[9]
    queries = unit_rows(np.concatenate([bank[9:10], rng.normal(size=(30, 200))]))
    similarity, order = plain(bank, queries, 20)
    near = neighbours(bank, queries, 20)
    np.testing.assert_array_equal(near.index, order)
    np.testing.assert_allclose(near.similarity, similarity, atol=2e-6)
    assert near.index[0, :4].tolist() == [3, 9, 17_000, 19_999]


def test_zero_vectors_stay_zero() -> None:
    assert unit_rows(np.zeros((2, 3))).tolist() == [[0, 0, 0]] * 2


def test_votes_equal_the_formula() -> None:
    rng = np.random.default_rng(0)
    bank, queries = unit_rows(rng.normal(size=(50, 6))), unit_rows(rng.normal(size=(20, 6)))
    codes = rng.integers(0, 4, 50)
    similarity, order = plain(bank, queries, 10)
    weights = np.exp(similarity / 0.07)
    weights /= weights.sum(axis=1, keepdims=True)
    votes = np.stack([(weights * (codes[order] == code)).sum(axis=1) for code in range(4)], axis=1)
    near = neighbours(bank, queries, 20)
    np.testing.assert_array_equal(elect(near, codes, 10, 0.07), votes.argmax(axis=1))
    np.testing.assert_allclose(class_scores(near, np.eye(4)[codes], 10, 0.07), votes, atol=1e-6)


def test_equal_votes_go_to_the_nearer_neighbours_class() -> None:
    near = Neighbours(np.full((1, 4), 0.5), np.array([[3, 0, 1, 2]]))
    assert elect(near, np.array([0, 0, 1, 1]), 4, 0.07).tolist() == [1]


def test_xares_normalises_the_training_matrix_across_clips() -> None:
    values = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
    np.testing.assert_allclose(np.linalg.norm(xares_bank(values), axis=0), 1, rtol=1e-6)


def test_a_run_scores_what_plain_numpy_scores() -> None:
    data = single_label()
    score = run_probes(data, find_protocol("uwbench-1"), methods=["knn"]).scores["knn"]
    assert data.splits is not None
    train, test = ([row for row, name in enumerate(data.splits) if name == part] for part in ("train", "test"))
    codes = np.array([int(str(label)[1:]) for label in data.labels])

    def plain_score(vectors: np.ndarray, k: int) -> float:
        similarity, order = plain(unit_rows(vectors[train]), unit_rows(vectors[test]), k)
        weights = np.exp((similarity - 1) / 0.07)
        near = codes[train][order]
        votes = np.stack([(weights * (near == code)).sum(axis=1) for code in range(4)], axis=1)
        return float((votes.argmax(axis=1) == codes[test]).mean())

    raw = data.pooled[:, 0]
    standardised = (raw - raw[train].mean(axis=0)) / raw[train].std(axis=0)
    for k in (1, 5, 10, 20):
        assert score.raw[f"k={k}"] == pytest.approx(plain_score(raw, k))
        assert score.raw[f"standardised k={k}"] == pytest.approx(plain_score(standardised, k))
    assert score.main_score == score.raw["k=10"]
