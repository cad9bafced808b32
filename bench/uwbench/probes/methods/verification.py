"""Are two test clips of one class? Pairs of clips, told apart by the cosine of their vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from uwbench.errors import ProbeError
from uwbench.probes.data import Inputs
from uwbench.probes.knn import unit_rows
from uwbench.probes.methods.base import ProbeRun, Scored, Settings, settings_of
from uwbench.probes.methods.clips import clusters, groups_apart, tested
from uwbench.probes.predictions import pair_rows
from uwbench.probes.splits import Fold, random_numbers
from uwbench.results.detection import equal_error_rate, error_curve, least_cost
from uwbench.results.record import Score

if TYPE_CHECKING:
    import pyarrow as pa


class VerificationSettings(Settings):
    """Settings of the pairs."""

    clips: int = Field(gt=1)  # at most so many test clips are paired, class by class
    pairs: int = Field(gt=0)  # at most so many pairs of one class, and as many of two, drawn at random
    prior: float = Field(gt=0, lt=1)  # of pairs of one class in the detection cost
    whitening_clips: int = Field(gt=1)  # training clips that the whitening is made from, at most


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of clips: their rows in the data, and if both are of one class; all `(pairs,)`."""

    first: np.ndarray
    second: np.ndarray
    target: np.ndarray


def score(task: ProbeRun) -> Scored:
    """Return 1 minus the equal error rate over pairs of test clips of one class and of two, by cosine.

    The two clips of a pair are of one fold, and of different groups unless the class is the group.
    """
    settings = settings_of(task.protocol, "verification", VerificationSettings)
    parts = tested(task, settings.clips)
    codes, groups = task.kind.targets(np.arange(len(task.data.ids))), clusters(task)
    apart = groups_apart(parts, codes, groups)
    if not apart:
        groups = np.arange(len(codes))
    limit = max(1, settings.pairs // len(parts))
    pairs = [_pairs(part, codes, groups, limit, fold) for part, fold in zip(parts, task.folds, strict=True)]
    target = np.concatenate([of_fold.target for of_fold in pairs])
    if target.all() or not target.any():
        raise ProbeError("the test clips have no pairs of one class, or none of two", where=task.data.card.name)
    plain = [_cosines(task.last_layer, of_fold) for of_fold in pairs]
    whitened = [
        _cosines(_whitened(task, fold, settings.whitening_clips), of_fold)
        for fold, of_fold in zip(task.folds, pairs, strict=True)
    ]
    similarity = np.concatenate(plain)
    main = 1 - equal_error_rate(similarity, target)
    return Scored(
        Score(
            metric="one-minus-eer",
            main_score=main,
            ci95=None,
            per_seed=(main,),
            per_fold={},
            raw=_further(similarity, target, settings.prior)
            | {f"whitened {name}": v for name, v in _further(np.concatenate(whitened), target, settings.prior).items()},
            chosen={
                "layer": task.data.layers[-1],
                "pairs": len(target),
                "of_one_class": int(target.sum()),
                "groups_apart": apart,
            },
            chance=0.5,
        ),
        _rows(task, pairs, plain),
    )


def _pairs(part: np.ndarray, codes: np.ndarray, groups: np.ndarray, limit: int, fold: Fold) -> Pairs:
    """Return all pairs of a part's clips of different groups, at most `limit` of one class and as many of two."""
    first, second = (part[places] for places in np.triu_indices(len(part), 1))
    apart = groups[first] != groups[second]
    first, second = first[apart], second[apart]
    target = codes[first] == codes[second]
    chosen = []
    for which, name in ((target, "target"), (~target, "other")):
        places = np.flatnonzero(which)
        if len(places) > limit:
            places = random_numbers("pairs", name, fold.name or "", limit).choice(places, limit, replace=False)
        chosen.append(places)
    places = np.sort(np.concatenate(chosen))
    return Pairs(first[places], second[places], target[places])


def _cosines(inputs: Inputs, pairs: Pairs) -> np.ndarray:
    rows, places = np.unique(np.concatenate([pairs.first, pairs.second]), return_inverse=True)
    unit = unit_rows(inputs(rows))
    first, second = np.split(places, 2)
    step = 16_384
    blocks = [
        np.einsum("pd,pd->p", unit[first[start : start + step]], unit[second[start : start + step]])
        for start in range(0, len(first), step)
    ]
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def _whitened(task: ProbeRun, fold: Fold, limit: int) -> Inputs:
    """Return vectors centred and whitened by the training clips alone, with Ledoit and Wolf's covariance (2004)."""
    from sklearn.covariance import ledoit_wolf

    trained = task.last_layer(task.kind.thin(fold.all_train, limit)).astype(np.float64)
    mean = trained.mean(axis=0)
    covariance, _ = ledoit_wolf(trained - mean, assume_centered=True)
    values, axes = np.linalg.eigh(covariance)
    scale = axes / np.sqrt(np.maximum(values, values[-1] * 1e-12 + 1e-30))
    return lambda rows: ((task.last_layer(rows) - mean) @ scale).astype(np.float32)


def _further(similarity: np.ndarray, target: np.ndarray, prior: float) -> dict[str, float]:
    from sklearn.metrics import average_precision_score

    return {
        "eer": equal_error_rate(similarity, target),
        "min-dcf": least_cost(similarity, target, prior),
        "ap": float(average_precision_score(target, similarity)),
    }


def _rows(task: ProbeRun, pairs: list[Pairs], similarity: list[np.ndarray]) -> list[pa.Table]:
    """Return the predictions: the answer at the threshold of equal errors."""
    whole, target = np.concatenate(similarity), np.concatenate([of_fold.target for of_fold in pairs])
    missed, accepted = error_curve(whole, target)
    ranked = np.unique(whole)
    threshold = ranked[min(int((missed >= accepted).argmax()), len(ranked) - 1)]
    return [
        pair_rows(
            task.data, "verification", fold.name, of_fold.first, of_fold.second, of_fold.target, values, threshold
        )
        for fold, of_fold, values in zip(task.folds, pairs, similarity, strict=True)
        if len(values)
    ]
