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


def jackknife(whole: float, blocks: np.ndarray, measure: Callable[[np.ndarray], float], *, smooth: bool) -> np.ndarray:
    """Return a value per block of clips, `(blocks,)`, whose mean is `whole` and whose spread is that of samples.

    `measure` takes a mask of the clips that stay when blocks are left out. One block alone has the value `whole`.

    The variance of a jackknife over n blocks counts twice what two blocks change together (Efron and Stein 1981). For a
    `smooth` measure S, this is taken off once. With S without block i, without j and without both, it is the sum over
    pairs of (Q / n)², where nothing of first order is left in

        Q = n S - (n - 1) (S(-i) + S(-j)) + (n - 2) S(-i, -j)

    A ring of n pairs stands for all of them. At most half of the variance is taken off, as much as is that of pairs if
    S has no first order. Where S jumps, Q is the noise of its jumps.
    """
    count = int(blocks.max()) + 1
    if count < 2:
        return np.array([whole])
    without = np.array([measure(blocks != block) for block in range(count)])
    values = whole + (count - 1) * (without.mean() - without)
    variance = float(np.var(values)) / (count - 1)
    if not smooth or count < 3 or variance == 0:
        return values
    after = np.roll(np.arange(count), -1)
    without_both = [measure((blocks != block) & (blocks != after[block])) for block in range(count)]
    of_pairs = count * whole - (count - 1) * (without + without[after]) + (count - 2) * np.array(without_both)
    counted_twice = float(np.square(of_pairs).mean()) * (count - 1) / (2 * count)
    return whole + np.sqrt(1 - min(counted_twice / variance, 0.5)) * (values - whole)


def block_counts(values: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """Return a clip's figures for the interval, float32 `(n, 3)`: its block's value, its share of it, the block."""
    return np.stack([values, 1 / np.bincount(blocks)[blocks], blocks], axis=1).astype(np.float32)
