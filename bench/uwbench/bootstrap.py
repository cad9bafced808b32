"""Resampling of predictions: how much a score would move on another draw of test items and probe seeds.

A test item belongs to a cluster (speaker, recording, song); clusters are drawn with replacement, items never alone. All
metrics here take a weight an item, so that a resample is a matrix of counts and no data is copied.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from uwbench.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

_CELLS = 4_000_000  # weights held at once: 16 MB of float32
_CHUNK = 256  # resamples a time in average precision, so that the weights stay in the processor's cache


@dataclass(frozen=True, slots=True)
class Items:
    """One method's predictions of one task: `n` items, `S` probe seeds, `C` classes.

    `truth` int `(n,)` and `predicted` int `(S, n)` number texts or classes; `relevant` bool `(n, C)` and `scores`
    float32 `(S, n, C)` are set for mAP; `counts` float32 `(S, n, K)` for metrics that add up counts. `folds` `(n,)`
    numbers the folds.
    """

    metric: str
    ids: np.ndarray
    clusters: np.ndarray
    folds: np.ndarray
    seeds: tuple[int, ...]
    truth: np.ndarray | None = None
    predicted: np.ndarray | None = None
    relevant: np.ndarray | None = None
    scores: np.ndarray | None = None
    counts: np.ndarray | None = None
    classes: int = 0

    @property
    def n_clusters(self) -> int:
        return int(self.clusters.max()) + 1

    def take(self, rows: np.ndarray) -> Items:
        """Return the items at `rows` (positions or a mask), clusters numbered afresh."""

        def pick(array: np.ndarray | None, axis: int) -> np.ndarray | None:
            return (
                None
                if array is None
                else np.compress(rows, array, axis)
                if rows.dtype == bool
                else array.take(rows, axis)
            )

        return replace(
            self,
            ids=self.ids[rows],
            clusters=np.unique(self.clusters[rows], return_inverse=True)[1],
            folds=self.folds[rows],
            truth=pick(self.truth, 0),
            predicted=pick(self.predicted, 1),
            relevant=pick(self.relevant, 0),
            scores=pick(self.scores, 1),
            counts=pick(self.counts, 1),
        )


def read_items(predictions: pa.Table, method: str, metric: str) -> Items:
    """Read one method's predictions; raise InputError where they do not belong together.

    Items come back sorted by fold and id. An item without a group is a cluster of its own.
    """
    methods = np.asarray(predictions.column("method").to_pylist(), dtype=object)
    table = predictions.filter(methods == method)
    if table.num_rows == 0:
        raise InputError(f"the predictions hold nothing of {method}")
    columns = {name: _texts(table, name) for name in ("fold", "id", "group", "truth", "prediction")}
    order = np.lexsort((columns["id"], columns["fold"], table.column("seed").to_numpy()))
    seeds = tuple(int(seed) for seed in np.unique(table.column("seed").to_numpy()))
    if len(order) % len(seeds):
        raise InputError(f"the seeds of {method} do not predict the same items")
    by_seed = order.reshape(len(seeds), -1)
    names = np.char.add(np.char.add(columns["fold"].astype(str), "\0"), columns["id"].astype(str))[by_seed]
    if (names != names[0]).any() or len(np.unique(names[0])) < names.shape[1]:
        raise InputError(f"the seeds of {method} do not predict the same items, each once")
    first = by_seed[0]
    items = Items(
        metric=metric,
        ids=names[0],
        clusters=_clusters(columns["group"][first], names[0]),
        folds=np.unique(columns["fold"][first], return_inverse=True)[1],
        seeds=seeds,
    )
    return _with_contents(items, table, columns, by_seed)


def _texts(table: pa.Table, name: str) -> np.ndarray:
    values = table.column(name).to_pylist()
    return np.asarray(["" if value is None else str(value) for value in values], dtype=object)


def _clusters(groups: np.ndarray, ids: np.ndarray) -> np.ndarray:
    names = [f"group {group}" if group else f"item {name}" for group, name in zip(groups, ids, strict=True)]
    return np.unique(names, return_inverse=True)[1]


def _with_contents(items: Items, table: pa.Table, columns: dict[str, np.ndarray], by_seed: np.ndarray) -> Items:
    truth, predicted = columns["truth"], columns["prediction"]
    if items.metric in ("segment-f1-macro", "segment-f1-micro", "one-minus-wer"):
        return replace(items, counts=_matrix(table, "counts")[by_seed])
    if items.metric == "map":
        names = json.loads((table.schema.metadata or {})[b"classes"])
        position = {name: index for index, name in enumerate(names)}
        relevant = np.zeros((len(items.ids), len(names)), dtype=bool)
        for row, text in enumerate(truth[by_seed[0]]):
            relevant[row, [position[label] for label in json.loads(text)]] = True
        return replace(items, relevant=relevant, scores=_matrix(table, "scores")[by_seed], classes=len(names))
    texts, numbers = np.unique(np.concatenate([truth, predicted]).astype(str), return_inverse=True)
    found, guessed = numbers[: len(truth)], numbers[len(truth) :]
    return replace(items, truth=found[by_seed[0]], predicted=guessed[by_seed], classes=len(texts))


def _matrix(table: pa.Table, name: str) -> np.ndarray:
    """Return a list column as float32 `(rows, width)`."""
    column = table.column(name).combine_chunks()
    lengths = {len(value) for value in column.slice(0, 1).to_pylist() if value is not None}
    values = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    width = lengths.pop() if lengths else 0
    if width == 0 or len(values) != width * table.num_rows:
        raise InputError(f"the column {name} of the predictions does not hold one list of the same length an item")
    return values.reshape(table.num_rows, width)


def cluster_counts(n_clusters: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Return how often each resample drew each cluster, float32 `(resamples, n_clusters)`."""
    drawn = rng.integers(0, n_clusters, size=(resamples, n_clusters))
    drawn += np.arange(resamples)[:, None] * n_clusters
    counts = np.bincount(drawn.ravel(), minlength=resamples * n_clusters)
    return counts.reshape(resamples, n_clusters).astype(np.float32)


