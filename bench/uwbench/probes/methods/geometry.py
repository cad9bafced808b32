"""The shape of the cloud of vectors, without labels: how many dimensions it uses, how evenly, and who neighbours whom.

It describes an encoder and does not say how good it is: `uwbench leaderboard --method geometry` shows it beside the
scores, and the rank correlations of the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from uwbench.probes.kinds.base import Predicted
from uwbench.probes.knn import neighbours, unit_rows
from uwbench.probes.methods.base import ProbeRun, Scored, Settings, settings_of
from uwbench.probes.methods.clips import block_counts, blocks_of, clusters, jackknife, tested
from uwbench.probes.predictions import prediction_rows
from uwbench.results.record import Score

if TYPE_CHECKING:
    import pyarrow as pa

_AT_ONCE = 1024  # rows whose distances to all others are computed at once


class GeometrySettings(Settings):
    """Settings of the description."""

    clips: int = Field(gt=2)  # at most so many test clips, class by class
    neighbours: int = Field(gt=0)  # k of the k-occurrences
    blocks: int = Field(gt=1)  # of groups of clips, left out one at a time for the interval


def score(task: ProbeRun) -> Scored:
    """Return the share of dimensions that the last layer uses: its effective rank over the most it could be.

    The figures of every layer are in `chosen["layers"]`.
    """
    settings = settings_of(task.protocol, "geometry", GeometrySettings)
    parts = tested(task, settings.clips)
    clips = np.concatenate(parts)
    layers = {
        name: describe(task.inputs(number)(clips), settings.neighbours) for number, name in enumerate(task.data.layers)
    }
    last = layers[task.data.layers[-1]]
    vectors = np.asarray(task.last_layer(clips), np.float64)
    blocks = blocks_of(clusters(task)[clips], settings.blocks)
    values = jackknife(last["rank share"], blocks, lambda rest: _rank_share(vectors[rest]), smooth=True)
    return Scored(
        Score(
            metric="rank-share",
            main_score=last["rank share"],
            ci95=None,
            per_seed=(last["rank share"],),
            per_fold={},
            raw={name: value for name, value in last.items() if name != "rank share"},
            chosen={"layer": task.data.layers[-1], "clips": len(clips), "layers": layers},
            layers={name: figures["rank share"] for name, figures in layers.items()} if len(layers) > 1 else None,
            chance=0.0,
        ),
        list(_rows(task, parts, values[blocks], blocks)),
    )


def describe(vectors: np.ndarray, k: int) -> dict[str, float]:
    """Return the figures of vectors `(n, dim)`; all but those of rank are of vectors scaled to length 1.

    * `effective rank`: exp of the entropy of the centred vectors' singular values as shares (Roy and Vetterli 2007);
      `rank share` is that over min(n - 1, dim).
    * `rankme`: the same without centring (Garrido and others 2023).
    * `isotropy`: the IsoScore, 0 if one direction has all variance, 1 if all have the same (Rudman and others 2022).
    * `uniformity`: minus the logarithm of the mean of exp(-2 d²) over pairs at distance d, higher if vectors spread
      over the sphere (Wang and Isola 2020, with the sign turned).
    * `hubness`: skewness of how often a clip is among the `k` nearest of others (Radovanovic and others 2010); `hubs`
      is the share of clips that are so for more than twice `k` others.
    """
    vectors = np.asarray(vectors, np.float64)
    unit = unit_rows(vectors)
    spectrum = _singular_values(vectors - vectors.mean(axis=0))
    occurrences = _occurrences(unit, min(k, len(unit) - 1))
    return {
        "rank share": _rank_share(vectors),
        "effective rank": _entropy_rank(spectrum),
        "rankme": _entropy_rank(_singular_values(vectors)),
        "isotropy": _isoscore(vectors),
        "uniformity": _uniformity(unit),
        "hubness": _skewness(occurrences),
        "hubs": float((occurrences > 2 * k).mean()),
    }


def _rank_share(vectors: np.ndarray) -> float:
    most = min(len(vectors) - 1, vectors.shape[1])
    return min(_entropy_rank(_singular_values(vectors - vectors.mean(axis=0))) / most, 1.0)


def _singular_values(vectors: np.ndarray) -> np.ndarray:
    """Return the singular values from the smaller of the two Gram matrices, which is many times faster."""
    gram = vectors.T @ vectors if vectors.shape[1] <= len(vectors) else vectors @ vectors.T
    return np.sqrt(np.maximum(np.linalg.eigvalsh(gram), 0))


def _entropy_rank(values: np.ndarray) -> float:
    """Return exp of the entropy of values as shares of their sum; 0 if all are 0."""
    total = values.sum()
    if not total > 0:
        return 0.0
    shares = values[values > total * 1e-12] / total
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _isoscore(vectors: np.ndarray) -> float:
    """Return the IsoScore (Rudman and others 2022, algorithm 1) from the covariance's eigenvalues."""
    dim = vectors.shape[1]
    centred = vectors - vectors.mean(axis=0)
    variances = np.maximum(np.linalg.eigvalsh(centred.T @ centred / (len(vectors) - 1)), 0)
    length = float(np.linalg.norm(variances))
    if dim < 2 or length == 0:
        return 0.0
    defect = np.linalg.norm(np.sqrt(dim) * variances / length - 1) / np.sqrt(2 * (dim - np.sqrt(dim)))
    share = (dim - defect**2 * (dim - np.sqrt(dim))) ** 2 / dim**2
    return float((dim * share - 1) / (dim - 1))


def _uniformity(unit: np.ndarray) -> float:
    total, pairs = 0.0, len(unit) * (len(unit) - 1)
    for start in range(0, len(unit), _AT_ONCE):
        squares = 2 - 2 * (unit[start : start + _AT_ONCE] @ unit.T).astype(np.float64)
        total += float(np.exp(-2 * np.maximum(squares, 0)).sum())
    with_itself = float(np.exp(-2 * np.maximum(2 - 2 * np.square(unit.astype(np.float64)).sum(axis=1), 0)).sum())
    return float(-np.log(max(total - with_itself, 1e-300) / pairs))


def _occurrences(unit: np.ndarray, k: int) -> np.ndarray:
    """Return for each vector among how many others' `k` nearest it is, `(n,)`."""
    nearest = neighbours(unit, unit, k + 1).index
    itself = nearest == np.arange(len(unit))[:, None]
    itself[~itself.any(axis=1), -1] = True  # a twin earlier in the order took its place: the last one is left out
    return np.bincount(nearest[~itself], minlength=len(unit))


def _skewness(values: np.ndarray) -> float:
    deviations = values - values.mean()
    spread = float(np.sqrt(np.square(deviations).mean()))
    return float((deviations**3).mean() / spread**3) if spread > 0 else 0.0


def _rows(task: ProbeRun, parts: Sequence[np.ndarray], values: np.ndarray, blocks: np.ndarray) -> Sequence[pa.Table]:
    """Return rows of the tested clips, whose counts are those of blocks (see `block_counts`); nothing is predicted."""
    counts = block_counts(values, blocks)
    starts = np.cumsum([0, *map(len, parts)])
    return [
        prediction_rows(
            task.data,
            "geometry",
            0,
            fold.name,
            part,
            task.kind.truths(part),
            Predicted([""] * len(part), counts=counts[start:end]),
        )
        for fold, part, (start, end) in zip(task.folds, parts, pairwise(starts), strict=True)
    ]
