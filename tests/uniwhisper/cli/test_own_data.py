"""The page on own data: its commands run in their order, from a table to scores; what goes wrong is told."""

from __future__ import annotations

import csv
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml

import uwbench.cli.main
from packed import pack
from small_whisper import ENCODER
from uniwhisper.cli.main import main
from uniwhisper.config import load_config
from uniwhisper.data.mixture import load_mixture
from uniwhisper.sampling.own_mixture import mixture_of_data, write_mixture
from uniwhisper.sampling.prepare import prepare
from uwbench.api import InputError, UsageError

PAGE = (Path(__file__).parents[3] / "docs" / "uniwhisper-own-data.md").read_text(encoding="utf-8")
COMMANDS = [
    shlex.split(line)
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.M | re.S)
    for line in block.splitlines()
    if line.strip()
]
# A smaller run than the page's: four steps with the small Whisper and a few thousand parameters behind it.
FASTER = {f"encoder.{name}": value for name, value in ENCODER.items()} | {
    "lm.shape.hidden_size": 32,
    "lm.shape.num_hidden_layers": 1,
    "lm.shape.intermediate_size": 32,
    "stages.bridge": 2,
    "stages.joint": 2,
    "data.bins": 1,
}


def call(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    program = main if words[0] == "uniwhisper" else uwbench.cli.main.main
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as end:
        program()
    return int(end.value.code or 0)


@pytest.fixture
def workplace(tmp_path: Path, small_whisper: Path) -> Path:
    """The page's table with 48 tones of two seconds, and a Whisper."""
    shutil.copytree(small_whisper, tmp_path / "my_whisper")
    folder = tmp_path / "my_data" / "clips"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = []
    for index in range(48):
        pitch, name = ((300, "dog bark"), (2000, "siren"))[index % 2]
        tone = np.sin(2 * np.pi * pitch * np.arange(32_000) / 16_000)
        soundfile.write(folder / f"{index}.wav", 0.3 * tone + 0.05 * rng.standard_normal(32_000), 16_000)
        split = ("train", "train", "valid", "test")[index // 2 % 4]
        rows.append((f"clips/{index}.wav", split, name, "A sound is heard in a yard." if index % 3 else ""))
    with (tmp_path / "my_data" / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "split", "sound", "caption"), *rows])
    return tmp_path


def test_the_commands_lead_from_a_table_to_scores(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    assert [words[1] for words in COMMANDS] == ["convert", "check", "mix", "train", "export", "run", "evaluate"]
    printed = {}
    for words in COMMANDS[:-1]:  # what `evaluate` does is tested elsewhere
        faster = [word for key, value in FASTER.items() for word in ("--set", f"{key}={value}")]
        assert call([*words, *(faster if words[1] == "train" else ())], monkeypatch) == 0, words
        printed[words[1]] = capsys.readouterr()
    assert re.search(r"my_data: 24 clips, 40 rows", printed["convert"].out)
    assert re.search(r"my_data +sound .* own +CC BY 4.0", printed["mix"].out)
    assert re.search(r"^run: step +4 joint", printed["train"].err, re.M)
    assert "uniwhisper" in printed["run"].out
    listed = (workplace / "my_encoder" / "uniwhisper.json").read_text()
    assert '"dataset": "my_data"' in listed
    assert call(COMMANDS[2], monkeypatch) == 2
    assert "my_mixture.yaml: is there already" in capsys.readouterr().err


def test_a_written_mixture_is_read_back_and_keeps_what_is_known(shared_data: Path, tmp_path: Path) -> None:
    pack(shared_data, tmp_path / "rows", 6)
    pack(shared_data, tmp_path / "rows", 3, split="test")
    mixture = mixture_of_data([tmp_path / "rows"], "mine", load_mixture("mini"))
    path = write_mixture(mixture, tmp_path / "mine.yaml")
    assert load_mixture(str(path)) == mixture
    entries = {entry.name: entry for entry in mixture.datasets}
    assert entries["esc10"].overlaps == ("esc50",)
    alone = {entry.name: entry for entry in mixture_of_data([tmp_path / "rows"], "mine").datasets}
    assert alone.keys() == {"fsdd", "esc10", "philharmonia"}
    assert (alone["fsdd"].tasks, alone["fsdd"].domain) == (("keyword", "speaker_id"), "speech")
    assert alone["esc10"].hours == pytest.approx(6 * 5 / 3600, abs=0.001)
    assert yaml.safe_load(path.read_text())["caps"]["small_epochs"] == 60


def test_data_that_no_mixture_names_are_told_how_to_be_used(shared_data: Path, tmp_path: Path) -> None:
    pack(shared_data, tmp_path / "rows", 6)
    config = load_config("cpu-mini")
    with pytest.raises(UsageError, match=r"none of its datasets is at hand; the data hold esc10, .* --write my_mix"):
        prepare(config, [tmp_path / "rows"], mixture="candidate-38k-strict")
    pack(shared_data, tmp_path / "held", 2, split="test")
    with pytest.raises(InputError, match="no rows are of the split train"):
        mixture_of_data([tmp_path / "held"], "mine")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--label", "sound"], "'sound' has no question; give --label sound --task TASK"),
        (["--label", "sound", "--task", "sound_cls", "--task", "caption"], "2 tasks for 1 labels"),
        (["--label", "sound", "--task", "sound_class"], "did you mean sound_cls"),
    ],
)
def test_questions_that_do_not_fit_are_named(
    words: list[str],
    told: str,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = ["uniwhisper", "convert", "my_data/manifest.csv", "--licence", "CC0", "--output", "train", *words]
    assert call(line, monkeypatch) == 2
    assert told in capsys.readouterr().err
