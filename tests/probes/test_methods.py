"""Methods beyond the headline, against scikit-learn and numpy on plain arrays, and through the command line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score, average_precision_score, roc_curve, v_measure_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize

from conftest import ROOT, Command
from probes.made_data import card as made_card
from probes.made_data import frame_task, multi_label, shuffled, single_label, spread_over_segments, task_data
from uwbench.cache.clip_table import read_table
from uwbench.cache.store import open_encoders
from uwbench.cards import card
from uwbench.cards.find import find_protocol
from uwbench.cards.protocol import Protocol
from uwbench.errors import InputError
from uwbench.methods import GROUPS, HEADLINE, METHODS, in_order
from uwbench.options import methods_of
from uwbench.probes.data import TaskData
from uwbench.probes.methods.clip_retrieval import expected_precision, rank
from uwbench.probes.methods.few_shot import nested_order
from uwbench.probes.run import run_probes
from uwbench.probes.score_task import load_task_data
from uwbench.results.bootstrap import seed_scores
from uwbench.results.curves import find_crossing, last_crossing
from uwbench.results.detection import equal_error_rate, weighted_error_rates
from uwbench.results.items import read_items
from uwbench.results.record import Score
from worlds import World, coverage, crossings_without_difference, scores_and_intervals

GOLDEN = ROOT / "tests" / "golden" / "esc10-whisper-tiny.en"
UWBENCH, XARES, MAEB = map(find_protocol, ("uwbench-1", "xares-0.1.3", "maeb-2"))


def with_settings(method: str, **fields: object) -> Protocol:
    """The default protocol with other settings of a method."""
    methods = {**UWBENCH.methods, method: {**UWBENCH.methods[method], **fields}}
    return UWBENCH.model_copy(update={"methods": methods})


@pytest.fixture(scope="module")
def esc10() -> TaskData:
    """ESC-10 under Whisper tiny.en, from the golden cache: 400 real clips in five folds."""
    (store,), _ = open_encoders(GOLDEN)
    return load_task_data(store, read_table(GOLDEN, "esc50-c12ceedb"), "mean")


def test_the_protocol_has_settings_of_every_further_method_and_they_move_no_hash() -> None:
    assert set(UWBENCH.methods) == set(METHODS) - set(HEADLINE) - set(MAEB.methods)
    assert UWBENCH.sha256() == "edc30e32d0c6792ce2079d8c8c2f67f85895d99c4e982704e3bf1a1b30e6214b"
    assert XARES.sha256() == "3c3515dbbab5260b5aee9850c7d80a19565c300d8c782c8a6c0096fbfb44e86f"
    assert all(set(info.kinds) <= set(get_args(card.Kind)) for info in METHODS.values())


def test_methods_are_named_one_by_one_or_by_groups() -> None:
    assert methods_of("default") == HEADLINE == ("mlp", "knn")
    assert methods_of("all") == methods_of(["default", "all"]) == tuple(METHODS)
    assert methods_of(["linear", "default", "mlp"]) == ("linear", "mlp", "knn")
    assert methods_of("default", UWBENCH.in_group) == methods_of("all", XARES.in_group) == HEADLINE
    assert set(methods_of("all", UWBENCH.in_group)) == {*HEADLINE, *UWBENCH.methods}
    assert methods_of(["default", "all"], MAEB.in_group) == MAEB.headline == tuple(MAEB.methods)
    assert in_order(["linear", "mlp", "of a later version"]) == ("mlp", "linear")
    assert set(GROUPS).isdisjoint(METHODS)


def test_settings_that_are_wrong_are_refused_by_their_field() -> None:
    with pytest.raises(InputError, match=r"protocol uwbench-1: methods\.linear\.strengths"):
        run_probes(single_label(), with_settings("linear", strengths=[]), methods=["linear"])
    with pytest.raises(InputError, match=r"methods\.linear\.speed"):
        run_probes(single_label(), with_settings("linear", speed=1), methods=["linear"])


def test_linear_is_scikit_learns_regression_at_the_chosen_strength(esc10: TaskData) -> None:
    """On real clips: each fold's predictions are those of a pipeline on plain arrays."""
    outcome = run_probes(esc10, UWBENCH, methods=["linear"])
    score = outcome.scores["linear"]
    x, y, folds = esc10.pooled[:, 0], np.array(esc10.labels), np.array(esc10.folds)
    right = []
    for fold in score.chosen["folds"]:
        train, test = folds != fold["fold"], folds == fold["fold"]
        assert fold["trained_on"] == train.sum()
        model = make_pipeline(StandardScaler(), LogisticRegression(C=fold["strength"], max_iter=500))
        right.extend(model.fit(x[train], y[train]).predict(x[test]) == y[test])
    assert score.main_score == pytest.approx(np.mean(right), abs=0.006)  # two clips of 400
    assert score.settings == UWBENCH.methods["linear"]
    items = read_items(outcome.predictions, "linear", score.metric)
    assert seed_scores(items).tolist() == pytest.approx(list(score.per_seed))
    assert len({fold["strength"] for fold in score.chosen["folds"]} - {0.0001, 10.0}) > 0  # the grid is wide enough


