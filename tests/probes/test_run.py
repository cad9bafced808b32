"""Runs as a user gets them: real clips, chance where there is nothing to learn, no sight of the test part."""

from __future__ import annotations

import itertools
import json
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from probes.made_data import card, esc10, frame_task, multi_label, shuffled, single_label, task_data
from uwbench.audio.clip import Labels
from uwbench.cards.card import Xares
from uwbench.cards.find import find_protocol
from uwbench.cards.protocol import Protocol
from uwbench.errors import ProbeError, UsageError
from uwbench.probes.data import TaskData
from uwbench.probes.grid import epochs_for
from uwbench.probes.kinds import kind_of
from uwbench.probes.methods.base import ProbeRun
from uwbench.probes.methods.mlp import make_search
from uwbench.probes.run import ProbeOutcome, run_probes
from uwbench.probes.splits import plan_folds
from uwbench.results.bootstrap import seed_scores
from uwbench.results.items import read_items

UWBENCH, XARES = find_protocol("uwbench-1"), find_protocol("xares-0.1.3")
MADE: list[Callable[..., TaskData]] = [single_label, multi_label, frame_task]


def with_mlp(protocol: Protocol, **fields) -> Protocol:
    return protocol.model_copy(update={"mlp": protocol.mlp.model_copy(update=fields)})


FEW = with_mlp(UWBENCH, learning_rates=(0.01,), weight_decays=(0.01,), seeds=(0, 1), epochs=10)


@pytest.fixture(scope="module")
def esc10_data(shared_data: Path) -> TaskData:
    return esc10(shared_data)


def test_a_linear_probe_is_within_noise_of_logistic_regression(esc10_data: TaskData) -> None:
    """Both on real clips, five folds, the regression with its strength chosen on nothing: scikit-learn's default."""
    linear = with_mlp(UWBENCH, widths=(0,))
    score = run_probes(esc10_data, linear, methods=["mlp"]).scores["mlp"]
    x, y = esc10_data.pooled[:, 0], np.array(esc10_data.labels)
    fold = np.array(esc10_data.folds)
    right = []
    for name in np.unique(fold):
        train, test = fold != name, fold == name
        scaler = StandardScaler().fit(x[train])
        model = LogisticRegression(max_iter=2000).fit(scaler.transform(x[train]), y[train])
        right.extend(model.predict(scaler.transform(x[test])) == y[test])
    reference = float(np.mean(right))
    assert reference > 0.6
    # 400 clips: one standard error of an accuracy near 0.75 is 0.022.
    assert score.main_score == pytest.approx(reference, abs=0.04)
    assert score.main_score == pytest.approx(np.mean(list(score.per_fold.values())), abs=1e-9)


def test_scores_do_not_depend_on_the_order_of_real_clips(esc10_data: TaskData) -> None:
    small = with_mlp(UWBENCH, seeds=(0,), learning_rates=(0.01,), weight_decays=(0.01,))
    first, second = run_probes(esc10_data, small), run_probes(shuffled(esc10_data, 5), small)
    assert first.predictions.equals(second.predictions)
    assert first.scores == second.scores


@pytest.mark.parametrize("make", MADE)
@pytest.mark.parametrize("protocol", [FEW, XARES], ids=["uwbench-1", "xares-0.1.3"])
def test_every_kind_is_learnt_and_can_be_recomputed_from_its_predictions(
    make: Callable[..., TaskData], protocol: Protocol
) -> None:
    data = make()
    outcome = run_probes(data, protocol)
    assert set(outcome.scores) == {"mlp", "knn"}
    for method, score in outcome.scores.items():
        items = read_items(outcome.predictions, method, score.metric)
        np.testing.assert_allclose(seed_scores(items), score.per_seed, atol=1e-6)
        assert score.main_score > (0.5 if protocol is FEW else 0.33)  # X-ARES takes 30 steps here; chance is 0.25
    seeds = protocol.mlp.seeds
    assert outcome.predictions.num_rows == (len(seeds) + 1) * sum(name == "test" for name in data.splits or ())


@pytest.mark.parametrize("make", MADE)
def test_the_order_of_clips_changes_nothing(make: Callable[..., TaskData]) -> None:
    first, second = run_probes(make(), FEW), run_probes(shuffled(make(), 2), FEW)
    for method, score in first.scores.items():
        assert second.scores[method].main_score == pytest.approx(score.main_score, abs=1e-6)
        assert second.scores[method].chosen == score.chosen


def chosen(outcome: ProbeOutcome) -> str:
    return json.dumps(outcome.scores["mlp"].chosen, sort_keys=True)


