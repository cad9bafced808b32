"""Resampling of predictions: how much a score would move on another draw of test items and probe seeds.

A test item belongs to a cluster (speaker, recording, song); clusters are drawn with replacement, items never alone. All
metrics here take a weight an item, so that a resample is a matrix of counts and no data is copied.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from uwbench.base.json_text import parse_json
from uwbench.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

_CELLS = 4_000_000  # weights held at once: 16 MB of float32
_SURE = 1e-6  # seeds that are all right may miss 1, and each other, by rounding
_LARGE, _FEWER = 400_000, 200  # clips times classes from which average precision is drawn so many times only
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
    import pyarrow.compute as pc

    table = predictions.filter(pc.field("method") == method)
    if table.num_rows == 0:
        raise InputError(f"the predictions hold nothing of {method}")
    fold, fold_names = _codes(table, "fold")
    clip, clip_names = _codes(table, "id")
    seed = table.column("seed").to_numpy()
    seeds = tuple(np.unique(seed).tolist())
    order = np.lexsort((clip, fold, seed))
    if len(order) % len(seeds):
        raise InputError(f"the seeds of {method} do not predict the same items")
    by_seed = order.reshape(len(seeds), -1)
    item = (fold.astype(np.int64) * len(clip_names) + clip)[by_seed]
    if (item != item[0]).any() or (np.diff(item[0]) == 0).any():
        raise InputError(f"the seeds of {method} do not predict the same items, each once")
    first = by_seed[0]
    group, _ = _codes(table, "group")
    alone = table.column("group").is_null().to_numpy()[first]
    clusters = np.where(alone, len(table) + np.arange(len(first)), group[first])
    items = Items(
        metric=metric,
        ids=np.char.add(np.char.add(fold_names[fold[first]], "\0"), clip_names[clip[first]]),
        clusters=np.unique(clusters, return_inverse=True)[1],
        folds=np.unique(fold[first], return_inverse=True)[1],
        seeds=seeds,
    )
    return _with_contents(items, table, by_seed)


def _codes(table: pa.Table, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a text column as numbers `(rows,)` and the texts they stand for, sorted; null reads as empty."""
    encoded = table.column(name).fill_null("").combine_chunks().dictionary_encode()
    texts, position = np.unique(np.asarray(encoded.dictionary.to_pylist(), dtype=str), return_inverse=True)
    return position[encoded.indices.to_numpy()], texts


def _with_contents(items: Items, table: pa.Table, by_seed: np.ndarray) -> Items:
    if items.metric in ("segment-f1-macro", "segment-f1-micro", "one-minus-wer", "recall-at-1"):
        return replace(items, counts=_matrix(table, "counts")[by_seed])
    if items.metric == "map":
        relevant = _relevant(table, by_seed[0])
        scores = _matrix(table, "scores")[by_seed]
        if scores.shape[-1] != relevant.shape[1]:
            raise InputError(f"the predictions score {scores.shape[-1]} of {relevant.shape[1]} classes")
        return replace(items, relevant=relevant, scores=scores, classes=relevant.shape[1])
    truth, truths = _codes(table, "truth")
    predicted, guesses = _codes(table, "prediction")
    texts = np.union1d(truths, guesses)
    return replace(
        items,
        truth=np.searchsorted(texts, truths)[truth[by_seed[0]]],
        predicted=np.searchsorted(texts, guesses)[predicted[by_seed]],
        classes=len(texts),
    )


def _relevant(table: pa.Table, rows: np.ndarray) -> np.ndarray:
    """Return which classes each item has, `(items, classes)`."""
    try:
        names = parse_json((table.schema.metadata or {})[b"classes"])
        position = {name: index for index, name in enumerate(names)}
        relevant = np.zeros((len(rows), len(names)), dtype=bool)
        for row, text in enumerate(table.column("truth").take(rows).to_pylist()):
            relevant[row, [position[label] for label in parse_json(text)]] = True
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"the labels of the predictions cannot be read ({error!r})") from error
    return relevant


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
    """Return the scores of bootstrap samples, float64 `(resamples,)`: clusters and seeds are drawn with replacement."""
    return paired_replicates([items], resamples, rng, [seed_rng], of_folds=of_folds)[0]


