"""Which clips make up each step: a pure function of rows, mixture, seed and step number.

The field's library for this is lhotse (`CutSet.mux`, `DynamicBucketingSampler`), and it was the first choice. In its
stable release a sampler resumes by replaying what it drew, its state is tied to the number of workers and ranks, and
the mixture is a stream whose past decides its future; exact indexed resume is in a pre-release only. Here a run must
end with the same bytes after a kill, with other workers and in another world, so the plan is computed from the step's
number: nothing is stored, and nothing is replayed.

A run is cut into rounds of a fixed number of steps. Each dataset is an endless stream, one pseudo-random permutation
of its clips after the other, and round r takes the r-th stretch of every stream, as long as the mixture's share asks.
The clips of a round are put into bins by length and dealt out, at random within a bin, to exactly as many
micro-batches as the round's steps need. Work and memory are those of a round, whatever the number of rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from uniwhisper.data.draws import mixed, permuted, pick, seed_of
from uniwhisper.data.mixture import Mixture, target_shares
from uniwhisper.sampling.clips import LONGEST_S, SHORTEST_S, Units
from uwbench.api import DataError, UsageError

_ROUND = 1000  # steps at most
_LEAST_ROUND = 64
_GROUPS_A_BIN = 4  # fewer bins where a round is short, as each bin's last group is partly filled
_DEVIATIONS = 3.0  # of a round's size that are left free


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of batches: seconds of a global step and of a micro-batch with padding, how a step is put together.

    `together` micro-batches in a row are of one bin, so that the ranks that hold them take equally long; a whole step
    where it is None. `questions` a clip at most are asked at a time. `pad30` is the share of clips that are heard
    with silence up to 30 s.
    """

    batch_s: float
    micro_batch_s: float
    bins: int = 16
    together: int | None = None
    questions: int = 1
    pad30: float = 0.0

    @property
    def micro_batches(self) -> int:
        """Micro-batches of a global step."""
        return max(1, round(self.batch_s / self.micro_batch_s))

    @property
    def in_a_row(self) -> int:
        return self.micro_batches if self.together is None else self.together


@dataclass(frozen=True, slots=True)
class Draw:
    """A clip in its place: which unit, for which time, and whether it is padded to 30 s."""

    unit: int
    visit: int
    pad30: bool


@dataclass(frozen=True, slots=True)
class _Round:
    """The draws of a round in the order of its micro-batches; `ends[m]` is where micro-batch m ends."""

    unit: np.ndarray
    visit: np.ndarray
    pad30: np.ndarray
    ends: np.ndarray
    dropped: int


@dataclass(frozen=True, slots=True)
class _Part:
    """The clips of one bin in a round: the first one's place, and how many each micro-batch holds."""

    start: int
    lengths: np.ndarray


