"""Metrics: numpy in, numbers in [0, 1] out; higher is always better.

scikit-learn computes the same accuracy, F1 and average precision (the tests compare them), but is 2 to 400 times
slower here, where a probe is scored after every epoch, and takes no matrix of bootstrap weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from uwbench.errors import ProbeError

MEANS_OF_BLOCKS = ("v-measure", "rank-share")  # metrics whose items are blocks of clips
PAIRED = ("one-minus-eer", "max-ap")  # metrics whose items are pairs of clips
MEANS = ("item-mean", "query-map", "few-shot-accuracy", "lrap", *MEANS_OF_BLOCKS)  # metrics that are means over items
_COLUMNS_AT_ONCE = 128  # of weights, so that running sums stay in the processor's cache
_PRODUCT_PAYS = 64  # up to so many products per item, a product of matrices is faster than running sums


def accuracy(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Return the share of equal entries of two integer arrays `(n,)`."""
    _require_items(truth, predicted)
    return float((truth == predicted).mean())


def macro_f1(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean F1 over the classes that occur in `truth` or `predicted`, int `(n,)` (scikit-learn's default)."""
    _require_items(truth, predicted)
    classes = int(max(truth.max(), predicted.max())) + 1
    hits, of_truth, guessed = (
        np.bincount(codes, minlength=classes).astype(np.float64)
        for codes in (truth[truth == predicted], truth, predicted)
    )
    return float(mean_f1(hits, guessed - hits, of_truth - hits))


def of_labels(metric: str, truth: np.ndarray, predicted: np.ndarray) -> float:
    """Return a single-label metric by its name on the task card."""
    functions = {"accuracy": accuracy, "macro-f1": macro_f1}
    if metric not in functions:
        raise ProbeError(f"{metric} does not score single labels")
    return functions[metric](truth, predicted)


def mean_f1(hits: np.ndarray, false: np.ndarray, missed: np.ndarray) -> np.ndarray:
    """Return the mean F1 over the classes (last axis) that occur or are predicted; 0 if there are none.

    The three arrays hold the true positives, false positives and false negatives of each class.
    """
    total = 2 * hits + false + missed
    if total.ndim == 1:  # without absent classes the sum below is rounded as a plain mean
        hits, total = hits[total > 0], total[total > 0]
    scores = np.divide(2 * hits, total, out=np.zeros_like(total), where=total > 0)
    return scores.sum(axis=-1) / np.maximum((total > 0).sum(axis=-1), 1)


def mean_average_precision(relevant: np.ndarray, scores: np.ndarray) -> float:
    """Return the mean average precision over the classes with a relevant item; 0 if there are none.

    `relevant` bool and `scores` float, both `(n, C)`. Items of equal score count as one threshold, as in scikit-learn.
    `weighted_map` with weights of 1 rounds the last bit differently, so results on record would not be reproduced.
    """
    _require_items(relevant, scores)
    values = []
    order = np.argsort(-scores, axis=0, kind="stable")
    for column in np.flatnonzero(relevant.any(axis=0)):
        ranked, hit = scores[order[:, column], column], relevant[order[:, column], column]
        ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # the last of each run of equal scores
        recalled = np.cumsum(hit)[ends]
        gained = np.diff(recalled, prepend=0)
        values.append((gained * recalled / (ends + 1)).sum() / recalled[-1])
    return float(np.mean(values)) if values else 0.0


def weighted_map(relevant: np.ndarray, scores: np.ndarray, clusters: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean average precision `(B,)` under each column of the cluster `weights` `(clusters, B)`.

    `relevant` bool and `scores` float are `(n, C)`; `clusters` int `(n,)` has the row of `weights` of each item. The
    weights are float32 and whole numbers, as how often a cluster was drawn.
    """
    total, classes = np.zeros(weights.shape[1]), np.zeros(weights.shape[1])
    for column in np.flatnonzero(relevant.any(axis=0)):
        precision, occurs = _average_precision(relevant[:, column], scores[:, column], clusters, weights)
        total += precision
        classes += occurs
    return total / np.maximum(classes, 1)


def _average_precision(
    relevant: np.ndarray, scores: np.ndarray, clusters: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return one class's average precision `(B,)` under cluster `weights`, and if the class occurs under each.

    `relevant` bool and `scores` float, both `(n,)`, with at least one relevant item. If all of them have weight 0, the
    value is 0.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, hit = scores[order], relevant[order]
    ends = np.searchsorted(-ranked, -ranked[hit], side="right")  # end of each positive's block of equal scores
    ends, first_hits = np.unique(ends, return_index=True)
    starts = np.concatenate([[0], ends[:-1]])
    retrieved_under = _running_sums(clusters[order[: ends[-1]]], starts, len(weights))
    recalled_under = _running_sums(clusters[order[hit]], first_hits, len(weights))  # in the order of their blocks
    values, occurs = [], []
    for start in range(0, weights.shape[1], _COLUMNS_AT_ONCE):
        columns = weights[:, start : start + _COLUMNS_AT_ONCE]
        recalled = recalled_under(columns)
        # The weight retrieved is 0 only where that recalled is.
        precision = np.divide(recalled, np.maximum(retrieved_under(columns), 1), dtype=np.float64)
        precision *= np.diff(recalled, axis=0, prepend=np.zeros_like(recalled[:1]))
        values.append(precision.sum(axis=0) / np.maximum(recalled[-1], 1, dtype=np.float64))
        occurs.append(recalled[-1] > 0)
    return np.concatenate(values), np.concatenate(occurs)


def _running_sums(items: np.ndarray, starts: np.ndarray, clusters: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from weights `(clusters, B)` to those of all items up to the end of each block, `(blocks, B)`.

    `items` are clusters in the order of the items, and a block begins at each of `starts`. Whole numbers below 16
    million are summed without rounding, whichever way is faster.
    """
    if len(starts) * clusters > _PRODUCT_PAYS * len(items):
        return lambda weights: _cumulated(np.add.reduceat(weights[items], starts, axis=0))
    block = np.searchsorted(starts, np.arange(len(items)), side="right") - 1
    counts = np.bincount(block * clusters + items, minlength=len(starts) * clusters).reshape(len(starts), clusters)
    running = counts.cumsum(axis=0).astype(np.float32)
    return lambda weights: running @ weights


def _cumulated(rows: np.ndarray) -> np.ndarray:
    """Return float64 `np.cumsum(rows, axis=0)`, which takes three times as long over rows of some hundred values."""
    sums = rows.astype(np.float64)
    for index in range(1, len(sums)):
        np.add(sums[index - 1], sums[index], out=sums[index])
    return sums


def segment_counts(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return true positives, false positives and false negatives per class, `(3 * C,)`, of bool `(segments, C)`."""
    hits, false, missed = truth & predicted, ~truth & predicted, truth & ~predicted
    return np.concatenate([part.sum(axis=0) for part in (hits, false, missed)]).astype(np.float32)


def of_counts(metric: str, counts: np.ndarray) -> np.ndarray:
    """Return a metric of summed counts (last axis) by its name on the task card.

    The counts are a sum and a number of items for means over items, errors and words for `one-minus-wer`, hits and
    queries of both directions for `recall-at-1`, and those of `segment_counts` for segment F1.
    """
    if metric in MEANS:
        return counts[..., 0] / np.maximum(counts[..., 1], 1)
    if metric == "one-minus-wer":  # X-ARES's form of the word error rate
        return np.maximum(0.0, 1 - counts[..., 0] / np.maximum(counts[..., 1], 1))
    if metric == "recall-at-1":
        return (counts[..., 0::2] / np.maximum(counts[..., 1::2], 1)).mean(axis=-1)
    hits, false, missed = np.split(counts, 3, axis=-1)
    if metric == "segment-f1-micro":
        hits, false, missed = (part.sum(axis=-1, keepdims=True) for part in (hits, false, missed))
    return mean_f1(hits, false, missed)


def f1_from_counts(counts: np.ndarray, *, average: str) -> float:
    """Return F1 from summed `(3 * C,)` counts: `micro` over all, `macro` over classes that occur or are predicted."""
    return float(of_counts(f"segment-f1-{average}", np.asarray(counts, dtype=np.float64)))


def one_minus_wer(errors: int, words: int) -> float:
    """Return `max(0, 1 - errors / words)`."""
    return float(of_counts("one-minus-wer", np.array([errors, words], dtype=np.float64)))


def word_errors(truth: str, predicted: str) -> tuple[int, int]:
    """Return the word edit distance and the number of words of `truth`; for an empty truth, all words are errors."""
    import jiwer

    words = len(truth.split())
    if words == 0:
        return len(predicted.split()), 0
    alignment = jiwer.process_words(truth, predicted)
    return alignment.substitutions + alignment.deletions + alignment.insertions, words


def recall_at_1(similarity: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Return for each row of `similarity` `(queries, items)` if its best item is `relevant` (bool, same shape).

    Of equal similarities the first counts as the best.
    """
    _require_items(similarity, relevant)
    return relevant[np.arange(len(similarity)), similarity.argmax(axis=1)]


def mean(values: Sequence[float]) -> float:
    """Return the mean in float64 of the sorted values, so that their order does not matter."""
    return float(np.mean(np.sort(np.asarray(values, dtype=np.float64))))


def _require_items(left: np.ndarray, right: np.ndarray) -> None:
    if left.shape != right.shape or len(left) == 0:
        raise ProbeError(f"a metric needs as many predictions as items and at least one: {left.shape}, {right.shape}")