def paired_replicates(
    rivals: Sequence[Items],
    resamples: int,
    rng: np.random.Generator,
    seed_rngs: Sequence[np.random.Generator],
    *,
    of_folds: str = "pooled",
) -> np.ndarray:
    """Return the scores of several models in the same bootstrap samples of the same items, `(models, resamples)`.

    Items are drawn once for all; each model's probe seeds are drawn for themselves, as they have nothing in common.
    """
    first = rivals[0]
    if any(len(items.ids) != len(first.ids) or (items.clusters != first.clusters).any() for items in rivals):
        raise InputError("the models to be compared do not predict the same items")
    parts = [
        [score_weighted(items, weights, of_folds=of_folds) for items in rivals]
        for weights in _chunks(first.n_clusters, resamples, rng)
    ]
    scores = []
    for index, (items, seed_rng) in enumerate(zip(rivals, seed_rngs, strict=True)):
        per_seed = np.concatenate([part[index] for part in parts])
        drawn = cluster_counts(len(items.seeds), resamples, seed_rng) / len(items.seeds)
        scores.append((per_seed * drawn).sum(axis=1))
    return np.stack(scores)


def score_interval(score: float, values: np.ndarray, level: float, n_clusters: int) -> tuple[float, float]:
    """Return the interval, in [0, 1], of `score` whose bootstrap scores `values` were drawn from `n_clusters` clusters.

    The bootstrap's standard error, corrected by G / (G - 1) for what drawing with replacement leaves out, is carried to
    the logit scale (delta method), where the interval is symmetric, with the quantile of a t distribution of G - 1
    degrees of freedom. Percentile intervals cover too little where clusters are few or scores near 1: at 20 clusters
    and an accuracy of .95 they hold it 92 times in 100 (`tests/results/test_averages.py` simulates it).
    Where every resample scores the same, the bound that all clusters are right (or wrong) stands in, the exact binomial
    one for scores of 1 and 0. One cluster says nothing: (0, 1).
    """
    if n_clusters < 2:
        return 0.0, 1.0
    bound = 1 - ((1 - level) / 2) ** (1 / n_clusters)
    error = float(np.std(values) * np.sqrt(n_clusters / (n_clusters - 1)))
    if error < _SURE:
        return max(0.0, score - bound), min(1.0, score + bound)
    middle = min(max(score, error**2), 1 - error**2)  # a score of 0 or 1 whose resamples differ all the same
    reach = t_quantile(level, n_clusters - 1) * error / (middle * (1 - middle))
    centre = float(np.log(middle / (1 - middle)))
    low, high = 1 / (1 + np.exp(-np.clip([centre - reach, centre + reach], -700, 700)))
    return float(low), float(high)


def t_quantile(level: float, freedom: float) -> float:
    """Return how many standard errors hold `level` on both sides, with `freedom` degrees of freedom."""
    from scipy import stats

    return float(stats.t.ppf((1 + level) / 2, freedom))


def resamples_for(items: Items, resamples: int) -> int:
    """Return how many bootstrap samples to draw: fewer where one costs much.

    Average precision over many clips and classes costs 8 s a thousand draws and seed (10,000 clips, 200 classes).
    Intervals and ties need standard errors only, which 200 draws give within 5 %.
    """
    large = items.metric == "map" and len(items.ids) * items.classes > _LARGE
    return min(resamples, _FEWER) if large else resamples


def _chunks(n_clusters: int, resamples: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    step = max(1, _CELLS // n_clusters)
    for start in range(0, resamples, step):
        yield cluster_counts(n_clusters, min(step, resamples - start), rng)


def _sums(values: np.ndarray, clusters: np.ndarray, n_clusters: int, weights: np.ndarray) -> np.ndarray:
    """Add up `values` `(S, n, K)` under the weights of their clusters: float64 `(B, S, K)`."""
    seeds, _, width = values.shape
    totals = np.zeros((n_clusters, seeds, width), np.float32)  # counts: exact in float32 up to 16 million
    np.add.at(totals, clusters, values.transpose(1, 0, 2))
    sums = weights @ totals.reshape(n_clusters, -1)
    return sums.reshape(len(weights), seeds, width).astype(np.float64)


def _from_counts(metric: str, sums: np.ndarray) -> np.ndarray:
    if metric == "one-minus-wer":
        return np.maximum(0.0, 1 - sums[:, :, 0] / np.maximum(sums[:, :, 1], 1))
    if metric == "recall-at-1":  # hits and queries, of clips and of captions
        hits, queries = sums[:, :, 0::2], sums[:, :, 1::2]
        return (hits / np.maximum(queries, 1)).mean(axis=2)
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


def shared_items(rivals: Sequence[Items]) -> list[Items]:
    """Return the models' predictions of the items that all of them predict, in one order; raise InputError for none."""
    kept = rivals[0].ids if rivals else np.empty(0)
    for items in rivals[1:]:
        kept = np.intersect1d(kept, items.ids)
    if len(kept) == 0:
        raise InputError("the models have no test item in common")
    return [items.take(np.flatnonzero(np.isin(items.ids, kept))) for items in rivals]


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