class Planner:
    """The plan of a run of `steps` steps over `units`; `shares` are each dataset's of all audio-seconds.

    Raises UsageError where sizes contradict each other or the mixture's caps leave too little, DataError where there
    are too few clips to fill a step.
    """

    def __init__(self, units: Units, mixture: Mixture, sizes: Sizes, *, steps: int, seed: int) -> None:
        self.units, self.sizes, self.steps, self.seed = units, sizes, steps, seed
        if sizes.micro_batches % sizes.in_a_row:
            raise UsageError(
                f"{sizes.micro_batches} micro-batches a step are no multiple of {sizes.in_a_row}", where="data.together"
            )
        self.shares = target_shares(mixture, units.hours(), steps * sizes.batch_s / 3600)
        self._codes = [units.names.index(name) for name in self.shares]
        heard = sum(units.hours()[name] for name in self.shares) * 3600
        a_pass = round(heard / sizes.batch_s)
        self.round_steps = max(1, min(steps, _ROUND, max(_LEAST_ROUND, a_pass)))
        self._groups = self.round_steps * sizes.micro_batches // sizes.in_a_row
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
        """Upper edges of the bins in seconds, of about equal audio-seconds each; the last one is of padded clips."""
        lengths = np.sort(np.maximum(self._lengths(), np.float32(SHORTEST_S)))
        count = max(1, min(self.sizes.bins, self._groups // _GROUPS_A_BIN))
        seconds = np.cumsum(lengths, dtype=np.float64)
        places = np.searchsorted(seconds, seconds[-1] * np.arange(1, count + 1) / count)
        edges = np.unique(lengths[np.minimum(places, len(lengths) - 1)])
        return np.append(edges, np.float32(LONGEST_S)) if self.sizes.pad30 else edges

    @cached_property
    def _fits(self) -> np.ndarray:
        """Clips of each bin that a micro-batch holds."""
        return np.floor(self.sizes.micro_batch_s / self.edges.astype(np.float64) + 1e-6).astype(np.int64)

    def _bins(self, units: np.ndarray, pad30: np.ndarray) -> np.ndarray:
        own = self.edges[:-1] if self.sizes.pad30 else self.edges
        lengths = np.maximum(self.units.seconds[units], np.float32(SHORTEST_S))
        return np.where(pad30, len(self.edges) - 1, np.searchsorted(own, lengths))

    @cached_property
    def _draws_a_round(self) -> dict[int, float]:
        """Clips a round of each dataset, so many that they fit into its micro-batches with their padding."""
        per_second, square, counts = 0.0, 0.0, {}
        padded = 1 / math.floor(self.sizes.micro_batch_s / LONGEST_S) if self.sizes.pad30 else 0.0
        for name, code in zip(self.shares, self._codes, strict=True):
            own = np.arange(self.units.first[code], self.units.first[code + 1])
            mean = float(self.units.seconds[own].mean(dtype=np.float64))
            part = 1 / self._fits[self._bins(own, np.zeros(len(own), bool))]
            cost = (1 - self.sizes.pad30) * part.mean() + self.sizes.pad30 * padded
            second = (1 - self.sizes.pad30) * (part**2).mean() + self.sizes.pad30 * padded**2
            counts[code] = self.shares[name] / mean
            per_second += counts[code] * cost
            square += counts[code] * max(second - cost**2, 0.0)
        # A bin's last group is half empty in the mean, by a uniform deviate of variance 1/12.
        waste = len(self.edges) / 2 + _DEVIATIONS * math.sqrt(len(self.edges) / 12)
        room = max(self._groups - waste, self._groups / 2) * self.sizes.in_a_row
        # seconds * per_second + deviations * sqrt(seconds * square) = room, solved for seconds
        b = _DEVIATIONS * math.sqrt(square)
        root = (-b + math.sqrt(b * b + 4 * per_second * room)) / (2 * per_second)
        # A clip a micro-batch at least, also where a run is a few steps and each stretch is rounded down.
        least = (self._groups * self.sizes.in_a_row + len(counts)) / sum(counts.values())
        return {code: count * max(root**2, least) for code, count in counts.items()}

    def _stretch(self, code: int, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return units and visits of the `number`-th stretch of a dataset's stream."""
        a_round = self._draws_a_round[code]
        positions = np.arange(math.floor(number * a_round), math.floor((number + 1) * a_round))
        start, size = int(self.units.first[code]), int(self.units.first[code + 1] - self.units.first[code])
        visits = positions // size
        units = np.empty(len(positions), np.int64)
        for visit in np.unique(visits):
            seen = visits == visit
            seed = seed_of(self.seed, "order", self.units.names[code], visit)
            units[seen] = start + permuted(positions[seen] % size, size, seed)
        return units, visits

    def _round(self, number: int) -> _Round:
        if self._cached is None or self._cached[0] != number:
            self._cached = (number, self._planned(number))
        return self._cached[1]

    def _planned(self, number: int) -> _Round:
        found = [self._stretch(code, number) for code in self._codes]
        units, visits = (np.concatenate([pair[side] for pair in found]) for side in (0, 1))
        keys = mixed(units * 1_000_003 + visits, seed_of(self.seed, "pad30"))
        pad30 = keys < np.uint64(int(self.sizes.pad30 * (2**64 - 1)))
        bins = self._bins(units, pad30)
        order = np.lexsort((mixed(np.arange(len(units)), seed_of(self.seed, "within", number)), bins))
        parts, dropped = self._micro_batch_sizes(np.bincount(bins, minlength=len(self.edges)))
        kept, ends = _in_groups(parts, order, self.sizes.in_a_row, seed_of(self.seed, "groups", number))
        return _Round(units[kept], visits[kept], pad30[kept], ends, dropped)

    def _micro_batch_sizes(self, counts: np.ndarray) -> tuple[list[_Part], int]:
        """Return how many clips each micro-batch of a bin holds, so that all groups are full; and how many are left.

        A bin with fewer clips than a group has micro-batches is joined with the next longer one.
        """
        row = self.sizes.in_a_row
        bins = _joined(counts, self._fits, row, self._groups)
        if not bins:
            raise DataError(f"{counts.sum()} clips a round do not fill {row} micro-batches", remedy="add data")
        starts = np.cumsum([0, *(count for count, _ in bins[:-1])])
        groups = [-(-count // (fits * row)) for count, fits in bins]
        while sum(groups) < self._groups:
            able = [i for i, (count, _) in enumerate(bins) if (groups[i] + 1) * row <= count]
            if not able:
                raise DataError(
                    f"{counts.sum()} clips a round do not fill {self._groups * row} micro-batches",
                    remedy="make batches smaller or micro-batches larger",
                )
            fullest = max(able, key=lambda i: (bins[i][0] / (groups[i] * bins[i][1]), -i))
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
        """Return the micro-batches of a global step, the same in every world."""
        if not 0 <= step < self.steps:
            raise UsageError(f"step {step} is not one of the plan's {self.steps}")
        number, index = divmod(step, self.round_steps)
        plan, count = self._round(number), self.sizes.micro_batches
        found = []
        for micro in range(index * count, (index + 1) * count):
            part = slice(int(plan.ends[micro - 1]) if micro else 0, int(plan.ends[micro]))
            values = zip(plan.unit[part].tolist(), plan.visit[part].tolist(), plan.pad30[part].tolist(), strict=True)
            found.append([Draw(*value) for value in values])
        return found

    def questions(self, draw: Draw) -> list[int]:
        """Return the rows that are asked about a drawn clip."""
        offset = pick(2**31, self.seed, "first question", draw.unit)
        return self.units.questions(draw.unit, draw.visit, self.sizes.questions, offset)

    def stand_ins(self, draw: Draw) -> Iterator[int]:
        """Return the units that may stand in for an unreadable one: the next of its dataset, no longer than its bin."""
        code = int(self.units.dataset[draw.unit])
        first, last = int(self.units.first[code]), int(self.units.first[code + 1])
        edge = self.edges[self._bins(np.array([draw.unit]), np.array([draw.pad30]))[0]]
        for distance in range(1, last - first):
            unit = first + (draw.unit - first + distance) % (last - first)
            if max(float(self.units.seconds[unit]), SHORTEST_S) <= edge:
                yield unit

    def realised(self, steps: int | None = None) -> dict[str, float]:
        """Return the audio-seconds of each dataset in the first `steps` steps, as planned; all steps by default."""
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
    """Return `(clips, clips a micro-batch)` of `most` bins, those of fewer than `least` joined to longer ones."""
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
    """Return `count` split into `parts` that differ by one at most."""
    return np.full(parts, count // parts) + (np.arange(parts) < count % parts)


def _in_groups(parts: list[_Part], order: np.ndarray, row: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the draws in the order of shuffled groups of `row` micro-batches, and where each micro-batch ends."""
    lengths = np.concatenate([part.lengths for part in parts])
    starts = np.concatenate([part.start + np.cumsum(part.lengths) - part.lengths for part in parts])
    groups = np.argsort(mixed(np.arange(len(lengths) // row), seed), kind="stable")
    micro = (groups[:, None] * row + np.arange(row)).ravel()
    ends = np.cumsum(lengths[micro])
    inside = np.arange(int(ends[-1])) - np.repeat(ends - lengths[micro], lengths[micro])
    return order[np.repeat(starts[micro], lengths[micro]) + inside], ends
