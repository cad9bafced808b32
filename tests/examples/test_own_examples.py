"""The short example programs run, and the tutorial shows their code and their output."""

from __future__ import annotations

import importlib
import re
import sys

import pytest

from conftest import ROOT, Command

TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
NUMBER = re.compile(r"\d+\.\d+|\d+")
# Numbers of a run on another machine may differ a little: a score, or the clips in a cell of a confusion matrix.
SCORE_TOLERANCE, COUNT_TOLERANCE = 0.15, 4


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TUTORIAL, re.M | re.S)


def run_example(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr(sys, "argv", [f"{name}.py"])
    importlib.import_module(name).main()
    return capsys.readouterr().out


def assert_close(printed: str, shown: str) -> None:
    """Compare two outputs word by word, numbers within a tolerance."""
    words, expected = printed.split(), shown.split()
    assert [NUMBER.sub("#", word) for word in words] == [NUMBER.sub("#", word) for word in expected], printed
    for word, wanted in zip(NUMBER.findall(printed), NUMBER.findall(shown), strict=True):
        tolerance = SCORE_TOLERANCE if "." in wanted else COUNT_TOLERANCE
        assert float(word) == pytest.approx(float(wanted), abs=tolerance), printed


@pytest.mark.parametrize("name", ["own_data", "own_encoder"])
def test_an_example_prints_what_the_tutorial_shows(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    part = TUTORIAL.partition(f"python {name}.py")[2].partition("python own_")[0]
    shown = re.findall(r"^```text\n(.*?)^```", part, re.M | re.S)
    assert shown
    assert_close(run_example(name, monkeypatch, capsys), "".join(shown))


def test_an_example_is_an_encoder_for_the_command_line(uwbench: Command) -> None:
    done = uwbench("run", "-m", f"{ROOT / 'examples' / 'own_encoder.py'}:Motion", "-t", "mini_music", "--method", "knn")
    assert done.code == 0, done.err
    assert "motion" in done.out


def test_the_tutorials_code_is_that_of_the_examples() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "examples").glob("own_*.py")))
    assert len(blocks("python")) >= 4
    for block in blocks("python"):
        assert block in sources, block
