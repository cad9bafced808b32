"""Batches that cost at most a number of seconds of audio per forward pass, padding included."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from uwbench.encoders.base import EncoderInfo


def cut_batches(
    rows: Sequence[int], durations_s: Sequence[float], info: EncoderInfo, budget_s: float
) -> Iterator[list[int]]:
    """Cut rows, ordered by length, into batches of at most `budget_s` seconds.

    A clip that costs more than the budget is a batch of its own; `group_windows` then splits its chunks.
    """

    def cost(row: int) -> tuple[int, int, float]:
        return row, *_windows(durations_s[row], info)

    return _fill(map(cost, rows), budget_s)


def input_s(duration_s: float, info: EncoderInfo) -> float:
    """Return the seconds of input that an encoder gets for a clip: its chunks, each with its padding."""
    windows, seconds = _windows(duration_s, info)
    return windows * seconds if windows == 1 or info.forward_s else duration_s


def _windows(duration_s: float, info: EncoderInfo) -> tuple[int, float]:
    """Return the number of a clip's windows, and the seconds that the longest takes with its padding."""
    windows = 1 if info.context_s is None else max(1, -int(-duration_s // info.context_s))
    return windows, _padded_s(min(duration_s, info.context_s or duration_s), info)


def group_windows(windows: Sequence[np.ndarray], info: EncoderInfo, budget_s: float) -> Iterator[list[int]]:
    """Group windows, by index, into forward passes of at most `budget_s` seconds that the encoder may batch."""
    if info.batching == "single":
        yield from ([index] for index in range(len(windows)))
        return
    order = sorted(range(len(windows)), key=lambda index: len(windows[index]))
    costs = ((index, 1, _padded_s(len(windows[index]) / info.sample_rate, info)) for index in order)
    if info.batching != "equal-length":
        yield from _fill(costs, budget_s)
        return
    for _, equal in itertools.groupby(costs, key=lambda cost: len(windows[cost[0]])):
        yield from _fill(equal, budget_s)


def _padded_s(duration_s: float, info: EncoderInfo) -> float:
    return max(info.forward_s, info.min_s, duration_s)


def _fill(costs: Iterable[tuple[int, int, float]], budget_s: float) -> Iterator[list[int]]:
    """Fill batches in order from items, their number of windows and the seconds of each window."""
    batch: list[int] = []
    windows, longest = 0, 0.0
    for item, count, seconds in costs:
        if batch and (windows + count) * max(longest, seconds) > budget_s:
            yield batch
            batch, windows, longest = [], 0, 0.0
        batch.append(item)
        windows, longest = windows + count, max(longest, seconds)
    if batch:
        yield batch
