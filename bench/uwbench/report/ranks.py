"""How sure a board's ranks are: orders under every method, models that are practically equal, how methods agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from uwbench.methods import METHODS
from uwbench.report.board import Board
from uwbench.report.ties import SIGNIFICANCE, PairTest, compare_pairs
from uwbench.results.averages import Entry, Method
from uwbench.results.bootstrap import combined_error, difference_interval, holm
from uwbench.results.ranks import LEAST, equivalence_p_values, tau_bounds, tau_of_pairs

EVERY = "every"  # the method of rows on all methods together
Verdict = Literal["ahead", "practically equal", "undecided", "same order", "order changes"]
_NAMED = 6  # pairs that a line of the terminal names
_MARGINS = np.arange(1, 201) / 1000  # 0.1 to 20 points, that `equal_from` is looked for among


@dataclass(frozen=True, slots=True)
class PairRow:
    """Two models in the headline average, `model` with the higher score, under one method or under `every` one.

    `p` is two-sided and corrected by Holm over all pairs; `low` and `high` bound the difference, uncorrected. `verdict`
    is `ahead` (p below 5 %), `practically equal` (within the margin, by two one-sided tests corrected the same way) or
    `undecided`. A difference that is significant and within the margin is `practically equal`. Under every method, the
    p-value is the largest of the methods', corrected again: `ahead` means under each of them, `same order` that the
    scores alone agree, `order changes` that they do not; there is no difference then.

    `equal_from` is the least margin at which the two are practically equal, whatever the board's own margin is: in
    steps of 0.001 (0.1 points) up to 0.2. None if there is none, and under every method.
    """

    model: str
    other: str
    method: str
    difference: float | None
    low: float | None
    high: float | None
    p: float
    verdict: Verdict
    equal_from: float | None = None


@dataclass(frozen=True, slots=True)
class RankEnvelope:
    """One model's ranks in the headline average under all methods that rank it and another model.

    `best` and `worst` are its ranks by the scores. `low` to `high` is from the lowest to the highest end of the
    methods' 95 % intervals, so that it holds the true rank under any one of them; None without predictions.
    """

    model: str
    methods: int
    best: int
    worst: int
    low: int | None
    high: int | None


@dataclass(frozen=True, slots=True)
class MethodCorrelation:
    """Kendall's tau-b of the ranks under two methods, over the models that both rank.

    `low` and `high` are its bounds if every order that is significant under both (Holm over the pairs of both methods)
    is true, and every other order may be either: they hold in at least 95 of 100 cases.
    """

    method: str
    other: str
    models: int
    tau: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Certainty:
    """The pairs of ranked models under each method and under all, and the correlations of the methods' ranks.

    `methods` are those with predictions of all models that they rank; the others have no pairs.
    """

    methods: tuple[Method, ...]
    pairs: tuple[PairRow, ...]
    correlations: tuple[MethodCorrelation, ...]


def certainty(board: Board) -> Certainty:
    """Return how sure the ranks by the headline average are; without predictions there are no pairs."""
    tests: dict[Method, list[PairTest]] = {}
    for method in board.methods:
        pairs = compare_pairs(ranked_entries(board, method), board.draws.get(method, {}), "weighted")
        if pairs:
            tests[method] = pairs
    qualities = {method: pairs for method, pairs in tests.items() if not METHODS[method].describes}
    rows = [row for method, pairs in tests.items() for row in _rows(board, method, pairs)]
    for order in orders_under_every(list(qualities.values())) if len(qualities) > 1 else ():
        names = board.label(order.ahead), board.label(order.behind)
        rows.append(PairRow(*names, EVERY, None, None, None, order.p, order.verdict))
    correlations = []
    for first, second in combinations(tests, 2):
        correlation = correlate(tests[first], tests[second])
        if correlation is not None:
            correlations.append(MethodCorrelation(first, second, *correlation))
    return Certainty(tuple(tests), tuple(rows), tuple(correlations))


def ranked_entries(board: Board, method: Method, average: str = "weighted") -> dict[str, list[Entry]]:
    """Return the scores of each model that the board ranks by an average over its suite, task by task."""
    entries = {}
    for row in board.rows:
        if (row.method, row.scope, row.average.name) == (method, "suite", average) and row.rank is not None:
            tasks = sorted(row.average.tasks)
            cells = [cell for task in tasks if (cell := board.cell(row.model, task, method)) is not None]
            entries[row.model] = [board.entry(cell) for cell in cells]
    return dict(sorted(entries.items()))


def ranking_methods(board: Board) -> list[Method]:
    """Return the methods that rank two models at least; those that only describe do not count."""
    counts = Counter(
        row.method
        for row in board.rows
        if (row.scope, row.average.name) == ("suite", "weighted") and row.rank is not None
    )
    return [method for method in board.methods if counts[method] > 1 and not METHODS[method].describes]


def rank_envelopes(board: Board) -> list[RankEnvelope]:
    """Return each ranked model's ranks over the `ranking_methods`, in the order of the board."""
    envelopes = []
    methods = ranking_methods(board)
    for model in board.models:
        of_methods = [
            row
            for method in methods
            if (row := board.row(model.key, method, "weighted")) is not None and row.rank is not None
        ]
        ranks = [row.rank for row in of_methods if row.rank is not None]
        standings = [row.standing for row in of_methods if row.standing is not None]
        if ranks:
            low = min((standing.place for standing in standings), default=None)
            high = max((standing.last for standing in standings), default=None)
            envelopes.append(RankEnvelope(model.label, len(ranks), min(ranks), max(ranks), low, high))
    return envelopes


