"""Real recordings through the command line: coin-flip labels and an encoder that ignores its input score at chance, and
a test clip copied into the training split is found.
"""

from __future__ import annotations

import csv
import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import soundfile

from conftest import Command

CLIPS = {"train": 96, "valid": 48, "test": 60}
# Each label has half of the clips. By chance, a prediction for each of the 60 test clips is a coin flip: the standard
# error is sqrt(0.25 / 60) = 0.065, and 6 of 100,000 runs are more than four of them away. Seeds are fixed.
AROUND = 4 * math.sqrt(0.25 / CLIPS["test"])
DEAF = """
import torch
from uwbench.encoders.base import Encoded, EncoderInfo

class Deaf:
    info = EncoderInfo(name="deaf", family="deaf", sample_rate=16000, dim=8, layers=("out",), hop_s=0.02, min_s=0.02,
                       context_s=None, identity={})

    def load(self, device, dtype):
        pass

    def encode(self, waveforms, lengths, layers):
        frames = torch.arange(8.0).expand(len(waveforms), len(layers), -(-waveforms.shape[1] // 320), 8)
        return Encoded(frames, torch.clamp((lengths + 319) // 320, min=1))
"""


@pytest.fixture
def digits(shared_data: Path, tmp_path: Path) -> Path:
    """Two spoken digits by six speakers, with two more columns: one fair coin, and two coins, for each clip."""
    with (shared_data / "fsdd" / "manifest.csv").open(encoding="utf-8", newline="") as file:
        listed = [row for row in csv.DictReader(file) if row["digit"] in "38"]
    rng, rows = random.Random(1), []
    for split, count in CLIPS.items():
        coins = ["heads", "tails"] * (count // 2)
        rng.shuffle(coins)
        chosen = []
        for digit in "38":
            of_digit = [row for row in listed if row["split"] == split and row["digit"] == digit]
            chosen += rng.sample(of_digit, count // 2) if len(of_digit) >= count // 2 else of_digit
        for row, coin in zip(chosen, coins, strict=True):
            both = ";".join([coin, rng.choice(["red", "black"])])
            path = shared_data / "fsdd" / row["path"]
            rows.append({"path": str(path), "digit": row["digit"], "coin": coin, "coins": both, "split": split})
    folder = tmp_path / "digits"
    folder.mkdir()
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / "manifest.csv"


def test_coins_and_the_deaf_score_at_chance_on_real_speech(digits: Path, tmp_path: Path, uwbench: Command) -> None:
    deaf = tmp_path / "deaf.py"
    deaf.write_text(DEAF)

    def scores(model: object, label: str, *more: str) -> dict[str, Any]:
        words = ("-m", model, "-t", digits, "--label", label, "--name", label, "--allow-outside", *more)
        done = uwbench("run", *words, "--json")
        assert done.code == 0, done.err
        (result,) = json.loads(done.out)
        return {method: score["main_score"] for method, score in result["scores"].items()} | {"n": result["task"]["n"]}

    heard = scores("logmel", "digit")
    assert heard.pop("n") == CLIPS["test"]
    assert min(heard.values()) > 0.5 + AROUND, heard  # the task can be learnt
    # mAP by chance is the share of a class, one half; its spread is below that of an accuracy.
    scores_of = {
        "coin": scores("logmel", "coin"),
        "coins": scores("logmel", "coins", "--kind", "multi-label"),
        "deaf": scores(f"{deaf}:Deaf", "digit"),
    }
    for name, by_method in scores_of.items():
        assert by_method.pop("n") == CLIPS["test"]
        for method, score in by_method.items():
            assert abs(score - 0.5) < AROUND, (name, method, score)


def test_a_test_clip_among_the_training_clips_is_reported(digits: Path, tmp_path: Path, uwbench: Command) -> None:
    """One copy under another name, and one with the same samples in another format."""
    with digits.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    tested = [row for row in rows if row["split"] == "test"]
    clean = uwbench("data", "check", digits, "--label", "digit", "--allow-outside", "--json")
    assert "leak" not in clean.out, clean.out
    planted = ((tested[0], "copy.wav"), (tested[1], "copy.flac"))
    for row, name in planted:
        samples, rate = soundfile.read(row["path"], dtype="int16")
        soundfile.write(digits.parent / name, samples, rate)
        rows.append({**row, "path": name, "split": "train"})
    with digits.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    found = uwbench("data", "check", digits, "--label", "digit", "--allow-outside", "--json")
    assert found.code == 1
    errors = [one for one in json.loads(found.out)["problems"] if one["severity"] == "error"]
    named = {clip for one in errors for clip in one["clips"]}
    assert named == {path for row, name in planted for path in (name, row["path"])}