@pytest.mark.parametrize("make", MADE)
def test_selection_never_sees_the_test_part(make: Callable[..., TaskData]) -> None:
    """Labels and vectors of the test part are exchanged: what was chosen stays, to the last digit."""
    data = make()
    rng = np.random.default_rng(1)
    test = np.flatnonzero(np.array(data.splits) == "test")
    labels = list(data.labels)
    for row, other in zip(test, rng.permutation(test), strict=True):
        labels[row] = data.labels[other]
    pooled = data.pooled.copy()
    pooled[test] = rng.normal(size=pooled[test].shape)
    grid = with_mlp(FEW, learning_rates=(0.001, 0.01), weight_decays=(0.01, 1.0))
    first, second = run_probes(data, grid), run_probes(replace(data, labels=labels, pooled=pooled), grid)
    assert chosen(first) == chosen(second)
    assert first.scores["mlp"].main_score != second.scores["mlp"].main_score


def test_selection_of_a_fold_never_sees_its_test_clips() -> None:
    data = folded()
    folds = np.array(data.folds)
    pooled = data.pooled.copy()
    pooled[folds == "0"] = np.random.default_rng(2).normal(size=pooled[folds == "0"].shape)
    first, second = (
        run_probes(data, FEW, methods=["mlp"]),
        run_probes(replace(data, pooled=pooled), FEW, methods=["mlp"]),
    )
    assert first.scores["mlp"].chosen["folds"][0] == second.scores["mlp"].chosen["folds"][0]
    assert first.scores["mlp"].chosen["folds"][1:] != second.scores["mlp"].chosen["folds"][1:]


def test_the_xares_protocol_does_select_on_the_test_fold_and_says_so() -> None:
    folds = run_probes(folded(), XARES, methods=["mlp"]).scores["mlp"].chosen["folds"]
    assert all("leak" in fold["validation"] for fold in folds)


