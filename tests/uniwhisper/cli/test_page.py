"""The companion's page: cheap commands run, all options exist, and the costs are those that the command prints."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from uniwhisper.cli.main import app, main
from uniwhisper_miniature.command import app as experiment

PAGE = (Path(__file__).parents[3] / "docs" / "uniwhisper.md").read_text(encoding="utf-8")
COMMANDS = [shlex.split(line) for line in re.findall(r"^    uniwhisper (.*)$", PAGE, re.M)]
CHEAP = ("plan", "mix", "ablate")


def test_the_page_shows_every_kind_of_command() -> None:
    shown = {words[0] for words in COMMANDS}
    assert shown >= {"plan", "convert", "mix", "train", "export", "evaluate", "ablate"}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_documented_command_has_its_options(words: list[str]) -> None:
    group: Any = get_command(app)
    # The experiment is an example: the command hands its options on.
    command: Any = get_command(experiment) if words[0] == "experiment" else group.commands[words[0]]
    options = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= options


@pytest.mark.parametrize("words", [words for words in COMMANDS if words[0] in CHEAP], ids=" ".join)
def test_a_cheap_documented_command_runs(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["uniwhisper", *words])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    printed = capsys.readouterr().out
    assert printed
    if words == ["plan", "full"]:
        assert "".join(f"    {line}\n" for line in printed.splitlines()) in PAGE
