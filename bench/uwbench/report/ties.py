"""Ties and rank intervals, from a paired bootstrap of all pairs of models, corrected for their number."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np

from uwbench.cards.protocol import Bootstrap
from uwbench.errors import InputError
from uwbench.methods import METHODS
from uwbench.results.averages import Entry, Method, average_shares, combine
from uwbench.results.bootstrap import combined_error, generator, holm, paired_replicates, resamples_for
from uwbench.results.items import Items, columns_of, read_items, shared_items
from uwbench.results.record import TaskInfo, read_predictions

SIGNIFICANCE = 0.05


@dataclass(frozen=True, slots=True)
class Standing:
    """One model's standing: its rank is from `place` to `last`, and it is not told apart from those it is `tied` with.

    `place` is 1 + the number of significantly better models, `last` the number of models minus that of significantly
    worse ones.
    """

    place: int
    last: int
    tied: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PairTest:
    """Two models' difference in an average, the first minus the second, and its p-value before and after Holm.

    `variances` are those of the tasks' terms, `clusters` their numbers of clusters, as for `combined_error`.
    """

    first: str
    second: str
    difference: float
    variances: Sequence[float]
    clusters: Sequence[int]
    p: float
    p_corrected: float

    @property
    def significant(self) -> bool:
        return self.p_corrected < SIGNIFICANCE and self.difference != 0

    @property
    def ahead(self) -> tuple[str, str]:
        """The two models, the one with the higher score first."""
        return (self.first, self.second) if self.difference > 0 else (self.second, self.first)


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
    paths: Mapping[str, Mapping[str, Mapping[Method, Path]]],
    infos: Mapping[str, TaskInfo],
    bootstrap: Bootstrap,
    of_folds: Callable[[Method], str],
) -> dict[Method, dict[str, TaskDraws]]:
    """Resample each task's predictions by each method, all models on the same items.

    `paths` is task -> model -> method -> result file. Folds are pooled or averaged as `of_folds` says of a method:
    `pooled` or `mean`, as the protocol scores them. Models without readable predictions of a task are left out of its
    draws.
    """
    draws: dict[Method, dict[str, TaskDraws]] = {}
    for task, of_task in sorted(paths.items()):
        read: dict[Method, dict[str, Items]] = {}
        for model, of_model in of_task.items():
            for method, items in _read_methods(of_model, infos[task]).items():
                read.setdefault(method, {})[model] = items
        for method, rivals in read.items():
            drawn = _draw_task(rivals, infos[task], bootstrap, of_folds(method))
            if drawn is not None:
                draws.setdefault(method, {})[task] = drawn
    return draws


def _read_methods(paths: Mapping[Method, Path], info: TaskInfo) -> dict[Method, Items]:
    """Return one model's predictions of a task by each method that has some; a file is read once for all methods."""
    metrics = {method: METHODS[method].metric or info.metric for method in paths}
    items = {}
    for path in dict.fromkeys(paths.values()):
        methods = [method for method in paths if paths[method] == path]
        columns = dict.fromkeys(column for method in methods for column in columns_of(metrics[method]))
        try:
            table = read_predictions(path, list(columns))
        except InputError:
            continue  # without predictions a model is on the board but in no tie group
        for method in methods:
            with contextlib.suppress(KeyError, InputError):
                items[method] = read_items(table, method, metrics[method])
    return items


def _draw_task(read: Mapping[str, Items], info: TaskInfo, bootstrap: Bootstrap, of_folds: str) -> TaskDraws | None:
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


def compare_pairs(
    ranked: Mapping[str, Sequence[Entry]], draws: Mapping[str, TaskDraws], average: str
) -> list[PairTest]:
    """Test each pair of models in an average over the same tasks; Holm's correction is over all pairs.

    The result is empty if there are fewer than two models or predictions are missing.
    """
    if len(ranked) < 2:
        return []
    tasks = [entry.task for entry in next(iter(ranked.values()))]
    if any(task not in draws or not set(ranked) <= set(draws[task].scores) for task in tasks):
        return []
    of_tasks = [draws[task] for task in tasks]
    pairs = list(combinations(ranked, 2))
    terms = _terms_of_pairs(ranked, of_tasks, average)
    p_values = [p_value(*of_pair) for of_pair in terms]
    return [
        PairTest(*names, *of_pair, p, corrected)
        for names, of_pair, p, corrected in zip(pairs, terms, p_values, holm(p_values), strict=True)
    ]


def _terms_of_pairs(
    ranked: Mapping[str, Sequence[Entry]], draws: Sequence[TaskDraws], average: str
) -> list[tuple[float, list[float], list[int]]]:
    """Return `difference_terms` of each pair of models, in the order of `combinations`; what pairs share once."""
    entries = next(iter(ranked.values()))  # models with the same data have the same weights and chance levels
    scores = [float(combine(average, of_model, np.array([e.score for e in of_model]))) for of_model in ranked.values()]
    first, second = np.triu_indices(len(ranked), 1)
    variances = [
        share**2 * task.variances(average, entry)[places[first], places[second]]
        for entry, share, task in zip(entries, average_shares(average, entries), draws, strict=True)
        for places in [np.array(task.places(ranked))]
    ]
    clusters = [task.n_clusters for task in draws]
    of_pairs = np.stack(variances, axis=1).tolist()
    return [(scores[a] - scores[b], of_pair, clusters) for a, b, of_pair in zip(first, second, of_pairs, strict=True)]


def stand(ranked: Mapping[str, Sequence[Entry]], draws: Mapping[str, TaskDraws], average: str) -> dict[str, Standing]:
    """Return each model's standing in an average over the same tasks, from all pairs and Holm's correction at 5 %.

    Holm's correction holds for all pairs at once: on at least 95 of 100 boards, every significant order is true, and so
    the rank of every model is between its place and its last (Al Mohamad, Goeman and van Zwet 2022, Biometrics 78,
    238-247). The result is empty if `compare_pairs` returns nothing.
    """
    pairs = compare_pairs(ranked, draws, average)
    better, worse = dict.fromkeys(ranked, 0), dict.fromkeys(ranked, 0)
    tied: dict[str, list[str]] = {model: [] for model in ranked}
    for pair in pairs:
        if pair.significant:
            ahead, behind = pair.ahead
            better[behind] += 1
            worse[ahead] += 1
        else:
            tied[pair.first].append(pair.second)
            tied[pair.second].append(pair.first)
    if not pairs:
        return {}
    return {model: Standing(1 + better[model], len(ranked) - worse[model], tuple(tied[model])) for model in ranked}
