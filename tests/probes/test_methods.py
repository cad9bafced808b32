"""Methods beyond the headline, against scikit-learn and numpy on plain arrays, and through the command line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from conftest import ROOT, Command
from probes.made_data import frame_task, multi_label, shuffled, single_label
from uwbench.cache.clip_table import read_table
from uwbench.cache.store import open_encoders
from uwbench.cards import card
from uwbench.cards.find import find_protocol
from uwbench.cards.protocol import Protocol
from uwbench.errors import InputError
from uwbench.methods import GROUPS, HEADLINE, METHODS, in_order
from uwbench.options import methods_of
from uwbench.probes.data import TaskData
from uwbench.probes.run import run_probes
from uwbench.probes.score_task import load_task_data
from uwbench.results.bootstrap import seed_scores
from uwbench.results.items import read_items

GOLDEN = ROOT / "tests" / "golden" / "esc10-whisper-tiny.en"
UWBENCH, XARES = find_protocol("uwbench-1"), find_protocol("xares-0.1.3")


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
    assert set(UWBENCH.methods) == set(METHODS) - set(HEADLINE)
    assert UWBENCH.sha256() == "edc30e32d0c6792ce2079d8c8c2f67f85895d99c4e982704e3bf1a1b30e6214b"
    assert XARES.sha256() == "3c3515dbbab5260b5aee9850c7d80a19565c300d8c782c8a6c0096fbfb44e86f"
    assert all(set(info.kinds) <= set(get_args(card.Kind)) for info in METHODS.values())


def test_methods_are_named_one_by_one_or_by_groups() -> None:
    assert methods_of("default") == HEADLINE == ("mlp", "knn")
    assert methods_of("all") == methods_of(["default", "all"]) == tuple(METHODS)
    assert methods_of(["linear", "default", "mlp"]) == ("linear", "mlp", "knn")
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


def test_linear_chooses_its_strength_without_the_test_part() -> None:
    data = single_label(spread=4.0)
    pooled = data.pooled.copy()
    test = np.array(data.splits) == "test"
    pooled[test] = np.random.default_rng(1).normal(size=pooled[test].shape)
    first, second = (run_probes(d, UWBENCH, methods=["linear"]) for d in (data, replace(data, pooled=pooled)))
    assert first.scores["linear"].chosen == second.scores["linear"].chosen
    assert first.scores["linear"].main_score > second.scores["linear"].main_score + 0.1


@pytest.mark.parametrize("method", [name for name in METHODS if name not in HEADLINE])
def test_the_order_of_clips_changes_no_score(method: str) -> None:
    first, second = (
        run_probes(data, UWBENCH, methods=[method]) for data in (single_label(), shuffled(single_label(), 2))
    )
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


def test_frames_are_not_scored_by_methods_of_whole_clips() -> None:
    outcome = run_probes(frame_task(), UWBENCH, methods=["knn", "linear"])
    assert set(outcome.scores) == {"knn"}


def test_the_command_line_scores_and_shows_further_methods(tmp_path: Path, uwbench: Command) -> None:
    """A later run adds to the scores that are there; a method that does not apply is a note and leaves no failure."""
    scored = [uwbench("run", "-m", "mfcc", "-t", "mini_sound", "--method", "knn")]
    scored.append(uwbench("probe", "-t", "mini_sound", "--method", "linear"))
    scored.append(uwbench("probe", "-t", "mini_sound", "--method", "linear", "--protocol", "xares-0.1.3"))
    assert [done.code for done in scored] == [0, 0, 0]
    assert "Logistic regression" in scored[1].out
    assert "note: mini_sound: not scored by linear, which xares-0.1.3 does not run" in scored[2].err
    assert not list(tmp_path.rglob("xares-0.1.3/*.json"))
    plain, chosen = uwbench("leaderboard").out, uwbench("leaderboard", "--method", "linear").out
    assert "kNN: averages" in plain
    assert "also scored by linear" in plain
    assert "Logistic regression: averages" in chosen
    assert "kNN" not in chosen
    assert '"method": "linear"' in uwbench("leaderboard", "--json").out
    assert ",linear,uwbench-1," in uwbench("leaderboard", "--format", "csv").out
