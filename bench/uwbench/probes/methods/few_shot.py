"""A linear probe on 1, 2, 4, ... labelled clips per class up to all: how many labels does a task need?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from uwbench.probes.data import statistics
from uwbench.probes.kinds.base import Predicted
from uwbench.probes.methods.base import ProbeRun, Scored, Settings, settings_of
from uwbench.probes.methods.clips import clusters, tested
from uwbench.probes.methods.linear import fit_single_label, most_clips
from uwbench.probes.predictions import prediction_rows
from uwbench.probes.splits import Fold, random_numbers
from uwbench.results import metrics
from uwbench.results.record import CurvePoint, Score

if TYPE_CHECKING:
    import pyarrow as pa


class FewShotSettings(Settings):
    """Settings of the curve."""

    draws: int = Field(gt=0)  # of labelled clips; each draw's clips at one point are among those at the next
    strength: float = Field(gt=0)  # scikit-learn's C, the same everywhere: no clip is spent on choosing it
    draw_clips: int = Field(gt=0)  # points with more labelled clips than this are left out, but for the last
    train_clips: int = Field(gt=0)  # the last point trains on at most so many, class by class
    train_cells: int = Field(default=20_000_000, gt=0)  # and on at most so many clips times classes
    test_clips: int = Field(gt=0)  # at most so many are tested, class by class


@dataclass(frozen=True, slots=True)
class FoldCurve:
    """A fold's test clips at each of `K` points of the curve, the last of which has all labels."""

    correct: np.ndarray  # bool (draws, clips, K)
    clips: np.ndarray  # (K,) labelled clips in all
    predicted: np.ndarray  # (clips,) class numbers at the last point

    @property
    def areas(self) -> np.ndarray:
        """The share of the area that each clip is right on, `(draws, clips)`."""
        return self.correct @ area_weights(self.clips)


def score(task: ProbeRun) -> Scored:
    """Return the area under the curve of accuracy over the logarithm of the labelled clips, and the curve."""
    settings = settings_of(task.protocol, "few-shot", FewShotSettings)
    shots, parts = _shots(task, settings), tested(task, settings.test_clips)
    curves = [_curve(task, fold, part, shots, settings) for fold, part in zip(task.folds, parts, strict=True)]
    accuracy = np.concatenate([of_fold.correct for of_fold in curves], axis=1).mean(axis=(0, 1))
    clips = np.mean([of_fold.clips for of_fold in curves], axis=0)
    per_draw = tuple(np.concatenate([of_fold.areas for of_fold in curves], axis=1).mean(axis=1).tolist())
    return Scored(
        Score(
            metric="few-shot-accuracy",
            main_score=metrics.mean(per_draw),
            ci95=None,
            per_seed=per_draw,
            per_fold={
                fold.name: float(of_fold.areas.mean())
                for fold, of_fold in zip(task.folds, curves, strict=True)
                if fold.name is not None
            },
            raw={"one label per class": float(accuracy[0]), "all labels": float(accuracy[-1])},
            chosen={"layer": task.data.layers[-1], "tested_on": sum(map(len, parts))},
            curve=tuple(
                CurvePoint(shots=of_class, clips=float(count), score=float(value), ci95=None)
                for of_class, count, value in zip((*shots, None), clips, accuracy, strict=True)
            ),
        ),
        [
            table
            for fold, part, of_fold in zip(task.folds, parts, curves, strict=True)
            for table in _rows(task, fold, part, of_fold)
        ],
    )


def area_weights(clips: np.ndarray) -> np.ndarray:
    """Return the weight of each point `(K,)` in the area: trapezia over log2 of the labelled clips, over its range.

    The weights add up to 1, so that the area is a mean accuracy.
    """
    if len(clips) == 1:
        return np.ones(1)
    steps = np.diff(np.log2(clips))
    return (np.append(steps, 0) + np.append(0, steps)) / (2 * steps.sum())


