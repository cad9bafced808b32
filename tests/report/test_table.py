"""The terminal tables at the end of a run and of `leaderboard`."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from report.made_results import TASKS, make_board_results, make_result
from uwbench.cards.card import METRICS_OF_KIND
from uwbench.errors import UsageError
from uwbench.methods import METHODS, metric_name
from uwbench.pipeline.outcome import Results, TaskRun, report_notes
from uwbench.progress import TerminalReporter
from uwbench.report.build import build_board
from uwbench.report.compare import compare_models
from uwbench.report.json_file import render_json
from uwbench.report.leaderboard import Leaderboard
from uwbench.report.markdown import render_markdown
from uwbench.report.model_card import render_model_index
from uwbench.report.selection import suite_of
from uwbench.report.sensitivity import sensitivity, sensitivity_view
from uwbench.report.table import board_view, chosen_text, run_view
from uwbench.results.record import read_result


def shown(view: object) -> str:
    out = io.StringIO()
    Console(file=out, width=160, no_color=True).print(view, crop=False)
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
    assert f"{score.main_score:.3f}  {score.ci95[0]:.3f}–{score.ci95[1]:.3f}" in text
    assert "width 512" not in text
    assert "width 512" in shown(run_view(results, suite, verbose=True))
    task_lines = text[: text.index("Averages")].strip().splitlines()
    assert any(line.split() == [TASKS[3].name, "failed"] for line in task_lines)
    assert f"failed: {TASKS[3].name}: [red] no memory" in task_lines
    assert f"Results: {paths[0]}" in text.replace("\n", "")


def test_the_board_marks_ties_and_models_without_a_rank(tmp_path: Path) -> None:
    make_board_results(tmp_path, {"one": 0.7, "other": 0.7, "poor": 0.3})
    make_result(tmp_path, "half", TASKS[0], 0.7)
    lines = shown(board_view(build_board(tmp_path))).splitlines()
    rows = [re.match(r" *(1=|2=|3|–) +(1–2|3)? +(\w+) ", line) for line in lines]
    ranks = {row[3]: row[1] for row in rows if row}
    assert {row[3]: row[2] for row in rows if row} == {"one": "1–2", "other": "1–2", "poor": "3", "half": None}
    assert ranks["poor"] == "3"
    assert {ranks["one"], ranks["other"]} == {"1=", "2="}
    assert ranks["half"] == "–"
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


LONG = ("openai/whisper-large-v3-turbo", "facebook/wav2vec2-conformer-rel-pos-large-960h", "hubert-base-ls960")


def test_names_are_whole_and_lines_fit_at_80_columns(tmp_path: Path) -> None:
    for model in LONG:
        for task in TASKS:
            make_result(tmp_path, model, task, 0.6, context="trimmed")
    board = build_board(tmp_path)
    results = [read_result(cell.path) for cell in board.cells if cell.method == "mlp"]
    comparison = compare_models(board, LONG[0], LONG[1], "mlp")
    ranks = sensitivity(board, "mlp")
    assert ranks is not None
    views = {
        "board": board_view(board),
        "run": run_view(results, board.suite),
        "comparison": comparison,
        "sensitivity": sensitivity_view(board, ranks),
    }
    for name, view in views.items():
        out = io.StringIO()
        Console(file=out, width=80, no_color=True).print(view, crop=False)
        text = out.getvalue()
        assert max(map(len, text.splitlines())) <= 80, name
        for model in LONG[:2] if name == "comparison" else LONG:
            assert f"{model} (trimmed)" in text
        assert {task.name for task in TASKS} <= set(text.split()), name


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({}, "m"),
        ({"context": "full"}, "m"),
        ({"context": "trimmed"}, "m (trimmed)"),
        ({"family": "imported"}, "m (imported)"),
        ({"dtype": "bf16", "context": "trimmed"}, "m (trimmed, bf16)"),
    ],
)
def test_a_model_has_one_label_everywhere(tmp_path: Path, changes: dict[str, Any], label: str) -> None:
    path = make_result(tmp_path, "m", TASKS[0], 0.6, **changes)
    board = build_board(tmp_path)
    assert [model.label for model in board.models] == [label]
    results = Results((TaskRun("m", TASKS[0].name, result=(path, read_result(path))),))
    assert set(results.to_frame().model) == set(Leaderboard(board).to_frame().model) == {label}
    assert shown(results).splitlines()[0].strip() == label
    assert f"name: {label}" in render_model_index(board, label)
    assert {row["model"] for row in json.loads(render_json(board))["scores"]} == {label}


def test_namesakes_are_told_apart_by_layers_or_else_by_fingerprint(tmp_path: Path) -> None:
    for index, layers in enumerate((1, 5)):
        make_result(tmp_path / "layers", "m", TASKS[0], 0.6, fingerprint=str(index) * 64, layers=layers)
    assert {model.label for model in build_board(tmp_path / "layers").models} == {"m (1 layer)", "m (5 layers)"}


def test_an_empty_board_says_where_results_are(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    make_result(tmp_path / "usual", "m", TASKS[0], 0.6)
    make_result(tmp_path / "usual", "m", TASKS[0], 0.6, protocol=("other", 1))
    text = shown(board_view(build_board(tmp_path / "here", usual=[tmp_path / "usual"])))
    assert f"No result of uwbench-1 is in {tmp_path / 'here'}." in text
    assert f"1 result of uwbench-1: uwbench leaderboard --results {tmp_path / 'usual'}" in text
    assert f"1 result of other: uwbench leaderboard --protocol other --results {tmp_path / 'usual'}" in text
    with pytest.raises(UsageError, match="does not exist; there are 1 result of other"):
        build_board(tmp_path / "nowhere", usual=[tmp_path / "usual"])
    assert "To make results: uwbench run" in shown(board_view(build_board(tmp_path / "here")))
    make_result(tmp_path / "failed", "m", TASKS[0], 0.6, status="failed")
    assert "1 result of uwbench-1 in" in shown(board_view(build_board(tmp_path / "failed")))


def test_readers_see_the_names_of_metrics_and_programs_their_keys(tmp_path: Path) -> None:
    path = make_result(tmp_path, "m", TASKS[0], 0.7, further=True)
    make_result(tmp_path, "m", TASKS[3], 0.7)
    board = build_board(tmp_path)
    for text in (
        shown(run_view([read_result(path)], board.suite)),
        render_markdown(board),
        render_model_index(board, "m"),
    ):
        assert "area of accuracy" in text
    markdown = render_markdown(board)
    assert f"| {TASKS[3].name.title()} | sound | mAP | 120 |" in markdown
    few_shot = markdown[markdown.index("## Few-shot: tasks") :]
    assert f"| {TASKS[0].name.title()} | speech | area of accuracy | 120 |" in few_shot
    assert "few-shot-accuracy" not in markdown
    assert set(Leaderboard(board).to_frame()["metric"]) == {"accuracy", "map", "few-shot-accuracy"}


def test_every_metric_but_the_plain_words_has_a_name_for_readers() -> None:
    of_methods = {info.metric for info in METHODS.values() if info.metric}
    of_cards = {metric for metrics in METRICS_OF_KIND.values() for metric in metrics}
    assert {metric for metric in of_methods | of_cards if metric_name(metric) == metric} == {"accuracy"}


def test_scores_of_earlier_runs_are_named_and_not_shown_again(tmp_path: Path) -> None:
    path = make_result(tmp_path, "m", TASKS[0], 0.7, further=True)
    result, suite = read_result(path), suite_of([TASKS[0].name])
    score = f"{result.scores['few-shot'].main_score:.3f}"
    assert score in shown(run_view([result], suite))
    text = shown(run_view([result], suite, methods=("mlp", "knn")))
    assert score not in text
    assert "further methods" not in text
    assert "Scored before by few-shot: uwbench leaderboard --method all shows them" in text
    assert f"{result.scores['mlp'].main_score:.3f}" not in shown(run_view([result], suite, methods=("few-shot",)))


def test_a_method_that_leaves_out_tasks_is_noted_once(capsys: pytest.CaptureFixture[str]) -> None:
    reason = "not scored by mteb-multilabel, which takes multi-label tasks"
    tasks = ["a", "b", "c", "d", "e", "f"]
    runs = [TaskRun(model, task, notes=(f"{task}: {reason}",)) for model in ("m", "n") for task in tasks]
    report_notes([*runs, TaskRun("m", "g", notes=("g: not scored by knn: x: y",))], TerminalReporter())
    lines = " ".join(capsys.readouterr().err.split())
    assert lines == f"note: a, b, c, d and 2 more: {reason} note: g: not scored by knn: x: y"
