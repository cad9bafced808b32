"""Errors of a detector that says of pairs if they belong together, under weights of the pairs."""

from __future__ import annotations

import numpy as np

_AT_ONCE = 4_000_000  # weights of pairs in memory


def equal_error_rate(similarity: np.ndarray, target: np.ndarray) -> float:
    """Return the rate at which targets missed and others accepted are equally often; `(pairs,)` both."""
    zeros = np.zeros(len(similarity), np.int64)
    return float(weighted_error_rates(similarity, target, zeros, zeros, np.ones((1, 1)))[0])


def error_curve(similarity: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rates of missed targets and of accepted others at each threshold, from the lowest to above all."""
    order, ends = _thresholds(similarity)
    hits = target[order]
    missed = np.append(0, np.cumsum(hits)[ends]) / max(hits.sum(), 1)
    accepted = 1 - np.append(0, np.cumsum(~hits)[ends]) / max((~hits).sum(), 1)
    return missed, accepted


def least_cost(similarity: np.ndarray, target: np.ndarray, prior: float) -> float:
    """Return NIST's minimum detection cost at a prior of targets and equal costs, over the best blind answer's."""
    missed, accepted = error_curve(similarity, target)
    return float((prior * missed + (1 - prior) * accepted).min() / min(prior, 1 - prior))


def weighted_error_rates(
    similarity: np.ndarray, target: np.ndarray, first: np.ndarray, second: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Return the equal error rate `(B,)` under each row of cluster `weights` `(B, clusters)`.

    A pair weighs the product of the weights of its two clips' clusters, or that of the cluster if it is one. Between
    two thresholds the rates are taken to be straight. A row without targets or without others has the mean of the rest.
    """
    order, ends = _thresholds(similarity)
    hits, one, two = target[order], first[order], second[order]
    rates = []
    step = max(1, _AT_ONCE // len(order))
    for start in range(0, len(weights), step):
        some = weights[start : start + step]
        of_pair = np.where(one == two, some[:, one], some[:, one] * some[:, two]).astype(np.float64)
        missed = np.cumsum(of_pair * hits, axis=1)[:, ends]
        rejected = np.cumsum(of_pair * ~hits, axis=1)[:, ends]
        with np.errstate(invalid="ignore"):
            missed, accepted = missed / missed[:, -1:], 1 - rejected / rejected[:, -1:]
        gap = missed - accepted
        at = (gap >= 0).argmax(axis=1)
        rows = np.arange(len(some))
        before = np.where(at > 0, gap[rows, at - 1], -1.0)
        low = np.where(at > 0, missed[rows, at - 1], 0.0)
        share = -before / (gap[rows, at] - before)
        rates.append(low + share * (missed[rows, at] - low))
    values = np.concatenate(rates)
    known = np.isfinite(values)
    return np.where(known, values, values[known].mean() if known.any() else 0.5)


def _thresholds(similarity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the order of rising similarity, and the last place of each run of equal ones."""
    order = np.argsort(similarity, kind="stable")
    return order, np.append(np.flatnonzero(np.diff(similarity[order])), len(order) - 1)
