"""Intervals cover the true score, averages follow their formulas, and results that do not match are not averaged."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from report.made_results import BOOTSTRAP, TASKS, MadeTask, make_result, predictions
from uwbench.cards.protocol import Bootstrap
from uwbench.cards.suite import Suite
from uwbench.errors import InputError, UsageError
from uwbench.results.averages import Entry, average_entries, averages, borda, combine, interval, rank_by
from uwbench.results.bootstrap import (
    cluster_counts,
    generator,
    holm,
    replicates,
    score_interval,
    score_weighted,
    seed_scores,
)
from uwbench.results.items import Items, read_items
from uwbench.results.record import read_result

SUITE = Suite(name="made", version=1, title="Made up", tasks=tuple(task.name for task in TASKS))


def table_of(task: MadeTask, skill: float = 0.7) -> pa.Table:
    return predictions(task, {"mlp": skill, "knn": skill - 0.1}, np.random.default_rng(0))


def expanded(items: Items, weights: np.ndarray) -> np.ndarray:
    """Return the rows of the items, each as often as its cluster was drawn."""
    return np.repeat(np.arange(len(items.ids)), weights[items.clusters].astype(int))


@pytest.mark.parametrize("task", TASKS[:3], ids=lambda task: task.name)
def test_accuracy_of_a_resample_is_the_accuracy_of_its_rows(task: MadeTask) -> None:
    items = read_items(table_of(task), "mlp", "accuracy")
    assert items.truth is not None
    assert items.predicted is not None
    weights = cluster_counts(items.n_clusters, 20, np.random.default_rng(1))
    scores = score_weighted(items, weights)
    for row in range(20):
        drawn = expanded(items, weights[row])
        expected = (items.predicted[:, drawn] == items.truth[drawn]).mean(axis=1)
        np.testing.assert_allclose(scores[row], expected, atol=1e-12)


def test_macro_f1_and_map_of_a_resample_equal_scikit_learn() -> None:
    from sklearn.metrics import average_precision_score, f1_score

    items = read_items(table_of(TASKS[0]), "mlp", "macro-f1")
    weights = cluster_counts(items.n_clusters, 5, np.random.default_rng(2))
    scores = score_weighted(items, weights)
    assert items.truth is not None
    assert items.predicted is not None
    for row in range(5):
        drawn = expanded(items, weights[row])
        for seed in range(5):
            expected = f1_score(items.truth[drawn], items.predicted[seed, drawn], average="macro")
            assert scores[row, seed] == pytest.approx(expected, abs=1e-6)
    items = read_items(table_of(TASKS[3]), "mlp", "map")
    assert items.relevant is not None
    assert items.scores is not None
    items.scores[:] = np.round(items.scores, 1)  # ties
    weights = cluster_counts(items.n_clusters, 5, np.random.default_rng(2))
    scores = score_weighted(items, weights)
    for row in range(5):
        drawn = expanded(items, weights[row])
        expected = average_precision_score(items.relevant[drawn], items.scores[0, drawn])
        assert scores[row, 0] == pytest.approx(expected, abs=1e-6)


def test_counts_are_summed_before_f1_and_word_error_rate() -> None:
    counts = np.array([[[3, 1, 0, 2, 1, 0], [1, 0, 1, 0, 1, 0]]], np.float32)  # two clips: tp of 2 classes, fp, fn
    items = Items("segment-f1-macro", np.array(["a", "b"]), np.array([0, 1]), np.zeros(2, int), (0,), counts=counts)
    first, second = 8 / (8 + 1 + 2), 2 / (2 + 2 + 0)
    assert seed_scores(items)[0] == pytest.approx((first + second) / 2)
    words = np.array([[[2, 10], [1, 5]]], np.float32)
    items = Items("one-minus-wer", np.array(["a", "b"]), np.array([0, 1]), np.zeros(2, int), (0,), counts=words)
    assert seed_scores(items)[0] == pytest.approx(1 - 3 / 15)


def test_folds_are_pooled_or_averaged_as_asked() -> None:
    items = Items(
        "accuracy",
        np.array(["a", "b", "c", "d"]),
        np.arange(4),
        np.array([0, 0, 0, 1]),
        (0,),
        truth=np.zeros(4, int),
        predicted=np.array([[0, 0, 1, 1]]),
    )
    assert seed_scores(items)[0] == 0.5
    assert seed_scores(items, of_folds="mean")[0] == pytest.approx((2 / 3 + 0) / 2)


def simulated(rng: np.random.Generator, clusters: int, size: int, spread: float, accuracy: float = 0.75) -> Items:
    """Return five seeds on clustered items with a known true accuracy.

    The accuracy of a cluster is beta distributed around it; the seeds agree, as probes of one embedding nearly do.
    """
    strength = 1 / spread - 1 if spread else None
    chances = np.full(clusters, accuracy)
    if strength is not None:
        chances = rng.beta(accuracy * strength, (1 - accuracy) * strength, clusters)
    cluster = np.repeat(np.arange(clusters), size)
    right = rng.random(clusters * size) < chances[cluster]
    return Items(
        "accuracy",
        np.arange(clusters * size).astype(str),
        cluster,
        np.zeros(clusters * size, int),
        tuple(range(5)),
        truth=np.ones(clusters * size, int),
        predicted=np.repeat(right[None].astype(int), 5, axis=0),
    )


def interval_of(items: Items, rng: np.random.Generator) -> tuple[float, float]:
    values = replicates(items, 300, rng, rng)
    return score_interval(float(seed_scores(items).mean()), values, 0.95, items.n_clusters)


@pytest.mark.parametrize(
    ("clusters", "size", "spread", "accuracy"),
    [
        (300, 1, 0.0, 0.75),
        (300, 1, 0.0, 0.97),
        (40, 8, 0.2, 0.75),
        (20, 10, 0.1, 0.75),
        (20, 10, 0.1, 0.95),
        (10, 20, 0.1, 0.9),
    ],
)
def test_intervals_cover_the_true_accuracy_95_times_in_100(
    clusters: int, size: int, spread: float, accuracy: float
) -> None:
    rng, covered, runs = np.random.default_rng(5), 0, 2000
    for _ in range(runs):
        items = simulated(rng, clusters, size, spread, accuracy)
        low, high = interval_of(items, rng)
        covered += low <= accuracy <= high
    assert abs(covered / runs - 0.95) < 0.02


def test_drawing_items_without_clusters_would_not_cover() -> None:
    rng, covered = np.random.default_rng(5), 0
    for _ in range(300):
        items = simulated(rng, 40, 8, 0.2)
        unclustered = Items(
            items.metric, items.ids, np.arange(320), items.folds, items.seeds, items.truth, items.predicted
        )
        low, high = interval_of(unclustered, rng)
        covered += low <= 0.75 <= high
    assert covered / 300 < 0.9  # which is why clusters are drawn


def test_an_interval_of_a_perfect_score_still_has_a_width() -> None:
    low, high = score_interval(1.0, np.ones(100), 0.95, 60)
    assert high == 1.0
    assert 1 - low == pytest.approx(0.0596, abs=1e-3)  # Clopper-Pearson for 60 of 60
    assert score_interval(1.0, np.ones(100), 0.95, 1) == (0.0, 1.0)
    n = np.arange(60)
    items = Items("accuracy", n.astype(str), n, n * 0, tuple(range(5)), truth=n, predicted=np.tile(n, (5, 1)))
    drawn = interval_of(items, generator(1))
    assert drawn == pytest.approx((low, 1.0))


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_an_interval_holds_the_score_and_is_the_same_each_time(task: MadeTask) -> None:
    table = table_of(task)
    low, high = interval(table, "mlp", task.metric, BOOTSTRAP)
    score = seed_scores(read_items(table, "mlp", task.metric)).mean()
    assert 0 <= low < score < high <= 1
    shuffled = table.take(np.random.default_rng(3).permutation(table.num_rows))
    assert interval(shuffled, "mlp", task.metric, BOOTSTRAP) == (low, high)


def test_seeds_with_different_items_are_refused() -> None:
    table = table_of(TASKS[0])
    with pytest.raises(InputError, match="nothing of nearest"):
        interval(table, "nearest", "accuracy", BOOTSTRAP)
    with pytest.raises(InputError, match="same items"):
        interval(table.slice(1), "mlp", "accuracy", BOOTSTRAP)


def test_seeds_that_differ_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    truth = np.ones(400, int)
    steady = np.repeat((rng.random((1, 400)) < 0.7).astype(int), 5, axis=0)
    shaky = (rng.random((5, 400)) < np.array([0.5, 0.6, 0.7, 0.8, 0.9])[:, None]).astype(int)
    width = []
    for predicted in (steady, shaky):
        items = Items("accuracy", truth.astype(str), np.arange(400), truth * 0, tuple(range(5)), truth, predicted)
        low, high = interval_of(items, generator(1))
        width.append(high - low)
    assert width[1] > 1.5 * width[0]


def test_xares_knn_averages_follow_from_its_published_table() -> None:
    reference = Path(__file__).parents[2] / "results" / "reference"
    published = {"dasheng-base": 0.504, "wav2vec2-base": 0.262, "whisper-base": 0.299, "data2vec-base": 0.388}
    with (reference / "published_tasks.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["method"] == "knn" and row["source"].startswith("X-ARES")]
    for model, expected in published.items():
        entries = [
            Entry(row["task"], row["domain"], float(row["weight"]), 0.0, float(row["score"]))
            for row in rows
            if row["model"] == model
        ]
        assert average_entries(entries)["weighted"].score == pytest.approx(expected, abs=0.001)


def test_the_four_averages_equal_a_calculation_by_hand() -> None:
    entries = [
        Entry("a", "speech", 3.0, 0.5, 0.9, 0.8, 1.0),
        Entry("b", "speech", 1.0, 0.0, 0.5, 0.4, 0.6),
        Entry("c", "music", 1.0, 0.2, 0.1, 0.0, 0.3),
    ]
    computed = average_entries(entries, of=4)
    assert computed["weighted"].score == pytest.approx((2.7 + 0.5 + 0.1) / 5)
    assert computed["domain"].score == pytest.approx((0.7 + 0.1) / 2)
    assert computed["task"].score == pytest.approx(0.5)
    assert computed["chance"].score == pytest.approx((0.8 + 0.5 + 0.0) / 3)  # below chance counts as chance
    assert computed["task"].low == pytest.approx(0.5 - np.sqrt(0.03) / 3)
    assert computed["task"].high == pytest.approx(0.5 + np.sqrt(0.06) / 3)
    assert (computed["task"].tasks, computed["task"].of) == (("a", "b", "c"), 4)


def test_an_average_without_all_intervals_has_none() -> None:
    entries = [Entry("a", "speech", 1.0, 0.0, 0.9, 0.8, 1.0), Entry("b", "speech", 1.0, 0.0, 0.5)]
    assert average_entries(entries)["task"].low is None


@given(
    st.lists(
        st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0.1, 1e4), st.floats(0, 0.9)), min_size=1, max_size=8
    )
)
def test_averages_lie_between_their_tasks(rows: list[tuple[float, float, float, float]]) -> None:
    entries = [
        Entry(f"t{i}", ("speech", "sound", "music")[i % 3], weight, chance, max(a, b), min(a, b), 1.0)
        for i, (a, b, weight, chance) in enumerate(rows)
    ]
    scores = [entry.score for entry in entries]
    for name, average in average_entries(entries).items():
        assert average.low is not None
        assert average.high is not None
        assert 0 <= average.low <= average.score + 1e-12
        assert average.score <= average.high + 1e-12 <= 1 + 1e-11
        if name != "chance":
            assert min(scores) - 1e-12 <= average.score <= max(scores) + 1e-12


def test_average_intervals_agree_with_resampling_all_tasks(tmp_path: Path) -> None:
    results = [read_result(make_result(tmp_path, "m", task, 0.7)) for task in TASKS]
    computed = averages(results, SUITE, "mlp")
    draws = []
    for task in TASKS:
        items = read_items(predictions_at(tmp_path, task), "mlp", task.metric)
        draws.append(replicates(items, 2000, generator(task.name), generator(task.name, "seeds")))
    entries = [Entry(t.name, t.domain, t.weight, 0.0, 0.5) for t in TASKS]
    low, high = np.quantile(combine("weighted", entries, np.stack(draws)), [0.025, 0.975])
    width = high - low
    assert computed["weighted"].low == pytest.approx(low, abs=0.2 * width)
    assert computed["weighted"].high == pytest.approx(high, abs=0.2 * width)


def predictions_at(results: Path, task: MadeTask) -> pa.Table:
    import pyarrow.parquet as pq

    return pq.read_table(next(results.rglob(f"{task.name}.predictions.parquet")))


def test_results_of_different_models_protocols_or_versions_are_not_averaged(tmp_path: Path) -> None:
    first = read_result(make_result(tmp_path, "m", TASKS[0], 0.7))
    later_protocol = read_result(make_result(tmp_path, "m", TASKS[1], 0.7, protocol=("uwbench-1", 2)))
    with pytest.raises(UsageError, match="protocols"):
        averages([first, later_protocol], SUITE, "mlp")
    another_model = read_result(make_result(tmp_path, "another", TASKS[1], 0.7))
    with pytest.raises(UsageError, match="models"):
        averages([first, another_model], SUITE, "mlp")
    newer = first.model_copy(update={"task": first.task.model_copy(update={"version": 2})})
    with pytest.raises(UsageError, match="occurs twice"):
        averages([first, newer], SUITE, "mlp")


def test_holm_equals_a_calculation_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])


def test_ranks_and_borda() -> None:
    assert rank_by({"a": 0.5, "b": 0.7, "c": 0.5}.__getitem__, "abc") == {"b": 1, "a": 2, "c": 2}
    table = {"a": {"x": 0.9, "y": 0.1}, "b": {"x": 0.5, "y": 0.1}, "c": {"x": 0.1, "y": 0.9}}
    assert borda(table) == {"a": 2.5, "b": 1.5, "c": 2.0}


def test_a_large_multi_label_task_takes_seconds() -> None:
    import time

    rng = np.random.default_rng(0)
    relevant = rng.random((2000, 40)) < 0.05
    scores = (relevant + rng.normal(size=(1, 2000, 40))).astype(np.float32)
    n = np.arange(2000)
    items = Items("map", n.astype(str), n, n * 0, (0,), relevant=relevant, scores=scores, classes=40)
    started = time.perf_counter()
    values = replicates(items, 1000, generator(0), generator(1))
    assert values.std() > 0
    assert time.perf_counter() - started < 20  # 200 classes and 10,000 clips are 25 times that work in numpy's loops


def test_predictions_of_the_fixture_are_json() -> None:
    table = table_of(TASKS[3])
    assert json.loads(table.schema.metadata[b"classes"]) == list(TASKS[3].classes)
    assert Bootstrap(resamples=1, level=0.5, seed=0).resamples == 1
