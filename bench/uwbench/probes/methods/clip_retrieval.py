"""Each test clip searches the other test clips of its fold: do clips of its class come first?

Not to be confused with tasks of the kind `retrieval`, where clips and captions search each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from uwbench.errors import ProbeError
from uwbench.probes.kinds.base import Predicted
from uwbench.probes.knn import unit_rows
from uwbench.probes.methods.base import ProbeRun, Scored, Settings, settings_of
from uwbench.probes.methods.clips import clusters, groups_apart, tested
from uwbench.probes.predictions import prediction_rows
from uwbench.results.record import Score

if TYPE_CHECKING:
    import pyarrow as pa

_AT_ONCE = 512  # queries ranked at once: 10,000 similarities each take 20 MB
_DECIMALS = 6  # similarities equal to so many decimals are tied and taken in the order of clip ids, as for kNN


class ClipRetrievalSettings(Settings):
    """Settings of the search."""

    clips: int = Field(gt=1)  # at most so many test clips search and are searched, class by class


@dataclass(frozen=True, slots=True)
class Ranked:
    """Figures of the search, one entry per clip in each array, 0 for clips without another one of their class."""

    relevant: np.ndarray  # R, the number of clips of the class to find
    searched: np.ndarray  # number of clips that were ranked
    first: np.ndarray  # position of the clip that was found first
    average_precision: np.ndarray
    hit: np.ndarray  # 1 if the first is of the class: precision at 1
    r_precision: np.ndarray  # precision at R
    influence: np.ndarray  # what having the clip more often among those that are searched adds to all precisions

    @property
    def queries(self) -> np.ndarray:
        """True for the clips that have one of their class to find."""
        return self.relevant > 0


def score(task: ProbeRun) -> Scored:
    """Return the mean over test clips of the average precision of the clips of their class, by cosine.

    A clip does not search clips of its own group, and one without a clip of its class to find does not search.
    """
    settings = settings_of(task.protocol, "clip-retrieval", ClipRetrievalSettings)
    parts = tested(task, settings.clips)
    codes, groups = task.kind.targets(np.arange(len(task.data.ids))), clusters(task)
    apart = groups_apart(parts, codes, groups)
    if not apart:
        groups = np.arange(len(codes))
    ranked = [rank(unit_rows(task.last_layer(part)), codes[part], groups[part]) for part in parts]
    if not any(of_part.queries.any() for of_part in ranked):
        raise ProbeError("no test clip has another one of its class to find", where=task.data.card.name)
    precision, hit, r_precision, relevant, searched = (
        np.concatenate([getattr(of_part, name)[of_part.queries] for of_part in ranked])
        for name in ("average_precision", "hit", "r_precision", "relevant", "searched")
    )
    return Scored(
        Score(
            metric="query-map",
            main_score=float(precision.mean()),
            ci95=None,
            per_seed=(float(precision.mean()),),
            per_fold={
                fold.name: float(of_part.average_precision[of_part.queries].mean())
                for fold, of_part in zip(task.folds, ranked, strict=True)
                if fold.name is not None and of_part.queries.any()
            },
            raw={"p@1": float(hit.mean()), "r-precision": float(r_precision.mean())},
            chosen={
                "layer": task.data.layers[-1],
                "clips": sum(map(len, parts)),
                "queries": len(precision),
                "groups_apart": apart,
            },
            chance=float(expected_precision(relevant, searched).mean()),
        ),
        [_rows(task, fold.name, part, of_part) for fold, part, of_part in zip(task.folds, parts, ranked, strict=True)],
    )


def rank(vectors: np.ndarray, codes: np.ndarray, groups: np.ndarray) -> Ranked:
    """Rank for each of `n` clips the clips of other groups by the inner product of their vectors `(n, dim)`."""
    influence, blocks = np.zeros(len(vectors)), []
    for start in range(0, len(vectors), _AT_ONCE):
        here = slice(start, start + _AT_ONCE)
        similarity = (vectors[here] @ vectors.T).round(_DECIMALS)
        others = groups[here, None] != groups
        similarity[~others] = -np.inf  # ranked last, and not relevant
        order = np.argsort(-similarity, axis=1, kind="stable")
        hits = np.take_along_axis((codes[here, None] == codes) & others, order, axis=1)
        count, places = hits.sum(axis=1), np.arange(1, len(vectors) + 1)
        some = np.maximum(count, 1)
        hits_so_far = np.cumsum(hits, axis=1)
        precision = hits_so_far / places
        average = (precision * hits).sum(axis=1) / some
        gained = hits * (precision - average[:, None] + _from_here(hits / places)) - _from_here(
            hits * precision / places
        )
        gained = np.where(np.take_along_axis(others, order, axis=1), gained / some[:, None], 0)
        influence += np.bincount(order.ravel(), gained.ravel(), minlength=len(vectors))
        at_r = hits_so_far[np.arange(len(some)), some - 1] / some
        blocks.append((count, others.sum(axis=1), order[:, 0], average, hits[:, 0], at_r))
    relevant, searched, first, precision, hit, r_precision = (
        np.concatenate(part) for part in zip(*blocks, strict=True)
    )
    return Ranked(relevant, searched, first, precision, hit, r_precision, influence)


def _from_here(values: np.ndarray) -> np.ndarray:
    """Return for each place the sum from it to the end of its row."""
    return np.cumsum(values[:, ::-1], axis=1)[:, ::-1]


def expected_precision(relevant: np.ndarray, searched: np.ndarray) -> np.ndarray:
    """Return the expected average precision of a random order of `searched` clips of which `relevant` are sought.

    Bestgen 2015, Exact expected average precision of the random baseline for system evaluation, equation 5.
    """
    total = np.asarray(searched, dtype=np.float64)
    harmonic = np.cumsum(1 / np.arange(1, int(total.max()) + 1))[total.astype(np.int64) - 1]
    return ((relevant - 1) / np.maximum(total - 1, 1) * (total - harmonic) + harmonic) / total


def _rows(task: ProbeRun, fold: str | None, part: np.ndarray, ranked: Ranked) -> pa.Table:
    """Return the predictions: the class of the first clip found.

    Counts are the clip's average precision plus its influence on those of others, 1 if it searched, its average
    precision, its precision at 1 and its R-precision. The score is the sum of the first over that of the second; as a
    clip is drawn as query and as one that is found, its influence makes the interval account for both. (Influences add
    up to 0, because the score does not change if all clips are drawn equally often; the derivative is that of weighted
    average precision.)
    """
    figures = (
        ranked.average_precision + ranked.influence,
        ranked.queries,
        ranked.average_precision,
        ranked.hit,
        ranked.r_precision,
    )
    truths = task.kind.truths(part)
    predicted = Predicted(
        [truths[first] for first in ranked.first], counts=np.stack(figures, axis=1).astype(np.float32)
    )
    return prediction_rows(task.data, "clip-retrieval", 0, fold, part, truths, predicted)
