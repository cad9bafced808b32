"""Curves over the number of labelled clips: their intervals, and where those of two models cross."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from uwbench.cards.protocol import Bootstrap
from uwbench.results.bootstrap import cluster_counts, generator, replicates, score_interval, score_weighted, seed_scores
from uwbench.results.items import Items

_POINTS_FROM = 2  # the first column of counts that belongs to a point of the curve; column 1 is the number of items


@dataclass(frozen=True, slots=True)
class Crossing:
    """Where the curves of two models cross on one task, in labelled clips in all.

    `ahead` is the model that is ahead with all labels, and is so from `labels` labelled clips on: where the curves,
    straight between their points over log2 of the clips, cross last. `labels` is None if it is ahead at every point.
    `low` and `high` bound the 95 % interval; None is an open end: ahead from the first point on, or not even with all
    labels. The curves are known to cross only if neither end is open (`crosses`).
    """

    task: str
    ahead: str
    labels: float | None
    low: float | None
    high: float | None

    @property
    def crosses(self) -> bool:
        """True if the interval has two ends: each model is ahead somewhere, beyond what chance would give."""
        return self.labels is not None and self.low is not None and self.high is not None


def points_of(items: Items) -> list[Items]:
    """Return the predictions at each point of the curve, as items whose score is the point's accuracy."""
    counts = items.counts
    assert counts is not None
    return [replace(items, counts=counts[..., [column, 1]]) for column in range(_POINTS_FROM, counts.shape[-1])]


def curve_intervals(items: Items, bootstrap: Bootstrap) -> list[tuple[float, float]]:
    """Return the interval of each point of a curve; groups of test clips and draws of labels are resampled."""
    bounds = []
    for point in points_of(items):
        rng, seed_rng = generator("items", bootstrap.seed), generator("seeds", bootstrap.seed)
        values = replicates(point, bootstrap.resamples, rng, seed_rng)
        bounds.append(score_interval(float(seed_scores(point).mean()), values, bootstrap.level, items.n_clusters))
    return bounds


def find_crossing(
    task: str, names: tuple[str, str], rivals: tuple[Items, Items], clips: Sequence[float], bootstrap: Bootstrap
) -> Crossing:
    """Return where the curves of two models cross, with a paired bootstrap interval (percentiles).

    `rivals` are their predictions of the same items under the same draws of labels, `clips` the labelled clips at each
    point. A resample draws the same groups of test clips and the same draws of labels for both models.
    """
    first, second = (draw_curve(items, bootstrap) for items in rivals)
    return crossing_of(task, names, (first, second), clips, bootstrap)


@dataclass(frozen=True, slots=True)
class DrawnCurve:
    """A model's curve at its points `(points,)`, and in each resample of the test clips, for each draw of labels.

    `drawn` is `(resamples, draws, points)`. Two models are subtracted draw by draw, so that equal ones give exactly 0.
    """

    observed: np.ndarray
    drawn: np.ndarray


def draw_curve(items: Items, bootstrap: Bootstrap) -> DrawnCurve:
    """Resample a curve, with the same groups of test clips for every model that has the same items."""
    weights = cluster_counts(items.n_clusters, bootstrap.resamples, generator("items", bootstrap.seed))
    points = points_of(items)
    drawn = np.stack([score_weighted(point, weights) for point in points], axis=-1)
    return DrawnCurve(np.array([seed_scores(point).mean() for point in points]), drawn)


def crossing_of(
    task: str,
    names: tuple[str, str],
    curves: tuple[DrawnCurve, DrawnCurve],
    clips: Sequence[float],
    bootstrap: Bootstrap,
) -> Crossing:
    """Return where two curves cross that were resampled together, as `find_crossing` does."""
    resamples, draws, _ = curves[0].drawn.shape
    shares = cluster_counts(draws, resamples, generator("seeds", bootstrap.seed)) / draws
    observed = curves[0].observed - curves[1].observed
    drawn = np.einsum("bs,bsk->bk", shares, curves[0].drawn - curves[1].drawn)
    sign = 1.0 if observed[-1] >= 0 else -1.0
    places = np.log2(np.asarray(clips))
    where = last_crossing(places, sign * observed)
    tail = (1 - bootstrap.level) / 2
    ends = np.quantile(last_crossings(places, sign * drawn), [tail, 1 - tail], method="inverted_cdf")
    labels, low, high = (float(2**place) if np.isfinite(place) else None for place in (where, *ends))
    return Crossing(task, names[0] if sign > 0 else names[1], labels, low, high)


def last_crossing(places: np.ndarray, lead: np.ndarray) -> float:
    """Return the place from which on `lead` is positive: -inf if it is so everywhere, inf if not even at the end."""
    return float(last_crossings(places, lead[None])[0])


def last_crossings(places: np.ndarray, leads: np.ndarray) -> np.ndarray:
    """Return `last_crossing` of each row of `leads` `(rows, places)`."""
    points = leads.shape[1]
    behind = leads <= 0
    last = np.where(behind.any(axis=1), points - 1 - behind[:, ::-1].argmax(axis=1), -1)
    crossings = np.where(last < 0, -np.inf, np.inf)
    rows = np.flatnonzero((last >= 0) & (last < points - 1))
    at = last[rows]
    before, after = leads[rows, at], leads[rows, at + 1]
    crossings[rows] = places[at] - before / (after - before) * (places[at + 1] - places[at])
    return crossings
