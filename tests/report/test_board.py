"""The board combines comparable results only, lists the others, and has the same numbers in every format."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from report.made_results import TASKS, MadeTask, make_board_results, make_result
from uwbench.cards.find import find_protocol, find_suite
from uwbench.cards.suite import Suite
from uwbench.errors import InputError, UsageError
from uwbench.report.board import Board
from uwbench.report.build import build_board
from uwbench.report.compare import compare_models
from uwbench.report.csv_file import render_csv
from uwbench.report.json_file import render_json
from uwbench.report.markdown import render_markdown
from uwbench.report.references import load_references
from uwbench.report.selection import suite_of
from uwbench.results.averages import averages
from uwbench.results.record import find_results, predictions_path, read_predictions, read_result, write_result

MODELS = {"good": 0.8, "fair": 0.65, "poor": 0.4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("made")
    make_board_results(results, MODELS)
    return results


@pytest.fixture(scope="module")
def board(folder: Path) -> Board:
    return build_board(folder)


def test_models_are_ranked_and_significant_differences_separate_them(board: Board) -> None:
    assert [model.label for model in board.models] == ["good", "fair", "poor"]
    rows = [board.row(model.key, "mlp", "weighted") for model in board.models]
    assert [row.rank for row in rows if row] == [1, 2, 3]
    assert [row.standing.place for row in rows if row and row.standing] == [1, 2, 3]
    assert rows[0] is not None
    assert len(rows[0].average.tasks) == rows[0].average.of


def test_similar_models_are_tied(tmp_path: Path) -> None:
    make_board_results(tmp_path, {"one": 0.7, "other": 0.7, "poor": 0.3})
    board = build_board(tmp_path)
    rows = {model.label: board.row(model.key, "mlp", "task") for model in board.models}
    assert {label: row.standing.place for label, row in rows.items() if row and row.standing} == {
        "one": 1,
        "other": 1,
        "poor": 3,
    }


def test_an_average_over_fewer_tasks_or_other_data_is_not_ranked(folder: Path, tmp_path: Path) -> None:
    results = tmp_path / "all"
    shutil.copytree(folder, results)
    make_result(results, "partial", TASKS[0], 0.99)
    for task in TASKS:
        changed = MadeTask(**{**task.__dict__, "data": "e1"}) if task.name == "genres" else task
        make_result(results, "other-data", changed, 0.99)
    board = build_board(results)
    keys = {model.label: model.key for model in board.models}
    for label, count in (("partial", 1), ("other-data", 6)):
        row = board.row(keys[label], "mlp", "weighted")
        assert row is not None
        assert row.rank is None
        assert (len(row.average.tasks), row.average.of) == (count, 6)
    good = board.row(keys["good"], "mlp", "weighted")
    assert good is not None
    assert good.rank == 1
    shared = board.row(keys["partial"], "mlp", "weighted", "shared")
    assert shared is not None
    assert shared.rank == 1  # the best on the one task that all models have
    assert shared.average.tasks == ("words",)


def test_failed_and_limited_results_are_listed_and_not_scored(folder: Path, tmp_path: Path) -> None:
    results = tmp_path / "all"
    shutil.copytree(folder, results)
    make_result(results, "broken", TASKS[0], 0.5, status="failed", error="the disk is full")
    make_result(results, "quick", TASKS[0], 0.5, status="limited")
    (results / "good" / "bad.json").mkdir(parents=True)
    damaged = results / "good" / "x" / "uwbench-1"
    damaged.mkdir(parents=True)
    (damaged / "words.json").write_text('{"schema": 1, "status": NaN}')
    board = build_board(results)
    assert {(off.model, off.status) for off in board.off} == {("broken", "failed"), ("quick", "limited")}
    assert "the disk is full" in render_markdown(board)
    assert {model.label for model in board.models} == {"good", "fair", "poor"}
    assert len(board.problems) == 1
    assert "NaN" in board.problems[0]


def test_versions_are_never_mixed(folder: Path, tmp_path: Path) -> None:
    results = tmp_path / "all"
    shutil.copytree(folder, results)
    newer = MadeTask(**{**TASKS[0].__dict__, "version": 2})
    make_result(results, "good", newer, 0.5)
    make_result(results, "later", TASKS[1], 0.5, protocol=("uwbench-1", 2))
    board = build_board(results)
    assert board.protocol_version == 2
    assert {cell.model.split("/")[0] for cell in board.cells} == {"later"}
    assert all("version 1 of the protocol" in off.reason for off in board.off)
    empty = build_board(results, protocol="xares-0.1.3")
    assert not empty.cells
    assert "No result" in render_markdown(empty)


def test_a_custom_protocol_has_its_own_board_and_intervals(tmp_path: Path) -> None:
    card = tmp_path / "mine.yaml"
    fields = find_protocol("uwbench-1").model_dump(mode="json", exclude_none=True)
    fields |= {"name": "mine", "bootstrap": {"resamples": 300, "level": 0.8, "seed": 3}}
    card.write_text(yaml.safe_dump(fields))
    results = tmp_path / "results"
    for model, skill in (("one", 0.8), ("two", 0.6)):
        make_result(results, model, TASKS[0], skill, protocol=("mine", 1))
        make_result(results, model, TASKS[0], skill)
    board = build_board(results, protocol=str(card))
    assert (board.protocol, board.bootstrap.level, len(board.cells)) == ("mine", 0.8, 4)
    by_name = build_board(results, protocol="mine")  # without its card the default level applies
    wide, narrow = (compare_models(each, "one", "two", "mlp").tasks[0] for each in (by_name, board))
    assert narrow.low is not None
    assert wide.low is not None
    assert wide.low < narrow.low < narrow.difference


def test_an_older_version_of_a_task_is_off_the_board(folder: Path, tmp_path: Path) -> None:
    results = tmp_path / "all"
    shutil.copytree(folder, results)
    make_result(results, "good", MadeTask(**{**TASKS[0].__dict__, "version": 2}), 0.5)
    board = build_board(results)
    assert {off.model for off in board.off} == {"fair", "poor"}
    assert board.row(board.models[0].key, "mlp", "task") is not None


def test_two_encoders_of_one_name_get_different_labels(tmp_path: Path) -> None:
    make_result(tmp_path, "whisper", TASKS[0], 0.7, fingerprint="a" * 64)
    make_result(tmp_path, "whisper", TASKS[0], 0.6, fingerprint="b" * 64)
    board = build_board(tmp_path)
    assert sorted(model.label for model in board.models) == ["whisper [aaaaaaaa]", "whisper [bbbbbbbb]"]


def test_results_of_several_machines_are_merged_into_one_board(folder: Path, tmp_path: Path, board: Board) -> None:
    make_result(tmp_path, "elsewhere", TASKS[0], 0.7)
    merged = build_board([folder, tmp_path])
    assert {model.label for model in merged.models} == {*MODELS, "elsewhere"}
    assert len(merged.cells) == len(board.cells) + 2
    with pytest.raises(UsageError, match="folder of results does not exist"):
        build_board(tmp_path / "nowhere")


def test_without_predictions_there_are_scores_but_no_ties(folder: Path, tmp_path: Path, board: Board) -> None:
    results = tmp_path / "all"
    shutil.copytree(folder, results)
    for path, _ in find_results(results)[0]:
        predictions_path(path).unlink()
    bare = build_board(results)
    without, whole = (json.loads(render_json(of)) for of in (bare, board))
    assert without["scores"] == whole["scores"]
    assert set(without) == {"scores", "averages", "rank_envelopes", "layers"}
    for row, complete in zip(without["averages"], whole["averages"], strict=True):
        assert row == {**complete, "rank_low": None, "rank_high": None}
    assert all(row.standing is None for row in bare.rows)


def test_predictions_that_belong_to_another_result_are_not_used(tmp_path: Path) -> None:
    first, second = (make_result(tmp_path, model, TASKS[0], 0.7) for model in ("one", "two"))
    for path in (first, second):
        result = read_result(path)
        digest = hashlib.sha256(predictions_path(path).read_bytes()).hexdigest()
        write_result(tmp_path, result.model_copy(update={"predictions_sha256": digest}))
    assert set(build_board(tmp_path).draws["mlp"]["words"].scores) == {
        cell.model for cell in build_board(tmp_path).cells
    }
    # As a run that is killed between its two files leaves them.
    shutil.copy(predictions_path(first), predictions_path(second))
    board = build_board(tmp_path)
    assert len(board.cells) == 4
    assert {model.split("/")[0] for model in board.draws["mlp"]["words"].scores} == {"one"}
    with pytest.raises(InputError, match="does not belong to the result"):
        read_predictions(second)


def test_json_has_the_fields_that_programs_read(board: Board, folder: Path) -> None:
    data = json.loads(render_json(board))
    assert set(data) == {"scores", "averages", "pairs", "rank_correlations", "rank_envelopes", "layers"}
    fields = {"model", "task", "method", "protocol", "metric", "score", "low", "high"}
    fields |= {"status", "contamination", "because"}
    assert all(set(row) == fields for row in data["scores"])
    fields = {"model", "method", "protocol", "suite", "average", "score", "low", "high", "tasks"}
    fields |= {"rank", "rank_low", "rank_high"}
    assert all(set(row) == fields for row in data["averages"])
    assert len(data["scores"]) == 3 * 6 * 2
    assert len(data["averages"]) == 3 * 2 * 4
    results = [result for _, result in find_results(folder)[0] if result.model.name == "fair"]
    expected = averages(results, board.suite, "knn")["chance"]
    key = ("fair", "knn", "chance")
    rows = [row for row in data["averages"] if (row["model"], row["method"], row["average"]) == key]
    assert rows[0]["score"] == expected.score
    assert rows[0]["tasks"] == 6


def test_csv_reads_back_and_contains_no_formula(board: Board, tmp_path: Path) -> None:
    make_result(tmp_path, "=1+1", TASKS[0], 0.7)
    rows = list(csv.DictReader(io.StringIO(render_csv(build_board(tmp_path)))))
    assert {row["model"] for row in rows} == {"'=1+1"}
    rows = list(csv.DictReader(io.StringIO(render_csv(board))))
    assert float(rows[0]["score"]) == pytest.approx(board.cells[0].score.main_score, abs=1e-6)


def test_markdown_shows_markup_as_text(tmp_path: Path) -> None:
    make_result(tmp_path, "<script>alert(1)</script>", TASKS[0], 0.7, labels="a | b [x](y) <img src=z>")
    text = render_markdown(build_board(tmp_path))
    assert "<script" not in text
    assert "<img" not in text
    assert r"a \| b \[x\](y) &lt;img src=z&gt;" in text


def test_the_suite_is_the_smallest_that_has_the_tasks(folder: Path) -> None:
    assert suite_of(["mini_speech", "mini_music"]).name == "mini"
    assert suite_of(["esc10", "fsdd"]).tasks == ("esc10", "fsdd")
    suite = Suite(name="two", version=1, title="Two", tasks=("words", "genres"))
    board = build_board(folder, suite=suite)
    row = board.row(board.models[0].key, "mlp", "task")
    assert row is not None
    assert row.average.tasks == ("words", "genres")
    assert [task.info.name for task in board.tasks if task.in_suite] == ["words", "genres"]
    assert len(board.cells) == 3 * 6 * 2  # tasks outside the suite keep their scores


def test_published_numbers_are_shown_with_their_source_and_recomputed_averages(tmp_path: Path) -> None:
    rows = {(row.source, row.model, row.method): row for row in load_references()}
    whisper = rows["X-ARES README v0.1.3", "whisper-base", "mlp"]
    assert whisper.printed == {"weighted, public tasks": 0.632}
    assert whisper.averages["weighted"].score == pytest.approx(0.626, abs=0.001)
    large = rows["MiDashengLM technical report, table 5", "whisper-large-v3", "mlp"]
    twenty = [entry for entry in large.entries if entry.task in find_suite("uniwhisper-20").tasks]
    assert sum(entry.score for entry in twenty) / 20 == pytest.approx(0.636, abs=0.001)
    make_result(tmp_path, "m", MadeTask("esc50", folds=("1", "2")), 0.6)
    text = render_markdown(build_board(tmp_path))
    assert "Published numbers, not run here" in text
    assert "weighted, public tasks 0.632" in text
    assert "m |" not in text.split("Published")[1]


def test_a_board_loads_no_torch(folder: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from uwbench.report.build import build_board;"
        "from uwbench.report.csv_file import render_csv; from uwbench.report.json_file import render_json;"
        "from uwbench.report.markdown import render_markdown;"
        f"board = build_board(Path({str(folder)!r})); render_csv(board), render_json(board), render_markdown(board);"
        "print(sorted({'torch', 'transformers', 'datasets', 'faiss'} & set(sys.modules)))"
    )
    environment = {"PYTHONPATH": str(Path(__file__).parents[2] / "bench")}
    process = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
    )
    assert process.stdout.strip() == "[]"
