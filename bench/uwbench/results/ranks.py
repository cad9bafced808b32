"""How sure a ranking is: equality within a margin, data that would separate models, correlation of rankings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

POWER = 0.8  # of the test that a plan is made for, as is usual (Cohen 1988)
LEAST = 3  # models, or layers, for a correlation: two of them are always in the same order or in opposite ones
_MOST = 1e9  # times as much data as there is: more is no plan


def equivalence_p(difference: float, error: float, freedom: float, clusters: int, margin: float) -> float:
    """Return the p-value of `equivalence_p_values` for one margin."""
    return float(equivalence_p_values(difference, error, freedom, clusters, np.array([margin]))[0])


def equivalence_p_values(
    difference: float, error: float, freedom: float, clusters: int, margins: np.ndarray
) -> np.ndarray:
    """Return the p-values, one per margin, of two one-sided tests that a difference is not within it (Schuirmann 1987).

    `error` is the difference's standard error with `freedom` degrees of freedom. If it is 0, because all resamples are
    equal, a value is the chance that none of `clusters` clusters shows a difference of the size of the margin.
    """
    from scipy.special import stdtr

    room = margins - abs(difference)
    p = (1 - np.clip(room, 0, 1)) ** clusters if error == 0 else stdtr(freedom, -room / error)
    return np.where(room > 0, p, 1.0)


def detectable(error: float, freedom: float, *, level: float = 0.95, power: float = POWER) -> float:
    """Return the least true difference that a two-sided test at `1 - level` finds with the given power."""
    from scipy import stats

    return float((stats.t.ppf((1 + level) / 2, freedom) + stats.t.ppf(power, freedom)) * error)


def data_needed(
    difference: float, error: float, units: float, *, level: float = 0.95, power: float = POWER
) -> float | None:
    """Return how many times as many units (clusters, tasks) a test needs to find a true difference of this size.

    The variance of a mean falls as 1 / units, so that f times as many units are enough once

        (t(1 - a/2) + t(power)) * error / sqrt(f) = |difference|

    with t's quantiles at f * units - 1 degrees of freedom: the sample size of a paired t test (Chow, Shao, Wang and
    Lokhnygina 2018, Sample Size Calculations in Clinical Research, section 3.1). `error` is the standard error with the
    `units` at hand. None if there is no difference or no error to plan with.
    """
    if difference == 0 or error == 0 or units < 2:
        return None
    low, high = 2 / units, _MOST

    def enough(factor: float) -> bool:
        return detectable(error / factor**0.5, factor * units - 1, level=level, power=power) <= abs(difference)

    if not enough(high):
        return None
    for _ in range(60):
        middle = float(np.sqrt(low * high))
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def kendall_tau(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return Kendall's tau-b of two rankings of the same models; None if one of them ranks all models the same."""
    return tau_of_pairs(*(np.sign(np.subtract.outer(ranks, ranks)).ravel() for ranks in (first, second)))


def tau_of_pairs(first: np.ndarray, second: np.ndarray) -> float | None:
    """Return Kendall's tau-b from the order of each pair in two rankings: 1, -1, or 0 for a tie."""
    untied = np.sqrt(float((first**2).sum()) * float((second**2).sum()))
    return float((first * second).sum() / untied) if untied else None


def tau_bounds(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Return the bounds of Kendall's tau between two rankings that are known in part.

    Both arrays `(pairs,)` hold 1 or -1 for a pair whose order is known, 0 for one that may have either order; a pair
    that is unknown in one ranking may count for or against.
    """
    agreement = np.sign(first) * np.sign(second)
    unknown, known = int((agreement == 0).sum()), float(agreement.sum())
    return (known - unknown) / len(agreement), (known + unknown) / len(agreement)
