"""Which models cannot be told apart: paired bootstrap of the averages' differences, corrected for the number of
pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from uwbench.bootstrap import generator, holm, paired_replicates, read_items, shared_items
from uwbench.card import Bootstrap
from uwbench.errors import InputError
from uwbench.result import TaskInfo, predictions_path
from uwbench.score import Entry, Method, combine

SIGNIFICANCE = 0.05
# Average precision over many clips and classes costs 8 s a thousand draws and seed (10,000 clips, 200 classes). Ties
# need a standard error only, which 200 draws give within 5 %.
_LARGE, _FEWER = 400_000, 200


@dataclass(frozen=True, slots=True)
class Standing:
    """`place` is 1 + the number of models significantly better; `tied` are the models not distinguishable from this
    one.
    """

    place: int
    tied: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TaskDraws:
    """Scores of several models on the same bootstrap samples of one task: model -> `(resamples,)`."""

    scores: Mapping[str, np.ndarray]
    n_clusters: int


def draw_tasks(
    paths: Mapping[str, Mapping[str, Path]],
    infos: Mapping[str, TaskInfo],
    method: Method,
    bootstrap: Bootstrap,
) -> dict[str, TaskDraws]:
    """Resample each task's predictions, all models on the same items. `paths` is model -> task -> result file.

    A task that not every model has readable predictions for is drawn for the models that have.
    """
    draws = {}
    for task in sorted({task for own in paths.values() for task in own}):
        of_task = {model: own[task] for model, own in paths.items() if task in own}
        found = _draw_task(of_task, infos[task], method, bootstrap)
        if found is not None:
            draws[task] = found
    return draws


def _draw_task(paths: Mapping[str, Path], info: TaskInfo, method: Method, bootstrap: Bootstrap) -> TaskDraws | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = ["method", "seed", "fold", "id", "group", "truth", "prediction"]
    names += {"map": ["scores"], "accuracy": [], "macro-f1": []}.get(info.metric, ["counts"])
    read = {}
    for model, path in paths.items():
        try:
            read[model] = read_items(pq.read_table(predictions_path(path), columns=names), method, info.metric)
        except (OSError, KeyError, pa.ArrowException, InputError):
            continue  # without predictions a model is on the board and in no tie group
    if not read:
        return None
    items = shared_items(list(read.values()))
    rng = generator("items", info.name, bootstrap.seed)
    seed_rngs = [generator("seeds", info.name, model, bootstrap.seed) for model in read]
    large = info.metric == "map" and len(items[0].ids) * items[0].classes > _LARGE
    resamples = min(bootstrap.resamples, _FEWER) if large else bootstrap.resamples
    drawn = paired_replicates(items, resamples, rng, seed_rngs)
    return TaskDraws(dict(zip(read, drawn, strict=True)), items[0].n_clusters)


def p_value(difference: float, variances: Sequence[float], clusters: Sequence[int]) -> float:
    """Return the two-sided p-value of a difference that is a sum over tasks.

    `variances` are the tasks' bootstrap variances of their terms, `clusters` their numbers of clusters: each is
    corrected by G / (G - 1), and the degrees of freedom are Satterthwaite's (1946). Where no resample differs from
    another, the sign test of all clusters agreeing bounds it.
    """
    from scipy import stats

    freedoms = np.maximum(np.asarray(clusters, dtype=float) - 1, 1)
    terms = np.asarray(variances) * (freedoms + 1) / freedoms
    total = float(terms.sum())
    if total <= 1e-24:
        return 1.0 if abs(difference) < 1e-12 else float(0.5 ** (max(clusters) - 1))
    freedom = total**2 / float((terms**2 / freedoms).sum())
    return float(2 * stats.t.sf(abs(difference) / np.sqrt(total), freedom))


def difference_p(
    first: Sequence[Entry], second: Sequence[Entry], draws: Sequence[TaskDraws], models: tuple[str, str], average: str
) -> float:
    """Return the p-value of two models' difference in an average over the same tasks, in the same order."""
    one, other = ([entry.score for entry in entries] for entries in (first, second))
    observed = float(combine(average, first, np.array(one)) - combine(average, first, np.array(other)))
    variances = []
    for index, task in enumerate(draws):
        changed = [
            np.tile(np.array(scores, dtype=float)[:, None], len(task.scores[models[0]])) for scores in (one, other)
        ]
        for table, model in zip(changed, models, strict=True):
            table[index] = task.scores[model]
        variances.append(float(np.var(combine(average, first, changed[0]) - combine(average, first, changed[1]))))
    return p_value(observed, variances, [task.n_clusters for task in draws])


def stand(ranked: Mapping[str, Sequence[Entry]], draws: Mapping[str, TaskDraws], average: str) -> dict[str, Standing]:
    """Return each model's standing in an average over the same tasks; empty where predictions are missing or one
    model is.

    All pairs are compared, their p-values corrected by Holm's rule at 5 %.
    """
    if len(ranked) < 2:
        return {}
    tasks = [entry.task for entry in next(iter(ranked.values()))]
    if any(task not in draws or not set(ranked) <= set(draws[task].scores) for task in tasks):
        return {}
    of_tasks = [draws[task] for task in tasks]
    pairs = list(combinations(ranked, 2))
    corrected = holm([difference_p(ranked[a], ranked[b], of_tasks, (a, b), average) for a, b in pairs])
    scores = {model: float(combine(average, own, np.array([e.score for e in own]))) for model, own in ranked.items()}
    better = dict.fromkeys(ranked, 0)
    tied: dict[str, list[str]] = {model: [] for model in ranked}
    for (a, b), p in zip(pairs, corrected, strict=True):
        if p < SIGNIFICANCE and scores[a] != scores[b]:
            better[a if scores[a] < scores[b] else b] += 1
        else:
            tied[a].append(b)
            tied[b].append(a)
    return {model: Standing(1 + better[model], tuple(tied[model])) for model in ranked}
