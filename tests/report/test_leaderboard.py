"""The public leaderboard: frames, files, notebook and terminal views, all from one board."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path

import pytest
from rich.console import Console

from report.made_results import TASKS, make_board_results, make_result
from uwbench.report.build import build_board
from uwbench.report.csv_file import render_csv
from uwbench.report.json_file import render_json
from uwbench.report.leaderboard import Leaderboard
from uwbench.report.markdown import render_markdown
from uwbench.report.sensitivity import sensitivity_view

HOSTILE = "<b>[red]x[/red]"


@pytest.fixture(scope="module")
def leaderboard(tmp_path_factory: pytest.TempPathFactory) -> Leaderboard:
    results = tmp_path_factory.mktemp("results")
    make_board_results(results, {"good": 0.8, "poor": 0.4})
    make_result(results, HOSTILE, TASKS[0], 0.7)
    return Leaderboard(build_board(results))


def shown(view: object) -> str:
    out = io.StringIO()
    Console(file=out, width=200, no_color=True, highlight=False).print(view)
    return out.getvalue()


def test_the_frame_has_one_row_per_score(leaderboard: Leaderboard) -> None:
    frame = leaderboard.to_frame()
    columns = ["model", "task", "method", "metric", "score", "low", "high", "n", "status", "contamination"]
    assert list(frame.columns) == columns
    assert len(frame) == 2 * (2 * len(TASKS) + 1)
    row = frame[(frame.model == "good") & (frame.task == "genres") & (frame.method == "mlp")].iloc[0]
    key = leaderboard.board.models[0].key
    cell = leaderboard.board.cell(key, "genres", "mlp")
    assert cell is not None
    assert (row.score, (row.low, row.high), row.n) == (cell.score.main_score, cell.score.ci95, cell.n)


def test_the_frame_of_averages_has_ranks_that_may_be_missing(leaderboard: Leaderboard) -> None:
    frame = leaderboard.averages_frame()
    headline = frame[(frame.method == "mlp") & (frame.scope == "suite") & (frame.average == "weighted")]
    assert dict(zip(headline.model, headline["rank"].fillna(0), strict=True)) == {"good": 1, "poor": 2, HOSTILE: 0}
    assert set(headline.of) == {len(TASKS)}


def test_files_hold_what_the_functions_return(leaderboard: Leaderboard, tmp_path: Path) -> None:
    board = leaderboard.board
    assert leaderboard.to_csv() == render_csv(board)
    assert leaderboard.to_markdown() == render_markdown(board)
    assert json.loads(leaderboard.to_json() or "") == json.loads(render_json(board))
    assert leaderboard.to_html(tmp_path / "board.html") is None
    assert (tmp_path / "board.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert leaderboard.to_csv(str(tmp_path / "new" / "board.csv")) is None
    assert (tmp_path / "new" / "board.csv").read_bytes() == render_csv(board).encode()


def test_views_show_names_as_text(leaderboard: Leaderboard) -> None:
    comparison = leaderboard.compare("good", HOSTILE)
    for view in (leaderboard, comparison):
        assert HOSTILE in shown(view)
        html = view._repr_html_()
        assert "&lt;b&gt;[red]x[/red]" in html
        assert "<b>" not in html


def test_a_comparison_has_a_row_per_task_and_per_average(leaderboard: Leaderboard) -> None:
    comparison = leaderboard.compare("good", "poor")
    frame = comparison.to_frame()
    assert frame.to_dict("records") == [asdict(row) for row in comparison.tasks]
    assert list(comparison.averages_frame().average) == ["weighted", "domain", "task", "chance"]
    text = shown(comparison)
    first = comparison.tasks[0]
    assert f"{first.difference:+.3f}  [{first.low:+.3f}, {first.high:+.3f}]" in text
    assert "tasks like these: the interval if tasks are drawn too" in text
    assert "effect: Cohen's h" in text
    assert "left out" not in text
    assert "left out" in shown(leaderboard.compare("good", HOSTILE))


def test_sensitivity_has_a_row_per_model(leaderboard: Leaderboard) -> None:
    result = leaderboard.sensitivity()
    assert result is not None
    tables = shown(sensitivity_view(leaderboard.board, result)).split("Ranks ")
    assert "Borda count" in tables[1]
    without_task = next(table for table in tables if table.startswith("without one task"))
    rows = [line.split() for line in without_task.splitlines()]
    assert ["Model", *(task.info.name for task in leaderboard.board.tasks)] in rows
    assert ["poor", *("2" for _ in TASKS)] in rows
