"""The board's view of robustness: one row per model, task, method and corruption, and what a score loses to noise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from uwbench.errors import printable
from uwbench.methods import METHODS
from uwbench.report.board import Board, Cell
from uwbench.results.averages import Method
from uwbench.results.record import CorruptedScore, NoiseLimit, Result
from uwbench.results.robustness import limit_text


@dataclass(frozen=True, slots=True)
class CorruptedRow:
    """One model's score on a task's corrupted test clips by one method; `drop` is what it lost, `low` to `high`."""

    model: str
    task: str
    method: Method
    corruption: str
    score: float
    drop: float
    low: float
    high: float
    cosine: float
    clips: int


def corrupted_rows(board: Board) -> list[CorruptedRow]:
    """Return the rows of the board, models and tasks in its order, corruptions as their task has them."""
    return [
        CorruptedRow(
            board.label(cell.model),
            cell.task,
            cell.method,
            name,
            corrupted.scores[cell.method].score,
            corrupted.scores[cell.method].drop,
            *corrupted.scores[cell.method].ci95,
            corrupted.cosine,
            cell.robustness.clips,
        )
        for cell in board.cells
        if cell.robustness is not None
        for name, corrupted in cell.robustness.corruptions.items()
        if cell.method in corrupted.scores
    ]


def noise_limits(board: Board) -> list[tuple[Cell, NoiseLimit]]:
    """Return the scores whose loss to noise is known, with the noise at which they lose 5 points."""
    return [
        (cell, limit)
        for cell in board.cells
        if cell.robustness is not None and (limit := cell.robustness.five_points.get(cell.method)) is not None
    ]


def drop_text(drop: float, low: float, high: float) -> str:
    """Return a drop as a change of the score with its interval: `-0.312 (-0.371 to -0.252)`."""
    return f"{-drop:+.3f} ({-high:+.3f} to {-low:+.3f})"


def run_lines(results: Iterable[Result]) -> list[str]:
    """Return one line per result with corrupted clips: the largest drop, and the noise at which 5 points are lost."""
    lines = []
    for result in results:
        if result.robustness is None:
            continue
        method = next((name for name in METHODS if name in result.scores and METHODS[name].corruptible), "")
        scores = {
            name: corrupted.scores[method]
            for name, corrupted in result.robustness.corruptions.items()
            if method in corrupted.scores
        }
        if scores:
            limit = result.robustness.five_points.get(method)
            parts = [_worst_text(scores), *([limit_text(limit)] if limit else [])]
            lines.append(printable(f"{result.task.name}, corrupted ({METHODS[method].short}): {'; '.join(parts)}"))
    return lines


def _worst_text(scores: Mapping[str, CorruptedScore]) -> str:
    name, score = max(scores.items(), key=lambda entry: entry[1].drop)
    change = drop_text(score.drop, *score.ci95)
    return f"{change} under {name}" + (f", the worst of {len(scores)}" if len(scores) > 1 else "")


def robustness_tables(board: Board, method: Method) -> list[tuple[str, Sequence[str], list[list[str]]]]:
    """Return per task its name, the head of a table and its rows: a model each, the change of its score in columns."""
    tables = []
    for task in board.tasks:
        cells = [board.cell(model.key, task.info.name, method) for model in board.models]
        tested = [cell for cell in cells if cell is not None and cell.robustness is not None]
        of_cell = {
            cell.model: {
                name: corrupted.scores[method]
                for name, corrupted in (cell.robustness.corruptions if cell.robustness else {}).items()
                if method in corrupted.scores
            }
            for cell in tested
        }
        names = list(dict.fromkeys(name for scores in of_cell.values() for name in scores))
        if not names:
            continue
        rows = [
            [
                board.label(cell.model),
                f"{cell.score.main_score:.3f}",
                *(_change(of_cell[cell.model].get(name)) for name in names),
                _limit(cell, method),
            ]
            for cell in tested
        ]
        tables.append((task.info.title, ["Model", "Clean", *names, "5 points lost at"], rows))
    return tables


def _change(score: CorruptedScore | None) -> str:
    return "–" if score is None else drop_text(score.drop, *score.ci95)


def _limit(cell: Cell, method: Method) -> str:
    limit = cell.robustness.five_points.get(method) if cell.robustness else None
    if limit is None:
        return "–"
    mark = {"above": "above ", "at": "", "below": "below "}[limit.bound]
    return f"{mark}{limit.snr_db:.3g} dB ({limit.colour})"
