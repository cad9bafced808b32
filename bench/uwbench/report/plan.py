"""A plan to tell two models apart: how many more clips or tasks the stored predictions say that it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from math import ceil
from typing import TYPE_CHECKING

from uwbench.report.fitted import Column, FittedTable
from uwbench.report.legend import METHOD_NAMES
from uwbench.report.table import html_of
from uwbench.report.ties import SIGNIFICANCE
from uwbench.results.averages import AVERAGES, Method
from uwbench.results.ranks import data_needed, detectable

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """The data needed on one task. `more_clips` is 0 if the models differ already, None if nothing can be planned.

    `detectable` is the least true difference that the present clips show with the plan's power.
    """

    task: str
    difference: float
    detectable: float
    clips: int
    more_clips: int | None


@dataclass(frozen=True, slots=True)
class AveragePlan:
    """The data needed for an average: more clips in every task alike, or more tasks like these, None as in TaskPlan.

    `detectable` is for the present clips of these tasks; `clips` are those of all tasks together.
    """

    average: str
    difference: float
    detectable: float
    clips: int
    more_clips: int | None
    tasks: int
    more_tasks: int | None


@dataclass(frozen=True, slots=True)
class Plan:
    """How many more clips or tasks would tell two models apart under one method, with the given power at 5 %."""

    first: str
    second: str
    method: Method
    power: float
    tasks: tuple[TaskPlan, ...]
    averages: tuple[AveragePlan, ...]

    def to_frame(self) -> pd.DataFrame:
        """Return one row per task: the difference, the least one that could be found, clips and more clips."""
        import pandas as pd

        frame = pd.DataFrame(map(asdict, self.tasks), columns=[field.name for field in fields(TaskPlan)])
        return frame.astype({"more_clips": "Int64"})

    def averages_frame(self) -> pd.DataFrame:
        """Return one row per average: the same, with tasks and more tasks."""
        import pandas as pd

        frame = pd.DataFrame(map(asdict, self.averages), columns=[field.name for field in fields(AveragePlan)])
        return frame.astype({"more_clips": "Int64", "more_tasks": "Int64"})

    def view(self, *, verbose: bool = False) -> RenderableType:
        """Return the tables for a terminal: the columns that fit into it, or with `verbose` all."""
        return plan_view(self, verbose=verbose)

    def __rich__(self) -> RenderableType:
        return self.view()

    def _repr_html_(self) -> str:
        return html_of(self)


def plan_task(
    task: str, difference: float, error: float, p: float, clips: int, clusters: int, *, power: float
) -> TaskPlan:
    """Return the plan for one task, from the difference's standard error and p-value; clusters keep their size."""
    least = detectable(error, max(clusters - 1, 1), power=power)
    return TaskPlan(task, difference, least, clips, _more(difference, error, clusters, p, clips, power))


def plan_average(
    average: str,
    difference: float,
    of_clips: tuple[float, float, float],
    of_tasks: tuple[float, int, float],
    *,
    clips: int,
    power: float,
) -> AveragePlan:
    """Return the plan for an average.

    `of_clips` has the standard error over the clips of these tasks, its degrees of freedom and the p-value; `of_tasks`
    the error over tasks like these, their number and the p-value.
    """
    error, freedom, p = of_clips
    tasks_error, tasks, tasks_p = of_tasks
    return AveragePlan(
        average,
        difference,
        detectable(error, max(freedom, 1), power=power),
        clips,
        _more(difference, error, freedom + 1, p, clips, power),
        tasks,
        _more(difference, tasks_error, tasks, tasks_p, tasks, power),
    )


def _more(difference: float, error: float, units: float, p: float, count: int, power: float) -> int | None:
    """Return how many more of `count` things are needed, whose number grows with that of the independent units."""
    if p < SIGNIFICANCE:
        return 0
    factor = data_needed(difference, error, units, level=1 - SIGNIFICANCE, power=power)
    return None if factor is None else max(0, ceil(count * factor - 1e-6) - count)


def plan_view(plan: Plan, *, verbose: bool = False) -> RenderableType:
    """Return the tables of a plan for a terminal, and the formula."""
    from rich.console import Group
    from rich.text import Text

    title = f"To tell A and B apart: {METHOD_NAMES[plan.method]}, power {plan.power:.0%}"
    parts: list[RenderableType] = [Text(), FittedTable(title, _task_columns(plan.tasks), verbose)]
    if plan.averages:
        parts += [Text(), FittedTable("On average", _average_columns(plan.averages), verbose)]
    return Group(*parts, *(Text(line, style="dim") for line in _MEANINGS))


def _task_columns(rows: Sequence[TaskPlan]) -> list[Column]:
    return [
        Column("task", [row.task for row in rows], right=False),
        Column("A − B", [f"{row.difference:+.3f}" for row in rows]),
        Column("detectable", [f"{row.detectable:.3f}" for row in rows], 1),
        Column("clips", [f"{row.clips:,}" for row in rows]),
        Column("more clips", [_count(row.more_clips) for row in rows]),
    ]


def _average_columns(rows: Sequence[AveragePlan]) -> list[Column]:
    return [
        Column("average", [AVERAGES[row.average].name for row in rows], right=False),
        Column("A − B", [f"{row.difference:+.3f}" for row in rows]),
        Column("detectable", [f"{row.detectable:.3f}" for row in rows], 1),
        Column("clips", [f"{row.clips:,}" for row in rows], 2),
        Column("more clips", [_count(row.more_clips) for row in rows]),
        Column("tasks", [str(row.tasks) for row in rows], 3),
        Column("or more tasks", [_count(row.more_tasks) for row in rows]),
    ]


_MEANINGS = (
    "more clips, or tasks: so many more give a paired test at 5 % this power to find",
    "the observed difference, if it is the true one; 0 if it is significant already.",
    "((t(.975) + t(power)) · standard error / difference)² times as many are needed.",
    "detectable: the least true difference that the clips at hand show so surely.",
)


def _count(more: int | None) -> str:
    return "–" if more is None else f"{more:,}"
