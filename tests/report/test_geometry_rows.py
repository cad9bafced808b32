"""The rank correlations of geometry's figures with scores, against scipy on plain lists."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from report.made_results import TASKS, make_board_results
from uwbench.api import leaderboard
from uwbench.report.board import Board, Cell
from uwbench.report.geometry import GeometryRow, geometry_rows
from uwbench.report.leaderboard import Leaderboard
from uwbench.results.record import Score

MODELS = {"first": 0.5, "second": 0.6, "third": 0.7, "fourth": 0.8}
FIGURES: tuple[str, ...] = ("rank share", "rankme", "hubness")


@pytest.fixture
def board(tmp_path: Path) -> Board:
    """A board of four models whose scores by `geometry` have random figures in each of three layers."""
    make_board_results(tmp_path / "results", MODELS)
    plain = leaderboard(tmp_path / "results").board
    rng, described = np.random.default_rng(0), []
    for cell in plain.cells:
        if cell.method == "mlp":
            layers = {layer: dict(zip(FIGURES, rng.random(3).tolist(), strict=True)) for layer in ("1", "2", "3")}
            described.append(replace(cell, method="geometry", score=geometry_score(layers)))
    return replace(plain, cells=(*plain.cells, *described))


def geometry_score(layers: dict[str, dict[str, float]]) -> Score:
    last = layers["3"]
    return Score(
        metric="rank-share",
        main_score=last["rank share"],
        ci95=None,
        per_seed=(last["rank share"],),
        per_fold={},
        raw={name: last[name] for name in FIGURES[1:]},
        chosen={"layers": layers},
    )


def tau_of(first: list[float], second: list[float]) -> float:
    result: Any = stats.kendalltau(first, second)
    return float(result.statistic)


def row_of(board: Board, figure: str, method: str, over: str) -> GeometryRow:
    (row,) = [row for row in geometry_rows(board) if (row.figure, row.method, row.over) == (figure, method, over)]
    return row


def cells(board: Board, task: str, method: str) -> list[Cell]:
    found = [cell for cell in board.cells if (cell.task, cell.method) == (task, method)]
    return sorted(found, key=lambda cell: cell.model)


@pytest.mark.parametrize("method", ["mlp", "knn"])
def test_figures_are_correlated_with_scores_over_the_models_of_each_task(board: Board, method: str) -> None:
    taus = [
        tau_of(
            [cell.score.raw["rankme"] for cell in cells(board, task.name, "geometry")],
            [cell.score.main_score for cell in cells(board, task.name, method)],
        )
        for task in TASKS
    ]
    row = row_of(board, "rankme", method, "models")
    assert (row.tau, row.low, row.high) == pytest.approx((np.mean(taus), min(taus), max(taus)))
    assert (row.sets, row.members) == (len(TASKS), len(MODELS))


def test_figures_are_correlated_with_the_curve_over_layers(board: Board) -> None:
    taus = []
    for task in TASKS:
        for described, scored in zip(cells(board, task.name, "geometry"), cells(board, task.name, "mlp"), strict=True):
            curve, figures = scored.score.layers or {}, described.score.chosen["layers"]
            taus.append(tau_of([figures[layer]["hubness"] for layer in curve], [*curve.values()]))
    row = row_of(board, "hubness", "mlp", "layers")
    assert row.tau == pytest.approx(np.mean(taus))
    assert (row.sets, row.members) == (len(TASKS) * len(MODELS), 3)
    assert not [row for row in geometry_rows(board) if (row.over, row.method) == ("layers", "knn")]  # no curve


def test_two_models_have_no_correlation_and_a_board_without_geometry_no_rows(board: Board) -> None:
    keys = sorted({cell.model for cell in board.cells})[:2]
    two = replace(board, cells=tuple(cell for cell in board.cells if cell.model in keys))
    assert {row.over for row in geometry_rows(two)} == {"layers"}
    without = replace(board, cells=tuple(cell for cell in board.cells if cell.method != "geometry"))
    assert geometry_rows(without) == []
    assert Leaderboard(without).geometry_frame().empty


def test_frame_and_files_have_the_correlations(board: Board) -> None:
    shown = Leaderboard(board)
    frame = shown.geometry_frame()
    assert list(frame.columns) == ["figure", "method", "over", "tau", "low", "high", "sets", "members"]
    assert len(frame) == len(FIGURES) * 3  # mlp and knn over models, mlp over layers
    written = json.loads(shown.to_json() or "")["geometry_correlations"]
    pd.testing.assert_frame_equal(pd.DataFrame(written), frame)
    lines = (shown.to_csv() or "").splitlines()
    assert sum(",geometry correlation," in line for line in lines) == len(frame)
    assert "| rankme | MLP probe | models |" in (shown.to_markdown() or "")
