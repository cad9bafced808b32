"""A canary in every kind of task: were the answers to the test part looked at, some number would show it.

Answers of the test part are dealt out anew. What was chosen, and every prediction with its scores, must be the same bit
for bit under both probes; only the score, which compares the two, may move. The same is done to the training and to the
validation part, where the predictions and the choice must move: the canary does sing.
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


def dealt(data: TaskData, rows: Sequence[int]) -> TaskData:
    """Return the task with the answers of `rows` dealt out anew among them, captions with their vectors."""
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
    """Return what both probes answered, in order of method, seed, fold and clip, without what is right."""
    names = ("method", "seed", "fold", "id", "prediction", "scores")
    return [tuple(str(row[name]) for name in names) for row in outcome.predictions.to_pylist()]


@cache
def plain(kind: str) -> tuple[TaskData, ProbeOutcome]:
    data = MADE[kind]()
    return data, run_probes(data, GRID)


@pytest.mark.parametrize("kind", MADE)
def test_the_answers_of_the_test_part_move_the_score_alone(kind: str) -> None:
    data, before = plain(kind)
    after = run_probes(dealt(data, rows_of(data, "test")), GRID)
    assert answers(after) == answers(before)
    for method, score in before.scores.items():
        assert after.scores[method].chosen == score.chosen
        assert after.scores[method].main_score < score.main_score


@pytest.mark.parametrize("kind", MADE)
def test_the_answers_of_the_training_part_move_what_is_predicted(kind: str) -> None:
    data, before = plain(kind)
    after = run_probes(dealt(data, rows_of(data, "train")), GRID)
    for method in before.scores:
        own, others = ([row for row in answers(one) if row[0] == method] for one in (before, after))
        assert own != others


@pytest.mark.parametrize("kind", MADE)
def test_the_answers_of_the_validation_part_move_the_choice_alone(kind: str) -> None:
    """Of the MLP its validation figures; a published validation part is no neighbour of anything."""
    data, before = plain(kind)
    after = run_probes(dealt(data, rows_of(data, "valid")), GRID)
    figures = [one.scores["mlp"].chosen["folds"][0]["validation_metric"] for one in (before, after)]
    assert figures[0] > figures[1]
    assert [row for row in answers(after) if row[0] == "knn"] == [row for row in answers(before) if row[0] == "knn"]


def folded(spread: float) -> TaskData:
    """Four folds of fifty clips."""
    made = single_label(200, spread=spread)
    folds = [str(4 * row // 200) for row in range(200)]
    return task_data(card(folds=["0", "1", "2", "3"], splits=None), made.pooled, made.labels, folds=folds)


def test_the_answers_of_a_fold_move_nothing_of_that_fold() -> None:
    """In turn each fold is the test part of one probe and in the training part of the others."""
    data = folded(2.0)
    before, after = (run_probes(one, GRID) for one in (data, dealt(data, rows_of(data, "2"))))
    for method in ("mlp", "knn"):
        for fold in "0123":
            own, others = (
                [row for row in answers(one) if row[0] == method and row[2] == fold] for one in (before, after)
            )
            assert (own == others) == (fold == "2"), (method, fold)
    first, second = (one.scores["mlp"].chosen["folds"][2] for one in (before, after))
    assert first == second


def test_where_test_data_chooses_the_canary_sings() -> None:
    """X-ARES's rules choose on the fold that is tested, and say so: here the choice does move with its answers."""
    data, xares = folded(0.3), find_protocol("xares-0.1.3")
    before, after = (run_probes(one, xares, methods=["mlp"]) for one in (data, dealt(data, rows_of(data, "2"))))
    first, second = (one.scores["mlp"].chosen["folds"][2] for one in (before, after))
    assert "leak" in first["validation"]
    assert first["validation_metric"] > second["validation_metric"] + 0.2
