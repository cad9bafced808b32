"""Simulated boards whose true ranks are known: how often what the board says of ranks is right.

`benchmarks/ranks.py` prints what many boards give, and `test_ranks.py` tests a few hundred.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from uwbench.report.ranks import correlate, orders_under_every
from uwbench.report.ties import SIGNIFICANCE, PairTest, TaskDraws, compare_pairs, stand
from uwbench.results.averages import Entry
from uwbench.results.bootstrap import combined_error, paired_replicates
from uwbench.results.items import Items
from uwbench.results.ranks import equivalence_p, kendall_tau

RESAMPLES = 200
TASKS = ((40, 5), (120, 1), (25, 8))  # clusters (speakers, recordings) and the clips of each


@dataclass(frozen=True, slots=True)
class Scenario:
    """Models by their skill (larger is better, equal is a tie) under each of two methods."""

    name: str
    skills: tuple[tuple[float, ...], ...]


SCENARIOS = (
    Scenario("5 equal models", ((0.0,) * 5,) * 2),
    Scenario("5 models in steps", ((0.0, 0.2, 0.4, 0.6, 0.8),) * 2),
    Scenario("3 equal, 2 better", ((0.0, 0.0, 0.0, 0.5, 0.5),) * 2),
    Scenario("12 models in small steps", (tuple(0.08 * step for step in range(12)),) * 2),
    Scenario("far apart, equal under the second", ((0.0, 1.5), (0.0, 0.0))),
)


@dataclass(frozen=True, slots=True)
class SimulatedBoard:
    """The entries and draws of each method, by the models' names."""

    entries: list[dict[str, list[Entry]]]
    draws: list[dict[str, TaskDraws]]

    def tests(self, method: int) -> list[PairTest]:
        return compare_pairs(self.entries[method], self.draws[method], "weighted")


def simulate(scenario: Scenario, rng: np.random.Generator) -> SimulatedBoard:
    """Draw one board: models and methods share the difficulty of clips, and both are alike within a cluster."""
    models = [f"m{index}" for index in range(len(scenario.skills[0]))]
    entries: list[dict[str, list[Entry]]] = [{model: [] for model in models} for _ in scenario.skills]
    draws: list[dict[str, TaskDraws]] = [{} for _ in scenario.skills]
    for number, (clusters, size) in enumerate(TASKS):
        n, name = clusters * size, f"task{number}"
        cluster = np.repeat(np.arange(clusters), size)
        ease = 0.6 * rng.normal(size=clusters)[cluster] + rng.normal(size=n)
        taste = [0.3 * rng.normal(size=clusters)[cluster] + 0.5 * rng.normal(size=n) for _ in models]
        for method, skills in enumerate(scenario.skills):
            items = []
            for skill, strength in zip(skills, taste, strict=True):
                right = (ease + strength + 0.5 * rng.normal(size=n) + skill > -0.5).astype(int)
                ids, truth = np.arange(n).astype(str), np.ones(n, int)
                items.append(Items("accuracy", ids, cluster, np.zeros(n, int), (0,), truth, right[None]))
            sampled = paired_replicates(items, RESAMPLES, rng, [rng] * len(models))
            draws[method][name] = TaskDraws(dict(zip(models, sampled, strict=True)), clusters)
            for model, of_model in zip(models, items, strict=True):
                assert of_model.predicted is not None
                entries[method][model].append(Entry(name, "sound", 1.0, 0.0, float(of_model.predicted.mean())))
    return SimulatedBoard(entries, draws)


def true_ranks(skills: Sequence[float]) -> list[tuple[int, int]]:
    """Return the first and last rank that each model may be said to have; equal models share theirs."""
    return [
        (1 + sum(rival > skill for rival in skills), len(skills) - sum(rival < skill for rival in skills))
        for skill in skills
    ]


def outcomes(scenario: Scenario, board: SimulatedBoard) -> Iterator[tuple[str, float]]:
    """Yield what one board says and whether it is true, as figures to be averaged over boards."""
    ranks = true_ranks(scenario.skills[0])
    standings = list(stand(board.entries[0], board.draws[0], "weighted").values())
    inside = [
        standing.place <= low and high <= standing.last for standing, (low, high) in zip(standings, ranks, strict=True)
    ]
    yield "rank in its interval", float(np.mean(inside))
    yield "all ranks in theirs", float(all(inside))
    yield "width", float(np.mean([standing.last - standing.place for standing in standings]))
    tests = [board.tests(method) for method in range(len(scenario.skills))]
    skill = [{f"m{index}": value for index, value in enumerate(of_method)} for of_method in scenario.skills]
    claimed = [order for order in orders_under_every(tests) if order.verdict == "ahead"]
    wrong = [order for order in claimed if not all(of[order.ahead] > of[order.behind] for of in skill)]
    yield "wrong order claimed under every method", float(bool(wrong))
    true_tau = kendall_tau(scenario.skills[0], scenario.skills[1])
    correlation = correlate(tests[0], tests[1])
    if true_tau is not None and correlation is not None:
        yield "tau in its bounds", float(correlation[2] <= true_tau <= correlation[3])


def equality_errors(runs: int, rng: np.random.Generator) -> float:
    """Return how often two models are called practically equal whose true difference is the margin itself."""
    scenario = Scenario("two models", ((0.0, 0.3), (0.0, 0.3)))
    differences = []
    for _ in range(200):  # the true difference, far more exactly than one board shows it
        entries = simulate(scenario, rng).entries[0]
        differences.append(np.mean([b.score - a.score for a, b in zip(entries["m0"], entries["m1"], strict=True)]))
    margin, called = float(np.mean(differences)), 0
    for _ in range(runs):
        (pair,) = simulate(scenario, rng).tests(0)
        spread = combined_error(pair.variances, pair.clusters)
        called += equivalence_p(pair.difference, *spread, max(pair.clusters), margin) < SIGNIFICANCE
    return called / runs


def averaged(scenario: Scenario, runs: int, seed: int) -> dict[str, float]:
    """Return the means of the outcomes over simulated boards."""
    rng = np.random.default_rng(seed)
    values: dict[str, list[float]] = defaultdict(list)
    for _ in range(runs):
        for name, value in outcomes(scenario, simulate(scenario, rng)):
            values[name].append(value)
    return {name: float(np.mean(of_name)) for name, of_name in values.items()}
