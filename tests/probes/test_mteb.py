"""The protocol maeb-2, against scikit-learn on arrays that other code draws, and through the command line."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import MiniBatchKMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    label_ranking_average_precision_score,
    v_measure_score,
)
from sklearn.model_selection import KFold

from conftest import Command
from probes.made_data import card, frame_task, multi_label, shuffled, single_label, task_data
from uwbench.cards.find import find_protocol
from uwbench.cards.protocol import Protocol
from uwbench.errors import InputError, ProbeError
from uwbench.probes.data import TaskData
from uwbench.probes.mteb.draws import undersample, undersamples, undersamples_of_sets
from uwbench.probes.mteb.multilabel import ranking_precision
from uwbench.probes.mteb.pairs import SIMILARITIES, best_thresholds, draw_pairs, similarities
from uwbench.probes.run import run_probes
from uwbench.results.bootstrap import score_weighted, seed_scores
from uwbench.results.items import Items, read_items

MAEB = find_protocol("maeb-2")
CODES = st.lists(st.integers(0, 5), min_size=1, max_size=80)


def with_settings(method: str, **fields: object) -> Protocol:
    methods = {**MAEB.methods, method: {**MAEB.methods[method], **fields}}
    return MAEB.model_copy(update={"methods": methods})


def in_folds(data: TaskData, groups: int = 3) -> TaskData:
    """The same clips with published folds."""
    folds = [str(row % groups) for row in range(len(data.ids))]
    return replace(data, card=card(folds=["0", "1", "2"]), splits=None, folds=folds)


def drawn_by_pandas(labels: np.ndarray, per_class: int, orders: int, size: int) -> list[np.ndarray]:
    """Each draw composes one permutation with itself once more and takes the first clips of each class."""
    permutation = np.arange(size)
    np.random.RandomState(42).shuffle(permutation)
    order, draws = np.arange(size), []
    for _ in range(orders):
        order = order[permutation]
        draws.append(pd.Series(order).groupby(labels[order]).head(per_class).to_numpy())
    return draws


def accuracy_of(x: np.ndarray, y: np.ndarray, train: np.ndarray, test: np.ndarray) -> tuple[float, float]:
    guesses = LogisticRegression(max_iter=100, random_state=42).fit(x[train], y[train]).predict(x[test])
    return float(accuracy_score(y[test], guesses)), float(f1_score(y[test], guesses, average="macro"))


def test_classification_with_a_test_part_is_ten_regressions_on_eight_clips_per_class() -> None:
    data = single_label(spread=1.5)
    outcome = run_probes(data, MAEB, methods=["mteb-classification"])
    score = outcome.scores["mteb-classification"]
    x, y, splits = data.pooled[:, 0], np.array(data.labels), np.array(data.splits)
    train, test = np.flatnonzero(splits == "train"), np.flatnonzero(splits == "test")
    draws = drawn_by_pandas(y[train], 8, 10, len(train))
    expected = [accuracy_of(x, y, train[places], test) for places in draws]
    assert score.per_seed == tuple(accuracy for accuracy, _ in expected)
    assert score.raw["f1"] == pytest.approx(np.mean([f1 for _, f1 in expected]))
    assert {len(places) for places in draws} == {32}
    assert len(set(score.per_seed)) > 3  # the draws differ
    assert score.settings == MAEB.methods["mteb-classification"]
    low, high = score.ci95 or (0, 0)
    assert min(score.per_seed) < low < score.main_score < high < max(score.per_seed)
    items = read_items(outcome.predictions, "mteb-classification", "accuracy")
    assert seed_scores(items).tolist() == pytest.approx(list(score.per_seed))


def test_classification_of_one_part_shuffles_its_folds_over_clips_and_ignores_published_ones() -> None:
    data = in_folds(single_label(n=242, spread=1.5))  # 242: the folds differ in size
    outcome = run_probes(data, MAEB, methods=["mteb-classification"])
    score = outcome.scores["mteb-classification"]
    x, y = data.pooled[:, 0], np.array(data.labels)
    folds = list(KFold(5, shuffle=True, random_state=42).split(x))
    first = len(folds[0][0])
    orders = drawn_by_pandas(np.zeros(first), first, 5, first)  # all clips of the first fold's training part
    expected = []
    for (train, test), order in zip(folds, orders, strict=True):
        chosen = pd.Series(order).groupby(y[train][order]).head(8).to_numpy()
        expected.append(accuracy_of(x, y, train[chosen], test)[0])
    assert list(score.per_fold.values()) == expected
    assert score.main_score == pytest.approx(np.mean(expected))
    items = read_items(outcome.predictions, "mteb-classification", "accuracy")
    assert len(items.ids) == 242
    assert float(seed_scores(items, of_folds=MAEB.metric_of_folds("mteb-classification"))[0]) == score.main_score
    split = single_label(n=242, spread=1.5)
    one_part = with_settings("mteb-classification", in_one_part=["made"])
    assert run_probes(split, one_part, methods=["mteb-classification"]).scores["mteb-classification"].per_fold == (
        score.per_fold
    )


@given(CODES, st.integers(1, 9), st.integers(0, 3))
def test_a_draw_has_each_class_as_often_as_it_can(codes: list[int], per_class: int, seed: int) -> None:
    total = Counter(codes)
    draws = undersamples(np.array(codes), per_class, 4, seed)
    for places in draws:
        drawn = Counter(codes[place] for place in places)
        assert drawn == {code: min(per_class, count) for code, count in total.items()}
        assert len(set(places.tolist())) == len(places)
    if per_class >= max(total.values()):
        assert all(sorted(places) == list(range(len(codes))) for places in draws)


@given(CODES, st.integers(0, 3))
def test_a_draw_goes_on_from_the_order_before(codes: list[int], seed: int) -> None:
    everything = len(codes)
    array = np.array(codes)
    first, order = undersample(array, everything, seed)
    assert first.tolist() == order
    second, again = undersample(array, everything, seed, order)
    assert sorted(second) == list(range(everything))
    assert [order[order[place]] for place in range(everything)] == again  # one permutation, composed with itself


@given(
    st.lists(st.sets(st.integers(0, 4), max_size=3).map(sorted), min_size=1, max_size=60),
    st.integers(1, 6),
)
def test_a_draw_of_several_labels_has_enough_of_each(sets: list[list[int]], per_class: int) -> None:
    total = Counter(code for of_clip in sets for code in of_clip)
    for places in undersamples_of_sets(sets, per_class, 3, 42):
        drawn = Counter(code for place in places for code in sets[place])
        assert all(drawn[code] >= min(per_class, count) for code, count in total.items())
        assert all(sets[place] for place in places)
        assert len(set(places.tolist())) == len(places)


def test_several_labels_are_a_regression_each_and_scored_by_ranking_precision() -> None:
    data = multi_label()
    outcome = run_probes(data, with_settings("mteb-multilabel", experiments=3), methods=["mteb-multilabel"])
    score = outcome.scores["mteb-multilabel"]
    x, splits = data.pooled[:, 0], np.array(data.splits)
    relevant = np.array([[f"c{code}" in labels for code in range(5)] for labels in data.labels])
    train, test = np.flatnonzero(splits == "train"), np.flatnonzero(splits == "test")
    rng, expected, exact = np.random.default_rng(42), [], []
    for _ in range(3):
        order = list(range(len(train)))
        rng.shuffle(order)
        counts, chosen = np.zeros(5, int), []
        for place in order:
            if (counts[relevant[train[place]]] < 8).any():
                counts += relevant[train[place]]
                chosen.append(train[place])
        fitted = [LogisticRegression().fit(x[chosen], relevant[chosen, code]) for code in range(5)]
        chances = np.stack([model.predict_proba(x[test])[:, 1] for model in fitted], axis=1)
        expected.append(label_ranking_average_precision_score(relevant[test], chances))
        exact.append(((chances > 0.5) == relevant[test]).all(axis=1).mean())
    assert list(score.per_seed) == pytest.approx(expected)
    assert score.raw["accuracy"] == pytest.approx(np.mean(exact))
    assert (score.chance or 0) < score.main_score
    items = read_items(outcome.predictions, "mteb-multilabel", "lrap")
    assert seed_scores(items).tolist() == pytest.approx(list(score.per_seed), abs=1e-6)


@given(st.integers(1, 6), st.integers(0, 1000))
def test_ranking_precision_is_that_of_scikit_learn(classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    relevant, scores = rng.random((7, classes)) < 0.4, rng.integers(0, 4, (7, classes)) / 4  # with ties
    expected = [label_ranking_average_precision_score(relevant[[row]], scores[[row]]) for row in range(7)]
    assert ranking_precision(relevant, scores).tolist() == pytest.approx(expected)


def test_clustering_is_mini_batch_k_means_on_samples_with_replacement() -> None:
    data = single_label(spread=1.0)
    rules = with_settings("mteb-clustering", clips=700, experiments=4)
    outcome = run_probes(data, rules, methods=["mteb-clustering"])
    score = outcome.scores["mteb-clustering"]
    test = np.array(data.splits) == "test"
    x, y = data.pooled[test, 0], np.array(data.labels)[test]
    rng, expected = random.Random(42), []
    for _ in range(4):
        places = [int(rng.random() * len(x)) for _ in range(700)]
        model = MiniBatchKMeans(4, batch_size=512, n_init=1, random_state=42)  # pyright: ignore[reportArgumentType]
        expected.append(float(v_measure_score(y[places], model.fit_predict(x[places]))))
    assert list(score.per_seed) == pytest.approx(expected)
    items = read_items(outcome.predictions, "mteb-clustering", "v-measure")
    assert float(seed_scores(items)[0]) == pytest.approx(score.main_score)
    assert items.n_clusters == 4
    whole = run_probes(in_folds(data), rules, methods=["mteb-clustering"]).scores["mteb-clustering"]
    assert whole.chosen["clips"] == 240


@given(CODES, st.integers(2, 100))
def test_pairs_are_of_one_class_and_of_two_in_halves(codes: list[int], limit: int) -> None:
    array = np.array(codes)
    first, second, target = draw_pairs(array, limit, 42)
    assert (first != second).all()
    assert ((array[first] == array[second]) == target).all()
    assert len(set(first.tolist())) == len(first) <= min(limit, len(codes))
    sizes = Counter(codes)
    if len(sizes) > 1 and min(sizes.values()) > 1:
        assert len(first) == min(limit, len(codes))
        assert target.sum() == (len(first) + 1) // 2


def test_pairs_are_scored_by_the_best_of_four_similarities() -> None:
    data = single_label(n=300, spread=1.0)
    outcome = run_probes(data, MAEB, methods=["mteb-pairs"])
    score = outcome.scores["mteb-pairs"]
    table = outcome.predictions.to_pylist()
    rows = {name: row for row, name in enumerate(data.ids)}
    pairs = np.array([[rows[name] for name in json.loads(row["id"])] for row in table])
    target = np.array([row["truth"] == "true" for row in table])
    one, two = (data.pooled[pairs[:, side], 0].astype(float) for side in (0, 1))
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    values = {
        "cosine": (one * two).sum(axis=1) / norms,
        "dot": (one * two).sum(axis=1),
        "euclidean": -np.linalg.norm(one - two, axis=1),
        "manhattan": -np.abs(one - two).sum(axis=1),
    }
    expected = {name: average_precision_score(target, column) for name, column in values.items()}
    assert {name: score.raw[f"{name} ap"] for name in SIMILARITIES} == pytest.approx(expected, abs=1e-6)
    assert score.main_score == pytest.approx(max(expected.values()), abs=1e-6)
    right = {
        name: max(((column >= v) == target).mean() for v in np.sort(column)[1:]) for name, column in values.items()
    }
    assert score.raw["max accuracy"] == pytest.approx(max(right.values()))
    items = read_items(outcome.predictions, "mteb-pairs", "max-ap")
    assert float(seed_scores(items)[0]) == pytest.approx(score.main_score, abs=1e-9)
    splits = np.array(data.splits)
    assert set(splits[pairs.ravel()]) == {"test"}


def f1_of(target: np.ndarray, answer: np.ndarray) -> float:
    return 2 * float((target & answer).sum()) / float(target.sum() + answer.sum())


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=30))
def test_thresholds_are_the_best_of_all_between_two_similarities(pairs: list[tuple[int, bool]]) -> None:
    similarity, target = np.array([value for value, _ in pairs], np.float32), np.array([hit for _, hit in pairs])
    levels = np.unique(similarity)
    answers = [similarity >= level for level in levels[1:]]
    best = best_thresholds(similarity, target)
    assert best.accuracy == pytest.approx(max(((answer == target).mean() for answer in answers), default=0))
    assert best.f1 == pytest.approx(max((f1_of(target, answer) for answer in answers), default=0))
    if answers:
        assert ((similarity >= best.threshold) == target).mean() == pytest.approx(best.accuracy)


def test_pairs_weigh_as_the_groups_of_their_clips_are_drawn() -> None:
    rng = np.random.default_rng(0)
    first, second, target = rng.integers(0, 6, 40), rng.integers(0, 6, 40), rng.random(40) < 0.5
    counts = rng.normal(size=(1, 40, 2)) + target[None, :, None]
    ids = np.array([f"pair {row}" for row in range(40)])
    items = Items("max-ap", ids, first, np.zeros(40, int), (0,), truth=target, counts=counts, second=second)
    weights = rng.integers(0, 3, (5, 6)).astype(np.float32)
    for row, drawn in zip(score_weighted(items, weights), weights, strict=True):
        of_pair = np.where(first == second, drawn[first], drawn[first] * drawn[second])
        expected = max(average_precision_score(target, counts[0, :, c], sample_weight=of_pair) for c in (0, 1))
        assert float(row[0]) == pytest.approx(expected)


def test_similarities_of_many_pairs_are_those_of_each() -> None:
    vectors = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    first, second = np.arange(9000) % 50, np.arange(9000) // 50 % 50
    assert (similarities(vectors, first, second)[-1:] == similarities(vectors, first[-1:], second[-1:])).all()


@pytest.mark.parametrize("data", [single_label(), in_folds(single_label())], ids=["splits", "folds"])
def test_the_order_of_clips_changes_no_score(data: TaskData) -> None:
    first, second = (run_probes(some, MAEB, methods=MAEB.headline) for some in (data, shuffled(data, 2)))
    assert first.predictions.equals(second.predictions)
    assert first.scores == second.scores


def test_what_mteb_has_no_rule_for_is_refused() -> None:
    with pytest.raises(ProbeError, match="maeb-2 runs none of"):
        run_probes(frame_task(), MAEB, methods=MAEB.headline)
    with pytest.raises(ProbeError, match="maeb-2 runs none of mlp"):
        run_probes(single_label(), MAEB, methods=["mlp"])
    few = task_data(card(folds=["0", "1"]), np.eye(4), list("abab"), folds=["0", "0", "1", "1"])
    with pytest.raises(ProbeError, match="4 clips are too few for 5 folds"):
        run_probes(few, MAEB, methods=["mteb-classification"])
    one = single_label(classes=1)
    with pytest.raises(ProbeError, match="of one class"):
        run_probes(one, MAEB, methods=["mteb-classification"])
    with pytest.raises(ProbeError, match="no pairs of one class, or none of two"):
        run_probes(one, MAEB, methods=["mteb-pairs"])
    labels = [("c0",) if row % 2 else ("c0", "c1") for row in range(240)]
    with pytest.raises(ProbeError, match="with and without 'c0'"):
        run_probes(replace(multi_label(), labels=labels), MAEB, methods=["mteb-multilabel"])
    with pytest.raises(InputError, match=r"protocol maeb-2: methods\.mteb-pairs\.pairs"):
        run_probes(single_label(), with_settings("mteb-pairs", pairs=0), methods=["mteb-pairs"])


def test_a_run_by_the_protocol_is_labelled_and_stays_on_its_own_board(uwbench: Command, tmp_path: Path) -> None:
    done = uwbench("run", "-m", "logmel", "-t", "mini_sound", "--protocol", "maeb-2")
    assert done.code == 0, done.err
    assert "mteb classification" in done.out
    assert "caveat: Folds are shuffled over clips" in " ".join(done.out.split())
    other = uwbench("run", "-m", "mfcc", "-t", "mini_sound", "--method", "knn")
    assert "caveat" not in other.out
    board = uwbench("leaderboard", "--protocol", "maeb-2")
    assert "caveat: Folds are shuffled over clips" in " ".join(board.out.split())
    assert "mfcc" not in board.out
    ours = json.loads(uwbench("leaderboard", "--json").out)
    assert {row["method"] for row in ours["scores"]} == {"knn"}
    assert "caveats" not in ours
    theirs = json.loads(uwbench("leaderboard", "--protocol", "maeb-2", "--method", "default", "--json").out)
    assert {row["method"] for row in theirs["scores"]} == set(MAEB.headline) - {"mteb-multilabel"}
    assert theirs["caveats"] == list(MAEB.caveats)
    for name in ("board.md", "board.html"):
        assert uwbench("leaderboard", "--protocol", "maeb-2", "--output", name).code == 0
        assert "whatever the task has" in next(tmp_path.rglob(name)).read_text(encoding="utf-8")
    (result,) = tmp_path.rglob("maeb-2/mini_sound.json")
    assert uwbench("reproduce", str(result)).code == 0