def score_weighted(items: Items, weights: np.ndarray, *, of_folds: str = "pooled") -> np.ndarray:
    """Return each seed's score under each row of cluster `weights` `(B, clusters)`, float64 `(B, S)`.

    `of_folds` is `pooled` (all items together) or `mean` (the mean of the folds' scores, for protocols that score so).
    """
    if of_folds == "mean" and items.folds.max() > 0:
        per_fold = []
        for fold in range(int(items.folds.max()) + 1):
            rows = np.flatnonzero(items.folds == fold)
            kept = np.unique(items.clusters[rows])
            per_fold.append(score_weighted(items.take(rows), weights[:, kept]))
        return np.nanmean(np.stack(per_fold), axis=0)
    if items.metric == "map":
        return _mean_average_precision(items, weights)
    if items.counts is not None:
        sums = _sums(items.counts, items.clusters, items.n_clusters, weights)
        return _from_counts(items.metric, sums)
    if items.truth is None or items.predicted is None:
        raise InputError(f"the predictions hold nothing that {items.metric} is computed from")
    if items.metric == "macro-f1":
        return _macro_f1(items, weights)
    right = (items.predicted == items.truth).astype(np.float32)[:, :, None]
    pairs = np.concatenate([right, np.ones_like(right)], axis=2)
    sums = _sums(pairs, items.clusters, items.n_clusters, weights)
    return sums[:, :, 0] / sums[:, :, 1]


def seed_scores(items: Items, *, of_folds: str = "pooled") -> np.ndarray:
    """Return each seed's score of the items as they are, float64 `(S,)`."""
    return score_weighted(items, np.ones((1, items.n_clusters), np.float32), of_folds=of_folds)[0]


def replicates(
    items: Items, resamples: int, rng: np.random.Generator, seed_rng: np.random.Generator, *, of_folds: str = "pooled"
) -> np.ndarray:
    """Return the scores of bootstrap samples, float64 `(resamples,)`: clusters and seeds are drawn with replacement.

    Two models' predictions of the same items are paired by giving both an equal `rng` and each its own `seed_rng`.
    """
    parts = [score_weighted(items, weights, of_folds=of_folds) for weights in _chunks(items.n_clusters, resamples, rng)]
    per_seed = np.concatenate(parts)
    count = len(items.seeds)
    drawn = cluster_counts(count, resamples, seed_rng) / count
    return (per_seed * drawn).sum(axis=1)


def percentile_interval(values: np.ndarray, level: float, n_clusters: int) -> tuple[float, float]:
    """Return the percentile interval of bootstrap `values` drawn from `n_clusters` clusters.

    The tails are those of a t distribution with one degree of freedom fewer than clusters, widened by the variance that
    drawing with replacement leaves out (the expanded percentile interval of Hesterberg 2015, "What teachers should know
    about the bootstrap"); with hundreds of clusters this is the plain percentile interval. Where every resample scores
    exactly 0 or 1 there is nothing to draw from: the exact binomial bound of all clusters right (or wrong) stands in.
    """
    from scipy import stats

    tail = (1 - level) / 2
    if n_clusters < 2:
        return 0.0, 1.0  # one speaker or recording says nothing about another
    if values.min() == values.max() and values[0] in (0.0, 1.0):
        bound = tail ** (1 / n_clusters)
        return (bound, 1.0) if values[0] == 1.0 else (0.0, 1 - bound)
    freedom = n_clusters - 1
    wider = float(stats.norm.cdf(np.sqrt(n_clusters / freedom) * stats.t.ppf(tail, freedom)))
    low, high = np.quantile(values, [wider, 1 - wider])
    return max(0.0, float(low)), min(1.0, float(high))


