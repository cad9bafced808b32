"""The interval of a task's score and the four averages of a model, as pure functions on records.

Scores are in [0, 1], higher is better. An average never mixes protocols, and names its tasks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from uwbench.cards.protocol import Bootstrap
from uwbench.cards.suite import Suite
from uwbench.errors import UsageError
from uwbench.results.bootstrap import generator, replicates, resamples_for, score_interval, seed_scores
from uwbench.results.items import read_items
from uwbench.results.record import Method, Result, Score, TaskInfo

if TYPE_CHECKING:
    import pyarrow as pa


class AverageText(NamedTuple):
    """An average's name in tables, its name in narrow tables, and its formula."""

    name: str
    short: str
    formula: str


AVERAGES: dict[str, AverageText] = {  # the first is the headline
    "weighted": AverageText(
        "Weighted",
        "Weighted",
        "sum of weight × score over sum of weights; weights as published by X-ARES, on each task's card",
    ),
    "domain": AverageText("Domain mean", "Domain", "mean over speech, sound and music of the mean score in each"),
    "task": AverageText("Task mean", "Task", "plain mean of the tasks' scores"),
    "chance": AverageText("Above chance", "> chance", "mean of (score − chance) / (1 − chance), each within 0 and 1"),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One task's share in an average: its score with interval, and the card's weight, chance and domain."""

    task: str
    domain: str
    weight: float
    chance: float
    score: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Average:
    """One average over `tasks`, out of `of` tasks in all. It has no interval if one of its tasks has none."""

    name: str
    score: float
    low: float | None
    high: float | None
    tasks: tuple[str, ...]
    of: int


def interval(
    predictions: pa.Table, method: str, metric: str, bootstrap: Bootstrap, *, of_folds: str = "pooled"
) -> tuple[float, float]:
    """Return the bootstrap interval of a method's score; both groups of test items and probe seeds are drawn.

    `predictions` are the rows of `<task>.predictions.parquet`. Folds are pooled, or averaged with `of_folds="mean"`, as
    the protocol scores them. Raises InputError if the seeds do not predict the same items.
    """
    items = read_items(predictions, method, metric)
    rng, seed_rng = generator("items", bootstrap.seed), generator("seeds", bootstrap.seed)
    values = replicates(items, resamples_for(items, bootstrap.resamples), rng, seed_rng, of_folds=of_folds)
    score = float(seed_scores(items, of_folds=of_folds).mean())
    return score_interval(score, values, bootstrap.level, items.n_clusters)


def entry_of(task: TaskInfo, score: Score) -> Entry:
    """Return a score's entry in an average."""
    low, high = score.ci95 or (None, None)
    chance = task.chance if score.chance is None else score.chance
    return Entry(task.name, task.domain, task.weight, chance, score.main_score, low, high)


def averages(results: Iterable[Result], suite: Suite, method: Method) -> dict[str, Average]:
    """Return the four averages of one model's results over the tasks of `suite`; empty if none of them was scored.

    Raises UsageError if the results mix models, protocols or schemas, or if a task occurs twice.
    """
    scored = [result for result in results if result.task.name in suite.tasks and method in result.scores]
    identities = {
        "models": {result.model.fingerprint for result in scored},
        "protocols": {(result.protocol.name, result.protocol.version, result.protocol.sha256) for result in scored},
        "schemas": {result.schema_ for result in scored},
    }
    for noun, different in identities.items():
        if len(different) > 1:
            raise UsageError(f"results of different {noun} cannot be averaged together")
    entries = [entry_of(result.task, result.scores[method]) for result in scored]
    return average_entries(entries, of=len(suite.tasks))


def average_entries(entries: Sequence[Entry], *, of: int | None = None) -> dict[str, Average]:
    """Return the four averages of `entries`, one per task; `of` is the number of tasks in a complete average."""
    names = [entry.task for entry in entries]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise UsageError(f"{twice[0]} occurs twice; versions of a task cannot be averaged together")
    if not entries:
        return {}
    return {name: _average(name, entries, of or len(entries)) for name in AVERAGES}


def combine(name: str, entries: Sequence[Entry], scores: np.ndarray) -> np.ndarray:
    """Return the average called `name` of task `scores` `(tasks, ...)`, for any number of draws at once."""
    shares = average_shares(name, entries)
    return np.tensordot(shares, _scale(name, entries, scores), axes=1)


def average_shares(name: str, entries: Sequence[Entry]) -> np.ndarray:
    """Return each task's share of the average; the shares add up to 1."""
    if name == "weighted":
        shares = np.array([entry.weight for entry in entries])
    elif name == "domain":
        sizes = Counter(entry.domain for entry in entries)
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

    As tasks are independent, their intervals are combined by their distances from the scores, each side separately
    (method of variance estimates recovery; Zou and Donner 2008, Statistics in Medicine 27, 1693-1702).
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
    return {name: 1 + sum(rival > value for rival in values.values()) for name, value in values.items()}


def borda(table: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return each model's Borda count: on each task, one point per model beaten and half a point per tie.

    `table` is model -> task -> score, with every model on the same tasks.
    """
    points = dict.fromkeys(table, 0.0)
    for task in next(iter(table.values()), {}):
        for name, scores in table.items():
            rivals = [rival_scores[task] for rival, rival_scores in table.items() if rival != name]
            points[name] += sum(
                1.0 if scores[task] > value else 0.5 if scores[task] == value else 0.0 for value in rivals
            )
    return points
