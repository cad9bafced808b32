"""How the figures of geometry go with scores: over the models of a task, and over the layers of a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from uwbench.methods import METHODS
from uwbench.report.board import Board, Cell
from uwbench.results.averages import Method
from uwbench.results.ranks import LEAST, kendall_tau

Over = Literal["models", "layers"]


@dataclass(frozen=True, slots=True)
class GeometryRow:
    """The rank correlation of a figure of geometry with a method's score: Kendall's tau-b, the mean over `sets`.

    Over `models` there is a set per task, the models that have both; over `layers` there is one per task and model, its
    layers, with the scores of the method's curve over layers. `low` and `high` are the least and the greatest of the
    sets' correlations, and `members` is the mean size of a set, 3 at least. Correlation is no cause: a figure that goes
    with the scores of these models need not do so for others.
    """

    figure: str
    method: Method
    over: Over
    tau: float
    low: float
    high: float
    sets: int
    members: float


def geometry_rows(board: Board) -> list[GeometryRow]:
    """Return a row per figure, method and kind of set; none without scores by `geometry`."""
    described = [cell for cell in board.cells if cell.method == "geometry" and cell.same_data]
    figures = list(dict.fromkeys(figure for cell in described for figure in figures_of(cell)))
    qualities = [method for method in board.methods if not METHODS[method].describes]
    rows = []
    for figure in figures:
        for method in qualities:
            sets: dict[Over, list[list[tuple[float, float]]]] = {
                "models": list(_over_models(board, described, figure, method)),
                "layers": list(_over_layers(board, described, figure, method)),
            }
            for over, pairs in sets.items():
                taus = [tau for some in pairs if (tau := kendall_tau(*zip(*some, strict=True))) is not None]
                if taus:
                    members = float(np.mean([len(some) for some in pairs]))
                    row = (float(np.mean(taus)), min(taus), max(taus), len(taus), members)
                    rows.append(GeometryRow(figure, method, over, *row))
    return rows


def figures_of(cell: Cell) -> dict[str, float]:
    """Return the figures of the last layer under a score by `geometry`, by their names."""
    return {"rank share": cell.score.main_score, **cell.score.raw}


def _over_models(
    board: Board, described: Sequence[Cell], figure: str, method: Method
) -> Iterator[list[tuple[float, float]]]:
    """Yield for each task the figure and the score of each model that has both."""
    for task in board.tasks:
        pairs = []
        for cell in described:
            scored = board.cell(cell.model, cell.task, method)
            if cell.task == task.info.name and scored is not None and scored.same_data and figure in figures_of(cell):
                pairs.append((figures_of(cell)[figure], scored.score.main_score))
        if len(pairs) >= LEAST:
            yield pairs


def _over_layers(
    board: Board, described: Sequence[Cell], figure: str, method: Method
) -> Iterator[list[tuple[float, float]]]:
    """Yield for each task and model the figure and the score of each layer that has both."""
    for cell in described:
        scored = board.cell(cell.model, cell.task, method)
        curve = None if scored is None else scored.score.layers
        figures = cell.score.chosen.get("layers", {})
        pairs = [
            (float(figures[layer][figure]), score)
            for layer, score in (curve or {}).items()
            if figure in figures.get(layer, {})
        ]
        if len(pairs) >= LEAST:
            yield pairs
