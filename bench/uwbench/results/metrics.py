"""Metrics: one pure function each, numpy in, a float in [0, 1] out; higher is better in all of them.

`METRICS` names the main metrics of task cards with their direction and range; the functions take what each needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from uwbench.errors import ProbeError


@dataclass(frozen=True, slots=True)
class Direction:
    """Which way a metric is better, and its range."""

    higher_is_better: bool
    low: float
    high: float


METRICS: dict[str, Direction] = {
    name: Direction(True, 0.0, 1.0)
    for name in ("accuracy", "macro-f1", "map", "segment-f1-macro", "segment-f1-micro", "recall-at-1", "one-minus-wer")
}


def accuracy(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Return the share of equal entries of two integer arrays `(n,)`."""
    _require_items(truth, predicted)
    return float((truth == predicted).mean())


def macro_f1(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean F1 over the classes that occur in `truth` or `predicted`, int `(n,)` (scikit-learn's default)."""
    _require_items(truth, predicted)
    classes = int(max(truth.max(), predicted.max())) + 1
    hits = np.bincount(truth[truth == predicted], minlength=classes)
    total = np.bincount(truth, minlength=classes) + np.bincount(predicted, minlength=classes)
    return float((2 * hits[total > 0] / total[total > 0]).mean())


def average_precision(relevant: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return each class's average precision `(C,)`, NaN where no item is relevant.

    `relevant` bool and `scores` float, both `(n, C)`. Items of equal score count as one threshold, as in scikit-learn.
    """
    _require_items(relevant, scores)
    out = np.full(relevant.shape[1], np.nan)
    order = np.argsort(-scores, axis=0, kind="stable")
    for column in np.flatnonzero(relevant.any(axis=0)):
        ranked, hit = scores[order[:, column], column], relevant[order[:, column], column]
        ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # the last of each run of equal scores
        found = np.cumsum(hit)[ends]
        gained = np.diff(found, prepend=0)
        out[column] = (gained * found / (ends + 1)).sum() / found[-1]
    return out


def mean_average_precision(relevant: np.ndarray, scores: np.ndarray) -> float:
    """Return the mean of `average_precision` over the classes with a relevant item; 0 where there is none."""
    values = average_precision(relevant, scores)
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else 0.0


def segment_counts(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return true positives, false positives and false negatives a class, `(3 * C,)`, of bool `(segments, C)`."""
    hits, false, missed = truth & predicted, ~truth & predicted, truth & ~predicted
    return np.concatenate([part.sum(axis=0) for part in (hits, false, missed)]).astype(np.float32)


def f1_from_counts(counts: np.ndarray, *, average: str) -> float:
    """Return F1 from summed `(3 * C,)` counts: `micro` over all, `macro` over classes that occur or are predicted."""
    hits, false, missed = np.asarray(counts, dtype=np.float64).reshape(3, -1)
    if average == "micro":
        hits, false, missed = hits.sum(keepdims=True), false.sum(keepdims=True), missed.sum(keepdims=True)
    total = 2 * hits + false + missed
    present = total > 0
    return float((2 * hits[present] / total[present]).mean()) if present.any() else 0.0


def word_errors(truth: str, predicted: str) -> tuple[int, int]:
    """Return the word edit distance and the number of words of `truth`; an empty truth counts insertions alone."""
    import jiwer

    words = len(truth.split())
    if words == 0:
        return len(predicted.split()), 0
    done = jiwer.process_words(truth, predicted)
    return done.substitutions + done.deletions + done.insertions, words


def one_minus_wer(errors: int, words: int) -> float:
    """Return `max(0, 1 - errors / words)`, X-ARES's form of the word error rate."""
    return max(0.0, 1.0 - errors / max(words, 1))


def recall_at_1(similarity: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Return for each row of `similarity` `(queries, items)` whether its best item is `relevant` (bool, same shape).

    Among equal similarities the first item counts as the best.
    """
    _require_items(similarity, relevant)
    return relevant[np.arange(len(similarity)), similarity.argmax(axis=1)]


def of_labels(metric: str, truth: np.ndarray, predicted: np.ndarray) -> float:
    """Return a single-label metric by its card's name."""
    functions = {"accuracy": accuracy, "macro-f1": macro_f1}
    if metric not in functions:
        raise ProbeError(f"{metric} does not score single labels")
    return functions[metric](truth, predicted)


def mean(values: Sequence[float]) -> float:
    """Return the mean in float64, the same for any order of a few values to the last bit but one."""
    return float(np.mean(np.sort(np.asarray(values, dtype=np.float64))))


def _require_items(left: np.ndarray, right: np.ndarray) -> None:
    if left.shape != right.shape or len(left) == 0:
        raise ProbeError(f"a metric needs as many predictions as items and at least one: {left.shape}, {right.shape}")
