"""Bootstrap resampling: how much a score would move with other test items and other probe seeds.

A test item belongs to a cluster (speaker, recording, song), and whole clusters are drawn with replacement. A resample
is a row of cluster weights, so that no data is copied.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from uwbench.errors import InputError
from uwbench.results.detection import weighted_error_rates
from uwbench.results.items import Items
from uwbench.results.metrics import PAIRED, mean_f1, of_counts, weighted_map

_WEIGHTS_AT_ONCE = 4_000_000  # 16 MB of float32
_ZERO_ERROR = 1e-6  # standard errors below this are rounding alone
_ROUNDING = 1e-24  # a variance below this is rounding alone
_LARGE_TASK, _FEW_RESAMPLES = 400_000, 200  # clips times classes from which mAP is drawn fewer times
_MANY_PAIRS = 10_000  # from which equal error rates are drawn fewer times


def cluster_counts(n_clusters: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Return how often each resample drew each cluster, float32 `(resamples, n_clusters)`."""
    drawn = rng.integers(0, n_clusters, size=(resamples, n_clusters))
    drawn += np.arange(resamples)[:, None] * n_clusters
    counts = np.bincount(drawn.ravel(), minlength=resamples * n_clusters)
    return counts.reshape(resamples, n_clusters).astype(np.float32)


def score_weighted(items: Items, weights: np.ndarray, *, of_folds: str = "pooled") -> np.ndarray:
    """Return each seed's score under each row of cluster `weights` `(B, clusters)`, float64 `(B, S)`.

    `of_folds` is `pooled` (all items together) or `mean` (the mean of the folds' scores), as the protocol scores them.
    """
    if of_folds == "mean" and items.folds.max() > 0:
        per_fold = []
        for fold in range(int(items.folds.max()) + 1):
            rows = np.flatnonzero(items.folds == fold)
            clusters = np.unique(items.clusters[rows])
            per_fold.append(score_weighted(items.take(rows), weights[:, clusters]))
        return np.nanmean(np.stack(per_fold), axis=0)
    if items.metric == "map":
        return _mean_average_precision(items, weights)
    if items.metric in PAIRED:
        return _of_pairs(items, weights)
    if items.counts is not None:
        return of_counts(items.metric, _sums(items.counts, items.clusters, items.n_clusters, weights))
    if items.truth is None or items.predicted is None:
        raise InputError(f"the predictions hold nothing that {items.metric} is computed from")
    if items.metric == "macro-f1":
        return _macro_f1(items.truth, items.predicted, items, weights)
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

    All models share the draws of items; each model's probe seeds are drawn separately.
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
        shares = cluster_counts(len(items.seeds), resamples, seed_rng) / len(items.seeds)
        scores.append((per_seed * shares).sum(axis=1))
    return np.stack(scores)


def score_interval(score: float, values: np.ndarray, level: float, n_clusters: int) -> tuple[float, float]:
    """Return the interval, in [0, 1], of `score` whose bootstrap scores `values` were drawn from `n_clusters` clusters.

    The bootstrap's standard error, corrected by G / (G - 1) because drawing with replacement understates it, is carried
    to the logit scale (delta method), where the interval is symmetric, with the quantile of a t distribution with G - 1
    degrees of freedom. Percentile intervals cover too little if clusters are few or scores near 1: at 20 clusters and
    an accuracy of .95 they cover it 92 times in 100 (`tests/results/test_averages.py` simulates it).
    If every resample scores the same, the bound for "all clusters right" (or wrong) is used instead, which is the exact
    binomial bound for scores of 1 and 0. A single cluster gives (0, 1).
    """
    if n_clusters < 2:
        return 0.0, 1.0
    bound = 1 - ((1 - level) / 2) ** (1 / n_clusters)
    error = float(np.std(values) * np.sqrt(n_clusters / (n_clusters - 1)))
    if error < _ZERO_ERROR:
        return max(0.0, score - bound), min(1.0, score + bound)
    middle = min(max(score, error**2), 1 - error**2)  # the logit of 0 and 1 is infinite
    reach = t_quantile(level, n_clusters - 1) * error / (middle * (1 - middle))
    centre = float(np.log(middle / (1 - middle)))
    low, high = 1 / (1 + np.exp(-np.clip([centre - reach, centre + reach], -700, 700)))
    return float(low), float(high)


def combined_error(variances: Sequence[float], clusters: Sequence[int]) -> tuple[float, float]:
    """Return the standard error of a sum over tasks and its degrees of freedom.

    `variances` are the bootstrap variances of the tasks' terms and `clusters` their numbers of clusters. Each variance
    is corrected by G / (G - 1); the degrees of freedom are Satterthwaite's (1946).
    """
    freedoms = np.maximum(np.asarray(clusters, dtype=float) - 1, 1)
    terms = np.asarray(variances) * (freedoms + 1) / freedoms
    total = float(terms.sum())
    if total <= _ROUNDING:
        return 0.0, float(freedoms.max())
    return float(np.sqrt(total)), total**2 / float((terms**2 / freedoms).sum())


