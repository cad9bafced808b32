"""A run keeps apart tasks that differ, counts clips that are missing, and says what it knows about the data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from conftest import Command
from report.made_results import TASKS, make_result
from spectrum_encoder import SpectrumEncoder
from uwbench import evaluate
from uwbench.errors import EncoderError
from uwbench.report.build import build_board
from uwbench.results.record import find_results, free_path, read_result, write_result


@pytest.fixture
def tones(tmp_path: Path) -> Path:
    """A manifest of 24 clips of two classes, a third of them for the test."""
    folder = tmp_path / "tones"
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = ["path,label,split"]
    for i in range(24):
        pitch = (300, 2000)[i // 3 % 2]
        sound = 0.3 * np.sin(2 * np.pi * pitch * np.arange(2400) / 16_000) + 0.02 * rng.standard_normal(2400)
        soundfile.write(folder / f"{i}.wav", sound, 16_000)
        lines.append(f"{i}.wav,{('low', 'high')[i // 3 % 2]},{('train', 'train', 'test')[i % 3]}")
    (folder / "manifest.csv").write_text("\n".join(lines))
    return folder / "manifest.csv"


def write_manifests(folder: Path, dataset: Path, names: tuple[str, ...]) -> None:
    """Write manifests of the same clips whose labels are in the columns `label` and `voice`."""
    head, *rows = dataset.read_text().splitlines()
    for shift, name in enumerate(names):
        lines = [f"{head},voice", *(f"{row},{'ab'[(i + shift) % 2]}" for i, row in enumerate(rows))]
        (folder / name).write_text("\n".join(lines))


@pytest.mark.parametrize(
    ("commands", "tasks"),
    [
        ([["two.csv", "--label", "label"], ["two.csv", "--label", "voice"]], {"two", "two-voice"}),
        ([["two.csv", "-t", "{}/other.csv"]], {"two", "other"}),
        ([["two.csv"], ["other.csv"]], {"two", "other"}),
        ([["two.csv"], [""]], {"two", "tones"}),
        ([["two.csv", "-t", "mine={}/two.csv[label=voice]"]], {"two", "mine"}),
    ],
)
def test_tasks_that_differ_have_results_of_their_own(
    uwbench: Command, tones: Path, commands: list[list[str]], tasks: set[str]
) -> None:
    folder = tones.parent
    write_manifests(folder, tones, ("two.csv", "other.csv"))
    for first, *rest in commands:
        words = [word.replace("{}", str(folder)) for word in rest]
        done = uwbench("run", "-m", "logmel", "--method", "knn", "-t", folder / first, *words)
        assert done.code == 0, done.err
    board = json.loads(uwbench("leaderboard", "--json").out)
    assert {row["task"] for row in board["scores"]} == tasks


def test_one_name_for_two_tasks_keeps_both_files_and_says_so(uwbench: Command, tones: Path, tmp_path: Path) -> None:
    write_manifests(tones.parent, tones, ("two.csv", "other.csv"))
    for words in (["two.csv"], ["two.csv", "--label", "voice"], ["other.csv", "--label", "voice"], ["two.csv"]):
        first, *rest = words
        done = uwbench("run", "-m", "logmel", "--method", "knn", "-t", tones.parent / first, "--name", "same", *rest)
        assert done.code == 0, done.err
    assert len(find_results(tmp_path / "results")[0]) == 3, "one per task; the last run replaces its own"
    assert "on other data; -t NAME=PATH" in uwbench("leaderboard").out


def test_a_limited_or_failed_run_spares_the_score(tmp_path: Path) -> None:
    path = make_result(tmp_path, "m", TASKS[0], 0.7)
    result = read_result(path)
    limited = result.model_copy(
        update={"status": "limited", "task": result.task.model_copy(update={"data_sha256": "e" * 64})}
    )
    beside = write_result(tmp_path, limited)
    assert beside != path
    assert read_result(path) == result
    failed = limited.model_copy(update={"status": "failed", "scores": {}})
    assert free_path(tmp_path, failed) == beside
    write_result(tmp_path, failed)
    later = result.run.model_copy(update={"started": "2027-01-01T00:00:00+00:00"})
    write_result(tmp_path, result.model_copy(update={"run": later}))
    assert build_board(tmp_path, ties=False).off == (), "a failure that was mended is no news"


def past_the_end(folder: Path) -> str:
    """Three stretches of one file begin after its end."""
    return "".join(f"\n0.wav,low,train,{5 + i},{6 + i}" for i in range(3))


def no_audio(folder: Path) -> str:
    for i in range(3):
        (folder / f"bad{i}.wav").write_bytes(b"no audio")
    return "".join(f"\nbad{i}.wav,low,train,," for i in range(3))


def vanished(folder: Path) -> str:
    return "".join(f"\ngone{i}.wav,low,test,," for i in range(3))


def not_finite(folder: Path) -> str:
    """The header can be read, so the fault shows while clips are encoded; two stretches share a file."""
    soundfile.write(folder / "nan.wav", np.full(2400, np.nan), 16_000, subtype="FLOAT")
    return "\nnan.wav,low,train,,\nnan.wav,low,train,0,0.1\nnan.wav,low,test,0.05,0.1"


@pytest.mark.parametrize("spoil", [past_the_end, no_audio, vanished, not_finite])
def test_missing_clips_are_counted_as_clips(
    uwbench: Command, tones: Path, tmp_path: Path, spoil: Callable[[Path], str]
) -> None:
    head, *rows = tones.read_text().splitlines()
    lines = [f"{head},start,end", *(f"{row},," for row in rows)]
    tones.write_text("\n".join(lines) + spoil(tones.parent))
    words = ("run", "-m", "logmel", "-t", tones, "--method", "knn")
    refused = uwbench(*words, "--allow-missing", 2)
    assert refused.code == 1
    assert "3 clips have no embedding" in refused.err
    assert "--allow-missing 3" in refused.err
    assert "3 missing, first: " in refused.err or spoil is not_finite, "the plan says it"
    (path,) = (tmp_path / "results").glob("*/*/*/*.json")
    assert read_result(path).counts.missing == 3
    for command in (words, ("probe", "-m", "logmel", "-t", "tones", "--method", "knn")):
        done = uwbench(*command, "--allow-missing", 3, "--json")
        (result,) = json.loads(done.out)
        assert (done.code, result["status"], result["counts"]["missing"]) == (0, "partial", 3)


def test_an_encoder_that_fails_leaves_every_clip_missing(tones: Path) -> None:
    def fail(_batch: int) -> None:
        raise EncoderError("out of order")

    results = evaluate(SpectrumEncoder(salt="broken", before=fail), str(tones), methods="knn")
    ((_, result),) = results.results
    assert (result.status, result.counts.clips, result.counts.missing) == ("failed", 0, 24)


def copied(rows: list[str], folder: Path) -> list[str]:
    """Every test clip is a training clip of another name."""
    tested = [row for row in rows if row.endswith("test,")]
    for row in tested:
        name = row.split(",")[0]
        (folder / f"copy_{name}").write_bytes((folder / name).read_bytes())
    return [*rows, *(f"copy_{row[:-5]}train," for row in tested)]


def copied_to_validation(rows: list[str], folder: Path) -> list[str]:
    (folder / "copy.wav").write_bytes((folder / "2.wav").read_bytes())
    return [*rows, "copy.wav,low,valid,", "3.wav,high,valid,"]


def in_folds(rows: list[str], folder: Path) -> list[str]:
    """A clip of the first fold is in the second too."""
    (folder / "copy.wav").write_bytes((folder / "0.wav").read_bytes())
    return [f"{','.join(row.split(',')[:2])},{i % 2}," for i, row in enumerate(["copy.wav,low,0,", *rows])]


def grouped(rows: list[str], folder: Path) -> list[str]:
    return [f"{row}g{i % 4}" for i, row in enumerate(rows)]


def untrained(rows: list[str], folder: Path) -> list[str]:
    return [*rows[:-1], rows[-1].replace("high", "rare")]


def repeated(rows: list[str], folder: Path) -> list[str]:
    (folder / "0.wav").write_bytes((folder / "1.wav").read_bytes())
    return rows


@pytest.mark.parametrize(
    ("spoil", "leaked", "note"),
    [
        (copied, 8, "8 of 8 test clips have a training clip's audio, first: 2.wav is copy_2.wav (train)"),
        (copied_to_validation, 1, "1 of 8 test clips have a training clip's audio, first: 2.wav is copy.wav (valid)"),
        (in_folds, 2, "2 of 25 test clips have a training clip's audio, first: copy.wav is 0.wav (1)"),
        (grouped, 0, "4 of 4 groups (group) are in more than one split, first: g0"),
        (untrained, 0, "1 of 3 classes have no training clip, first: rare"),
        (repeated, 0, "1 clips have the audio of another clip of their split, first: 1.wav"),
    ],
)
def test_a_run_says_what_it_knows(
    uwbench: Command,
    tones: Path,
    tmp_path: Path,
    spoil: Callable[[list[str], Path], list[str]],
    leaked: int,
    note: str,
) -> None:
    _, *rows = tones.read_text().splitlines()
    lines = spoil([f"{row}," for row in rows], tones.parent)
    column = "fold" if spoil is in_folds else "split"
    tones.write_text("\n".join([f"path,label,{column},group", *lines]))
    done = uwbench("run", "-m", "logmel", "--method", "knn", "-t", tones)
    assert done.code == (1 if spoil is untrained else 0), done.err
    (path,) = (tmp_path / "results").glob("*/*/*/*.json")
    result = read_result(path)
    assert result.leaked == leaked
    assert any(sentence.startswith(note) for sentence in result.notes)
    assert f"note: tones: {note}" in " ".join(done.err.split()), "in the plan"
    for shown in (done.out,) if spoil is untrained else (done.out, uwbench("leaderboard").out):
        assert note in " ".join(shown.split())
        assert ("¶" in shown) is (leaked > 0)
    for score in json.loads(uwbench("leaderboard", "--json").out)["scores"]:
        assert score["because"][-1].startswith(note)


def test_silent_clips_are_noted_in_every_later_run(uwbench: Command, tones: Path) -> None:
    for name, samples in (("0", np.zeros(1600)), ("5", np.full(1600, 5e-5)), ("6", np.zeros(800))):
        soundfile.write(tones.parent / f"{name}.wav", samples, 16_000, subtype="FLOAT")
    for _ in range(2):
        done = uwbench("run", "-m", "logmel", "--method", "knn", "-t", tones, "--json")
        assert json.loads(done.out)[0]["notes"] == ["3 clips are silent, first: 0.wav"]
    assert "note: tones: 3 clips are silent, first: 0.wav" in done.err, "the plan knows it from the run before"
    assert "3 clips are silent" in uwbench("leaderboard").out


def test_a_clean_task_has_no_notes(uwbench: Command, tones: Path) -> None:
    done = uwbench("run", "-m", "logmel", "--method", "knn", "-t", tones, "--json")
    assert json.loads(done.out)[0]["notes"] == []
    assert "note:" not in done.err