def test_linear_scores_several_labels_by_average_precision() -> None:
    data = multi_label()
    score = run_probes(data, UWBENCH, methods=["linear"]).scores["linear"]
    splits = np.array(data.splits)
    relevant = np.array([[f"c{code}" in labels for code in range(5)] for labels in data.labels])
    model = make_pipeline(
        StandardScaler(), OneVsRestClassifier(LogisticRegression(C=score.chosen["folds"][0]["strength"]))
    )
    model.fit(data.pooled[splits == "train", 0], relevant[splits == "train"])
    guesses = model.predict_proba(data.pooled[splits == "test", 0])
    reference = average_precision_score(relevant[splits == "test"], guesses, average="macro")
    assert score.main_score == pytest.approx(reference, abs=1e-3)


@pytest.mark.parametrize("method", ["linear", "few-shot"])
def test_very_many_clips_and_classes_are_thinned_for_the_final_fit(method: str) -> None:
    """A limit of clips times classes that is just reached changes nothing, one below takes fewer clips."""
    data = single_label(400, classes=5)
    count = list(data.splits or ()).count("train")
    plain, same, fewer = (
        run_probes(data, with_settings(method, train_cells=cells), methods=[method]).scores[method]
        for cells in (20_000_000, 5 * count, 5 * 60)
    )
    assert same.main_score == plain.main_score
    assert trained_on(plain) == trained_on(same) == count
    assert trained_on(fewer) == 60


def trained_on(score: Score) -> float:
    return score.curve[-1].clips if score.curve else score.chosen["folds"][0]["trained_on"]


def test_linear_chooses_its_strength_without_the_test_part() -> None:
    data = single_label(spread=4.0)
    pooled = data.pooled.copy()
    test = np.array(data.splits) == "test"
    pooled[test] = np.random.default_rng(1).normal(size=pooled[test].shape)
    first, second = (run_probes(d, UWBENCH, methods=["linear"]) for d in (data, replace(data, pooled=pooled)))
    assert first.scores["linear"].chosen == second.scores["linear"].chosen
    assert first.scores["linear"].main_score > second.scores["linear"].main_score + 0.1


@pytest.mark.parametrize("method", [name for name in UWBENCH.methods if not METHODS[name].needs_texts])
def test_the_order_of_clips_changes_no_score(method: str) -> None:
    made = spread_over_segments(single_label())
    first, second = (run_probes(data, UWBENCH, methods=[method]) for data in (made, shuffled(made, 2)))
    assert first.scores[method].main_score == pytest.approx(second.scores[method].main_score, abs=1e-6)
    assert first.scores[method].chosen == second.scores[method].chosen


