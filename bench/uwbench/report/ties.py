"""Ties: models whose averages do not differ significantly, by a paired bootstrap corrected for the number of pairs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np

from uwbench.cards.protocol import Bootstrap
from uwbench.errors import InputError
from uwbench.methods import METHODS
from uwbench.results.averages import Entry, Method, average_shares, combine
from uwbench.results.bootstrap import combined_error, generator, holm, paired_replicates, resamples_for
from uwbench.results.items import columns_of, read_items, shared_items
from uwbench.results.record import TaskInfo, read_predictions

SIGNIFICANCE = 0.05


@dataclass(frozen=True, slots=True)
class Standing:
    """One model's standing: `place` is 1 + the number of significantly better models, `tied` those it is tied with."""

    place: int
    tied: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TaskDraws:
    """Scores of several models on the same bootstrap samples of one task: model -> `(resamples,)`."""

    scores: Mapping[str, np.ndarray]
    n_clusters: int
    known: dict[str, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def variances(self, average: str, entry: Entry) -> np.ndarray:
        """Return the variance of each two models' difference, `(models, models)`, in the order of `scores`.

        Scores are on the scale of `average`. Scopes and averages ask for the same pairs again and again, so the
        variances are kept.
        """
        scale = "chance" if average == "chance" else ""
        if scale not in self.known:
            scaled = np.stack([combine(scale, [entry], scores[None]) for scores in self.scores.values()])
            self.known[scale] = np.stack([np.var(scaled - of_model, axis=1) for of_model in scaled])
        return self.known[scale]

    def places(self, models: Iterable[str]) -> list[int]:
        """Return the places of models in the order of `scores`."""
        order = list(self.scores)
        return [order.index(model) for model in models]


def draw_tasks(
    paths: Mapping[str, Mapping[str, Path]],
    infos: Mapping[str, TaskInfo],
    method: Method,
    bootstrap: Bootstrap,
    of_folds: str = "pooled",
) -> dict[str, TaskDraws]:
    """Resample each task's predictions, all models on the same items; `paths` is model -> task -> result file.

    Folds are pooled, or averaged with `of_folds="mean"`, as the protocol scores them. Models without readable
    predictions of a task are left out of its draws.
    """
    draws = {}
    for task in sorted({task for of_model in paths.values() for task in of_model}):
        of_task = {model: of_model[task] for model, of_model in paths.items() if task in of_model}
        task_draws = _draw_task(of_task, infos[task], method, bootstrap, of_folds)
        if task_draws is not None:
            draws[task] = task_draws
    return draws


def _draw_task(
    paths: Mapping[str, Path], info: TaskInfo, method: Method, bootstrap: Bootstrap, of_folds: str
) -> TaskDraws | None:
    metric, read = METHODS[method].metric or info.metric, {}
    for model, path in paths.items():
        try:
            read[model] = read_items(read_predictions(path, columns_of(metric)), method, metric)
        except (KeyError, InputError):
            continue  # without predictions a model is on the board but in no tie group
    try:
        items = shared_items(list(read.values()))
    except InputError:
        return None
    rng = generator("items", info.name, bootstrap.seed)
    seed_rngs = [generator("seeds", info.name, model, bootstrap.seed) for model in read]
    resamples = resamples_for(items[0], bootstrap.resamples)
    drawn = paired_replicates(items, resamples, rng, seed_rngs, of_folds=of_folds)
    return TaskDraws(dict(zip(read, drawn, strict=True)), items[0].n_clusters)


def p_value(difference: float, variances: Sequence[float], clusters: Sequence[int]) -> float:
    """Return the two-sided p-value of a difference that is a sum over tasks (see `combined_error`).

    If all resamples are equal, the value is that of a sign test in which all clusters agree.
    """
    from scipy.special import stdtr

    error, freedom = combined_error(variances, clusters)
    if error == 0:
        return 1.0 if abs(difference) < 1e-12 else float(0.5 ** (max(clusters) - 1))
    return float(2 * stdtr(freedom, -abs(difference) / error))


def difference_terms(
    first: Sequence[Entry], second: Sequence[Entry], draws: Sequence[TaskDraws], models: tuple[str, str], average: str
) -> tuple[float, list[float], list[int]]:
    """Return two models' difference in an average, the variances of the tasks' terms, and their numbers of clusters.

    Both lists of entries have the same tasks in the same order.
    """
    scores = [np.array([entry.score for entry in entries]) for entries in (first, second)]
    observed = float(combine(average, first, scores[0]) - combine(average, first, scores[1]))
    variances = [
        float(share**2 * task.variances(average, entry)[*task.places(models)])
        for entry, share, task in zip(first, average_shares(average, first), draws, strict=True)
    ]
    return observed, variances, [task.n_clusters for task in draws]


def stand(ranked: Mapping[str, Sequence[Entry]], draws: Mapping[str, TaskDraws], average: str) -> dict[str, Standing]:
    """Return each model's standing in an average over the same tasks, from all pairs and Holm's correction at 5 %.

    The result is empty if there are fewer than two models or predictions are missing.
    """
    if len(ranked) < 2:
        return {}
    tasks = [entry.task for entry in next(iter(ranked.values()))]
    if any(task not in draws or not set(ranked) <= set(draws[task].scores) for task in tasks):
        return {}
    of_tasks = [draws[task] for task in tasks]
    pairs = list(combinations(ranked, 2))
    entries, clusters = next(iter(ranked.values())), [task.n_clusters for task in of_tasks]
    shares = average_shares(average, entries)
    above = np.triu_indices(len(ranked), 1)  # the pairs, in the same order
    variances = [
        share**2 * task.variances(average, entry)[np.ix_(task.places(ranked), task.places(ranked))][above]
        for entry, share, task in zip(entries, shares, of_tasks, strict=True)
    ]
    scores = {
        model: float(combine(average, of_model, np.array([entry.score for entry in of_model])))
        for model, of_model in ranked.items()
    }
    differences = [scores[a] - scores[b] for a, b in pairs]
    p_values = [p_value(gap, terms, clusters) for gap, terms in zip(differences, np.transpose(variances), strict=True)]
    corrected = holm(p_values)
    better = dict.fromkeys(ranked, 0)
    tied: dict[str, list[str]] = {model: [] for model in ranked}
    for (a, b), p in zip(pairs, corrected, strict=True):
        if p < SIGNIFICANCE and scores[a] != scores[b]:
            better[a if scores[a] < scores[b] else b] += 1
        else:
            tied[a].append(b)
            tied[b].append(a)
    return {model: Standing(1 + better[model], tuple(tied[model])) for model in ranked}