def difference_interval(
    difference: float, variances: Sequence[float], clusters: Sequence[int], level: float
) -> tuple[float, float]:
    """Return the interval of a difference, in [-1, 1], which excludes 0 exactly if `ties.p_value` is below `1 - level`.

    A single cluster gives (-1, 1). If all resamples are equal, the binomial bound for "all clusters agree" is used.
    """
    if max(clusters) < 2:
        return -1.0, 1.0
    error, freedom = combined_error(variances, clusters)
    reach = t_quantile(level, freedom) * error if error else 1 - ((1 - level) / 2) ** (1 / max(clusters))
    return max(-1.0, difference - reach), min(1.0, difference + reach)


def t_quantile(level: float, freedom: float) -> float:
    """Return how many standard errors around the mean hold `level` of a t distribution with `freedom` degrees."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + level) / 2))


def resamples_for(items: Items, resamples: int) -> int:
    """Return how many bootstrap samples to draw: fewer if each is expensive.

    Average precision over many clips and classes takes 8 s per thousand draws and seed (10,000 clips, 200 classes).
    Intervals and ties need standard errors only, which 200 draws give within 5 %.
    """
    large = items.metric == "map" and len(items.ids) * items.classes > _LARGE_TASK
    large |= items.second is not None and len(items.ids) > _MANY_PAIRS
    return min(resamples, _FEW_RESAMPLES) if large else resamples


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


def _chunks(n_clusters: int, resamples: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    step = max(1, _WEIGHTS_AT_ONCE // n_clusters)
    for start in range(0, resamples, step):
        yield cluster_counts(n_clusters, min(step, resamples - start), rng)


def _sums(values: np.ndarray, clusters: np.ndarray, n_clusters: int, weights: np.ndarray) -> np.ndarray:
    """Return the sums of `values` `(S, n, K)` under the weights of their clusters: float64 `(B, S, K)`."""
    seeds, _, width = values.shape
    totals = np.zeros((n_clusters, seeds, width), np.float32)  # counts: exact in float32 up to 16 million
    np.add.at(totals, clusters, values.transpose(1, 0, 2))
    sums = weights @ totals.reshape(n_clusters, -1)
    return sums.reshape(len(weights), seeds, width).astype(np.float64)


def _macro_f1(truth: np.ndarray, predicted: np.ndarray, items: Items, weights: np.ndarray) -> np.ndarray:
    columns = []
    for guesses in predicted:
        hits, of_truth, guessed = (np.zeros((items.n_clusters, items.classes), np.float32) for _ in range(3))
        right = guesses == truth
        np.add.at(hits, (items.clusters[right], truth[right]), 1)
        np.add.at(of_truth, (items.clusters, truth), 1)
        np.add.at(guessed, (items.clusters, guesses), 1)
        hits, of_truth, guessed = (weights @ part for part in (hits, of_truth, guessed))
        columns.append(mean_f1(hits, guessed - hits, of_truth - hits))
    return np.stack(columns, axis=1)


def _of_pairs(items: Items, weights: np.ndarray) -> np.ndarray:
    """Return 1 minus the equal error rate, or the best average precision over several similarities.

    A pair weighs the product of the weights of its two clips' clusters, or that of the cluster if it is one.
    """
    first, second, target, similarities = items.clusters, items.second, items.truth, items.counts
    if second is None or target is None or similarities is None:
        raise InputError(f"the predictions hold nothing that {items.metric} is computed from")
    if items.metric != "max-ap":
        rates = [weighted_error_rates(of_seed[:, 0], target, first, second, weights) for of_seed in similarities]
        return 1 - np.stack(rates, axis=1)
    parts, places = [], np.arange(len(target))
    step = max(1, _WEIGHTS_AT_ONCE // len(target))
    for start in range(0, len(weights), step):
        some = np.ascontiguousarray(weights[start : start + step].T)
        of_pair = np.where((first == second)[:, None], some[first], some[first] * some[second])
        of_seeds = [
            np.max([weighted_map(target[:, None], column[:, None], places, of_pair) for column in of_seed.T], axis=0)
            for of_seed in similarities
        ]
        parts.append(np.stack(of_seeds, axis=1))
    return np.concatenate(parts)


def _mean_average_precision(items: Items, weights: np.ndarray) -> np.ndarray:
    relevant, scores = items.relevant, items.scores
    if relevant is None or scores is None:
        raise InputError("the predictions hold no class scores")
    by_cluster = np.ascontiguousarray(weights.T)
    of_seeds = [weighted_map(relevant, by_seed, items.clusters, by_cluster) for by_seed in scores]
    return np.stack(of_seeds, axis=1)
