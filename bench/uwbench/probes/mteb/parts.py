"""The clips that mteb trains on and tests, and the interval over its experiments."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from uwbench.cards.card import Name
from uwbench.cards.protocol import Bootstrap
from uwbench.probes.methods.base import ProbeRun, Settings
from uwbench.results import metrics
from uwbench.results.bootstrap import cluster_counts, generator, score_interval


class MtebSettings(Settings):
    """Settings of all task types."""

    seed: int  # of every draw
    in_one_part: tuple[Name, ...] = ()  # tasks with published splits whose clips mteb has in one part


def split_parts(task: ProbeRun, settings: MtebSettings) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the rows of the training and the test clips; None if mteb has all clips in one part.

    That is so for tasks with folds. Published validation clips are in neither part.
    """
    if task.data.splits is None or task.data.card.name in settings.in_one_part:
        return None
    return task.folds[0].train, task.folds[0].test


def tested_part(task: ProbeRun, settings: MtebSettings) -> np.ndarray:
    """Return the rows of the clips that mteb evaluates without training: the test clips, or all, by their ids."""
    parts = split_parts(task, settings)
    return all_clips(task) if parts is None else parts[1]


def all_clips(task: ProbeRun) -> np.ndarray:
    """Return the rows of all clips, by their ids: mteb's draws depend on the order."""
    return np.array(sorted(range(len(task.data.ids)), key=lambda row: task.data.ids[row]), dtype=np.int64)


def interval_over(experiments: Sequence[float], bootstrap: Bootstrap) -> tuple[float, float]:
    """Return the interval of the mean over experiments, which are drawn with replacement; mteb has none."""
    count = len(experiments)
    drawn = cluster_counts(count, bootstrap.resamples, generator("experiments", bootstrap.seed))
    means = drawn.astype(np.float64) @ np.asarray(experiments) / count
    return score_interval(metrics.mean(experiments), means, bootstrap.level, count)