def test_training_clips_of_one_class_and_classes_without_any_are_no_error() -> None:
    data = single_label(120, classes=2)
    labels = ["c0" if split == "train" else label for split, label in zip(data.splits or (), data.labels, strict=True)]
    labels[-1] = "c0"
    alone = replace(data, labels=["c0"] * 120)
    assert run_probes(alone, UWBENCH, methods=["linear"]).scores["linear"].main_score == 1
    sounds = multi_label(90)
    rare = [
        ("c0",) if split == "train" else names for split, names in zip(sounds.splits or (), sounds.labels, strict=True)
    ]
    some = [tuple(name for name in names if name == "c0") for names in rare]
    score = run_probes(replace(sounds, labels=some), UWBENCH, methods=["linear"]).scores["linear"]
    assert 0 < score.main_score < 1


def test_clustering_is_scikit_learns_k_means_and_measures(esc10: TaskData) -> None:
    """The clusters on record give the score and its neighbours; k-means on plain arrays gives as much."""
    outcome = run_probes(esc10, UWBENCH, methods=["clustering"])
    score, rows = outcome.scores["clustering"], outcome.predictions.to_pandas()
    by_seed = [of_seed.sort_values("id") for _, of_seed in rows.groupby("seed")]
    clusters = [np.array(of_seed["counts"].tolist())[:, 0].astype(int) for of_seed in by_seed]
    values = [v_measure_score(of_seed["truth"], found) for of_seed, found in zip(by_seed, clusters, strict=True)]
    assert list(score.per_seed) == pytest.approx(values)
    assert score.main_score == pytest.approx(np.mean(values)) == pytest.approx(score.raw["nmi"])
    ari = [adjusted_rand_score(of_seed["truth"], found) for of_seed, found in zip(by_seed, clusters, strict=True)]
    assert score.raw["ari"] == pytest.approx(np.mean(ari))
    unit = unit_length(esc10.pooled[:, 0])
    plain = [v_measure_score(np.array(esc10.labels), KMeans(10, random_state=s).fit(unit).labels_) for s in range(5)]
    assert score.main_score == pytest.approx(np.mean(plain), abs=0.04)
    items = read_items(outcome.predictions, "clustering", score.metric)
    np.testing.assert_allclose(seed_scores(items), values, atol=1e-6)
    assert items.n_clusters == 20
    of_blocks = np.array([np.array(of_seed["counts"].tolist())[:, 1] for of_seed in by_seed])
    influence = of_blocks - np.array(values)[:, None]  # of each clip's block: one for all seeds
    np.testing.assert_allclose(influence, influence[:1].repeat(5, axis=0), atol=1e-6)
    assert np.ptp(influence[0]) > 0.01
    assert score.chance == pytest.approx(
        np.mean([v_measure_score(np.array(esc10.labels), c) for c in shuffles(clusters[0])]), abs=0.01
    )


