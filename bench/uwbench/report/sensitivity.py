"""Sensitivity of a ranking: how it changes with another average, other tasks or other settings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from uwbench.report.board import Board
from uwbench.report.fitted import Column, FlowingTable
from uwbench.report.legend import METHOD_NAMES
from uwbench.results.averages import AVERAGES, Entry, Method, borda, combine, rank_by
from uwbench.results.ranks import kendall_tau

if TYPE_CHECKING:
    from rich.console import RenderableType

_SETTING = re.compile(r"(standardised )?k=\d+|(best|weighted) layers?")  # figures of the main metric in Score.raw

Ranking = tuple[str, str, Mapping[str, int]]  # a view's kind and name, and each model's rank


@dataclass(frozen=True, slots=True)
class View:
    """One way to rank: `kind` is `average`, `borda`, `without task`, `without domain` or `setting` (another k or
    standardised vectors for kNN, another layer for the MLP, headline average); `tau` is Kendall's tau-b with the
    headline ranking (1: the same order).
    """

    kind: str
    name: str
    ranks: Mapping[str, int]
    tau: float | None


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Ranks under every view of the models that have the same tasks, and each model's best and worst rank."""

    method: Method
    models: tuple[str, ...]
    views: tuple[View, ...]
    best: Mapping[str, int]
    worst: Mapping[str, int]


def sensitivity(board: Board, method: Method) -> Sensitivity | None:
    """Return the ranks under the four averages, Borda, other settings, and without each task and each domain.

    Only models that the board ranks take part; None if it ranks fewer than two.
    """
    ranked = [r for r in board.rows if (r.method, r.scope, r.average.name) == (method, "suite", "weighted") and r.rank]
    if len(ranked) < 2:
        return None
    models = [row.model for row in sorted(ranked, key=lambda row: row.rank or 0)]
    entries: dict[str, list[Entry]] = {}
    raw: dict[str, list[Mapping[str, float]]] = {}
    for model in models:
        cells = [cell for name in ranked[0].average.tasks if (cell := board.cell(model, name, method)) is not None]
        entries[model] = [board.entry(cell) for cell in cells]
        raw[model] = [cell.score.raw for cell in cells]
    headline = rank_by(_scorer("weighted", entries), models)
    views = []
    for kind, name, ranks in [*_rankings(models, entries), *_settings(models, entries, raw)]:
        tau = kendall_tau([headline[model] for model in models], [ranks[model] for model in models])
        views.append(View(kind, name, ranks, tau))
    best = {model: min(view.ranks[model] for view in views) for model in models}
    worst = {model: max(view.ranks[model] for view in views) for model in models}
    return Sensitivity(method, tuple(models), tuple(views), best, worst)


def sensitivity_view(board: Board, result: Sensitivity) -> RenderableType:
    """Return the ranks for a terminal, models as rows: tables of averages, settings, and without each task and domain.

    The last row of each is Kendall's tau.
    """
    from rich.console import Group
    from rich.text import Text

    names = Column("Model", [*map(board.label, result.models), "Kendall's tau"], right=False)
    spans = [_span(result.best[model], result.worst[model]) for model in result.models]
    parts: list[RenderableType] = []
    for title, kinds in _TABLES.items():
        views = [view for view in result.views if view.kind in kinds]
        columns = [
            Column(
                _view_name(view),
                [*(str(view.ranks[model]) for model in result.models), "-" if view.tau is None else f"{view.tau:.2f}"],
            )
            for view in views
        ]
        if "average" in kinds:
            columns.insert(0, Column("all views", [*spans, ""]))
        if columns:
            parts.append(FlowingTable(f"Ranks {title} ({METHOD_NAMES[result.method]})", names, columns))
    parts.append(Text("all views: best to worst rank. Kendall's tau: 1 is the order of the weighted average.", "dim"))
    return Group(*parts)


_TABLES = {
    "by other averages": ("average", "borda"),
    "under other settings of the probe": ("setting",),
    "without one task": ("without task",),
    "without one domain": ("without domain",),
}


def _span(best: int, worst: int) -> str:
    return str(best) if best == worst else f"{best}–{worst}"


def _view_name(view: View) -> str:
    if view.kind == "average":
        return AVERAGES[view.name].name
    return "Borda count" if view.kind == "borda" else view.name


def _rankings(models: Sequence[str], entries: Mapping[str, Sequence[Entry]]) -> Iterator[Ranking]:
    """Yield the ranks under each average, by Borda, and by the headline without each task and domain."""
    first = next(iter(entries.values()))

    def without(keep: Callable[[Entry], bool]) -> Mapping[str, int] | None:
        remaining = {model: [entry for entry in of_model if keep(entry)] for model, of_model in entries.items()}
        return rank_by(_scorer("weighted", remaining), models) if next(iter(remaining.values())) else None

    for name in AVERAGES:
        yield "average", name, rank_by(_scorer(name, entries), models)
    points = borda({model: {entry.task: entry.score for entry in of_model} for model, of_model in entries.items()})
    yield "borda", "borda", rank_by(points.__getitem__, models)
    for task in [entry.task for entry in first]:
        ranks = without(lambda entry, task=task: entry.task != task)
        if ranks is not None:
            yield "without task", task, ranks
    for domain in dict.fromkeys(entry.domain for entry in first):
        ranks = without(lambda entry, domain=domain: entry.domain != domain)
        if ranks is not None:
            yield "without domain", domain, ranks


def _settings(
    models: Sequence[str], entries: Mapping[str, Sequence[Entry]], raw: Mapping[str, Sequence[Mapping[str, float]]]
) -> Iterator[Ranking]:
    """Yield the headline's ranks under the settings for which every result of every model has a score."""
    common = set.intersection(*(set(figures) for of_model in raw.values() for figures in of_model))
    names = [name for name in next(iter(raw.values()))[0] if name in common and _SETTING.fullmatch(name)]
    for name in sorted(names, key=lambda name: (len(name.split()), [int(n) for n in re.findall(r"\d+", name)], name)):
        scored = {
            model: [replace(entry, score=figures[name]) for entry, figures in zip(of_model, raw[model], strict=True)]
            for model, of_model in entries.items()
        }
        yield "setting", name, rank_by(_scorer("weighted", scored), models)


def _scorer(average: str, entries: Mapping[str, Sequence[Entry]]) -> Callable[[str], float]:
    def score(model: str) -> float:
        scores = np.array([entry.score for entry in entries[model]])
        return float(combine(average, entries[model], scores))

    return score
