"""Names in data are plain text: no escape reaches the terminal, no file leaves its folder, no cell is a formula."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from conftest import Command
from uwbench.errors import InputError, printable

TITLE = "\x1b]0;owned\x07\x1b[2J"  # sets the terminal's title and clears the screen
NAMES = {
    "escape": f"a{TITLE}",
    "turned": "a\u202egnp.exe",
    "emoji": "👩\u200d🔬 déjà",
    "long": "a" * 4096,
    "formula": '=HYPERLINK("http://127.0.0.1","x")',
    "markup": "<script>alert(1)</script>[bold]x[/bold]",
    "up": "../../etc/passwd",
}
ENCODER = """
import torch
from uwbench.encoders.base import Encoded, EncoderInfo

class Bands:
    info = EncoderInfo(
        name={name!r}, family="bands", sample_rate=16000, dim=8, layers=("bands",), hop_s=0.02, min_s=0.02,
        context_s=None, identity={{}},
    )

    def load(self, device, dtype):
        pass

    def encode(self, waveforms, lengths, layers):
        padded = torch.nn.functional.pad(waveforms, (0, -waveforms.shape[1] % 320))
        frames = padded.reshape(len(padded), -1, 8, 40).square().mean(-1)
        return Encoded(frames[:, None], torch.clamp((lengths + 319) // 320, min=1))
"""


def write_task(folder: Path, label: str, missing: str | None = None) -> Path:
    """Write six short tones in two classes, one of them named `label`; `missing` adds a path that does not exist."""
    folder.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["path", "label", "split"])
    for place in range(6):
        tone = 0.3 * np.sin(np.arange(4000) * (0.1 if place % 2 else 0.5) + place)
        with (folder / f"{place}.wav").open("wb") as file:
            soundfile.write(file, tone, 16_000, format="WAV")
        rows.writerow([f"{place}.wav", label if place % 2 else "plain", "train" if place < 4 else "test"])
    if missing is not None:
        rows.writerow([missing, "plain", "train"])
    (folder / "manifest.csv").write_text(text.getvalue(), encoding="utf-8")
    return folder / "manifest.csv"


def is_clean(*texts: str) -> bool:
    return not any(sign in text for text in texts for sign in ("\x1b]", "\x07", "\x1b[2J", "\u202e"))


@pytest.mark.parametrize("kind", NAMES)
def test_a_label_of_any_text_is_a_class_like_others(kind: str, tmp_path: Path, uwbench: Command) -> None:
    manifest = write_task(tmp_path / "set", NAMES[kind])
    done = uwbench("run", "-m", "logmel", "-t", manifest, "--seed", "0")
    assert done.code == 0, done.err
    assert is_clean(done.out, done.err)
    for form in ("csv", "md", "html"):
        board = tmp_path / f"board.{form}"
        printed = uwbench("leaderboard", "--format", form, "--output", board)
        assert printed.code == 0, printed.err
        text = board.read_text(encoding="utf-8")
        assert is_clean(printed.out, printed.err, text.replace("\u202e", "") if form == "html" else text)
        assert "<script>alert" not in text


@pytest.mark.parametrize("kind", NAMES)
def test_a_clip_of_any_name_that_is_not_there_is_named_in_one_line(kind: str, tmp_path: Path, uwbench: Command) -> None:
    manifest = write_task(tmp_path / "set", "other", missing=NAMES[kind])
    done = uwbench("extract", "-m", "logmel", "-t", manifest)
    assert done.code in (1, 2)
    assert is_clean(done.out, done.err)
    assert "Traceback" not in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "data", "results", "set"]


@pytest.mark.parametrize("kind", NAMES)
def test_a_model_of_any_name_is_text_on_every_board(kind: str, tmp_path: Path, uwbench: Command) -> None:
    manifest = write_task(tmp_path / "set", "other")
    model = tmp_path / "bands.py"
    model.write_text(ENCODER.format(name=NAMES[kind]), encoding="utf-8")
    done = uwbench("run", "-m", f"{model}:Bands", "-t", manifest, "--seed", "0")
    assert done.code == 0, done.err
    printed = [done.out, done.err]
    for form in ("csv", "md", "html"):
        board = tmp_path / f"board.{form}"
        shown = uwbench("leaderboard", "--format", form, "--output", board)
        assert shown.code == 0, shown.err
        text = board.read_text(encoding="utf-8")
        # A browser confines a change of direction to its text; a terminal does not.
        printed += [shown.out, shown.err, text.replace("\u202e", "") if form == "html" else text]
    printed += [uwbench("leaderboard").out, uwbench("models").out, uwbench("cache", "ls").out]
    assert is_clean(*printed)
    assert "<script>alert" not in (tmp_path / "board.html").read_text(encoding="utf-8")
    for row in csv.DictReader(io.StringIO((tmp_path / "board.csv").read_text(encoding="utf-8"))):
        assert not row["model"].startswith(("=", "+", "-", "@"))
        assert all(float(row[name]) >= 0 for name in ("score", "low", "high") if row[name])
    inside = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*")}
    assert inside <= {
        "cache",
        "data",
        "results",
        "set",
        "bands.py",
        "__pycache__",
        "board.csv",
        "board.md",
        "board.html",
    }


@pytest.mark.parametrize("kind", NAMES)
def test_a_task_is_named_in_plain_letters_or_refused(kind: str, tmp_path: Path, uwbench: Command) -> None:
    manifest = write_task(tmp_path / "set", "other")
    done = uwbench("extract", "-m", "logmel", "-t", manifest, "--name", NAMES[kind])
    assert done.code == 2
    assert is_clean(done.out, done.err)
    assert "Traceback" not in done.err


def test_errors_show_control_characters_as_escapes() -> None:
    error = InputError(f"bad {TITLE}", where=f"x{TITLE}", remedy="y\u202e")
    assert str(error) == "x\\x1b]0;owned\\x07\\x1b[2J: bad \\x1b]0;owned\\x07\\x1b[2J; y\\u202e"
    assert printable("tab\tand\nline, 👩\u200d🔬") == "tab\tand\nline, 👩\u200d🔬"


@pytest.mark.parametrize("where", ["result", "store", "jsonl", "config"])
def test_json_of_great_depth_is_an_error_of_its_file(where: str, tmp_path: Path, uwbench: Command) -> None:
    deep = '{"a":' * 20_000 + "1" + "}" * 20_000
    manifest = write_task(tmp_path / "set", "other")
    assert uwbench("run", "-m", "logmel", "-t", manifest, "--seed", "0").code == 0
    if where == "result":
        path = next((tmp_path / "results").rglob("set.json"))
        words: tuple[object, ...] = ("leaderboard",)
    elif where == "store":
        path = next((tmp_path / "cache").rglob("encoder.json"))
        words = ("probe", "-t", "set")
    elif where == "jsonl":
        path = tmp_path / "set" / "manifest.jsonl"
        words = ("extract", "-m", "logmel", "-t", path)
    else:
        path = tmp_path / "model" / "config.json"
        path.parent.mkdir()
        words = ("extract", "-m", path.parent, "-t", manifest)
    path.write_text(deep)
    with pytest.raises(RecursionError):  # what a careless reader would run into
        json.loads(deep)
    done = uwbench(*words)
    assert path.name in done.err + done.out
    assert "Traceback" not in done.err


def test_a_folder_whose_name_is_not_utf8_is_a_folder_like_others(tmp_path: Path, uwbench: Command) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    try:
        manifest = write_task(folder, "other")
    except OSError as error:  # macOS
        pytest.skip(f"the file system takes UTF-8 alone ({error})")
    where = ("--cache", folder / "cache", "--results", folder / "results")
    first = uwbench("run", "-m", "logmel", "-t", manifest, *where)
    again = uwbench("run", "-m", "logmel", "-t", manifest, *where)
    assert (first.code, again.code) == (0, 0), first.err + again.err
    assert "6 of 6 clips cached" in again.err
    assert r"caf\udce9" in first.out + first.err
    board = folder / os.fsdecode(b"\xff.html")
    assert uwbench("leaderboard", "--results", folder / "results", "--format", "html", "--output", board).code == 0
    assert "logmel" in board.read_text(encoding="utf-8")
    for command in (("cache", "verify"), ("cache", "ls"), ("cache", "prune")):
        done = uwbench(*command, "--cache", folder / "cache")
        assert done.code == 0, done.err
        assert r"caf\udce9" in done.out


def test_a_clip_whose_name_is_not_utf8_is_named_by_its_escapes(tmp_path: Path, uwbench: Command) -> None:
    """It would be text in a table, and no such text can be written."""
    for label in ("a", "b"):
        write_task(tmp_path / "set" / label, "other")
    odd = tmp_path / "set" / "a" / os.fsdecode(b"caf\xe9.wav")
    try:
        (tmp_path / "set" / "a" / "0.wav").rename(odd)
    except OSError as error:
        pytest.skip(f"the file system takes UTF-8 alone ({error})")
    done = uwbench("run", "-m", "logmel", "-t", tmp_path / "set")
    assert done.code == 1
    assert r"the name 'a/caf\udce9.wav' is not UTF-8; rename it" in done.err
