"""The averages of a board and the ranks of its models by them.

Averages over different task sets, or over different data of a task, are never ranked together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from uwbench.cards.suite import Suite
from uwbench.methods import METHODS
from uwbench.report.board import Cell, Row
from uwbench.report.ties import TaskDraws, stand
from uwbench.results.averages import AVERAGES, Method, average_entries, entry_of
from uwbench.results.record import TaskInfo


def average_rows(
    cells: Sequence[Cell],
    infos: Mapping[str, TaskInfo],
    suite: Suite,
    draws: Mapping[Method, Mapping[str, TaskDraws]],
) -> tuple[Row, ...]:
    """Return the averages of each method, over the suite, the tasks that all models share, and each domain."""
    rows: list[Row] = []
    for method in METHODS:
        by_model: dict[str, dict[str, Cell]] = {}
        for cell in cells:
            if cell.method == method and cell.task in suite.tasks:
                by_model.setdefault(cell.model, {})[cell.task] = cell
        for scope, names in _scopes(by_model, infos, suite).items():
            rows += _scope_rows(by_model, infos, method, scope, names, draws.get(method, {}))
    return tuple(rows)


def _scopes(
    by_model: Mapping[str, Mapping[str, Cell]], infos: Mapping[str, TaskInfo], suite: Suite
) -> dict[str, tuple[str, ...]]:
    """Return the sets of tasks that averages are taken over."""
    scopes = {"suite": suite.tasks}
    shared = [
        name
        for name in suite.tasks
        if by_model and all(name in cells and cells[name].same_data for cells in by_model.values())
    ]
    if shared:
        scopes["shared"] = tuple(shared)
    for domain in ("speech", "sound", "music"):
        names = tuple(name for name in suite.tasks if name in infos and infos[name].domain == domain)
        if names:
            scopes[f"domain:{domain}"] = names
    return scopes


def _scope_rows(
    by_model: Mapping[str, Mapping[str, Cell]],
    infos: Mapping[str, TaskInfo],
    method: Method,
    scope: str,
    names: Sequence[str],
    draws: Mapping[str, TaskDraws],
) -> list[Row]:
    in_scope = {model: [cells[name] for name in names if name in cells] for model, cells in by_model.items()}
    in_scope = {model: cells for model, cells in in_scope.items() if cells}
    main = _main_set(in_scope.values())
    entries = {model: [entry_of(infos[cell.task], cell.score) for cell in cells] for model, cells in in_scope.items()}
    computed = {model: average_entries(of_model, of=len(names)) for model, of_model in entries.items()}
    ranked = {model: entries[model] for model, cells in in_scope.items() if _task_set(cells) == main}
    rows = []
    for name in AVERAGES:
        standings = stand(ranked, draws, name)
        for model in in_scope:
            average = computed[model][name]
            above = sum(computed[rival][name].score > average.score for rival in ranked)
            rank = 1 + above if model in ranked else None
            rows.append(Row(model, method, scope, average, rank, standings.get(model)))
    return rows


def _task_set(cells: Sequence[Cell]) -> frozenset[str]:
    """Return what two averages must have in common to be ranked: the tasks; other data counts as another task."""
    return frozenset(cell.task if cell.same_data else f"{cell.task} of {cell.model}" for cell in cells)


def _main_set(models: Iterable[Sequence[Cell]]) -> frozenset[str] | None:
    """Return the task set that is ranked: the one with most tasks, then with most models; None if two are equal."""
    sets = Counter(_task_set(cells) for cells in models)
    order = sorted(sets, key=lambda tasks: (len(tasks), sets[tasks]), reverse=True)
    if len(order) > 1 and (len(order[0]), sets[order[0]]) == (len(order[1]), sets[order[1]]):
        return None
    return order[0] if order else None
