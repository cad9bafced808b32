"""Training, validation and test clips of each fold.

The split depends on clip ids and groups, never on the order in which clips come.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from uwbench.cards.protocol import MlpSettings
from uwbench.errors import ProbeError
from uwbench.probes.data import TaskData

Validation = Literal["published", "carved by group", "carved by clip", "test (X-ARES's leak)", "none"]


@dataclass(frozen=True, slots=True)
class Fold:
    """Clip rows of one fold, or of the only one (`name` None): int64 arrays, each in order of clip id.

    `valid` never meets `test`, except under X-ARES's own rules, and `validation` says so.
    """

    name: str | None
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    validation: Validation

    @property
    def carved(self) -> bool:
        return self.validation.startswith("carved")

    @property
    def all_train(self) -> np.ndarray:
        """All rows that may be trained on; carved validation clips are training clips of the dataset."""
        return np.concatenate([self.train, self.valid]) if self.carved else self.train


def random_numbers(*words: str | int) -> np.random.Generator:
    """Return a generator that depends on `words` alone, the same on every machine."""
    text = "\0".join(str(word) for word in words).encode()
    return np.random.Generator(np.random.PCG64(int.from_bytes(hashlib.sha256(text).digest()[:16], "little")))


def plan_folds(data: TaskData, settings: MlpSettings | None, strata: Sequence[Sequence[int]], seed: int) -> list[Fold]:
    """Return the folds of a task in the order of their names; `strata[i]` numbers the classes of clip i.

    Without settings nothing is chosen on validation data, so that none is taken out of the training clips. Raises
    ProbeError if a split or fold holds no clips.
    """
    order = np.array(sorted(range(len(data.ids)), key=lambda row: data.ids[row]), dtype=np.int64)
    folds = []
    if data.splits is not None:
        parts = {name: order[[data.splits[row] == name for row in order]] for name in ("train", "valid", "test")}
        folds.append(_finish(data, settings, strata, seed, None, parts["train"], parts["valid"], parts["test"]))
    elif data.folds is not None:
        names = list(data.card.folds or sorted(set(data.folds)))
        for name in names:
            tested = np.array([data.folds[row] == name for row in order])
            empty = np.zeros(0, np.int64)
            folds.append(_finish(data, settings, strata, seed, name, order[~tested], empty, order[tested]))
    else:
        raise ProbeError("has neither splits nor folds", where=data.card.name)
    return folds


def _finish(
    data: TaskData,
    settings: MlpSettings | None,
    strata: Sequence[Sequence[int]],
    seed: int,
    name: str | None,
    train: np.ndarray,
    valid: np.ndarray,
    test: np.ndarray,
) -> Fold:
    where = data.card.name if name is None else f"{data.card.name}, fold {name}"
    if len(train) < 2 or len(test) == 0:
        raise ProbeError(f"{len(train)} clips to train on and {len(test)} to test", where=where)
    if settings is None:
        return Fold(name, train, valid, test, "published" if len(valid) else "none")
    if settings.selection == "xares" and (name is not None or data.card.xares.selects_on_test or len(valid) == 0):
        return Fold(name, train, test, test, "test (X-ARES's leak)")
    if len(valid):
        return Fold(name, train, valid, test, "published")
    rng = random_numbers("validation", seed, *([] if name is None else [name]))
    groups = [data.groups[row] for row in train]
    chosen, how = carve([strata[row] for row in train], groups, settings.validation_share, rng)
    if not chosen.any():
        raise ProbeError("no clip can be spared for validation", where=where, remedy="give the task a valid split")
    return Fold(name, train[~chosen], train[chosen], test, how)


def carve(
    strata: Sequence[Sequence[int]], groups: Sequence[str | None], share: float, rng: np.random.Generator
) -> tuple[np.ndarray, Validation]:
    """Choose about `share` of the clips, whole groups at a time, each class in proportion as far as groups allow.

    Groups are visited in random order. One is taken if it brings the classes nearer to their shares and leaves a clip
    of each of its classes to train on. With a single group, clips are taken one by one. Returns a mask and the method.
    """
    names = [f"g{group}" if group is not None else f"c{row}" for row, group in enumerate(groups)]
    how: Validation = "carved by group" if any(group is not None for group in groups) else "carved by clip"
    if len(set(names)) < 2:
        names, how = [f"c{row}" for row in range(len(groups))], "carved by clip"
    members: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        members.setdefault(name, []).append(row)
    size = 1 + max((max(classes, default=-1) for classes in strata), default=0)
    total = np.bincount([c for classes in strata for c in classes], minlength=size + 1)
    need = np.where(total >= 2, np.maximum(np.rint(share * total), 1), 0)
    left = total.astype(np.float64)
    need[size], left[size] = max(1, round(share * len(strata))), len(strata)  # the clips themselves, as one more class
    chosen = np.zeros(len(strata), dtype=bool)
    visited = sorted(members)
    best: tuple[float, str] | None = None
    for index in rng.permutation(len(visited)):
        rows = members[visited[index]]
        classes, counts = np.unique(
            [*(c for row in rows for c in strata[row]), *([size] * len(rows))], return_counts=True
        )
        gain = float((np.abs(need[classes]) - np.abs(need[classes] - counts)).sum())
        if len(rows) < len(strata) and (best is None or gain > best[0]):
            best = (gain, visited[index])
        if gain > 0 and (left[classes] - counts >= 1).all():
            need[classes] -= counts
            left[classes] -= counts
            chosen[rows] = True
    if not chosen.any() and best is not None:  # groups too large for the share: the least harmful one
        chosen[members[best[1]]] = True
    return chosen, how


def subsample(rows: np.ndarray, strata: Sequence[Sequence[int]], count: int, rng: np.random.Generator) -> np.ndarray:
    """Return at most `count` of `rows`, in their order, each first class in proportion."""
    if len(rows) <= count:
        return rows
    shuffled = rng.permutation(len(rows))
    first = np.array([next(iter(strata[row]), -1) for row in rows[shuffled]])
    order = np.argsort(first, kind="stable")
    _, starts, sizes = np.unique(first[order], return_index=True, return_counts=True)
    rank = np.empty(len(rows))
    rank[order] = (np.arange(len(rows)) - np.repeat(starts, sizes) + 0.5) / np.repeat(sizes, sizes)
    kept = shuffled[np.argsort(rank, kind="stable")[:count]]
    return rows[np.sort(kept)]
