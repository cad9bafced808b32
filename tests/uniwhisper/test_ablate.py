"""Ablations: each arm of the package changes one key of the full recipe; bad arms are refused; an arm trains."""

from __future__ import annotations

import importlib.resources
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from packed import pack
from runs import LM, SHAPE
from small_whisper import ENCODER
from uniwhisper.ablate import Arm, arms, changes, find_arm, run_arm
from uniwhisper.cli.main import main
from uniwhisper.config import load_config, overlaid
from uniwhisper.data.convert import Request, convert
from uniwhisper.data.templates import find_form
from uniwhisper.sampling.prepare import prepare
from uwbench.api import InputError, UsageError

BASE = {"lm": LM, "data": {"mixture": "mini", "bins": 1}, "stages": {"bridge": 1, "joint": 3}}
RUN = {"batch_s": 24, "micro_batch_s": 24, "save_every": 100}


def test_the_package_has_the_recipes_arms() -> None:
    files = importlib.resources.files("uniwhisper.ablations")
    for arm in arms():
        assert len((files / f"{arm.name}.yaml").read_text().splitlines()) <= 5
    assert {arm.name for arm in arms()} >= {
        *("whisper-decoder", "random-lm", "lm-frozen", "lm-lora", "stack-2", "stack-8", "adapter-linear"),
        *("without-speech", "without-voices", "without-sound", "without-music", "speech-25", "speech-60"),
        *("asr-only", "captions-only", "encoder-frozen", "one-instruction", "task-tags", "pad30-never"),
        *("pad30-always", "reduction-sample", "reduction-sqrt"),
        *("augment-gain", "augment-noise", "augment-stretch", "augment-mix"),
    }


@pytest.mark.parametrize("arm", arms(), ids=lambda arm: arm.name)
def test_a_shipped_arm_changes_one_key_of_the_full_recipe(arm: Arm) -> None:
    changed = changes(arm, "full")
    ((key, (before, after)),) = changed.items()
    assert before != after
    assert key.split(".")[0] in arm.change


def test_the_list_prints_each_arm_with_its_difference(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["uniwhisper", "ablate", "list"])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    lines = capsys.readouterr().out.splitlines()
    assert lines[1 + next(i for i, line in enumerate(lines) if line.startswith("stack-8"))].strip() == (
        "adapter.stack: 4 -> 8"
    )
    monkeypatch.setattr(sys, "argv", ["uniwhisper", "ablate", "list", "--json"])
    with pytest.raises(SystemExit):
        main()
    assert json.loads(capsys.readouterr().out)["whisper-decoder"] == {"lm.kind": ["causal", "whisper"]}


def test_an_arm_that_changes_two_things_is_refused_before_it_trains(tmp_path: Path) -> None:
    path = tmp_path / "both.yaml"
    path.write_text("title: two\nchange: {adapter: {stack: 8}, encoder: {lr: 3.0e-5}}\n")
    with pytest.raises(UsageError, match="changes 2 things: encoder"):
        run_arm(find_arm(str(path)), "cpu-mini", [tmp_path], tmp_path / "run")
    with pytest.raises(UsageError, match="changes nothing"):
        run_arm(find_arm("random-lm"), "cpu-mini", [tmp_path], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_unknown_arms_and_malformed_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="stack-4"):
        find_arm("stack-4")
    path = tmp_path / "arm.yaml"
    path.write_text("adapter: {stack: 8}\n")
    with pytest.raises(InputError, match="title"):
        find_arm(str(path))
    with pytest.raises(InputError, match="cannot be read"):
        find_arm(str(tmp_path / "none.yaml"))


def test_an_arm_trains_with_its_one_change_or_with_several_if_allowed(
    shared_data: Path, small_whisper: Path, tmp_path: Path
) -> None:
    pack(shared_data, tmp_path / "rows", 24)
    base = {**BASE, "run": RUN, "encoder": {**ENCODER, "init": str(small_whisper)}}
    folder = run_arm(find_arm("stack-8"), "cpu-mini", [tmp_path / "rows"], tmp_path / "one", base=base)
    trained = json.loads((folder / "trainer.json").read_text())["config"]
    assert (trained["adapter"]["stack"], trained["lm"]["shape"]["hidden_size"]) == (8, SHAPE["hidden_size"])
    both = Arm("both", "two", {"adapter": {"stack": 2}, "encoder": {"lr": 3e-5}})
    folder = run_arm(both, "cpu-mini", [tmp_path / "rows"], tmp_path / "two", base=base, allow_several=True)
    trained = json.loads((folder / "trainer.json").read_text())["config"]
    assert (trained["adapter"]["stack"], trained["encoder"]["lr"]) == (2, 3e-5)