def unit_length(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(normalize(vectors))


def shuffles(labels: np.ndarray) -> list[np.ndarray]:
    return [np.random.default_rng(seed).permutation(labels) for seed in range(30)]


def test_clip_retrieval_is_scikit_learns_average_precision(esc10: TaskData) -> None:
    outcome = run_probes(esc10, UWBENCH, methods=["clip-retrieval"])
    score = outcome.scores["clip-retrieval"]
    codes, folds = np.unique(np.array(esc10.labels), return_inverse=True)[1], np.array(esc10.folds)
    precisions, first = [], []
    for fold in np.unique(folds):
        part = folds == fold
        unit = unit_length(esc10.pooled[part, 0])
        similarity = unit @ unit.T
        for query in range(part.sum()):
            others = np.arange(part.sum()) != query
            relevant = codes[part][others] == codes[part][query]
            precisions.append(average_precision_score(relevant, similarity[query, others]))
            first.append(relevant[similarity[query, others].argmax()])
    assert score.main_score == pytest.approx(np.mean(precisions), abs=1e-4)
    assert score.raw["p@1"] == pytest.approx(np.mean(first))
    items = read_items(outcome.predictions, "clip-retrieval", score.metric)
    assert seed_scores(items)[0] == pytest.approx(score.main_score, abs=1e-5)


def test_a_clips_influence_is_the_derivative_of_weighted_average_precision() -> None:
    rng = np.random.default_rng(0)
    vectors, codes = unit_length(rng.normal(size=(40, 5))), rng.integers(0, 3, 40)
    ranked = rank(vectors.astype(np.float32), codes, np.arange(40))

    def total(weights: np.ndarray) -> float:
        out = 0.0
        for query in range(40):
            others = np.arange(40) != query
            similarity = (vectors[others] @ vectors[query]).round(6)
            out += average_precision_score(codes[others] == codes[query], similarity, sample_weight=weights[others])
        return out

    step = 1e-4
    for clip in (0, 7, 23):
        weights = np.ones(40)
        weights[clip] += step
        assert ranked.influence[clip] == pytest.approx((total(weights) - total(np.ones(40))) / step, abs=1e-3)
    assert ranked.influence.sum() == pytest.approx(0, abs=1e-9)


def test_clips_of_one_group_do_not_search_each_other() -> None:
    """Vectors are those of groups: within groups all is found, across groups nothing."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(16), 5)
    vectors = rng.normal(size=(16, 16))[groups] + 0.01 * rng.normal(size=(80, 16))

    def score_of(classes: int) -> Score:
        data = task_data(
            made_card(),
            vectors,
            [f"c{group % classes}" for group in groups],
            splits=["train" if group < 8 else "test" for group in groups],
            groups=[f"g{group}" for group in groups],
        )
        return run_probes(data, UWBENCH, methods=["clip-retrieval"]).scores["clip-retrieval"]

    across, within = score_of(4), score_of(8)  # two test groups per class; a class per test group
    assert across.chosen["groups_apart"]
    assert across.main_score == pytest.approx(across.chance or 0, abs=0.2)
    assert not within.chosen["groups_apart"]
    assert within.main_score > 0.95


@given(relevant=st.integers(1, 6), more=st.integers(0, 6), seed=st.integers(0, 99))
@settings(max_examples=5, deadline=None)
def test_the_expected_precision_is_that_of_random_orders(relevant: int, more: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = np.arange(relevant + more) < relevant
    drawn = [average_precision_score(truth, rng.permutation(len(truth))) for _ in range(100)]
    expected = expected_precision(np.array([relevant]), np.array([len(truth)]))[0]
    assert expected == pytest.approx(np.mean(drawn), abs=4 * float(np.std(drawn)) / 10 + 1e-9)


def test_the_few_shot_curve_ends_at_scikit_learns_accuracy_and_its_area_is_the_score(esc10: TaskData) -> None:
    outcome = run_probes(esc10, with_settings("few-shot", draws=2), methods=["few-shot"])
    score = outcome.scores["few-shot"]
    x, y, folds = esc10.pooled[:, 0], np.array(esc10.labels), np.array(esc10.folds)
    right = []
    for fold in np.unique(folds):
        train, test = folds != fold, folds == fold
        model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=500)).fit(x[train], y[train])
        right.extend(model.predict(x[test]) == y[test])
    assert score.curve is not None
    curve = list(score.curve)
    assert [point.shots for point in curve] == [1, 2, 4, 8, 16, None]
    assert [point.clips for point in curve] == [10, 20, 40, 80, 160, 320]
    assert curve[-1].score == pytest.approx(np.mean(right), abs=0.006)
    assert curve[0].score < curve[2].score < curve[4].score
    area = np.trapezoid([point.score for point in curve], np.log2([point.clips for point in curve])) / 5
    assert score.main_score == pytest.approx(area)
    items = read_items(outcome.predictions, "few-shot", score.metric)
    np.testing.assert_allclose(seed_scores(items), score.per_seed, atol=1e-6)
    assert items.seeds == (0, 1)


def test_verification_is_scikit_learns_roc_on_all_pairs(esc10: TaskData) -> None:
    outcome = run_probes(esc10, UWBENCH, methods=["verification"])
    score = outcome.scores["verification"]
    x, y, folds = unit_length(esc10.pooled[:, 0]), np.array(esc10.labels), np.array(esc10.folds)
    similarity, target = [], []
    for fold in np.unique(folds):
        part = np.flatnonzero(folds == fold)
        first, second = (part[places] for places in np.triu_indices(len(part), 1))
        similarity.append((x[first] * x[second]).sum(axis=1))
        target.append(y[first] == y[second])
    accepted, hit, _ = roc_curve(np.concatenate(target), np.concatenate(similarity), drop_intermediate=False)
    at = np.abs(1 - hit - accepted).argmin()
    assert 1 - score.main_score == pytest.approx((1 - hit[at] + accepted[at]) / 2, abs=1e-3)
    cost = (0.05 * (1 - hit) + 0.95 * accepted).min() / 0.05
    assert score.raw["min-dcf"] == pytest.approx(cost, abs=1e-3)
    precision = average_precision_score(np.concatenate(target), np.concatenate(similarity))
    assert score.raw["ap"] == pytest.approx(precision, abs=1e-3)
    assert score.chosen["pairs"] == sum(map(len, target))
    items = read_items(outcome.predictions, "verification", score.metric)
    assert seed_scores(items)[0] == pytest.approx(score.main_score, abs=1e-6)
    assert items.n_clusters == 400


def test_weighted_error_rates_are_those_of_repeated_pairs() -> None:
    rng = np.random.default_rng(0)
    first, second = np.triu_indices(12, 1)
    similarity, target = rng.normal(size=66).round(1), rng.random(66) < 0.4
    weights = rng.integers(0, 4, size=(5, 12)).astype(np.float32)
    rates = weighted_error_rates(similarity, target, first, second, weights)
    for row, rate in zip(weights, rates, strict=True):
        repeated = np.repeat(np.arange(66), (row[first] * row[second]).astype(int))
        assert rate == pytest.approx(equal_error_rate(similarity[repeated], target[repeated]))


def test_whitening_sees_training_clips_alone_and_pairs_are_drawn_by_their_ids() -> None:
    data = single_label(spread=3.0)
    few = with_settings("verification", pairs=200)
    first, second = (run_probes(part, few, methods=["verification"]) for part in (data, shuffled(data, 3)))
    assert first.scores["verification"].chosen["pairs"] == 400
    assert first.predictions["id"].to_pylist() == second.predictions["id"].to_pylist()
    pooled = data.pooled.copy()
    pooled[np.array(data.splits) == "train"] *= np.linspace(0.1, 5, pooled.shape[-1])
    moved = run_probes(replace(data, pooled=pooled), few, methods=["verification"]).scores["verification"]
    assert moved.main_score == first.scores["verification"].main_score
    assert moved.raw["whitened eer"] != first.scores["verification"].raw["whitened eer"]


@given(groups=st.lists(st.integers(0, 5), min_size=1, max_size=40), seed=st.integers(0, 999))
def test_labels_come_from_as_many_groups_as_there_are(groups: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes, numbers = rng.integers(0, 3, len(groups)), np.array(groups)
    order = nested_order(codes, numbers, rng)
    assert sorted(np.concatenate(order)) == list(range(len(groups)))
    for of_class in order:
        assert len(np.unique(codes[of_class])) == 1
        different = len(np.unique(numbers[of_class]))
        for count in range(1, len(of_class) + 1):
            assert len(np.unique(numbers[of_class[:count]])) == min(count, different)


def test_curves_cross_where_the_lead_changes_for_good() -> None:
    places = np.array([0.0, 1.0, 2.0, 3.0])
    assert last_crossing(places, np.array([-0.1, 0.1, 0.2, 0.2])) == pytest.approx(0.5)
    assert last_crossing(places, np.array([0.1, -0.1, -0.3, 0.1])) == pytest.approx(2.75)
    assert last_crossing(places, np.array([0.1, 0.1, 0.3, 0.1])) == -np.inf
    assert last_crossing(places, np.array([0.1, 0.1, 0.3, -0.1])) == np.inf


def test_where_two_models_cross_is_found_with_an_interval() -> None:
    """One model has a clear first dimension, the other many faint ones, which need labels: they cross in between."""
    rng = np.random.default_rng(0)
    codes = np.arange(900) % 2
    sign = (2.0 * codes - 1)[:, None]
    clear = 1.2 * sign + rng.normal(size=(900, 1))
    many = 0.3 * sign + rng.normal(size=(900, 40))
    splits = ["train" if row < 600 else "test" for row in range(900)]
    rivals, clips = [], []
    for vectors in (clear, many):
        data = task_data(made_card(), vectors, [f"c{code}" for code in codes], splits=splits)
        outcome = run_probes(data, with_settings("few-shot", draws=8), methods=["few-shot"])
        score = outcome.scores["few-shot"]
        rivals.append(read_items(outcome.predictions, "few-shot", score.metric))
        clips = [point.clips for point in score.curve or ()]
    crossing = find_crossing("made", ("clear", "many"), (rivals[0], rivals[1]), clips, UWBENCH.bootstrap)
    assert (crossing.ahead, crossing.crosses) == ("many", True)
    assert 2 < (crossing.low or 0) <= (crossing.labels or 0) <= (crossing.high or 0) < 600
    turned = find_crossing("made", ("many", "clear"), (rivals[1], rivals[0]), clips, UWBENCH.bootstrap)
    assert (turned.ahead, turned.labels) == ("many", crossing.labels)


def test_models_that_do_not_differ_are_not_said_to_cross() -> None:
    crossings = crossings_without_difference(World(groups=20), few_draws(), 5)
    assert sum(crossing.crosses for crossing in crossings) <= 1


@pytest.mark.parametrize("method", ["few-shot", "clustering", "verification", "clip-retrieval", "zero-shot"])
def test_intervals_hold_the_expected_score(method: str) -> None:
    """A short version of benchmarks/coverage.py: 15 draws of a world, of which a 95 % interval misses one."""
    scores, bounds = scores_and_intervals(World(groups=25), few_draws(), method, 15)
    assert coverage(scores, bounds) >= 0.8
    assert (bounds[:, 1] - bounds[:, 0]).mean() < 6 * scores.std()


def few_draws() -> Protocol:
    methods = {
        "clustering": {**UWBENCH.methods["clustering"], "seeds": [0], "blocks": 8},
        "few-shot": {**UWBENCH.methods["few-shot"], "draws": 4},
        "verification": {**UWBENCH.methods["verification"], "pairs": 1500},
    }
    few = UWBENCH.model_copy(update={"methods": {**UWBENCH.methods, **methods}})
    return few.model_copy(update={"bootstrap": UWBENCH.bootstrap.model_copy(update={"resamples": 200})})


def test_frames_are_not_scored_by_methods_of_whole_clips() -> None:
    outcome = run_probes(frame_task(), UWBENCH, methods=["knn", "linear"])
    assert set(outcome.scores) == {"knn"}


def test_the_command_line_scores_and_shows_further_methods(tmp_path: Path, uwbench: Command) -> None:
    """A later run adds to the scores that are there; a method that does not apply is a note and leaves no failure."""
    scored = [uwbench("run", "-m", "mfcc", "-t", "mini_sound", "--method", "knn")]
    scored.append(uwbench("probe", "-t", "mini_sound", "--method", "linear"))
    scored.append(uwbench("probe", "-t", "mini_sound", "--method", "linear", "--protocol", "xares-0.1.3"))
    assert not list(tmp_path.rglob("xares-0.1.3/*.json"))
    scored.append(uwbench("probe", "-t", "mini_sound", "--method", "knn,linear", "--protocol", "xares-0.1.3"))
    assert [done.code for done in scored] == [0, 0, 2, 0]
    assert "Logistic regression" in scored[1].out
    assert "--method linear: the protocol xares-0.1.3 does not run it; add --protocol" in scored[2].err
    assert "note: mini_sound: not scored by linear, which xares-0.1.3 does not run" in scored[3].err
    plain, chosen = uwbench("leaderboard").out, uwbench("leaderboard", "--method", "linear").out
    assert "kNN: averages" in plain
    assert "also scored by linear" in plain
    assert "Logistic regression: averages" in chosen
    assert "kNN" not in chosen
    assert '"method": "linear"' in uwbench("leaderboard", "--json").out
    assert ",linear,uwbench-1," in uwbench("leaderboard", "--format", "csv").out
