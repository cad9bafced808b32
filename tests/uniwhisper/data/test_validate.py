"""The validator: clean data pass, and each planted fault is found by its check alone, with the row named."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from uniwhisper.cli.main import main
from uniwhisper.data.rows import Row, open_rows, write_rows
from uniwhisper.data.shards import Asked, Item, write_shards
from uniwhisper.data.validate import validate
from uwbench.api import AudioArray, InputError

Plant = Callable[[list[Row]], list[Row]]


def item(number: int, split: str = "train", seed: int | None = None) -> Item:
    noise = np.random.default_rng(number if seed is None else seed).uniform(-0.5, 0.5, 8_000 + 160 * number)
    audio = AudioArray(noise.astype(np.float32), 16_000, str(number))
    asked = (Asked("genre", ("jazz" if number % 2 else "rock",)), Asked("caption", ("A band plays.", "A noise.")))
    return Item("tunes", split, f"c{number}", "music", "CC BY 4.0", audio, asked)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    write_shards(folder, [item(number) for number in range(6)])
    (folder / "tunes.classes.json").write_text(json.dumps({"genre": ["jazz", "rock"]}))
    return folder


def rewritten(folder: Path, plant: Plant) -> Path:
    """Write the folder's index again with rows changed; the shards stay."""
    rows = [replace(row, audio=replace(row.audio, shard=Path(row.audio.shard).name)) for row in open_rows([folder])]
    (path,) = open_rows([folder]).files
    path.unlink()
    write_rows(folder, plant(rows))
    return folder


def first(**fields: object) -> Plant:
    return lambda rows: [replace(rows[0], **fields), *rows[1:]]


def faults(folder: Path, **options: Any) -> dict[str, int]:
    return {check.name: check.faults for check in validate([folder], **options) if check.faults}


def test_clean_data_pass_every_check(folder: Path) -> None:
    for decode in (False, True):
        checks = validate([folder], decode=decode)
        assert not [check.name for check in checks if check.faults]
        assert {check.name: check.seen for check in checks} == {
            "unique ids": 12,
            "questions": 12,
            "answers": 12,
            "answer length": 12,
            "closed sets": 6,
            "licences": 12,
            "audio": 6,
            "one split an audio": 6,
        }


@pytest.mark.parametrize(
    ("plant", "check", "message"),
    [
        (lambda rows: [*rows, rows[0]], "unique ids", "is there twice"),
        (first(task="dance"), "questions", "no task 'dance'"),
        (first(task="st"), "questions", "needs target"),
        (first(instruction="  "), "questions", "instruction is empty"),
        (first(task="caption", answers=("A song.", "")), "answers", "an answer is empty"),
        (first(task="lid", answers=()), "answers", "has no answer"),
        (first(task="caption", answers=("  A song.",)), "answers", "not in normal form"),
        (first(task="caption", answers=("#" * 40,)), "answers", "is not text"),
        (first(task="caption", answers=("word " * 60 + ".",)), "answer length", "301 bytes"),
        (first(answers=("polka",)), "closed sets", "'polka' is not one of the 2 possible answers"),
        (first(task="lid", answers=("fr",)), "closed sets", "'fr' is not one of"),
        (first(task="gender", answers=("other",)), "closed sets", "'other' is not one of the 2"),
        (first(licence="CC BY-NC 4.0"), "licences", "'CC BY-NC 4.0' is not on the list"),
        (first(licence=""), "licences", "not on the list"),
        (
            lambda rows: [replace(row, duration_s=row.duration_s + 0.001) for row in rows[:1]],
            "audio",
            "row says 0.5010 s",
        ),
        (lambda rows: [replace(rows[0], audio=replace(rows[0].audio, offset=0))], "audio", "no FLAC file"),
        (lambda rows: [replace(rows[0], audio=replace(rows[0].audio, size=10**9))], "audio", "ends before"),
        (lambda rows: [replace(rows[0], audio=replace(rows[0].audio, shard="gone.tar"))], "audio", "cannot be read"),
    ],
)
def test_a_planted_fault_is_found_by_its_check_and_named(folder: Path, plant: Plant, check: str, message: str) -> None:
    rewritten(folder, plant)
    assert faults(folder) == {check: 1}
    (failed,) = [check for check in validate([folder]) if check.faults]
    assert failed.examples[0].startswith("tunes/c0:")
    assert message in failed.examples[0]


def test_a_damaged_clip_is_found_by_decoding_alone(folder: Path) -> None:
    row = open_rows([folder])[4]
    path = Path(row.audio.shard)
    data = bytearray(path.read_bytes())
    data[row.audio.offset + row.audio.size // 2] ^= 255
    path.write_bytes(data)
    assert faults(folder) == {}
    assert faults(folder, decode=True) == {"audio": 1}


def test_the_same_audio_in_two_splits_is_found_across_folders(folder: Path, tmp_path: Path) -> None:
    write_shards(tmp_path / "more", [item(9, "valid"), item(2, "valid"), item(3, "train")])
    groups = {check.name: check for check in validate([folder, tmp_path / "more"])}["one split an audio"]
    assert (groups.seen, groups.faults) == (9, 1)
    assert "tunes/c2:genre of the split train" in groups.examples[0]


def test_tokens_are_counted_by_a_tokenizer_and_licences_allowed_by_name(folder: Path) -> None:
    rewritten(folder, lambda rows: [replace(rows[1], answers=("word " * 59 + "end.",), licence="academic use only")])
    assert faults(folder) == {"answer length": 1, "licences": 1}
    assert faults(folder, tokens=lambda text: len(text.split()), allow=("academic use only",)) == {}
    assert faults(folder, tokens=lambda text: 257) == {"answer length": 1, "licences": 1}


def test_the_command_prints_a_table_and_leaves_with_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def call(*words: object) -> int:
        monkeypatch.setattr(sys, "argv", ["uniwhisper", "check", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0)

    assert call(folder, "--config", "cpu-mini") == 0
    assert call(folder) == 0
    assert "one split an audio" in capsys.readouterr().out
    rewritten(folder, first(answers=("polka",)))
    assert call(folder) == 1
    assert "closed sets: tunes/c0:genre: 'polka'" in capsys.readouterr().out
    assert call(folder / "nowhere") == 2
    with pytest.raises(InputError, match="holds no rows"):
        validate([folder / "nowhere"])
