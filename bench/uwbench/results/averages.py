"""Scores put together: the interval of a task's score, and the four averages of a model. Pure functions on records.

Every task's score is in [0, 1], higher is better. Averages never mix protocols, and name the tasks they hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from uwbench.cards.protocol import Bootstrap
from uwbench.cards.suite import Suite
from uwbench.errors import UsageError
from uwbench.results.bootstrap import generator, replicates, resamples_for, score_interval, seed_scores
from uwbench.results.items import read_items
from uwbench.results.record import Method, Result

if TYPE_CHECKING:
    import pyarrow as pa

AVERAGES = ("weighted", "domain", "task", "chance")  # weighted is the headline
METHODS: tuple[Method, ...] = ("mlp", "knn")


@dataclass(frozen=True, slots=True)
class Entry:
    """What an average needs of one task: its score, the score's interval, and the card's weight, chance and domain."""

    task: str
    domain: str
    weight: float
    chance: float
    score: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Average:
    """One average: over `tasks`, of the `of` tasks that a full one would hold; no interval where a task has none."""

    name: str
    score: float
    low: float | None
    high: float | None
    tasks: tuple[str, ...]
    of: int

    @property
    def complete(self) -> bool:
        return len(self.tasks) == self.of


def interval(
    predictions: pa.Table, method: str, metric: str, bootstrap: Bootstrap, *, of_folds: str = "pooled"
) -> tuple[float, float]:
    """Return the bootstrap interval of a method's score: test items drawn by group, probe seeds drawn too.

    `predictions` are the rows of `<task>.predictions.parquet`. Folds are pooled, or averaged with `of_folds="mean"` for
    protocols that score so. Raises InputError where the predictions do not belong together.
    """
    items = read_items(predictions, method, metric)
    rng, seed_rng = generator("items", bootstrap.seed), generator("seeds", bootstrap.seed)
    values = replicates(items, resamples_for(items, bootstrap.resamples), rng, seed_rng, of_folds=of_folds)
    score = float(seed_scores(items, of_folds=of_folds).mean())
    return score_interval(score, values, bootstrap.level, items.n_clusters)


def entry_of(result: Result, method: Method) -> Entry | None:
    """Return what averages need of a result, or None where it holds no score of the method."""
    score = result.scores.get(method)
    if score is None:
        return None
    low, high = score.ci95 or (None, None)
    task = result.task
    return Entry(task.name, task.domain, task.weight, task.chance, score.main_score, low, high)


def averages(results: Iterable[Result], suite: Suite, method: Method) -> dict[str, Average]:
    """Return the four averages of one model's results over the tasks of `suite` that they hold, if any.

    Raises UsageError where the results mix models, protocols, schemas, or two results of one task.
    """
    held = [result for result in results if result.task.name in suite.tasks and method in result.scores]
    mixed = {
        "models": {result.model.fingerprint for result in held},
        "protocols": {(result.protocol.name, result.protocol.version, result.protocol.sha256) for result in held},
        "schemas": {result.schema_ for result in held},
    }
    for what, found in mixed.items():
        if len(found) > 1:
            raise UsageError(f"results of different {what} cannot be averaged together")
    entries = [entry for result in held if (entry := entry_of(result, method)) is not None]
    return average_entries(entries, of=len(suite.tasks))


def average_entries(entries: Sequence[Entry], *, of: int | None = None) -> dict[str, Average]:
    """Return the four averages of `entries`, each task once; `of` is how many tasks a complete average would hold."""
    names = [entry.task for entry in entries]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise UsageError(f"{twice[0]} is held twice; versions of a task cannot be averaged together")
    if not entries:
        return {}
    return {name: _average(name, entries, of or len(entries)) for name in AVERAGES}


def combine(name: str, entries: Sequence[Entry], scores: np.ndarray) -> np.ndarray:
    """Return the average called `name` of task `scores` `(tasks, ...)`: any number of draws at once."""
    shares = average_shares(name, entries)
    return np.tensordot(shares, _scale(name, entries, scores), axes=1)


def average_shares(name: str, entries: Sequence[Entry]) -> np.ndarray:
    """Return each task's share of the average, adding up to 1."""
    if name == "weighted":
        shares = np.array([entry.weight for entry in entries])
    elif name == "domain":
        sizes = {domain: sum(entry.domain == domain for entry in entries) for domain in {e.domain for e in entries}}
        shares = np.array([1 / sizes[entry.domain] for entry in entries])
    else:
        shares = np.ones(len(entries))
    return shares / shares.sum()


def _scale(name: str, entries: Sequence[Entry], scores: np.ndarray) -> np.ndarray:
    if name != "chance":
        return scores
    chance = np.array([entry.chance for entry in entries]).reshape(-1, *[1] * (scores.ndim - 1))
    return np.clip((scores - chance) / (1 - chance), 0, 1)


def _average(name: str, entries: Sequence[Entry], of: int) -> Average:
    """Return one average with its interval.

    The tasks' intervals are combined by their distances from the scores, each side for itself (method of variance
    estimates recovery; Zou and Donner 2008, Statistics in Medicine 27, 1693-1702): tasks are drawn independently.
    """
    scores = np.array([entry.score for entry in entries])
    middle = float(combine(name, entries, scores))
    low = high = None
    if all(entry.low is not None and entry.high is not None for entry in entries):
        shares = average_shares(name, entries)
        centre = _scale(name, entries, scores)
        below = centre - _scale(name, entries, np.array([entry.low for entry in entries], dtype=float))
        above = _scale(name, entries, np.array([entry.high for entry in entries], dtype=float)) - centre
        low = max(0.0, middle - float(np.sqrt(((shares * np.maximum(below, 0)) ** 2).sum())))
        high = min(1.0, middle + float(np.sqrt(((shares * np.maximum(above, 0)) ** 2).sum())))
    return Average(name, middle, low, high, tuple(entry.task for entry in entries), of)


def rank_by(score: Callable[[str], float], names: Iterable[str]) -> dict[str, int]:
    """Return ranks from 1, highest score first; equal scores share a rank."""
    values = {name: score(name) for name in names}
    return {name: 1 + sum(other > value for other in values.values()) for name, value in values.items()}


def borda(table: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return each model's Borda count over the tasks: a point for each model beaten, half for each equal.

    `table` is model -> task -> score, every model on the same tasks.
    """
    points = dict.fromkeys(table, 0.0)
    for task in next(iter(table.values()), {}):
        for name, scores in table.items():
            others = [rival[task] for other, rival in table.items() if other != name]
            points[name] += sum(
                1.0 if scores[task] > value else 0.5 if scores[task] == value else 0.0 for value in others
            )
    return points
