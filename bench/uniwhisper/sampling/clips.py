"""Clips with their questions as arrays, a few bytes per row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from uniwhisper.data.examples import MAX_SAMPLES, MIN_SAMPLES, SAMPLE_RATE

if TYPE_CHECKING:
    from uniwhisper.data.rows import RowTable

LONGEST_S = MAX_SAMPLES / SAMPLE_RATE
SHORTEST_S = MIN_SAMPLES / SAMPLE_RATE
TRAINED = "train"
WHOLE_TASKS = frozenset({"asr", "st"})  # the answer covers the whole clip, which is never cropped


@dataclass(frozen=True)
class Units:
    """Clips: unit u is of dataset `names[dataset[u]]`, lasts `seconds[u]`, and `rows[starts[u]:starts[u + 1]]` ask.

    `seconds` (U,) float32 is what is heard, at most 30 s; units of a dataset stand together, `first[d]` to
    `first[d + 1]`. `too_long` counts the rows left out because their answer is of more than 30 s.
    """

    seconds: np.ndarray
    dataset: np.ndarray
    starts: np.ndarray
    rows: np.ndarray
    first: np.ndarray
    names: tuple[str, ...]
    too_long: int

    def __len__(self) -> int:
        return len(self.seconds)

    def hours(self) -> dict[str, float]:
        """Return the available hours per dataset, counting long clips as cropped."""
        sums = np.bincount(self.dataset, weights=self.seconds, minlength=len(self.names)) / 3600
        return dict(zip(self.names, sums.tolist(), strict=True))

    def rows_of(self, unit: int) -> list[int]:
        """Return all rows about a unit."""
        return self.rows[self.starts[unit] : self.starts[unit + 1]].tolist()


def rotated(rows: Sequence[int], visit: int, count: int, offset: int) -> list[int]:
    """Return the rows whose turn it is at a `visit`: `count` at a time in rotation, the first of all at `offset`."""
    count = min(count, len(rows))
    return [rows[(offset + visit * count + index) % len(rows)] for index in range(count)]


def units_of(
    table: RowTable,
    *,
    splits: frozenset[str] = frozenset({TRAINED}),
    without: np.ndarray | None = None,
    tasks: Sequence[str] = (),
) -> Units:
    """Return the units of a table's rows of `splits`; `without` (rows,) marks rows to leave out.

    With `tasks`, only their rows are used.
    """
    dataset, names = table.codes("dataset")
    split, split_names = table.codes("split")
    task, task_names = table.codes("task")
    used = np.isin(split, [code for code, name in enumerate(split_names) if name in splits])
    if without is not None:
        used &= ~without
    if tasks:
        used &= np.isin(task, [code for code, name in enumerate(task_names) if name in tasks])
    whole = np.isin(task, [code for code, name in enumerate(task_names) if name in WHOLE_TASKS])
    too_long = used & whole & (table.durations > LONGEST_S)
    used &= ~too_long
    return group(table.clip_index, dataset, table.durations, names, used, int(too_long.sum()))


def group(
    clips: np.ndarray,
    dataset: np.ndarray,
    durations: np.ndarray,
    names: tuple[str, ...],
    used: np.ndarray,
    too_long: int = 0,
) -> Units:
    """Return the units of rows, given each row's clip, dataset and duration `(rows,)`."""
    rows = np.flatnonzero(used)
    rows = rows[np.lexsort((rows, clips[rows], dataset[rows]))].astype(np.int32 if len(clips) < 2**31 else np.int64)
    heads = np.ones(len(rows), bool)
    if len(rows):
        heads[1:] = (np.diff(clips[rows]) != 0) | (np.diff(dataset[rows]) != 0)
    starts = np.append(np.flatnonzero(heads), len(rows))
    leading = rows[heads]
    owners = dataset[leading].astype(np.int32)
    return Units(
        seconds=np.minimum(durations[leading], LONGEST_S).astype(np.float32),
        dataset=owners,
        starts=starts,
        rows=rows,
        first=np.searchsorted(owners, np.arange(len(names) + 1)),
        names=names,
        too_long=too_long,
    )