def _chunks(n_clusters: int, resamples: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    step = max(1, _CELLS // n_clusters)
    for start in range(0, resamples, step):
        yield cluster_counts(n_clusters, min(step, resamples - start), rng)


def _sums(values: np.ndarray, clusters: np.ndarray, n_clusters: int, weights: np.ndarray) -> np.ndarray:
    """Add up `values` `(S, n, K)` under the weights of their clusters: float64 `(B, S, K)`."""
    seeds, _, width = values.shape
    totals = np.zeros((n_clusters, seeds, width))
    np.add.at(totals, clusters, values.transpose(1, 0, 2))
    return (weights.astype(np.float64) @ totals.reshape(n_clusters, -1)).reshape(len(weights), seeds, width)


def _from_counts(metric: str, sums: np.ndarray) -> np.ndarray:
    if metric == "one-minus-wer":
        return np.maximum(0.0, 1 - sums[:, :, 0] / np.maximum(sums[:, :, 1], 1))
    hits, false, missed = np.split(sums, 3, axis=2)
    if metric == "segment-f1-micro":
        hits, false, missed = (part.sum(axis=2, keepdims=True) for part in (hits, false, missed))
    return _mean_f1(hits, false, missed)


def _mean_f1(hits: np.ndarray, false: np.ndarray, missed: np.ndarray) -> np.ndarray:
    """Return the mean F1 over the classes that occur or are predicted (last axis)."""
    total = 2 * hits + false + missed
    scores = np.divide(2 * hits, total, out=np.zeros_like(total), where=total > 0)
    return scores.sum(axis=2) / np.maximum((total > 0).sum(axis=2), 1)


def _macro_f1(items: Items, weights: np.ndarray) -> np.ndarray:
    truth, predicted = items.truth, items.predicted
    if truth is None or predicted is None:
        raise InputError("the predictions hold no classes")
    columns = []
    for guesses in predicted:
        hits, of_truth, guessed = (np.zeros((items.n_clusters, items.classes), np.float32) for _ in range(3))
        right = guesses == truth
        np.add.at(hits, (items.clusters[right], truth[right]), 1)
        np.add.at(of_truth, (items.clusters, truth), 1)
        np.add.at(guessed, (items.clusters, guesses), 1)
        hits, of_truth, guessed = (weights @ part for part in (hits, of_truth, guessed))
        columns.append(_mean_f1(*(part[:, None, :] for part in (hits, guessed - hits, of_truth - hits)))[:, 0])
    return np.stack(columns, axis=1)


def _mean_average_precision(items: Items, weights: np.ndarray) -> np.ndarray:
    relevant, scores = items.relevant, items.scores
    if relevant is None or scores is None:
        raise InputError("the predictions hold no class scores")
    parts = []
    for start in range(0, len(weights), _CHUNK):
        by_item = np.ascontiguousarray(weights[start : start + _CHUNK].T)[items.clusters]
        columns = [_map_of_seed(relevant, by_seed, by_item) for by_seed in scores]
        parts.append(np.stack(columns, axis=1))
    return np.concatenate(parts)


def _map_of_seed(relevant: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean over classes with a positive of the average precision, `(B,)`, for item `weights` `(n, B)`."""
    total, classes = np.zeros(weights.shape[1]), np.zeros(weights.shape[1])
    for column in np.flatnonzero(relevant.any(axis=0)):
        precision, positives = _average_precision(relevant[:, column], scores[:, column], weights)
        total += precision
        classes += positives
    return total / np.maximum(classes, 1)


def _average_precision(relevant: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return average precision `(B,)`, 0 where a resample has no positive, and whether it has one.

    Items of equal score count as one threshold, as in scikit-learn's `average_precision_score`.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, hit = scores[order], relevant[order]
    ends = np.searchsorted(-ranked, -ranked[hit], side="right")  # end of each positive's block of equal scores
    ends, owner = np.unique(ends, return_inverse=True)
    starts = np.concatenate([[0], ends[:-1]])
    retrieved = np.cumsum(np.add.reduceat(weights[order[: ends[-1]]], starts, axis=0), axis=0, dtype=np.float64)
    of_block = np.zeros((len(ends), weights.shape[1]))
    np.add.at(of_block, owner, weights[order[hit]])
    found = np.cumsum(of_block, axis=0)
    precision = np.divide(found, retrieved, out=np.zeros_like(found), where=retrieved > 0)
    positives = found[-1]
    return (precision * of_block).sum(axis=0) / np.maximum(positives, 1), positives > 0


def pair(first: Items, second: Items) -> tuple[Items, Items, int]:
    """Return both models' predictions of the items they share, in one order, and how many items that leaves out."""
    shared, left, right = np.intersect1d(first.ids, second.ids, return_indices=True)
    if len(shared) == 0:
        raise InputError("the two models have no test item in common")
    left_out = max(len(first.ids), len(second.ids)) - len(shared)
    return first.take(left), second.take(right), left_out


def generator(*words: str | int) -> np.random.Generator:
    """Return a random generator that depends on `words` alone, the same on every machine."""
    return np.random.default_rng(np.random.SeedSequence([byte for word in words for byte in f"{word}\0".encode()]))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number by Holm's step-down rule (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * float(p_values[index])))
        corrected[index] = largest
    return corrected
