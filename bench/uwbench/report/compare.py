"""Comparison of two models on the same clips: a paired bootstrap per task, and over all tasks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np

from uwbench.base.hashing import SHORT
from uwbench.base.registry import suggestion
from uwbench.cards.protocol import Bootstrap
from uwbench.errors import InputError, UsageError
from uwbench.report.board import Board, BoardModel, Cell
from uwbench.report.fitted import Column, FittedTable
from uwbench.report.legend import METHOD_NAMES
from uwbench.report.plan import Plan, plan_average, plan_task
from uwbench.report.table import html_of
from uwbench.report.ties import TaskDraws, difference_terms, p_value
from uwbench.results.averages import AVERAGES, Entry, Method, combine
from uwbench.results.bootstrap import combined_error, difference_interval, generator, holm
from uwbench.results.curves import Crossing, DrawnCurve, crossing_of, draw_curve, find_crossing
from uwbench.results.items import Items, columns_of, read_items, shared_items
from uwbench.results.ranks import POWER
from uwbench.results.record import read_predictions

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from rich.console import RenderableType

_SHORTEST = 4  # characters of a fingerprint that name a model


@dataclass(frozen=True, slots=True)
class TaskDifference:
    """Difference between two models on one task, with its interval, its p-value, and that after Holm's correction.

    `effect` is Cohen's h, the difference of the scores' arcsine-transformed values: .2 small, .5 medium, .8 large.
    `error` is the difference's standard error over `clips` scored clips in `clusters` clusters.
    """

    task: str
    first: float
    second: float
    difference: float
    low: float | None
    high: float | None
    p: float | None
    p_corrected: float | None
    effect: float
    clusters: int | None
    clips: int
    error: float | None


@dataclass(frozen=True, slots=True)
class OverallDifference:
    """Difference in one average: on these tasks, and on tasks like these.

    `low`, `high` and `p` come from drawing the items of these tasks; `tasks_low`, `tasks_high` and `tasks_p` from
    drawing tasks, and items within them. `ahead` is the share of the latter draws in which the first model is ahead.
    `error` and `tasks_error` are the standard errors of the two, the first with `freedom` degrees of freedom.
    """

    average: str
    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float
    tasks_low: float
    tasks_high: float
    tasks_p: float
    ahead: float
    error: float
    freedom: float
    tasks_error: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models under one method on the tasks that both have; `overall` is empty if predictions are missing."""

    first: str
    second: str
    method: Method
    tasks: tuple[TaskDifference, ...]
    overall: tuple[OverallDifference, ...]  # one per average
    of: int  # tasks of the board
    left_out: tuple[str, ...]  # tasks that were not scored by both on the same data
    crossings: tuple[Crossing, ...] = ()  # of few-shot curves, one per task

    def to_frame(self) -> pd.DataFrame:
        """Return one row per task: both scores, their difference with interval and p-values, and the effect size."""
        import pandas as pd

        return pd.DataFrame(map(asdict, self.tasks), columns=[field.name for field in fields(TaskDifference)])

    def averages_frame(self) -> pd.DataFrame:
        """Return one row per average: both values, their difference, and the intervals and p-values of both kinds."""
        import pandas as pd

        return pd.DataFrame(map(asdict, self.overall), columns=[field.name for field in fields(OverallDifference)])

    def plan(self, *, power: float = POWER) -> Plan:
        """Return how many more clips or tasks would tell the two models apart with the given power."""
        tasks = [
            plan_task(row.task, row.difference, row.error, row.p, row.clips, row.clusters, power=power)
            for row in self.tasks
            if row.error is not None and row.p is not None and row.clusters is not None
        ]
        averages = [
            plan_average(
                row.average,
                row.difference,
                (row.error, row.freedom, row.p),
                (row.tasks_error, len(self.tasks), row.tasks_p),
                clips=sum(task.clips for task in self.tasks),
                power=power,
            )
            for row in self.overall
        ]
        return Plan(self.first, self.second, self.method, power, tuple(tasks), tuple(averages))

    def __repr__(self) -> str:
        return repr(self.to_frame())

    def view(self, *, verbose: bool = False) -> RenderableType:
        """Return the tables for a terminal: the columns that fit into it, or with `verbose` all."""
        return comparison_view(self, verbose=verbose)

    def __rich__(self) -> RenderableType:
        return self.view()

    def _repr_html_(self) -> str:
        return html_of(self)


