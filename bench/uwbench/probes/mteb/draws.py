"""mteb's draws of training clips, number for number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np


def undersample(
    codes: np.ndarray, per_class: int, seed: int, before: Sequence[int] | None = None
) -> tuple[np.ndarray, list[int]]:
    """Return the places of at most `per_class` clips of each class, and the order that the next draw starts from.

    `codes` `(n,)` numbers the classes, `before` is the order that the draw before returned. mteb seeds its generator
    anew for each draw, so that a draw differs from the one before only because it shuffles that one's order once more.
    The order of a smaller training part, as between folds, leaves the last clips out.
    """
    order = list(range(len(codes))) if before is None else list(before)
    np.random.RandomState(seed).shuffle(order)
    return _first_of_each(([code] for code in codes[order].tolist()), order, per_class), order


def undersamples(codes: np.ndarray, per_class: int, experiments: int, seed: int) -> list[np.ndarray]:
    """Return the places of the training clips of each experiment."""
    chosen, order = [], None
    for _ in range(experiments):
        places, order = undersample(codes, per_class, seed, order)
        chosen.append(places)
    return chosen


def undersamples_of_sets(
    codes: Sequence[Sequence[int]], per_class: int, experiments: int, seed: int
) -> list[np.ndarray]:
    """Return the places of the training clips of each experiment if a clip has any number of classes.

    A clip is taken if one of its classes has fewer than `per_class` clips yet; it counts for all of its classes.
    """
    rng, chosen = np.random.default_rng(seed), []
    for _ in range(experiments):
        order = list(range(len(codes)))
        rng.shuffle(order)
        chosen.append(_first_of_each((codes[place] for place in order), order, per_class))
    return chosen


def shuffled_folds(n: int, folds: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the places of training and test clips of each fold; clips are shuffled one by one, whatever their group."""
    from sklearn.model_selection import KFold

    yield from KFold(folds, shuffle=True, random_state=seed).split(np.empty(n))


def _first_of_each(classes: Iterator[Sequence[int]], order: Sequence[int], per_class: int) -> np.ndarray:
    counts: Counter[int] = Counter()
    chosen = []
    for place, of_clip in zip(order, classes, strict=True):
        if any(counts[code] < per_class for code in of_clip):
            chosen.append(place)
            counts.update(of_clip)
    return np.array(chosen, dtype=np.int64)
