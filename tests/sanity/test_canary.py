"""A canary in every kind of task: if a probe looked at the labels of the test split, a number would show it.

The labels of the test split are shuffled. Every choice and every prediction with its scores must stay the same bit for
bit under both probes; only the score, which compares predictions with labels, may move. Shuffled labels of the training
and of the validation split must change the predictions and the choice: the canary does sing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from probes.made_data import card, single_label, task_data
from sanity.test_chance import FEW, MADE
from uwbench.cards.find import find_protocol
from uwbench.probes.data import TaskData
from uwbench.probes.run import ProbeOutcome, run_probes
from uwbench.probes.sentences import TextVectors

GRID = FEW.model_copy(update={"mlp": FEW.mlp.model_copy(update={"learning_rates": (0.001, 0.01), "seeds": (0,)})})


def shuffled(data: TaskData, rows: Sequence[int]) -> TaskData:
    """Return the task with the labels of `rows` shuffled among them, captions together with their vectors."""
    order = list(range(len(data.ids)))
    for row, other in zip(rows, np.roll(np.random.default_rng(7).permutation(rows), 1).tolist(), strict=True):
        order[row] = other
    text = data.text
    if text is not None:
        each = int(text.offsets[1])
        values = text.values.reshape(len(data.ids), each, -1)[order].reshape(text.values.shape)
        text = TextVectors(values, text.offsets, text.encoder)
    return replace(data, labels=[data.labels[row] for row in order], text=text)


def rows_of(data: TaskData, part: str) -> list[int]:
    return [row for row, name in enumerate(data.splits or data.folds or ()) if name == part]


def answers(outcome: ProbeOutcome) -> list[tuple[object, ...]]:
    """Return the predictions of both probes by method, seed, fold and clip, without the true labels."""
    names = ("method", "seed", "fold", "id", "prediction", "scores")
    return [tuple(str(row[name]) for name in names) for row in outcome.predictions.to_pylist()]


@cache
def plain(kind: str) -> tuple[TaskData, ProbeOutcome]:
    data = MADE[kind]()
    return data, run_probes(data, GRID)


@pytest.mark.parametrize("kind", MADE)
def test_the_answers_of_the_test_part_move_the_score_alone(kind: str) -> None:
    data, before = plain(kind)
    after = run_probes(shuffled(data, rows_of(data, "test")), GRID)
    assert answers(after) == answers(before)
    for method, score in before.scores.items():
        assert after.scores[method].chosen == score.chosen
        assert after.scores[method].main_score < score.main_score


@pytest.mark.parametrize("kind", MADE)
def test_the_answers_of_the_training_part_move_what_is_predicted(kind: str) -> None:
    data, before = plain(kind)
    after = run_probes(shuffled(data, rows_of(data, "train")), GRID)
    for method in before.scores:
        first, second = ([row for row in answers(outcome) if row[0] == method] for outcome in (before, after))
        assert first != second


@pytest.mark.parametrize("kind", MADE)
def test_the_answers_of_the_validation_part_move_the_choice_alone(kind: str) -> None:
    """The MLP's validation metric moves; kNN never uses a published validation split as neighbours."""
    data, before = plain(kind)
    after = run_probes(shuffled(data, rows_of(data, "valid")), GRID)
    first, second = (outcome.scores["mlp"].chosen["folds"][0] for outcome in (before, after))
    assert first["validation_metric"] > second["validation_metric"]
    assert [row for row in answers(after) if row[0] == "knn"] == [row for row in answers(before) if row[0] == "knn"]


def folded(spread: float) -> TaskData:
    """Four folds of fifty clips."""
    made = single_label(200, spread=spread)
    folds = [str(4 * row // 200) for row in range(200)]
    return task_data(card(folds=["0", "1", "2", "3"], splits=None), made.pooled, made.labels, folds=folds)


def test_the_answers_of_a_fold_move_nothing_of_that_fold() -> None:
    """Each fold is the test split of one probe and in the training split of the others."""
    data = folded(2.0)
    before, after = (run_probes(one, GRID) for one in (data, shuffled(data, rows_of(data, "2"))))
    for method in ("mlp", "knn"):
        for fold in "0123":
            rows, rows_after = (
                [row for row in answers(outcome) if row[0] == method and row[2] == fold] for outcome in (before, after)
            )
            assert (rows == rows_after) == (fold == "2"), (method, fold)
    first, second = (outcome.scores["mlp"].chosen["folds"][2] for outcome in (before, after))
    assert first == second


def test_where_test_data_chooses_the_canary_sings() -> None:
    """X-ARES's rules choose on the tested fold, and the result says so: here the choice does move with its labels."""
    data, xares = folded(0.3), find_protocol("xares-0.1.3")
    before, after = (run_probes(one, xares, methods=["mlp"]) for one in (data, shuffled(data, rows_of(data, "2"))))
    first, second = (outcome.scores["mlp"].chosen["folds"][2] for outcome in (before, after))
    assert "leak" in first["validation"]
    assert first["validation_metric"] > second["validation_metric"] + 0.2