def certainty_lines(board: Board, sure: Certainty, *, verbose: bool = False) -> list[str]:
    """Return what a terminal says of the pairs and correlations, one sentence a line.

    Unless `verbose`, correlations are those with the first method that is shown.
    """
    lines = []
    if board.margin is not None:
        points = "1 point" if board.margin == 0.01 else f"{100 * board.margin:g} points"
        for method in board.first_methods:
            equal = [row for row in sure.pairs if (row.method, row.verdict) == (method, "practically equal")]
            text = _listed(equal, "=") if equal else "none"
            lines.append(f"{METHODS[method].short}: practically equal, with a margin of {points}: {text}")
    every = [row for row in sure.pairs if row.method == EVERY]
    if every:
        ahead = [row for row in every if row.verdict == "ahead"]
        changes = [row for row in every if row.verdict == "order changes"]
        names = ", ".join(METHODS[method].short for method in sure.methods if not METHODS[method].describes)
        text = f"significant order under every method ({names})"
        if len(every) > 1:
            lines.append(
                f"{len(ahead)} of {len(every)} pairs have a {text}{': ' if ahead else ''}{_listed(ahead, '>')}"
            )
        elif ahead:
            lines.append(f"A {text}: {_listed(ahead, '>')}")
        if changes:
            lines.append(f"The order changes with the method: {_listed(changes, '/')}")
    for row in sure.correlations:
        if {row.method, row.other} <= {*board.first_methods} and (
            verbose or board.first_methods[0] in (row.method, row.other)
        ):
            pair = f"{METHODS[row.method].short} and {METHODS[row.other].short}"
            lines.append(f"Rank correlation of {pair}: tau-b {row.tau:.2f} ({row.low:.2f} to {row.high:.2f})")
    return lines


def _rows(board: Board, method: Method, pairs: Sequence[PairTest]) -> list[PairRow]:
    margins = _MARGINS if board.margin is None else np.append(_MARGINS, board.margin)
    equal = _equal(pairs, margins)
    rows = []
    for pair, within in zip(pairs, equal.T, strict=True):
        equal_from = float(_MARGINS[within.argmax()]) if within[: len(_MARGINS)].any() else None
        better, worse = pair.ahead
        difference = abs(pair.difference)
        bounds = difference_interval(difference, pair.variances, pair.clusters, board.bootstrap.level)
        is_equal = board.margin is not None and within[-1]
        verdict = "practically equal" if is_equal else "ahead" if pair.significant else "undecided"
        about = pair.p_corrected, verdict, equal_from
        rows.append(PairRow(board.label(better), board.label(worse), method, difference, *bounds, *about))
    return rows


def _equal(pairs: Sequence[PairTest], margins: np.ndarray) -> np.ndarray:
    """Return whether each pair is practically equal within each margin, bool `(margins, pairs)`."""
    p_values = [
        equivalence_p_values(
            pair.difference, *combined_error(pair.variances, pair.clusters), max(pair.clusters), margins
        )
        for pair in pairs
    ]
    return np.array([holm(of_margin) for of_margin in np.stack(p_values, axis=1)]) < SIGNIFICANCE


@dataclass(frozen=True, slots=True)
class Order:
    """Two models under several methods, by the order under the first, with the p-value of that order under each."""

    ahead: str
    behind: str
    p: float
    verdict: Verdict


def orders_under_every(tests: Sequence[Sequence[PairTest]]) -> list[Order]:
    """Return the orders of the pairs that all methods rank; `tests` has each method's pairs.

    An order is significant if it is under each method: its test has the largest of the methods' p-values
    (intersection-union; Berger 1982, Technometrics 24, 295-300), corrected by Holm over the pairs.
    """
    shared = _shared(tests)
    same = [len({pair.ahead for pair in pairs}) == 1 and all(pair.difference for pair in pairs) for pairs in shared]
    p_values = [max(pair.p for pair in pairs) if agree else 1.0 for pairs, agree in zip(shared, same, strict=True)]
    return [
        Order(*pairs[0].ahead, p, "order changes" if not agree else "ahead" if p < SIGNIFICANCE else "same order")
        for pairs, agree, p in zip(shared, same, holm(p_values), strict=True)
    ]


def correlate(first: Sequence[PairTest], second: Sequence[PairTest]) -> tuple[int, float, float, float] | None:
    """Return the number of models that two methods rank, Kendall's tau-b of the ranks, and its bounds.

    None if there are fewer than `LEAST` such models, or a method has the same score for all of them.
    """
    shared = _shared([first, second])
    signs = np.array([[np.sign(pair.difference) for pair in pairs] for pairs in shared]).reshape(-1, 2).T
    models = {model for pairs in shared for model in pairs[0].ahead}
    tau = tau_of_pairs(*signs) if len(models) >= LEAST else None
    if tau is None:
        return None
    p_values = np.array(holm([pair.p for pairs in shared for pair in pairs])).reshape(-1, 2).T
    return len(models), tau, *tau_bounds(*np.where(p_values < SIGNIFICANCE, signs, 0))


def _shared(tests: Sequence[Sequence[PairTest]]) -> list[list[PairTest]]:
    """Return the pairs that every method has, each with all methods' tests of it, in the same direction."""
    first, *others = ({(pair.first, pair.second): pair for pair in pairs} for pairs in tests)
    return [[pair, *(other[key] for other in others)] for key, pair in first.items() if all(key in o for o in others)]


def _listed(rows: Sequence[PairRow], sign: str) -> str:
    more = f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
    return ", ".join(f"{row.model} {sign} {row.other}" for row in rows[:_NAMED]) + more
