"""The common parts of methods: the task that they score, their settings, and a score made from predictions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from pydantic import Field, ValidationError

from uwbench.base.schema import Closed
from uwbench.cards.protocol import Protocol
from uwbench.errors import InputError
from uwbench.methods import METHODS
from uwbench.probes.data import Inputs, TaskData
from uwbench.probes.kinds.base import Kind, Predicted, joined
from uwbench.probes.predictions import prediction_rows
from uwbench.probes.splits import Fold
from uwbench.results import metrics
from uwbench.results.record import Method, Score

if TYPE_CHECKING:
    import pyarrow as pa


class Settings(Closed):
    """Settings of a method on the protocol's card; a change of its code that moves a score raises `version`."""

    version: int = Field(gt=0)


AnySettings = TypeVar("AnySettings", bound=Settings)


@dataclass(frozen=True, slots=True)
class ProbeRun:
    """One task under one encoder with its kind and folds, as every method uses it."""

    data: TaskData
    kind: Kind
    protocol: Protocol
    folds: list[Fold]
    seed: int
    device: str

    def inputs(self, layer: int) -> Inputs:
        """Return the function from item rows to float32 vectors `(rows, dim)` of one layer."""
        if self.data.frames is not None:
            return self.data.frames.rows
        pooled = self.data.pooled[:, layer]
        return lambda rows: pooled[rows]

    @property
    def last_layer(self) -> Inputs:
        """The function from item rows to the vectors of the last layer."""
        return self.inputs(len(self.data.layers) - 1)


@dataclass(frozen=True, slots=True)
class Scored:
    """One method's score, and its rows of predictions: of the test clips, and of the same under each corruption.

    `corrupted` is empty if the method is not tested on corrupted clips.
    """

    score: Score
    rows: list[pa.Table]
    corrupted: dict[str, list[pa.Table]] = field(default_factory=dict)


# Test predictions, (seed, fold index) -> prediction; methods without seeds have the seed 0 alone.
Outcomes = dict[tuple[int, int], Predicted]


def settings_on_record(protocol: Protocol, method: str) -> dict[str, Any]:
    """Return the settings that a score by a further method records: the protocol's, or a plug-in's own."""
    return protocol.methods.get(method) or dict(METHODS[method].settings or {})


def settings_of(protocol: Protocol, method: str, model: type[AnySettings]) -> AnySettings:
    """Return a method's settings from the protocol's card; raise InputError naming the field that is wrong."""
    try:
        return model.model_validate(settings_on_record(protocol, method))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in ("methods", method, *first["loc"]))
        raise InputError(f"{where}: {first['msg']}", where=f"protocol {protocol.name}") from error


def scored(task: ProbeRun, method: Method, score: Score, outcomes: Outcomes, corrupted: dict[str, Outcomes]) -> Scored:
    """Return a score with the rows of its predictions."""
    under = {name: _rows(task, method, of_corruption) for name, of_corruption in corrupted.items()}
    return Scored(score, _rows(task, method, outcomes), under)


def score_of(task: ProbeRun, outcomes: Outcomes, of_folds: str, chosen: dict[str, Any]) -> Score:
    """Return the score of the main metric: the mean over seeds of the pooled test clips, or of the folds' means."""
    seeds = sorted({seed for seed, _ in outcomes})
    per_seed = tuple(_seed_score(task, outcomes, seed, of_folds) for seed in seeds)
    per_fold = {}
    for index, fold in enumerate(task.folds):
        if fold.name is not None:
            values = [task.kind.measure(outcomes[seed, index], fold.test) for seed in seeds]
            per_fold[fold.name] = metrics.mean(values)
    further: dict[str, list[float]] = {}
    for seed in seeds:
        clips, predicted = _pool(task, outcomes, seed)
        for name, value in task.kind.further(predicted, clips).items():
            further.setdefault(name, []).append(value)
    return Score(
        metric=task.data.card.metric,
        main_score=metrics.mean(per_seed),
        ci95=None,
        per_seed=per_seed,
        per_fold=per_fold,
        raw={name: metrics.mean(values) for name, values in further.items()},
        chosen=chosen,
    )


def main_metric(task: ProbeRun, outcomes: Outcomes, of_folds: str) -> float:
    """Return the main metric of predictions, the mean over seeds."""
    return metrics.mean([_seed_score(task, outcomes, seed, of_folds) for seed in {seed for seed, _ in outcomes}])


def _seed_score(task: ProbeRun, outcomes: Outcomes, seed: int, of_folds: str) -> float:
    if of_folds == "mean":
        folds = enumerate(task.folds)
        return metrics.mean([task.kind.measure(outcomes[seed, index], fold.test) for index, fold in folds])
    clips, predicted = _pool(task, outcomes, seed)
    return task.kind.measure(predicted, clips)


def _pool(task: ProbeRun, outcomes: Outcomes, seed: int) -> tuple[np.ndarray, Predicted]:
    """Put the folds' test clips and predictions end to end."""
    predicted = joined([outcomes[seed, index] for index in range(len(task.folds))])
    return np.concatenate([fold.test for fold in task.folds]), predicted


def _rows(task: ProbeRun, method: Method, outcomes: Outcomes) -> list[pa.Table]:
    return [
        prediction_rows(task.data, method, seed, fold.name, fold.test, task.kind.truths(fold.test), predicted)
        for (seed, index), predicted in sorted(outcomes.items(), key=lambda entry: entry[0])
        for fold in (task.folds[index],)
    ]
