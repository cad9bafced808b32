"""Figures, the LaTeX table and the model-card exports have the board's numbers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from report.made_results import TASKS, make_board_results, make_result
from uwbench.errors import UsageError
from uwbench.report.board import Board
from uwbench.report.build import build_board
from uwbench.report.charts import FIGURES, chart_rows, scatter_chart
from uwbench.report.figures import render_latex, write_figures
from uwbench.report.model_card import mteb_results, render_eval_results, render_model_index


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    results = tmp_path_factory.mktemp("made")
    make_board_results(results, {"good": 0.8, "A & <b>_%": 0.5})
    return build_board(results)


def test_every_figure_is_written_and_shows_the_models(board: Board, tmp_path: Path) -> None:
    paths = write_figures(board, tmp_path, formats=("svg", "png"))
    names = {path.name for path in paths}
    assert names == {
        "board.tex",
        *(
            f"{f}-{m}.{e}"
            for f in FIGURES
            for m in ("mlp", "knn")
            for e in ("svg", "png")
            if (f, m) != ("layers", "knn")
        ),
    }
    svg = (tmp_path / "averages-mlp.svg").read_text()
    assert "good" in svg
    assert "&lt;b&gt;" in svg
    assert "<b>" not in svg
    assert (tmp_path / "heatmap-knn.png").read_bytes()[:4] == b"\x89PNG"
    cell = board.cell(board.models[0].key, "genres", "mlp")
    assert cell is not None
    assert f">{cell.score.main_score:.2f}<" in (tmp_path / "heatmap-mlp.svg").read_text()


def test_a_figure_format_that_does_not_exist_is_refused(board: Board, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not bmp"):
        write_figures(board, tmp_path, formats=("bmp",))
    with pytest.raises(UsageError, match="no score"):
        write_figures(build_board(tmp_path), tmp_path)


def test_latex_escapes_names_and_marks_the_best(board: Board) -> None:
    text = render_latex(board)
    assert r"A \& \textless{}b\textgreater{}\_\%" in text
    row = board.row(board.models[0].key, "mlp", "weighted")
    assert row is not None
    assert rf"\textbf{{{row.average.score:.3f}}}" in text
    assert text.count(r"\toprule") == 2
    assert "6 of 6" in text


def test_the_model_card_has_the_scores(board: Board) -> None:
    front = render_model_index(board, "good").split("---\n")[1]
    entry = yaml.safe_load(front)["model-index"][0]
    cell = board.cell(board.models[0].key, "words", "mlp")
    assert cell is not None
    words = [r for r in entry["results"] if r["dataset"]["type"] == "words" and r["dataset"]["config"] == "mlp"]
    assert words[0]["metrics"][0]["value"] == pytest.approx(cell.score.main_score, abs=1e-6)
    assert set(words[0]) >= {"task", "dataset", "metrics"}
    assert "6 of 6 tasks" in front
    listed = yaml.safe_load(render_eval_results(board, "good"))
    assert len(listed) == 12
    assert listed[0]["value"] > 0


def test_the_hub_library_reads_the_model_index(board: Board) -> None:
    from huggingface_hub.repocard_data import model_index_to_eval_results

    front = yaml.safe_load(render_model_index(board, "good").split("---\n")[1])
    name, results = model_index_to_eval_results(front["model-index"])
    assert name == "good"
    assert len(results) == 12 + 2 * 4


def test_mteb_files_have_the_main_score(board: Board) -> None:
    files = mteb_results(board, "good")
    assert set(files) == {f"{task.name}.json" for task in TASKS}
    first = files["words.json"]["scores"]["test"][0]
    cell = board.cell(board.models[0].key, "words", "mlp")
    assert cell is not None
    assert first["main_score"] == pytest.approx(cell.score.main_score, abs=1e-6)


def test_a_failed_model_has_no_card(tmp_path: Path) -> None:
    make_result(tmp_path, "broken", TASKS[0], 0.5, status="failed")
    with pytest.raises(UsageError, match="no results"):
        render_model_index(build_board(tmp_path), "broken")


def test_a_model_with_fewer_tasks_is_drawn_last_and_marked(tmp_path: Path) -> None:
    results = tmp_path / "results"
    make_board_results(results, {"weak": 0.4, "good": 0.7})
    make_board_results(results, {"one task": 0.99}, TASKS[:1])
    board = build_board(results)
    rows = chart_rows(board, "averages", "mlp", "weighted")
    assert [row["label"] for row in rows] == ["good", "weak", f"one task (1 of {len(TASKS)})"]
    assert rows[2]["score"] > rows[0]["score"]
    write_figures(board, tmp_path, formats=("svg",))
    texts = re.findall(r">([^<>]*(?:good|weak|one task)[^<>]*)</text>", (tmp_path / "averages-mlp.svg").read_text())
    assert texts == [row["label"] for row in rows]


def test_few_points_have_axes_that_show_no_false_difference() -> None:
    points = [{"parameters": 10.0}, {"parameters": 11.0}]
    pair = scatter_chart(["a", "b"], "parameters", "Parameters", "score", points)
    assert pair["encoding"]["x"]["scale"]["domain"] == [5.0, 22.0]
    assert pair["layer"][1]["encoding"]["y"]["scale"] == {"domain": [0, 1]}
    three = scatter_chart(["a", "b", "c"], "parameters", "Parameters", "score", [*points, {"parameters": 30.0}])
    assert three["layer"][1]["encoding"]["y"]["scale"]["zero"] is False
