"""The board's view of curves: scores over the number of labelled clips, and over the layers of the encoder."""

from __future__ import annotations

from dataclasses import dataclass

from uwbench.report.board import Board
from uwbench.results.averages import Method


@dataclass(frozen=True, slots=True)
class CurveRow:
    """One point of a score's curve: `shots` labelled clips per class (None: all of them), `clips` in all."""

    model: str
    task: str
    method: Method
    metric: str
    shots: int | None
    clips: float
    score: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class LayerRow:
    """The score of one layer, by its place `layer` from 0 and its name; of one probe seed, so without interval."""

    model: str
    task: str
    method: Method
    metric: str
    layer: int
    name: str
    score: float


def curve_rows(board: Board) -> list[CurveRow]:
    """Return the points of all curves on the board, in the order of its scores."""
    return [
        CurveRow(
            board.label(cell.model),
            cell.task,
            cell.method,
            cell.score.metric,
            point.shots,
            point.clips,
            point.score,
            *(point.ci95 or (None, None)),
        )
        for cell in board.cells
        for point in cell.score.curve or ()
    ]


def layer_rows(board: Board) -> list[LayerRow]:
    """Return the scores by layer of all methods that have some, in the order of the board's scores."""
    return [
        LayerRow(board.label(cell.model), cell.task, cell.method, cell.score.metric, index, name, score)
        for cell in board.cells
        for index, (name, score) in enumerate((cell.score.layers or {}).items())
    ]