def nested_order(codes: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Return for each class the positions of its clips in the order in which they get their labels.

    Groups are in random order, and so are the clips of a group; no group gives a second clip before every other group
    has given its first. The first 1, 2, 4, ... clips thus come from as many speakers or recordings as there are.
    """
    order = rng.permutation(len(codes))
    rank = rng.permutation(int(groups.max()) + 1)[groups[order]]
    by_group = np.lexsort((np.arange(len(order)), rank, codes[order]))
    keys = codes[order][by_group] * (int(groups.max()) + 1) + rank[by_group]
    starts = np.flatnonzero(np.append(True, np.diff(keys) != 0))
    turn = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    taken = order[by_group][np.lexsort((rank[by_group], turn, codes[order][by_group]))]
    return np.split(taken, np.flatnonzero(np.diff(codes[taken])) + 1)


def _shots(task: ProbeRun, settings: FewShotSettings) -> list[int]:
    """Return the numbers of labelled clips per class, without that of all: the same in every fold."""
    sizes = [np.unique(task.kind.targets(fold.all_train), return_counts=True)[1] for fold in task.folds]
    shots, count = [], 1
    while all(count < of_fold.max() and np.minimum(of_fold, count).sum() <= settings.draw_clips for of_fold in sizes):
        shots.append(count)
        count *= 2
    return shots


def _curve(task: ProbeRun, fold: Fold, part: np.ndarray, shots: Sequence[int], settings: FewShotSettings) -> FoldCurve:
    """Train on the draws of a fold and on all its training clips, and test on `part`.

    Vectors are standardised with all training clips, whose vectors need no labels.
    """
    pool = fold.all_train
    codes, groups = task.kind.targets(pool), np.unique(clusters(task)[pool], return_inverse=True)[1]
    mean, scale = statistics(task.last_layer, pool)

    def vectors(rows: np.ndarray) -> np.ndarray:
        return (task.last_layer(rows) - mean) * scale

    tested_vectors, truth = vectors(part), task.kind.targets(part)

    def guess(rows: np.ndarray) -> np.ndarray:
        scores = np.empty((len(part), len(task.kind.classes)), np.float32)
        fit_single_label(vectors(rows), task.kind.targets(rows), settings.strength)(tested_vectors, scores)
        return scores.argmax(axis=1)

    everything = task.kind.thin(pool, most_clips(task, settings.train_clips, settings.train_cells))
    predicted = guess(everything)
    correct = np.empty((settings.draws, len(part), len(shots) + 1), bool)
    correct[:, :, -1] = predicted == truth
    for draw in range(settings.draws):
        rng = random_numbers("few-shot", task.seed, fold.name or "", draw)
        order = nested_order(codes, groups, rng)
        for point, count in enumerate(shots):
            rows = pool[np.concatenate([of_class[:count] for of_class in order])]
            correct[draw, :, point] = guess(rows) == truth
    sizes = np.unique(codes, return_counts=True)[1]
    clips = np.array([*(np.minimum(sizes, count).sum() for count in shots), len(everything)], dtype=np.float64)
    return FoldCurve(correct, clips, predicted)


def _rows(task: ProbeRun, fold: Fold, part: np.ndarray, curve: FoldCurve) -> list[pa.Table]:
    """Return the predictions of each draw: with all labels, and if each point of the curve is right.

    Counts are the clip's share of the area, 1, and 1 for each point that is right.
    """
    truths, names = task.kind.truths(part), [json.dumps(name, ensure_ascii=False) for name in task.kind.classes]
    texts = [names[code] for code in curve.predicted.tolist()]
    tables = []
    for draw, (areas, correct) in enumerate(zip(curve.areas, curve.correct, strict=True)):
        counts = np.column_stack([areas, np.ones(len(part)), correct]).astype(np.float32)
        predicted = Predicted(texts, counts=counts)
        tables.append(prediction_rows(task.data, "few-shot", draw, fold.name, part, truths, predicted))
    return tables
