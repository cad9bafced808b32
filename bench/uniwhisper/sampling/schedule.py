"""The clips of each step, as a pure function of rows, mixture, seed and step number.

The usual library for this is lhotse (`CutSet.mux`, `DynamicBucketingSampler`). In its stable release a sampler resumes
by replaying its draws, and its state depends on the number of workers and ranks; exact indexed resume exists only in a
pre-release. Here a run must end with the same bytes after a kill and with another number of workers or ranks, so the
plan is computed from the step number: nothing is stored or replayed.

A run consists of rounds of a fixed number of steps. Each dataset is an endless stream of pseudo-random permutations of
its clips, and round r takes the r-th segment of every stream, as long as the mixture's share requires. The clips of a
round are sorted into bins by length and assigned, at random within a bin, to exactly as many micro-batches as the
round's steps need. Work and memory depend on the size of a round, not on the number of rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from uniwhisper.data.draws import mixed, permuted, pick, seed_of
from uniwhisper.data.mixture import Mixture, target_shares
from uniwhisper.sampling.clips import LONGEST_S, SHORTEST_S, Units, rotated
from uwbench.api import DataError, UsageError

_MAX_ROUND = 1000  # steps
_MIN_ROUND = 64
_GROUPS_PER_BIN = 4  # short rounds have fewer bins, as the last group of each bin is only partly filled
_DEVIATIONS = 3.0  # standard deviations of a round's cost that are left free
_MOST_PARTNERS = 64  # clips that are tried as the second of two


@dataclass(frozen=True, slots=True)
class Sizes:
    """Batch sizes: seconds per global step and per micro-batch, including padding, and a step's composition.

    `together` consecutive micro-batches come from one bin, so that the ranks that hold them take equally long; None
    stands for a whole step. At most `questions` questions are asked about a clip at a time. `pad30` is the share of
    clips that are padded with silence to 30 s.
    """

    batch_s: float
    micro_batch_s: float
    bins: int = 16
    together: int | None = None
    questions: int = 1
    pad30: float = 0.0

    @property
    def micro_batches(self) -> int:
        """Micro-batches per global step."""
        return max(1, round(self.batch_s / self.micro_batch_s))

    @property
    def group(self) -> int:
        """Consecutive micro-batches from one bin."""
        return self.micro_batches if self.together is None else self.together


@dataclass(frozen=True, slots=True)
class Draw:
    """One clip of a micro-batch: the unit, how often it was drawn before, and if it is padded to 30 s."""

    unit: int
    visit: int
    pad30: bool


@dataclass(frozen=True, slots=True)
class _Round:
    """The draws of a round in the order of its micro-batches; micro-batch m ends at `ends[m]`."""

    unit: np.ndarray
    visit: np.ndarray
    pad30: np.ndarray
    ends: np.ndarray
    dropped: int


@dataclass(frozen=True, slots=True)
class _Part:
    """The clips of one bin in a round: the index of the first, and the number per micro-batch."""

    start: int
    lengths: np.ndarray


class Planner:
    """The plan of a run of `steps` steps over `units`; `shares` holds each dataset's share of all audio-seconds.

    Raises UsageError if sizes contradict each other or the mixture's caps leave too little, DataError if there are too
    few clips to fill a step.
    """

    def __init__(self, units: Units, mixture: Mixture, sizes: Sizes, *, steps: int, seed: int) -> None:
        self.units, self.sizes, self.steps, self.seed = units, sizes, steps, seed
        if sizes.micro_batches % sizes.group:
            raise UsageError(
                f"{sizes.micro_batches} micro-batches per step are no multiple of {sizes.group}", where="data.together"
            )
        self.shares = target_shares(mixture, units.hours(), steps * sizes.batch_s / 3600)
        self._codes = [units.names.index(name) for name in self.shares]
        seconds = sum(units.hours()[name] for name in self.shares) * 3600
        steps_per_pass = round(seconds / sizes.batch_s)
        self.round_steps = max(1, min(steps, _MAX_ROUND, max(_MIN_ROUND, steps_per_pass)))
        self._groups = self.round_steps * sizes.micro_batches // sizes.group
        longest = LONGEST_S if sizes.pad30 else max(SHORTEST_S, float(self._lengths().max()))
        if longest > sizes.micro_batch_s:
            raise UsageError(
                f"a clip of {longest:.1f} s does not fit into a micro-batch of {sizes.micro_batch_s:g} s",
                where="run.micro_batch_s",
            )
        self._cached: tuple[int, _Round] | None = None

    def _lengths(self) -> np.ndarray:
        drawn = np.isin(self.units.dataset, self._codes)
        return self.units.seconds[drawn]

    @cached_property
    def edges(self) -> np.ndarray:
        """Upper edges of the bins in seconds, of about equal audio-seconds each; padded clips have the last bin."""
        lengths = np.sort(np.maximum(self._lengths(), np.float32(SHORTEST_S)))
        count = max(1, min(self.sizes.bins, self._groups // _GROUPS_PER_BIN))
        seconds = np.cumsum(lengths, dtype=np.float64)
        places = np.searchsorted(seconds, seconds[-1] * np.arange(1, count + 1) / count)
        edges = np.unique(lengths[np.minimum(places, len(lengths) - 1)])
        return np.append(edges, np.float32(LONGEST_S)) if self.sizes.pad30 else edges

    @cached_property
    def _fits(self) -> np.ndarray:
        """The number of clips that fit into a micro-batch, per bin."""
        return np.floor(self.sizes.micro_batch_s / self.edges.astype(np.float64) + 1e-6).astype(np.int64)

    def _bins(self, units: np.ndarray, pad30: np.ndarray) -> np.ndarray:
        edges = self.edges[:-1] if self.sizes.pad30 else self.edges
        lengths = np.maximum(self.units.seconds[units], np.float32(SHORTEST_S))
        return np.where(pad30, len(self.edges) - 1, np.searchsorted(edges, lengths))

    @cached_property
    def _clips_per_round(self) -> dict[int, float]:
        """The number of clips per round of each dataset (by its code), such that they fit with their padding.

        A clip costs one micro-batch divided by the number of clips of its bin that fit into one. The cost of a round
        with s seconds of audio has the mean s * mean_cost and the standard deviation sqrt(s * cost_variance). The
        largest s is chosen for which mean plus `_DEVIATIONS` deviations fill the usable micro-batches.

        Example: one dataset whose clips last 5 s, of which 4 fit into a micro-batch, gives 0.2 clips per second of
        audio, mean_cost 0.2 / 4 = 0.05 and cost_variance 0. With 100 usable micro-batches, s is 100 / 0.05 = 2,000
        seconds: 400 clips per round.
        """
        mean_cost, cost_variance = 0.0, 0.0  # of a second of audio, in micro-batches
        clips_per_second = {}
        for name, code in zip(self.shares, self._codes, strict=True):
            units = np.arange(self.units.first[code], self.units.first[code + 1])
            mean_seconds = float(self.units.seconds[units].mean(dtype=np.float64))
            clip_cost, clip_variance = self._cost_of_a_clip(units)
            clips_per_second[code] = self.shares[name] / mean_seconds
            mean_cost += clips_per_second[code] * clip_cost
            cost_variance += clips_per_second[code] * clip_variance
        seconds = self._seconds_that_fit(mean_cost, cost_variance)
        # At least one clip per micro-batch, even if a run is a few steps and each segment is rounded down.
        least = (self._groups * self.sizes.group + len(clips_per_second)) / sum(clips_per_second.values())
        return {code: rate * max(seconds, least) for code, rate in clips_per_second.items()}

    def _cost_of_a_clip(self, units: np.ndarray) -> tuple[float, float]:
        """Return mean and variance of the part of a micro-batch that a clip of `units` takes."""
        pad30 = self.sizes.pad30
        padded = 1 / math.floor(self.sizes.micro_batch_s / LONGEST_S) if pad30 else 0.0
        plain = 1 / self._fits[self._bins(units, np.zeros(len(units), bool))]
        mean = (1 - pad30) * plain.mean() + pad30 * padded
        mean_of_squares = (1 - pad30) * (plain**2).mean() + pad30 * padded**2
        return mean, max(mean_of_squares - mean**2, 0.0)

    def _seconds_that_fit(self, mean_cost: float, cost_variance: float) -> float:
        """Solve `seconds * mean_cost + deviations * sqrt(seconds * cost_variance) = usable_micro_batches`."""
        # The last group of each bin is half empty on average; the empty part is uniform, with variance 1/12.
        unusable_groups = len(self.edges) / 2 + _DEVIATIONS * math.sqrt(len(self.edges) / 12)
        usable_micro_batches = max(self._groups - unusable_groups, self._groups / 2) * self.sizes.group
        # A quadratic equation in the square root of the seconds.
        slack = _DEVIATIONS * math.sqrt(cost_variance)
        root = (-slack + math.sqrt(slack * slack + 4 * mean_cost * usable_micro_batches)) / (2 * mean_cost)
        return root**2

    def _segment(self, code: int, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return units and visits of the `number`-th segment of a dataset's stream."""
        count = self._clips_per_round[code]
        positions = np.arange(math.floor(number * count), math.floor((number + 1) * count))
        start, size = int(self.units.first[code]), int(self.units.first[code + 1] - self.units.first[code])
        visits = positions // size
        units = np.empty(len(positions), np.int64)
        for visit in np.unique(visits):
            of_visit = visits == visit
            seed = seed_of(self.seed, "order", self.units.names[code], visit)
            units[of_visit] = start + permuted(positions[of_visit] % size, size, seed)
        return units, visits

    def _round(self, number: int) -> _Round:
        if self._cached is None or self._cached[0] != number:
            self._cached = (number, self._planned(number))
        return self._cached[1]

    def _planned(self, number: int) -> _Round:
        segments = [self._segment(code, number) for code in self._codes]
        units, visits = (np.concatenate(arrays) for arrays in zip(*segments, strict=True))
        keys = mixed(units * 1_000_003 + visits, seed_of(self.seed, "pad30"))
        pad30 = keys < np.uint64(int(self.sizes.pad30 * (2**64 - 1)))
        bins = self._bins(units, pad30)
        order = np.lexsort((mixed(np.arange(len(units)), seed_of(self.seed, "within", number)), bins))
        parts, dropped = self._micro_batch_sizes(np.bincount(bins, minlength=len(self.edges)))
        chosen, ends = _in_groups(parts, order, self.sizes.group, seed_of(self.seed, "groups", number))
        return _Round(units[chosen], visits[chosen], pad30[chosen], ends, dropped)

    def _micro_batch_sizes(self, counts: np.ndarray) -> tuple[list[_Part], int]:
        """Return the number of clips per micro-batch of each bin, for all groups, and the number of clips left over.

        A bin with fewer clips than a group has micro-batches is merged with the next longer one.
        """
        row = self.sizes.group
        bins = _joined(counts, self._fits, row, self._groups)
        if not bins:
            raise DataError(f"{counts.sum()} clips per round do not fill {row} micro-batches", remedy="add data")
        starts = np.cumsum([0, *(count for count, _ in bins[:-1])])
        groups = [-(-count // (fits * row)) for count, fits in bins]
        while sum(groups) < self._groups:
            extensible = [i for i, (count, _) in enumerate(bins) if (groups[i] + 1) * row <= count]
            if not extensible:
                raise DataError(
                    f"{counts.sum()} clips per round do not fill {self._groups * row} micro-batches",
                    remedy="make batches smaller or micro-batches larger",
                )
            fullest = max(extensible, key=lambda i: (bins[i][0] / (groups[i] * bins[i][1]), -i))
            groups[fullest] += 1
        dropped = 0
        while sum(groups) > self._groups:
            last = min(
                (i for i in range(len(bins)) if groups[i] > 1),
                key=lambda i: bins[i][0] - (groups[i] - 1) * bins[i][1] * row,
            )
            groups[last] -= 1
            room = groups[last] * bins[last][1] * row
            dropped += max(0, bins[last][0] - room)
            bins[last] = (min(bins[last][0], room), bins[last][1])
        parts = [_split(count, number * row) for (count, _), number in zip(bins, groups, strict=True)]
        return [_Part(int(start), lengths) for start, lengths in zip(starts, parts, strict=True)], dropped

    def draws(self, step: int) -> list[list[Draw]]:
        """Return the micro-batches of a global step, independent of the number of ranks."""
        if not 0 <= step < self.steps:
            raise UsageError(f"step {step} is outside the plan of {self.steps} steps")
        number, index = divmod(step, self.round_steps)
        plan, count = self._round(number), self.sizes.micro_batches
        micro_batches = []
        for micro in range(index * count, (index + 1) * count):
            part = slice(int(plan.ends[micro - 1]) if micro else 0, int(plan.ends[micro]))
            values = zip(plan.unit[part].tolist(), plan.visit[part].tolist(), plan.pad30[part].tolist(), strict=True)
            micro_batches.append([Draw(*value) for value in values])
        return micro_batches

    def questions(self, draw: Draw, rows: Sequence[int] | None = None) -> list[int]:
        """Return the rows whose questions are asked about a drawn clip: of all its rows, or of `rows`."""
        offset = pick(2**31, self.seed, "first question", draw.unit)
        rows = self.units.rows_of(draw.unit) if rows is None else rows
        return rotated(rows, draw.visit, self.sizes.questions, offset)

    def stand_ins(self, draw: Draw) -> Iterator[int]:
        """Yield units that can replace an unreadable one: the next ones of its dataset that fit its bin."""
        first, last = self._of_dataset(draw)
        edge = self._edge(draw)
        for distance in range(1, last - first):
            unit = first + (draw.unit - first + distance) % (last - first)
            if self._padded_s(unit) <= edge:
                yield unit

    def partners(self, draw: Draw) -> Iterator[int]:
        """Yield units that can be heard together with a drawn one: some of its dataset that fit its bin, at random."""
        first, last = self._of_dataset(draw)
        edge = self._edge(draw)
        tried = np.arange(min(last - first, _MOST_PARTNERS))
        seed = seed_of(self.seed, "partners", draw.unit, draw.visit)
        for unit in (first + permuted(tried, last - first, seed)).tolist():
            if unit != draw.unit and self._padded_s(unit) <= edge:
                yield unit

    def _of_dataset(self, draw: Draw) -> tuple[int, int]:
        """Return the first unit of a drawn clip's dataset, and the first of the next one."""
        code = int(self.units.dataset[draw.unit])
        return int(self.units.first[code]), int(self.units.first[code + 1])

    def _edge(self, draw: Draw) -> float:
        """Return the upper edge of a drawn clip's bin in seconds."""
        return float(self.edges[self._bins(np.array([draw.unit]), np.array([draw.pad30]))[0]])

    def _padded_s(self, unit: int) -> float:
        """Return a unit's length in seconds, short ones padded."""
        return max(float(self.units.seconds[unit]), SHORTEST_S)

    def realised(self, steps: int | None = None) -> dict[str, float]:
        """Return the planned audio-seconds of each dataset in the first `steps` steps, by default in all."""
        last = self.steps if steps is None else min(steps, self.steps)
        sums = np.zeros(len(self.units.names))
        for number in range(-(-last // self.round_steps)):
            plan = self._planned(number)
            micro = min(last - number * self.round_steps, self.round_steps) * self.sizes.micro_batches
            drawn = plan.unit[: int(plan.ends[micro - 1])]
            sums += np.bincount(
                self.units.dataset[drawn], weights=self.units.seconds[drawn], minlength=len(self.units.names)
            )
        return {name: float(sums[code]) for name, code in zip(self.shares, self._codes, strict=True)}


def _joined(counts: np.ndarray, fits: np.ndarray, least: int, most: int) -> list[tuple[int, int]]:
    """Merge bins of fewer than `least` clips into longer ones: `(clips, clips per micro-batch)` of at most `most`."""
    bins: list[tuple[int, int]] = []
    carried = 0
    for count, fit in zip(counts.tolist(), fits.tolist(), strict=True):
        carried += count
        if carried >= least:
            bins.append((carried, fit))
            carried = 0
    if carried:
        if not bins:
            return []
        count, _ = bins.pop()
        bins.append((count + carried, int(fits[-1])))
    while len(bins) > most:
        count, fit = bins.pop()
        bins[-1] = (bins[-1][0] + count, fit)
    return bins


def _split(count: int, parts: int) -> np.ndarray:
    """Split `count` into `parts` numbers that differ by one at most."""
    return np.full(parts, count // parts) + (np.arange(parts) < count % parts)


def _in_groups(parts: list[_Part], order: np.ndarray, row: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the draws ordered by shuffled groups of `row` micro-batches, and the end of each micro-batch."""
    lengths = np.concatenate([part.lengths for part in parts])
    starts = np.concatenate([part.start + np.cumsum(part.lengths) - part.lengths for part in parts])
    groups = np.argsort(mixed(np.arange(len(lengths) // row), seed), kind="stable")
    micro = (groups[:, None] * row + np.arange(row)).ravel()
    ends = np.cumsum(lengths[micro])
    inside = np.arange(int(ends[-1])) - np.repeat(ends - lengths[micro], lengths[micro])
    return order[np.repeat(starts[micro], lengths[micro]) + inside], ends
