"""The terminal tables at the end of a run and of `leaderboard`."""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console

from report.made_results import TASKS, make_board_results, make_result
from uwbench.report.board import build_board, suite_of
from uwbench.report.table import board_view, chosen_text, run_view
from uwbench.results.record import read_result


def shown(view: object) -> str:
    out = io.StringIO()
    Console(file=out, width=160, no_color=True).print(view)
    return out.getvalue()


def test_a_run_ends_with_scores_failures_and_averages(tmp_path: Path) -> None:
    paths = [make_result(tmp_path, "m [bold]", task, 0.7) for task in TASKS[:3]]
    paths.append(make_result(tmp_path, "m [bold]", TASKS[3], 0.7, status="failed", error="[red] no memory"))
    results = [read_result(path) for path in paths]
    suite = suite_of([task.name for task in TASKS])
    text = shown(run_view(results, suite, paths=paths[:1]))
    assert "m [bold]" in text
    assert "3 of 6" in text
    score = results[0].scores["mlp"]
    assert score.ci95 is not None
    assert f"{score.main_score:.3f} {score.ci95[0]:.3f}–{score.ci95[1]:.3f}" in text
    assert "width 512" not in text
    task_lines = text[: text.index("Averages")].strip().splitlines()
    assert any(line.split() == [TASKS[3].name, "failed"] for line in task_lines)
    assert f"failed: {TASKS[3].name}: [red] no memory" in task_lines
    assert f"Results: {paths[0]}" in text.replace("\n", "")


def test_the_board_marks_ties_and_models_without_a_rank(tmp_path: Path) -> None:
    make_board_results(tmp_path, {"one": 0.7, "other": 0.7, "poor": 0.3})
    make_result(tmp_path, "half", TASKS[0], 0.7)
    lines = shown(board_view(build_board(tmp_path))).splitlines()
    rows = [re.match(r" ?(1=|2=|3|–) +(1–2 +)?(\w+) ", line) for line in lines]
    ranks = {row[3]: (row[1], (row[2] or "").strip()) for row in rows if row}
    assert ranks["poor"] == ("3", "")
    assert {ranks["one"], ranks["other"]} == {("1=", "1–2"), ("2=", "1–2")}
    assert ranks["half"] == ("–", "")
    assert any(line.startswith("= after a rank: no significant difference") for line in lines)


def test_a_choice_over_folds_is_shown_by_the_commonest() -> None:
    assert chosen_text({"rate": 0.001, "width": 512}) == "rate 0.001, width 512"
    folds = {"1": {"width": 0}, "2": {"width": 512}, "3": {"width": 512}}
    assert chosen_text(folds) == "width 512 (2 of 3)"
    assert chosen_text({"folds": [{"width": 0}, {"width": 0}]}) == "width 0"
    probed = {
        "layer": "4",
        "folds": [{"fold": "1", "width": 0, "learning_rate": 0.01, "epochs": [7, 9], "validation_clips": 8}],
    }
    assert chosen_text(probed) == "layer 4, width 0, rate 0.01, epochs 7–9"


def test_the_board_keeps_long_names_whole_at_80_columns(tmp_path: Path) -> None:
    make_board_results(tmp_path, {"whisper-tiny.en": 0.7, "wav2vec2-base-960h": 0.6, "hubert-base-ls960": 0.5})
    out = io.StringIO()
    Console(file=out, width=80, no_color=True).print(board_view(build_board(tmp_path)))
    tasks = out.getvalue().split("Tasks: ", 1)[1]
    for name in ("whisper-tiny.en", "wav2vec2-base-960h", "hubert-base-ls960", *(task.name for task in TASKS)):
        assert name in tasks.split()
