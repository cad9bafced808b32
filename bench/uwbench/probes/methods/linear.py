"""Logistic regression on standardised vectors, with its strength chosen on validation.

The problem is convex, so there are no seeds: the solution depends on nothing but the clips.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field

from uwbench.probes.data import Inputs, statistics
from uwbench.probes.methods.base import Outcomes, ProbeRun, Scored, Settings, score_of, scored, settings_of
from uwbench.probes.splits import Fold

_ITERATIONS = 500  # of L-BFGS at most
_AT_ONCE = 16_384  # test clips
_IMPOSSIBLE = -30.0  # the log probability of a class without training clips


class LinearSettings(Settings):
    """Settings of logistic regression."""

    strengths: tuple[float, ...] = Field(min_length=1)  # scikit-learn's C, from the strongest penalty to the weakest
    search_clips: int = Field(gt=0)  # the choice trains and is measured on at most so many clips, class by class
    train_clips: int = Field(gt=0)  # the chosen strength trains on at most so many
    train_cells: int = Field(default=20_000_000, gt=0)  # and on at most so many clips times classes


class _Choice(NamedTuple):
    """A strength with its score and mean loss on validation."""

    strength: float
    metric: float
    loss: float


def score(task: ProbeRun) -> Scored:
    """Return the score of logistic regression on the last layer, and its predictions."""
    settings = settings_of(task.protocol, "linear", LinearSettings)
    outcomes: Outcomes = {}
    corrupted: dict[str, Outcomes] = {name: {} for name in task.data.corrupted}
    chosen = []
    for index, fold in enumerate(task.folds):
        choice = _choose(task, fold, settings)
        train = task.kind.thin(fold.all_train, most_clips(task, settings.train_clips, settings.train_cells))
        classify = fit(task, train, choice.strength)
        outcomes[0, index] = task.kind.predict(classify(task.last_layer, fold.test), fold.test, fold.test)
        for name, inputs in task.data.corrupted.items():
            corrupted[name][0, index] = task.kind.predict(classify(inputs, fold.test), fold.test, fold.test)
        chosen.append(_record(fold, choice, len(train)))
    result = score_of(task, outcomes, "pooled", {"layer": task.data.layers[-1], "folds": chosen})
    return scored(task, "linear", result, outcomes, corrupted)


def most_clips(task: ProbeRun, clips: int, cells: int) -> int:
    """Return how many clips a regression trains on at most: `clips`, but no more `cells` (clips times classes)."""
    return max(1, min(clips, cells // max(1, len(task.kind.classes))))


def _choose(task: ProbeRun, fold: Fold, settings: LinearSettings) -> _Choice:
    """Return the strength that is best on validation by the main metric, then by loss, then the strongest penalty."""
    train, valid = (task.kind.thin(part, settings.search_clips) for part in (fold.train, fold.valid))
    choices = []
    for strength in settings.strengths:
        scores = fit(task, train, strength)(task.last_layer, valid)
        metric = task.kind.measure(task.kind.predict(scores, valid, valid), valid)
        choices.append(_Choice(strength, metric, _loss(task, scores, valid)))
    return max(choices, key=lambda choice: (choice.metric, -choice.loss))


def _loss(task: ProbeRun, scores: np.ndarray, clips: np.ndarray) -> float:
    targets = task.kind.targets(clips)
    if targets.ndim == 1:
        return float(-scores[np.arange(len(clips)), targets].mean())
    return float(-np.log(np.where(targets > 0, scores, 1 - scores).clip(1e-12)).mean())


def _record(fold: Fold, choice: _Choice, trained_on: int) -> dict[str, Any]:
    return {
        **({} if fold.name is None else {"fold": fold.name}),
        "strength": choice.strength,
        "validation": fold.validation,
        "validation_clips": len(fold.valid),
        "validation_metric": choice.metric,
        "trained_on": trained_on,
    }


def fit(task: ProbeRun, train: np.ndarray, strength: float) -> Callable[[Inputs, np.ndarray], np.ndarray]:
    """Train on the clips `train`; return the function from inputs and clips to scores `(clips, C)`, float32.

    Scores are log probabilities of single labels, and probabilities of each of several.
    """
    mean, scale = statistics(task.last_layer, train)
    vectors, targets = (task.last_layer(train) - mean) * scale, task.kind.targets(train)
    model = (
        fit_multi_label(vectors, targets, strength)
        if targets.ndim == 2
        else fit_single_label(vectors, targets, strength)
    )
    width = len(task.kind.classes)

    def classify(inputs: Inputs, clips: np.ndarray) -> np.ndarray:
        scores = np.empty((len(clips), width), np.float32)
        for start in range(0, len(clips), _AT_ONCE):
            block = clips[start : start + _AT_ONCE]
            model((inputs(block) - mean) * scale, scores[start : start + _AT_ONCE])
        return scores

    return classify


def fit_single_label(
    vectors: np.ndarray, codes: np.ndarray, strength: float
) -> Callable[[np.ndarray, np.ndarray], None]:
    """Return the function that writes log probabilities of classes; those without training clips get the lowest."""
    present = np.unique(codes)
    logits = _regression(vectors, codes, strength) if len(present) > 1 else None

    def write(some: np.ndarray, out: np.ndarray) -> None:
        from scipy.special import log_softmax

        out[:] = _IMPOSSIBLE
        known = np.zeros((len(some), 1)) if logits is None else log_softmax(_of_classes(logits(some)), axis=1)
        out[:, present] = known.clip(min=_IMPOSSIBLE + 1)

    return write


def fit_multi_label(
    vectors: np.ndarray, relevant: np.ndarray, strength: float
) -> Callable[[np.ndarray, np.ndarray], None]:
    """Return the function that writes each class's probability; a class that all or no training clips have is fixed."""
    positive = relevant > 0
    share = positive.mean(axis=0)
    logits = {
        column: _regression(vectors, positive[:, column], strength)
        for column in np.flatnonzero((share > 0) & (share < 1))
    }

    def write(some: np.ndarray, out: np.ndarray) -> None:
        from scipy.special import expit

        out[:] = share
        for column, of_class in logits.items():
            out[:, column] = expit(of_class(some))

    return write


def _regression(vectors: np.ndarray, targets: np.ndarray, strength: float) -> Callable[[np.ndarray], np.ndarray]:
    """Fit scikit-learn's logistic regression; return its logits."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, max_iter=_ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the solution so far is a classifier too
        model.fit(vectors, targets)
    return model.decision_function


def _of_classes(logits: np.ndarray) -> np.ndarray:
    """Return one column of logits per class; of two classes scikit-learn gives the second's alone."""
    return logits if logits.ndim == 2 else np.stack([np.zeros_like(logits), logits], axis=1)
