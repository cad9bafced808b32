"""A plan to tell two models apart: how many more clips or tasks the stored predictions say that it takes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from math import ceil
from typing import TYPE_CHECKING

from uwbench.report.table import html_of, text_table
from uwbench.report.ties import SIGNIFICANCE
from uwbench.results.averages import Method
from uwbench.results.ranks import data_needed, detectable

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType

MEANING = (
    "If the true difference is the one observed, so many more give a paired test at 5 % the power to find it: "
    "((t(.975) + t({power:g})) * standard error / difference)^2 times as many (Chow, Shao, Wang and Lokhnygina 2018, "
    "section 3.1). A difference that is barely there, or by chance, makes the plan a guess."
)


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """What it takes on one task. `more_clips` is 0 if the models differ already, None if nothing can be planned.

    `detectable` is the least true difference that the present clips show with the plan's power.
    """

    task: str
    difference: float
    detectable: float
    clips: int
    more_clips: int | None


@dataclass(frozen=True, slots=True)
class AveragePlan:
    """What it takes in an average: more clips in every task alike, or more tasks like these, None as in TaskPlan.

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

    def __rich__(self) -> RenderableType:
        return plan_view(self)

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


def plan_view(plan: Plan) -> RenderableType:
    """Return the tables of a plan for a terminal, and the formula."""
    from rich.console import Group
    from rich.text import Text

    title = f"What would tell {plan.first} and {plan.second} apart ({plan.method}, power {plan.power:.0%})"
    return Group(
        text_table(
            title,
            ["task", "difference", "detectable", "clips", "more clips"],
            [
                [row.task, f"{row.difference:+.3f}", f"{row.detectable:.3f}", f"{row.clips:,}", _count(row.more_clips)]
                for row in plan.tasks
            ],
        ),
        text_table(
            "Averages",
            ["average", "difference", "detectable", "clips", "more clips", "tasks", "or more tasks"],
            [
                [
                    row.average,
                    f"{row.difference:+.3f}",
                    f"{row.detectable:.3f}",
                    f"{row.clips:,}",
                    _count(row.more_clips),
                    str(row.tasks),
                    _count(row.more_tasks),
                ]
                for row in plan.averages
            ],
        ),
        Text(MEANING.format(power=plan.power), style="dim"),
    )


def _count(more: int | None) -> str:
    return "–" if more is None else f"{more:,}"