def comparison_view(comparison: Comparison, *, verbose: bool = False) -> RenderableType:
    """Return the tables of a comparison for a terminal: tasks, averages, what the columns mean, tasks left out."""
    from rich.console import Group
    from rich.text import Text

    method = METHOD_NAMES[comparison.method]
    count = f"{len(comparison.tasks)} of {comparison.of} tasks"
    parts: list[RenderableType] = [
        Text(f"A: {comparison.first}"),
        Text(f"B: {comparison.second}"),
        Text(),
        FittedTable(f"A against B by task: {method}, {count}", _task_columns(comparison.tasks), verbose),
    ]
    if comparison.overall:
        averages = FittedTable("A against B on average", _average_columns(comparison.overall), verbose)
        parts += [Text(), averages]
    parts += [Text(line, style="dim") for line in _MEANINGS]
    if not comparison.overall:
        parts.append(Text("averages: not compared, because predictions of some tasks are missing"))
    parts += [Text(_crossing_text(crossing)) for crossing in comparison.crossings]
    if comparison.left_out:
        parts.append(Text(f"left out, not scored by both on the same data: {', '.join(comparison.left_out)}"))
    return Group(*parts)


def _crossing_text(crossing: Crossing) -> str:
    """Return a crossing in words."""
    if crossing.labels is None:
        return f"{crossing.task}: {crossing.ahead} is ahead with any number of labels that was tried"
    low = "the fewest" if crossing.low is None else f"{crossing.low:,.0f}"
    high = "never" if crossing.high is None else f"{crossing.high:,.0f}"
    known = "" if crossing.crosses else "; that the curves cross is not shown"
    text = f"{crossing.ahead} is ahead from {crossing.labels:,.0f} labelled clips on (95 %: {low} to {high}{known})"
    return f"{crossing.task}: {text}"


_MEANINGS = (
    "A − B: difference with its 95 % interval, by a paired bootstrap over test clips.",
    "p (Holm): corrected for the number of tasks; below 0.05 is significant.",
    "effect: Cohen's h of the two scores; 0.2 is small, 0.5 medium, 0.8 large.",
    "tasks like these: the interval if tasks are drawn too, not only their clips;",
    "their p: the p-value of that; ahead: the share of these draws that A wins.",
)


def _task_columns(rows: Sequence[TaskDifference]) -> list[Column]:
    return [
        Column("task", [row.task for row in rows], right=False),
        Column("A", [f"{row.first:.3f}" for row in rows]),
        Column("B", [f"{row.second:.3f}" for row in rows]),
        Column("A − B", [f"{row.difference:+.3f}" for row in rows]),
        Column("95 % interval", [_interval_text(row.low, row.high) for row in rows], 2),
        Column("p", [_p_text(row.p) for row in rows], 4),
        Column("p (Holm)", [_p_text(row.p_corrected) for row in rows], 1),
        Column("effect", [f"{row.effect:+.2f}" for row in rows], 3),
    ]


def _average_columns(rows: Sequence[OverallDifference]) -> list[Column]:
    return [
        Column("average", [AVERAGES[row.average].name for row in rows], right=False),
        Column("A", [f"{row.first:.3f}" for row in rows]),
        Column("B", [f"{row.second:.3f}" for row in rows]),
        Column("A − B", [f"{row.difference:+.3f}" for row in rows]),
        Column("95 % interval", [_interval_text(row.low, row.high) for row in rows], 1),
        Column("p", [_p_text(row.p) for row in rows], 2),
        Column("tasks like these", [_tasks_text(row) for row in rows], 3),
        Column("their p", [_p_text(row.tasks_p) for row in rows], 5),
        Column("ahead", [f"{row.ahead:.0%}" for row in rows], 4),
    ]


