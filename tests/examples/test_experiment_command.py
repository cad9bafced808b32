"""The experiment's command: from a checkout, as a program, and without the example's files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import uniwhisper
from uniwhisper.cli.main import main
from uniwhisper_miniature.page import ARMS_MARKS

ROOT = Path(__file__).parents[2]


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> object:
    monkeypatch.setattr(sys, "argv", ["uniwhisper", "experiment", *words])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code


def test_uniwhisper_hands_the_arguments_to_the_example(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not call(monkeypatch, "--help")
    assert "--sentences" in capsys.readouterr().out
    line = ["--data", "d", "--encoder", "no-encoder", "--output", "o"]
    assert call(monkeypatch, *line, "--arm", "teacher") == 2
    assert "'teacher' is not one of" in capsys.readouterr().err
    assert call(monkeypatch, *line) == 2
    assert "--arm lm: needs a pretrained language model; give --lm FOLDER" in capsys.readouterr().err
    assert call(monkeypatch, *line, "--arm", "control") == 2
    assert "uniwhisper: no-encoder: is no Whisper folder" in capsys.readouterr().err


def test_without_a_checkout_one_line_says_where_the_example_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(uniwhisper, "__file__", str(tmp_path / "site-packages" / "uniwhisper" / "__init__.py"))
    assert call(monkeypatch, "--help") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "run it from a checkout of the repository: python examples/uniwhisper_miniature" in line


@pytest.mark.parametrize("words", [[str(ROOT / "examples" / "uniwhisper_miniature")], ["-m", "uniwhisper_miniature"]])
def test_the_folder_is_a_program(words: list[str]) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT / "bench"), str(ROOT / "examples")))}
    line = [sys.executable, *words, "--data", "d", "--encoder", "no-encoder", "--output", "o", "--arm", "whisper"]
    ended = subprocess.run(line, capture_output=True, text=True, check=False, env=env)
    assert ended.returncode == 2
    assert ended.stderr == "uniwhisper: no-encoder: is no Whisper folder (no model.safetensors)\n"


def test_the_command_on_a_page_names_what_was_given_and_no_local_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("uniwhisper_miniature.experiment.run_experiment", lambda *_, **__: None)
    monkeypatch.setattr("uniwhisper_miniature.page.report", lambda _: ["| table |"])
    page = tmp_path / "page.md"
    page.write_text("{}\n{}\n".format(*ARMS_MARKS))
    words = ["--data", "/mnt/data", "--encoder", "w", "--output", "out", "--jobs", "2", "--set", "run.seed=1"]
    assert not call(monkeypatch, *words, "--arm", "control", "--arm", "whisper", "--write-doc", str(page))
    expected = "--data data --encoder w --output out --set run.seed=1 --arm control --arm whisper"
    assert f"    uniwhisper experiment {expected}\n\n| table |\n" in page.read_text()
