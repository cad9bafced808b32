"""Which test clips the methods without training look at, and which of them are apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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


def blocks_of(groups: np.ndarray, count: int) -> np.ndarray:
    """Return each clip's block: whole groups in random order, each put into the block with the fewest clips."""
    names, of_clip, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    filled = np.zeros(min(count, len(names)), np.int64)
    block = np.zeros(len(names), np.int64)
    for group in random_numbers("blocks", len(names)).permutation(len(names)):
        block[group] = filled.argmin()
        filled[block[group]] += sizes[group]
    return block[of_clip]


def jackknife(whole: float, blocks: np.ndarray, measure: Callable[[np.ndarray], float]) -> np.ndarray:
    """Return a value per block of clips, `(blocks,)`, whose mean is near `whole` and whose spread is that of samples.

    `measure` takes a mask of the clips that stay when a block is left out (Efron and Stein 1981). One block alone has
    the value `whole`.
    """
    count = int(blocks.max()) + 1
    if count < 2:
        return np.array([whole])
    without = np.array([measure(blocks != block) for block in range(count)])
    return whole + (count - 1) * (without.mean() - without)


def block_counts(values: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """Return a clip's figures for the interval, float32 `(n, 3)`: its block's value, its share of it, the block."""
    return np.stack([values, 1 / np.bincount(blocks)[blocks], blocks], axis=1).astype(np.float32)
