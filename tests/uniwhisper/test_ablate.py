"""Ablations: arms that ship change one thing of the full recipe; what a run refuses, and that one trains."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from uniwhisper.ablate import Arm, arms, changes, find_arm, run_arm
from uniwhisper.cli import main
from uwbench.api import InputError, UsageError

sys.path.insert(0, str(Path(__file__).parent))
from packed import pack
from runs import LM

BASE = {"lm": LM, "data": {"mixture": "mini", "bins": 1}, "stages": {"bridge": 1, "joint": 3}}
RUN = {"batch_s": 24, "micro_batch_s": 24, "save_every": 100}


@pytest.mark.parametrize("arm", arms(), ids=lambda arm: arm.name)
def test_a_shipped_arm_changes_one_key_of_the_full_recipe(arm: Arm) -> None:
    found = changes(arm, "full")
    ((key, (before, after)),) = found.items()
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
    assert json.loads(capsys.readouterr().out)["whisper-decoder"] == {"lm.kind": ["qwen3", "whisper"]}


def test_an_arm_that_changes_two_things_is_refused_before_it_trains(tmp_path: Path) -> None:
    path = tmp_path / "both.yaml"
    path.write_text("title: two\nchange: {adapter: {stack: 8}, encoder: {lr: 5.0e-5}}\n")
    with pytest.raises(UsageError, match="changes 2 things: encoder"):
        run_arm(find_arm(str(path)), "cpu-mini", [tmp_path], tmp_path / "run")
    with pytest.raises(UsageError, match="changes nothing"):
        run_arm(find_arm("random-lm"), "cpu-mini", [tmp_path], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_unknown_arms_and_files_of_another_form_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="stack-4"):
        find_arm("stack-4")
    path = tmp_path / "arm.yaml"
    path.write_text("adapter: {stack: 8}\n")
    with pytest.raises(InputError, match="title"):
        find_arm(str(path))
    with pytest.raises(InputError, match="cannot be read"):
        find_arm(str(tmp_path / "none.yaml"))


def test_an_arm_trains_with_its_change_alone_or_with_several_when_asked(
    shared_data: Path, whisper_tiny: Path, tmp_path: Path
) -> None:
    pack(shared_data, tmp_path / "rows", 24)
    base = {**BASE, "run": RUN, "encoder": {"init": str(whisper_tiny)}}
    folder = run_arm(find_arm("stack-8"), "cpu-mini", [tmp_path / "rows"], tmp_path / "one", base=base)
    trained = json.loads((folder / "trainer.json").read_text())["config"]
    assert (trained["adapter"]["stack"], trained["lm"]["dim"]) == (8, LM["dim"])
    both = Arm("both", "two", {"adapter": {"stack": 2}, "encoder": {"lr": 5e-5}})
    folder = run_arm(both, "cpu-mini", [tmp_path / "rows"], tmp_path / "two", base=base, allow_several=True)
    trained = json.loads((folder / "trainer.json").read_text())["config"]
    assert (trained["adapter"]["stack"], trained["encoder"]["lr"]) == (2, 5e-5)