def _interval_text(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"[{low:+.3f}, {high:+.3f}]"


def _tasks_text(row: OverallDifference) -> str:
    # One task says nothing of others: its interval holds every difference.
    return "-" if row.tasks_high - row.tasks_low >= 2 else _interval_text(row.tasks_low, row.tasks_high)


def _p_text(p: float | None) -> str:
    return "-" if p is None else "<0.001" if p < 1e-3 else f"{p:.3f}"


def find_model(board: Board, name: str) -> str:
    """Return the key of the model that a user means: by its label, name, slug, key, fingerprint, or a part of these.

    Raises UsageError, naming the candidates, for what fits several models, and with suggestions for what fits none.
    """
    short = name.casefold()
    tests: tuple[Callable[[BoardModel], bool], ...] = (
        lambda model: name in (model.label, model.key, model.info.fingerprint),
        lambda model: name in (model.info.name, model.info.slug, model.info.fingerprint[:SHORT]),
        lambda model: short in (model.label.casefold(), model.label.casefold().rpartition("/")[2]),
        lambda model: short == model.info.name.casefold().rpartition("/")[2],
        lambda model: bool(name) and (short in model.label.casefold() or short in model.info.slug.casefold()),
        lambda model: len(name) >= _SHORTEST and model.info.fingerprint.startswith(name),
    )
    for fits in tests:
        models = [model for model in board.models if fits(model)]
        if len(models) == 1:
            return models[0].key
        if models:
            labels = ", ".join(repr(model.label) for model in models)
            raise UsageError(f"{name!r} may be one of several models", remedy=f"give one of {labels}")
    what = f"no results of {name!r} are on the board"
    off = next((off for off in board.off if short == off.model.casefold()), None)
    if off is not None:
        raise UsageError(what, remedy=f"those of {off.task} are {off.status}: {off.reason}")
    raise UsageError(what, remedy=suggestion(name, [model.label for model in board.models]))


def compare_models(
    board: Board, first: str, second: str, method: Method, drawn: DrawnAverages | None = None
) -> Comparison:
    """Compare two models, named as for `find_model`, on the tasks of the suite that both have on the same data.

    `drawn` keeps what comparisons of one board share. Raises UsageError if there is no such task.
    """
    models = find_model(board, first), find_model(board, second)
    labels = board.label(models[0]), board.label(models[1])
    names = [task.info.name for task in board.tasks if task.in_suite]
    shared = [pair for name in names if (pair := shared_cells(board, models, name, method)) is not None]
    if not shared:
        problem = f"{labels[0]} and {labels[1]} share no task scored by {method} on the same data"
        raise UsageError(problem, where="compare")
    draws = [_draws_of(board, method, a.task, models) for a, _ in shared]
    level = board.bootstrap.level
    rows = [_task_difference(a, b, of_task, level) for (a, b), of_task in zip(shared, draws, strict=True)]
    tested = [index for index, row in enumerate(rows) if row.p is not None]
    for index, p in zip(tested, holm([rows[index].p or 0.0 for index in tested]), strict=True):
        rows[index] = replace(rows[index], p_corrected=p)
    compared = {a.task for a, _ in shared}
    return Comparison(
        first=labels[0],
        second=labels[1],
        method=method,
        tasks=tuple(rows),
        overall=_overall(
            board, shared, [of_task for of_task in draws if of_task is not None], models, drawn or DrawnAverages()
        ),
        of=len(board.suite.tasks),
        left_out=tuple(name for name in names if name not in compared),
        crossings=tuple(
            crossing for pair in shared if (crossing := _crossing(board, *pair, drawn or DrawnAverages())) is not None
        ),
    )


def _crossing(board: Board, a: Cell, b: Cell, drawn: DrawnAverages) -> Crossing | None:
    """Return where two curves cross; None without curves at the same points, or without predictions to draw from."""
    if a.score.curve is None or b.score.curve is None:
        return None
    clips = [[point.clips for point in cell.score.curve or ()] for cell in (a, b)]
    names = board.label(a.model), board.label(b.model)
    try:
        (first, of_first), (second, of_second) = (drawn.curve(cell, board.bootstrap) for cell in (a, b))
        if clips[0] != clips[1] or first.seeds != second.seeds:
            return None
        if np.array_equal(first.ids, second.ids) and np.array_equal(first.clusters, second.clusters):
            return crossing_of(a.task, names, (of_first, of_second), clips[0], board.bootstrap)
        first, second = shared_items([first, second])
    except InputError:
        return None
    return find_crossing(a.task, names, (first, second), clips[0], board.bootstrap)


def shared_cells(board: Board, models: tuple[str, str], task: str, method: Method) -> tuple[Cell, Cell] | None:
    """Return two models' scores on a task, or None if they are missing or were made on different data."""
    first, second = (board.cell(model, task, method) for model in models)
    if first is None or second is None or not (first.same_data and second.same_data):
        return None
    return first, second


def _draws_of(board: Board, method: Method, task: str, models: tuple[str, str]) -> TaskDraws | None:
    draws = board.draws.get(method, {}).get(task)
    return draws if draws is not None and set(models) <= set(draws.scores) else None


def _task_difference(a: Cell, b: Cell, draws: TaskDraws | None, level: float) -> TaskDifference:
    first, second = a.score.main_score, b.score.main_score
    effect = 2 * float(np.arcsin(np.sqrt(first)) - np.arcsin(np.sqrt(second)))
    if draws is None:
        return TaskDifference(a.task, first, second, first - second, None, None, None, None, effect, None, a.n, None)
    values = draws.scores[a.model] - draws.scores[b.model]
    spread = [float(values.var())], [draws.n_clusters]
    low, high = difference_interval(first - second, *spread, level)
    p = p_value(first - second, *spread)
    error, _ = combined_error(*spread)
    about = effect, draws.n_clusters, a.n, error
    return TaskDifference(a.task, first, second, first - second, low, high, p, None, *about)


def _overall(
    board: Board,
    shared: Sequence[tuple[Cell, Cell]],
    draws: Sequence[TaskDraws],
    models: tuple[str, str],
    drawn: DrawnAverages,
) -> tuple[OverallDifference, ...]:
    if len(draws) < len(shared):
        return ()
    first, second = ([board.entry(pair[side]) for pair in shared] for side in (0, 1))
    level, seed = board.bootstrap.level, board.bootstrap.seed
    of_both = [
        {name: drawn.of(shared[0][0].method, model, name, entries, draws, seed) for name in AVERAGES}
        for model, entries in zip(models, (first, second), strict=True)
    ]
    return tuple(
        _difference(name, first, second, draws, models, level, of_both[0][name] - of_both[1][name]) for name in AVERAGES
    )


def _difference(
    average: str,
    first: Sequence[Entry],
    second: Sequence[Entry],
    draws: Sequence[TaskDraws],
    models: tuple[str, str],
    level: float,
    wider: np.ndarray,
) -> OverallDifference:
    scores = [
        float(combine(average, entries, np.array([entry.score for entry in entries]))) for entries in (first, second)
    ]
    terms = difference_terms(first, second, draws, models, average)
    low, high = difference_interval(*terms, level)
    tasks_terms = scores[0] - scores[1], [float(wider.var())], [len(first)]
    error, freedom = combined_error(*terms[1:])
    tasks_low, tasks_high = difference_interval(*tasks_terms, level)
    return OverallDifference(
        average=average,
        first=scores[0],
        second=scores[1],
        difference=scores[0] - scores[1],
        low=low,
        high=high,
        p=p_value(*terms),
        tasks_low=tasks_low,
        tasks_high=tasks_high,
        tasks_p=p_value(*tasks_terms) if len(first) > 1 else 1.0,
        ahead=float((wider > 0).mean() + (wider == 0).mean() / 2),
        error=error,
        freedom=freedom,
        tasks_error=combined_error(*tasks_terms[1:])[0],
    )


class DrawnAverages:
    """Values that the comparisons of one board share, each computed once.

    These are the averages of models whose tasks, and the items within them, are drawn; and resampled curves.
    """

    def __init__(self) -> None:
        self._values: dict[tuple[Method, str, str, tuple[str, ...]], np.ndarray] = {}
        self._curves: dict[tuple[Path, Method], tuple[Items, DrawnCurve]] = {}

    def curve(self, cell: Cell, bootstrap: Bootstrap) -> tuple[Items, DrawnCurve]:
        """Return the predictions that a score's curve is made of, and the curve resampled.

        Raises InputError if the predictions cannot be read.
        """
        key = (cell.path, cell.method)
        if key not in self._curves:
            table = read_predictions(cell.path, columns_of(cell.score.metric))
            items = read_items(table, cell.method, cell.score.metric)
            self._curves[key] = items, draw_curve(items, bootstrap)
        return self._curves[key]

    def of(
        self,
        method: Method,
        model: str,
        average: str,
        entries: Sequence[Entry],
        draws: Sequence[TaskDraws],
        seed: int,
    ) -> np.ndarray:
        """Return a model's average over tasks that are drawn with replacement, `(resamples,)`; see `drawn_average`."""
        key = (method, model, average, tuple(entry.task for entry in entries))
        if key not in self._values:
            longest = max(len(task.scores[model]) for task in draws)  # tasks with fewer draws have theirs repeated
            scores = np.stack([np.resize(task.scores[model], longest) for task in draws])
            self._values[key] = drawn_average(average, entries, scores, generator("tasks", seed))
        return self._values[key]


def draw_tasks_too(
    average: str, entries: Sequence[Entry], first: np.ndarray, second: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return two models' differences in an average when tasks are drawn with replacement, and the items within them.

    `first` and `second` are paired draws `(tasks, resamples)`; both get the same tasks and items.
    """
    again = copy.deepcopy(rng)
    return drawn_average(average, entries, first, rng) - drawn_average(average, entries, second, again)


def drawn_average(average: str, entries: Sequence[Entry], scores: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return an average over tasks drawn with replacement, and the items within each of them, `(resamples,)`.

    `scores` are draws of the items `(tasks, resamples)`. A task that is drawn twice has two draws of its items. The
    domain mean is taken over the domains in a draw.
    """
    tasks, resamples = scores.shape
    drawn = rng.integers(0, tasks, size=(tasks, resamples))
    values = scores[drawn, rng.integers(0, resamples, size=(tasks, resamples))]
    if average == "chance":
        chance = np.array([entry.chance for entry in entries])[drawn]
        values = np.clip((values - chance) / (1 - chance), 0, 1)
    if average == "domain":
        domains = np.array([entry.domain for entry in entries])[drawn]
        means = []
        for domain in sorted(set(domains.ravel())):
            inside = domains == domain
            total = (values * inside).sum(axis=0)
            means.append(np.divide(total, inside.sum(axis=0), out=np.full(resamples, np.nan), where=inside.any(axis=0)))
        return np.nanmean(np.stack(means), axis=0)
    weights = np.array([entry.weight if average == "weighted" else 1.0 for entry in entries])[drawn]
    return (weights * values).sum(axis=0) / weights.sum(axis=0)
