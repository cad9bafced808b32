"""Which test clips the methods without training look at, and which of them are apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from uwbench.probes.methods.base import ProbeRun
from uwbench.probes.splits import random_numbers, subsample


def tested(task: ProbeRun, limit: int) -> list[np.ndarray]:
    """Return each fold's test clips, thinned class by class to at most `limit` in all, in each fold in proportion."""
    total = sum(len(fold.test) for fold in task.folds)
    if total <= limit:
        return [fold.test for fold in task.folds]
    strata = task.kind.strata()
    shares = [max(2, limit * len(fold.test) // total) for fold in task.folds]
    return [
        subsample(fold.test, strata, share, random_numbers("tested", limit, len(fold.test)))
        for fold, share in zip(task.folds, shares, strict=True)
    ]


def clusters(task: ProbeRun) -> np.ndarray:
    """Return the number of each clip's group (speaker, recording, song); a clip without one is its own."""
    pairs = zip(task.data.groups, task.data.ids, strict=True)
    names = [f"g{group}" if group is not None else f"c{clip}" for group, clip in pairs]  # not rows: their order varies
    return np.unique(names, return_inverse=True)[1]


def groups_apart(parts: Sequence[np.ndarray], codes: np.ndarray, groups: np.ndarray) -> bool:
    """Return True if some two clips of a part share their class and not their group.

    Only then can clips of one group be left out of each other's pairs: where the class is the group, as in a task of
    speakers whose groups are the speakers, all pairs of a class are in one group.
    """
    for part in parts:
        pairs = np.unique(np.stack([codes[part], groups[part]]), axis=1)
        if len(np.unique(pairs[0])) < pairs.shape[1]:
            return True
    return False
