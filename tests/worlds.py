"""Simulated worlds with a known score: clips of classes in groups, drawn as often as one likes.

A world fixes the classes and the training clips; each draw has other groups of test clips. The expected score over many
draws is what an interval made from one of them should hold.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from uwbench.cards.card import Card
from uwbench.cards.protocol import Protocol
from uwbench.probes.data import TaskData
from uwbench.probes.knn import unit_rows
from uwbench.probes.run import run_probes
from uwbench.results.averages import interval
from uwbench.results.curves import Crossing, find_crossing
from uwbench.results.items import read_items

CARD = Card.model_validate(
    {
        "name": "world",
        "version": 1,
        "title": "World",
        "domain": "sound",
        "kind": "single-label",
        "metric": "accuracy",
        "chance": 0,
        "splits": {"train": "train", "test": "test"},
    }
)


@dataclass(frozen=True)
class NamedCentres:
    """A space of clips and texts: a text lies near the centre of the class c<number> in it, off by its own noise."""

    vectors: np.ndarray
    centres: np.ndarray
    noise: float = 0.3

    def clips(self) -> np.ndarray:
        return unit_rows(self.vectors)

    def texts(self, texts: Sequence[str], /) -> np.ndarray:
        rows = []
        for text in texts:
            (number,) = re.findall(r"\bc(\d+)\b", text)
            off = np.random.default_rng(list(text.encode())).normal(size=self.centres.shape[1])
            rows.append(self.centres[int(number)] + self.noise * off)
        return unit_rows(np.stack(rows))

    def tower_hash(self) -> str:
        return "made"


@dataclass(frozen=True)
class World:
    """Classes are points, a group moves its clips together by `group_spread`, a clip moves by 1."""

    classes: int = 6
    dim: int = 12
    apart: float = 0.8
    group_spread: float = 0.5
    groups: int = 40
    per_group: int = 5
    trained: int = 20  # groups of training clips

    def centres(self) -> np.ndarray:
        return self.apart * np.random.default_rng(7).normal(size=(self.classes, self.dim))

    def clips(self, groups: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return vectors, class numbers and group numbers; a group has clips of several classes."""
        group = np.repeat(np.arange(groups), self.per_group)
        codes = rng.integers(0, self.classes, len(group))
        moved = self.group_spread * rng.normal(size=(groups, self.dim))[group]
        return self.centres()[codes] + moved + rng.normal(size=(len(group), self.dim)), codes, group

    def task(self, seed: int) -> TaskData:
        """Return a task with this world's training clips, and test clips drawn by `seed`."""
        trained = self.clips(self.trained, np.random.default_rng(1))
        tested = self.clips(self.groups, np.random.default_rng([2, seed]))
        vectors, codes, groups = (np.concatenate(pair) for pair in zip(trained, tested, strict=True))
        splits = ["train"] * len(trained[1]) + ["test"] * len(tested[1])
        names = [f"{split} {group}" for split, group in zip(splits, groups, strict=True)]
        return TaskData(
            card=CARD,
            ids=[f"clip-{row:05d}" for row in range(len(codes))],
            labels=[f"c{code}" for code in codes],
            splits=splits,
            folds=None,
            groups=names,
            durations_s=np.ones(len(codes)),
            layers=("last",),
            pooled=vectors.astype(np.float32)[:, None],
            joint=NamedCentres(vectors, self.centres()),
        )


def scores_and_intervals(world: World, protocol: Protocol, method: str, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores `(draws,)` of a method and their intervals `(draws, 2)`."""
    scores, bounds = [], []
    for seed in range(draws):
        outcome = run_probes(world.task(seed), protocol, methods=[method], seed=seed)
        score = outcome.scores[method]
        scores.append(score.main_score)
        bounds.append(interval(outcome.predictions, method, score.metric, protocol.bootstrap))
    return np.array(scores), np.array(bounds)


def coverage(scores: np.ndarray, bounds: np.ndarray) -> float:
    """Return the share of the intervals that hold the mean score."""
    mean = scores.mean()
    return float(((bounds[:, 0] <= mean) & (mean <= bounds[:, 1])).mean())


def crossings_without_difference(world: World, protocol: Protocol, draws: int) -> list[Crossing]:
    """Return where the few-shot curves of two models cross that differ in noise alone, so that they do not."""
    crossings = []
    for seed in range(draws):
        data, rivals, clips = world.task(seed), [], []
        for model in (0, 1):
            noise = np.random.default_rng([3, seed, model]).normal(size=data.pooled.shape).astype(np.float32)
            outcome = run_probes(replace(data, pooled=data.pooled + noise), protocol, methods=["few-shot"], seed=seed)
            score = outcome.scores["few-shot"]
            rivals.append(read_items(outcome.predictions, "few-shot", score.metric))
            clips = [point.clips for point in score.curve or ()]
        crossings.append(find_crossing("world", ("first", "second"), (rivals[0], rivals[1]), clips, protocol.bootstrap))
    return crossings