def folded(n: int = 200) -> TaskData:
    data = single_label(n)
    made = card(folds=["0", "1", "2", "3"], splits=None)
    # Blocks of folds, so that every fold holds all classes (which go round in fours).
    return task_data(made, data.pooled, data.labels, folds=[str(4 * row // n) for row in range(n)])


@pytest.mark.parametrize("protocol", [FEW, XARES], ids=["uwbench-1", "xares-0.1.3"])
def test_random_labels_score_at_chance(protocol: Protocol) -> None:
    data = single_label(1200)
    labels: list[Labels] = [f"c{code}" for code in np.random.default_rng(1).integers(0, 4, 1200)]
    outcome = run_probes(replace(data, labels=labels), protocol)
    for score in outcome.scores.values():  # 400 test clips: one standard error is 0.022
        assert score.main_score == pytest.approx(0.25, abs=0.07)


def test_random_multi_labels_score_at_prevalence() -> None:
    data = multi_label(1200)
    relevant = np.random.default_rng(1).random((1200, 5)) < 0.3
    labels: list[Labels] = [tuple(f"c{code}" for code in np.flatnonzero(row)) for row in relevant]
    for score in run_probes(replace(data, labels=labels), FEW).scores.values():
        assert score.main_score == pytest.approx(0.3, abs=0.06)


@pytest.mark.parametrize("protocol", [FEW, XARES], ids=["uwbench-1", "xares-0.1.3"])
def test_constant_vectors_score_at_chance(protocol: Protocol) -> None:
    """An encoder that ignores its input: one class is predicted for all."""
    data = single_label()
    outcome = run_probes(replace(data, pooled=np.full_like(data.pooled, 0.3)), protocol)
    for score in outcome.scores.values():
        assert score.main_score == pytest.approx(0.25, abs=0.02)


def test_a_canary_in_the_vectors_is_found_by_every_kind() -> None:
    """A dimension that gives the label away lifts every kind to the top: the probes do use what is there."""
    data = single_label(spread=50)
    pooled = data.pooled.copy()
    codes = np.array([int(str(label)[1:]) for label in data.labels])
    pooled[:, 0, :4] = 200 * np.eye(4)[codes]
    assert run_probes(replace(data, pooled=pooled), FEW, methods=["mlp"]).scores["mlp"].main_score > 0.95


def test_seeds_move_the_result_and_repeat_it() -> None:
    data = single_label()
    first, again, other = (run_probes(data, FEW, methods=["mlp"], seed=seed) for seed in (0, 0, 1))
    assert first.predictions.equals(again.predictions)
    assert not first.predictions.equals(other.predictions)


def test_layers_give_a_curve_and_the_last_one_is_the_score() -> None:
    data = single_label()
    noise = np.random.default_rng(0).normal(size=data.pooled.shape)
    layered = replace(data, pooled=np.concatenate([noise, data.pooled, noise], axis=1).astype(np.float32))
    layered = replace(layered, layers=("a", "b", "c"))
    score = run_probes(layered, FEW, methods=["mlp"]).scores["mlp"]
    assert score.layers is not None
    assert list(score.layers) == ["a", "b", "c"]
    assert score.chosen["layer"] == "c"
    assert score.chosen["best_layer"] == "b"
    assert score.main_score < 0.4 < score.raw["best layer"]
    assert score.raw["weighted layers"] > score.main_score


def test_large_sets_search_on_a_subsample_and_then_train_on_all() -> None:
    few = with_mlp(FEW, grid_clips=40)
    data = folded()
    carved = run_probes(data, few, methods=["mlp"]).scores["mlp"].chosen["folds"][0]
    whole = run_probes(data, FEW, methods=["mlp"]).scores["mlp"].chosen["folds"][0]
    assert whole["trained_on"] == 150  # the carved clips too: the search saw all of the rest
    assert carved["trained_on"] == 150 - carved["validation_clips"]  # each seed still needs them to choose its epoch


def test_a_shorter_search_chooses_a_share_of_the_whole_schedule() -> None:
    """With three epochs in the search, the final seeds train a third, two thirds or all of their thirty."""
    short = with_mlp(FEW, epochs=30, grid_shown=1, least_epochs=3)
    folds = run_probes(folded(), short, methods=["mlp"]).scores["mlp"].chosen["folds"]
    assert {tuple(fold["epochs"]) for fold in folds} <= {(10, 10), (20, 20), (30, 30)}


@given(st.integers(1, 400_000), st.integers(1, 200_000), st.integers(1, 40), st.integers(1, 40))
def test_a_schedule_shows_as_many_clips_as_the_card_says(clips: int, shown: int, epochs: int, least: int) -> None:
    settings = UWBENCH.mlp.model_copy(update={"epochs": epochs, "least_epochs": least, "shown": 150_000})
    trained = epochs_for(settings, Xares(), clips, shown)
    assert min(least, epochs) <= trained <= epochs
    if trained < epochs and trained > least:  # neither bound holds: as near to `shown` as whole epochs come
        assert abs(trained * clips - shown) <= clips / 2
    assert epochs_for(settings, Xares(), clips) == epochs_for(settings, Xares(), clips, 150_000)


@pytest.mark.parametrize("make", MADE)
def test_threads_change_neither_choice_nor_prediction(make: Callable[..., TaskData]) -> None:
    """One thread trains the grid as one stack, several as stacks side by side."""
    few = with_mlp(UWBENCH, epochs=6, seeds=(0, 1, 2))
    before, outcomes = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            outcomes.append(run_probes(make(), few, methods=["mlp"]))
    finally:
        torch.set_num_threads(before)
    for repeated in outcomes[1:]:
        assert chosen(repeated) == chosen(outcomes[0])
        assert repeated.predictions.equals(outcomes[0].predictions)


def test_ctrl_c_ends_the_stacks_that_train_side_by_side() -> None:
    """What they make is of no use any more, and may take minutes."""
    data, long = single_label(2400), with_mlp(UWBENCH, epochs=1000)
    kind = kind_of(data)
    task = ProbeRun(data, kind, long, plan_folds(data, long.mlp, kind.strata(), 0), 0, "cpu")
    reads = itertools.count()

    def inputs(rows: np.ndarray) -> np.ndarray:
        if next(reads) == 40:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        return data.pooled[rows, 0]

    before = torch.get_num_threads()
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyboardInterrupt):
            make_search(task, inputs).choose(task.folds)
    finally:
        torch.set_num_threads(before)
        signal.signal(signal.SIGINT, handler)
    assert next(reads) < 13_000  # the batches of one stack, and there are two


def test_a_vector_that_is_not_finite_names_its_clip() -> None:
    data = single_label()
    data.pooled[17] = np.nan
    with pytest.raises(ProbeError, match="clip-00017: its embedding holds NaN or Inf; extract it again"):
        run_probes(data, FEW)


def test_unknown_methods_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown method 'svm'; known: mlp, knn"):
        run_probes(single_label(), FEW, methods=["svm"])
    without = card(xares={"knn": False})
    with pytest.raises(ProbeError, match="runs none of knn"):
        run_probes(replace(single_label(), card=without), XARES, methods=["knn"])
