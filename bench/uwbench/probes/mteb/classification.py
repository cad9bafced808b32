"""AudioClassification: logistic regression on a few clips per class, repeated, or on shuffled folds."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from uwbench.errors import ProbeError
from uwbench.probes.kinds.base import Predicted
from uwbench.probes.methods.base import ProbeRun, Scored, settings_of
from uwbench.probes.mteb.draws import shuffled_folds, undersample, undersamples
from uwbench.probes.mteb.parts import MtebSettings, all_clips, interval_over, split_parts
from uwbench.probes.predictions import prediction_rows
from uwbench.results import metrics
from uwbench.results.record import Score

METHOD = "mteb-classification"


class ClassificationSettings(MtebSettings):
    """Settings of the classifier and of its training clips."""

    samples_per_label: int = Field(gt=0)
    experiments: int = Field(gt=0)  # draws of training clips, where there is a test part
    folds: int = Field(gt=1)  # where there is none
    iterations: int = Field(gt=0)  # of L-BFGS at most; C is 1, and vectors are not standardised
    metric_of_folds: Literal["mean"]


class _Experiment(NamedTuple):
    """One experiment: the rows of its training and test clips, and the classes predicted for the latter."""

    train: np.ndarray
    test: np.ndarray
    predicted: np.ndarray


def score(task: ProbeRun) -> Scored:
    """Return the mean accuracy of mteb's experiments: draws of training clips, or folds of all clips.

    Raises ProbeError if a draw has fewer than two classes, or there are fewer clips than folds.
    """
    settings = settings_of(task.protocol, METHOD, ClassificationSettings)
    parts = split_parts(task, settings)
    plans = _folds(task, settings) if parts is None else _draws(task, settings, *parts)
    experiments = [_Experiment(train, test, _classify(task, train, test, settings)) for train, test in plans]
    truths = [task.kind.targets(experiment.test) for experiment in experiments]
    right = [
        metrics.accuracy(truth, experiment.predicted) for truth, experiment in zip(truths, experiments, strict=True)
    ]
    chosen: dict[str, Any] = {"layer": task.data.layers[-1], "samples_per_label": settings.samples_per_label}
    chosen |= {"experiments": len(right), "shuffled_folds": parts is None}
    return Scored(
        Score(
            metric="accuracy",
            main_score=metrics.mean(right),
            ci95=interval_over(right, task.protocol.bootstrap),
            per_seed=tuple(right) if parts is not None else (metrics.mean(right),),
            per_fold={} if parts is not None else {str(index): value for index, value in enumerate(right)},
            raw=_further(truths, experiments),
            chosen=chosen,
        ),
        [
            prediction_rows(
                task.data,
                METHOD,
                index if parts is not None else 0,
                None if parts is not None else str(index),
                experiment.test,
                task.kind.truths(experiment.test),
                _predicted(task, experiment.predicted),
            )
            for index, experiment in enumerate(experiments)
        ],
    )


def _draws(
    task: ProbeRun, settings: ClassificationSettings, train: np.ndarray, test: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    codes = task.kind.targets(train)
    draws = undersamples(codes, settings.samples_per_label, settings.experiments, settings.seed)
    return [(train[places], test) for places in draws]


def _folds(task: ProbeRun, settings: ClassificationSettings) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the clips of each fold; each draw goes on from the order of the fold before."""
    clips, plans, order = all_clips(task), [], None
    if len(clips) < settings.folds:
        raise ProbeError(f"{len(clips)} clips are too few for {settings.folds} folds", where=task.data.card.name)
    for train, test in shuffled_folds(len(clips), settings.folds, settings.seed):
        codes = task.kind.targets(clips[train])
        places, order = undersample(codes, settings.samples_per_label, settings.seed, order)
        plans.append((clips[train][places], clips[test]))
    return plans


def _classify(task: ProbeRun, train: np.ndarray, test: np.ndarray, settings: ClassificationSettings) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression

    codes = task.kind.targets(train)
    if len(np.unique(codes)) < 2:
        raise ProbeError("the drawn training clips are of one class", where=task.data.card.name)
    model = LogisticRegression(max_iter=settings.iterations, random_state=settings.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it did not converge; mteb goes on as well
        return model.fit(task.last_layer(train), codes).predict(task.last_layer(test))


def _further(truths: Sequence[np.ndarray], experiments: Sequence[_Experiment]) -> dict[str, float]:
    """Return mteb's other metrics, the mean over experiments."""
    from sklearn.metrics import f1_score, precision_score, recall_score

    measures: dict[str, Callable[..., float]] = {"f1": f1_score, "precision": precision_score, "recall": recall_score}
    pairs = [(truth, experiment.predicted) for truth, experiment in zip(truths, experiments, strict=True)]
    return {
        f"{name}{suffix}": metrics.mean([float(measure(*pair, average=average, zero_division=0.0)) for pair in pairs])
        for name, measure in measures.items()
        for suffix, average in (("", "macro"), ("-weighted", "weighted"))
    }


def _predicted(task: ProbeRun, codes: np.ndarray) -> Predicted:
    names = [json.dumps(name, ensure_ascii=False) for name in task.kind.classes]
    return Predicted([names[code] for code in codes.tolist()], codes=codes)