@pytest.fixture(scope="module")
def rows(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows with the closed sets that converting writes: digits and speakers, instruments and notes."""
    folder = tmp_path_factory.mktemp("rows")
    for name in ("fsdd", "philharmonia"):
        convert(Request(str(shared_data / name)), folder)
    return folder


def asked_in(rows: Path, change: dict[str, Any]) -> Counter[tuple[str, str]]:
    """Return how often each task is asked in which words, in the first steps of a run of cpu-mini with a change."""
    varied = {
        "stages": {"bridge": 4, "joint": 60},
        "data": {"qa_per_audio": 2, "wording": {"instructions": "varied"}},
        "run": {"batch_s": 48},
    }
    config = load_config("cpu-mini", overlaid(varied, change))
    batches = prepare(config, [rows]).batches
    return Counter(
        (question.task, question.instruction)
        for step in range(12)
        for micro in batches.micro_batches(step, 0, 1)
        for example in micro
        for question in example.questions
    )


def test_questions_follow_the_wording(rows: Path) -> None:
    by_default = asked_in(rows, {})
    words = {text for task, text in by_default if task == "instrument"}
    assert words <= {*find_form("instrument").phrases, *find_form("instrument").bare}
    assert len(words) > 8
    assert words & set(find_form("instrument").bare)
    assert not any("Options:" in text for _, text in by_default)
    canonical = asked_in(rows, find_arm("one-instruction").change)
    assert {text for task, text in canonical if task == "instrument"} == {find_form("instrument").phrases[0]}
    tags = asked_in(rows, find_arm("task-tags").change)
    assert {text for task, text in tags if task == "speaker_id"} == {find_form("speaker_id").bare[0]}
    assert Counter(task for task, _ in tags.elements()) == Counter(task for task, _ in by_default.elements())
    first = asked_in(rows, {"data": {"wording": {"phrases": 2, "bare_share": 0.0}}})
    assert {text for task, text in first if task == "speaker_id"} == set(find_form("speaker_id").phrases[:2])


def test_possible_answers_are_listed_if_asked_and_few(rows: Path) -> None:
    texts = asked_in(rows, find_arm("list-answers").change)
    digits = " Options: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9."
    assert all(text.endswith(digits) for task, text in texts if task == "keyword")
    assert not any("Options:" in text for task, text in texts if task == "speaker_id")  # an open set
    assert not any("Options:" in text for task, text in texts if task == "pitch")  # of more than fifty notes
    some = asked_in(rows, {"data": {"wording": {"options_prob": 0.5}}})
    listed = [text.endswith(digits) for task, text in some.elements() if task == "keyword"]
    assert 0.3 < sum(listed) / len(listed) < 0.7


def test_tasks_domains_and_the_share_of_speech_reach_the_plan(rows: Path) -> None:
    assert {task for task, _ in asked_in(rows, {"data": {"tasks": ["pitch", "keyword"]}})} == {"pitch", "keyword"}
    assert {task for task, _ in asked_in(rows, find_arm("without-speech").change)} == {
        "instrument",
        "pitch",
        "quality",
    }
    share = {"stages": {"bridge": 4, "joint": 60}, "data": {"speech_share": 0.25}, "run": {"batch_s": 48}}
    config = load_config("cpu-mini", share)
    prepared = prepare(config, [rows])
    heard = prepared.batches.planner.realised()
    assert heard["fsdd"] / sum(heard.values()) == pytest.approx(0.25, abs=0.01)
    config = load_config("cpu-mini", {"stages": {"bridge": 4, "joint": 60}, "data": {"tasks": ["pitch"]}})
    assert {entry["dataset"] for entry in prepare(config, [rows]).training_data} == {"philharmonia"}
    with pytest.raises(UsageError, match=r"data\.tasks: no task 'ptch'"):
        prepare(load_config("cpu-mini", {"data": {"tasks": ["ptch"]}}), [rows])
    with pytest.raises(UsageError, match="none of its datasets is at hand"):
        prepare(load_config("cpu-mini", {"data": {"tasks": ["asr"]}}), [rows])
