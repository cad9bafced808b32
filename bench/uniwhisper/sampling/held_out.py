"""Clips that are never trained on, for monitoring a model during training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from uniwhisper.config import Wording
from uniwhisper.data.draws import mixed, seed_of
from uniwhisper.data.examples import Example, Question
from uniwhisper.data.rows import Row, RowTable
from uniwhisper.data.templates import DEFAULT_WORDING, ask
from uniwhisper.sampling.batches import heard
from uniwhisper.sampling.clips import TRAINED, WHOLE_TASKS
from uwbench.api import AudioError


@dataclass(frozen=True)
class HeldOut:
    """Clips that are never trained on, one question each."""

    examples: tuple[Example, ...]

    @property
    def questions(self) -> list[Question]:
        return [example.questions[0] for example in self.examples]


def hold_out(table: RowTable, count: int, *, all_splits: bool = False, wording: Wording = DEFAULT_WORDING) -> HeldOut:
    """Return `count` rows of splits other than `train` (of any with `all_splits`), one task after the other, by hash.

    Questions are worded by `wording`, without lists of possible answers. Unreadable rows are left out, and so are rows
    of more than 30 s that may not be cropped.
    """
    split, names = table.codes("split")
    task, _ = table.codes("task")
    dataset, _ = table.codes("dataset")
    rows = np.flatnonzero(all_splits | (split != (names.index(TRAINED) if TRAINED in names else -1)))
    rows = rows[np.argsort(mixed(rows, seed_of("held out")), kind="stable")]
    queues = [
        rows[(dataset[rows] == d) & (task[rows] == t)][:count].tolist() for d, t in _pairs(dataset[rows], task[rows])
    ]
    turns = [queue[turn] for turn in range(max(map(len, queues), default=0)) for queue in queues if turn < len(queue)]
    examples: list[Example] = []
    for row in turns:
        if len(examples) == count:
            break
        try:
            examples.append(_example(table[row], wording))
        except AudioError:
            continue
    return HeldOut(tuple(examples))


def _pairs(dataset: np.ndarray, task: np.ndarray) -> list[tuple[int, int]]:
    return sorted(set(zip(dataset.tolist(), task.tolist(), strict=True)))


def _example(row: Row, wording: Wording) -> Example:
    audio = heard(row, 0, 0, whole=row.task in WHOLE_TASKS)
    return Example(row.id, row.dataset, audio, (ask(row, 0, 0, wording=wording),), row.domain)
