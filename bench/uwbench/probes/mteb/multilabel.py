"""AudioMultilabelClassification: a logistic regression per class on a few clips per class, repeated."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from pydantic import Field

from uwbench.errors import ProbeError
from uwbench.probes.kinds.base import Predicted
from uwbench.probes.methods.base import ProbeRun, Scored, settings_of
from uwbench.probes.mteb.draws import undersamples_of_sets
from uwbench.probes.mteb.parts import MtebSettings, interval_over, split_parts
from uwbench.probes.predictions import prediction_rows
from uwbench.probes.splits import random_numbers
from uwbench.results import metrics
from uwbench.results.record import Score

METHOD = "mteb-multilabel"
_SHUFFLES = 5  # random scores that the chance level is the mean of


class MultilabelSettings(MtebSettings):
    """Settings of the classifiers, their training clips and the test clips."""

    samples_per_label: int = Field(gt=0)
    experiments: int = Field(gt=0)
    iterations: int = Field(gt=0)  # of L-BFGS at most; C is 1, and vectors are not standardised
    test_clips: int = Field(gt=0)  # larger test parts are thinned to so many


def score(task: ProbeRun) -> Scored:
    """Return the label ranking average precision (LRAP), the mean over mteb's experiments.

    Raises ProbeError for folds, which mteb has none of here, and if a draw has no clip with a class that is tested, or
    none without it.
    """
    settings = settings_of(task.protocol, METHOD, MultilabelSettings)
    parts = split_parts(task, settings)
    if parts is None:
        raise ProbeError("mteb has no rule for several labels without a test part", where=task.data.card.name)
    train, test = parts[0], task.kind.thin(parts[1], settings.test_clips)
    relevant = task.kind.targets(test) > 0
    tested = np.flatnonzero(relevant.any(axis=0))
    if len(tested) == 0:
        raise ProbeError("no test clip has a label", where=task.data.card.name)
    relevant = relevant[:, tested]
    strata = task.kind.strata()
    codes = [strata[row] for row in train.tolist()]
    draws = undersamples_of_sets(codes, settings.samples_per_label, settings.experiments, settings.seed)
    scores = [_scores(task, train[places], test, tested, settings) for places in draws]
    ranked = [ranking_precision(relevant, of_draw) for of_draw in scores]
    values = [float(of_clip.mean()) for of_clip in ranked]
    return Scored(
        Score(
            metric="lrap",
            main_score=metrics.mean(values),
            ci95=interval_over(values, task.protocol.bootstrap),
            per_seed=tuple(values),
            per_fold={},
            raw=_further(relevant, scores),
            chosen={
                "layer": task.data.layers[-1],
                "samples_per_label": settings.samples_per_label,
                "experiments": len(values),
                "tested_on": len(test),
            },
            chance=_chance(relevant),
        ),
        [
            prediction_rows(
                task.data,
                METHOD,
                index,
                None,
                test,
                task.kind.truths(test),
                _predicted(task, tested, of_draw > 0.5, of_clip),
            )
            for index, (of_draw, of_clip) in enumerate(zip(scores, ranked, strict=True))
        ],
    )


def _scores(
    task: ProbeRun, train: np.ndarray, test: np.ndarray, tested: np.ndarray, settings: MultilabelSettings
) -> np.ndarray:
    """Return the probability of each tested class for each test clip, float64 `(clips, classes)`."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.multioutput import MultiOutputClassifier

    has = (task.kind.targets(train) > 0)[:, tested]
    alike = np.flatnonzero(has.all(axis=0) | ~has.any(axis=0))
    if len(alike):
        name = task.kind.classes[tested[alike[0]]]
        what = f"the drawn training clips with and without {name!r} are needed, and one of them is missing"
        raise ProbeError(what, where=task.data.card.name)
    model = MultiOutputClassifier(LogisticRegression(max_iter=settings.iterations))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it did not converge; mteb goes on as well
        probabilities: Any = model.fit(task.last_layer(train), has.astype(np.int64)).predict_proba(
            task.last_layer(test)
        )
    return np.stack([of_class[:, 1] for of_class in probabilities], axis=1)


def ranking_precision(relevant: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return each clip's label ranking average precision `(n,)`, 1 for clips with no class or all; both `(n, C)`.

    For each of its classes, the share of its classes among those that score at least as high; the mean of the shares
    (Tsoumakas and others 2010).
    """
    values = np.ones(len(relevant))
    for row, (has, of_row) in enumerate(zip(relevant, scores, strict=True)):
        if 0 < has.sum() < len(has):
            above = of_row[None, :] >= of_row[has][:, None]
            values[row] = ((above & has).sum(axis=1) / above.sum(axis=1)).mean()
    return values


def _further(relevant: np.ndarray, scores: list[np.ndarray]) -> dict[str, float]:
    """Return mteb's other metrics, the mean over experiments: a class is predicted above a probability of a half."""
    from sklearn import metrics as of_sklearn

    f1_score: Callable[..., float] = of_sklearn.f1_score
    guesses = [of_draw > 0.5 for of_draw in scores]
    either = [np.maximum((relevant | guess).sum(axis=1), 1) for guess in guesses]
    both = [(relevant & guess).sum(axis=1) for guess in guesses]
    return {
        "accuracy": metrics.mean([float((guess == relevant).all(axis=1).mean()) for guess in guesses]),
        "f1": metrics.mean([float(f1_score(relevant, guess, average="macro", zero_division=0.0)) for guess in guesses]),
        "hamming": metrics.mean([float((a / b).mean()) for a, b in zip(both, either, strict=True)]),
    }


def _chance(relevant: np.ndarray) -> float:
    """Return the mean of random scores."""
    rng = random_numbers("lrap", *relevant.shape)
    draws = [float(ranking_precision(relevant, rng.random(relevant.shape)).mean()) for _ in range(_SHUFFLES)]
    return min(metrics.mean(draws), 0.999)


def _predicted(task: ProbeRun, tested: np.ndarray, guess: np.ndarray, of_clip: np.ndarray) -> Predicted:
    """Return the predictions; counts are the clip's precision, and 1."""
    names = [task.kind.classes[code] for code in tested.tolist()]
    texts = [json.dumps([names[code] for code in np.flatnonzero(row)], ensure_ascii=False) for row in guess]
    return Predicted(texts, counts=np.stack([of_clip, np.ones(len(of_clip))], axis=1).astype(np.float32))
