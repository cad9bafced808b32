"""Progress: time left follows the encoder's input, and a program is silent unless it asks."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

import uwbench
from conftest import Command
from uwbench import progress
from uwbench.encoders.base import EncoderInfo
from uwbench.extraction.batching import input_s
from uwbench.progress import Tally, duration, in_notebook


def info(context_s: float | None, forward_s: float = 0.0) -> EncoderInfo:
    return EncoderInfo("made", "made", 16_000, 1, ("last",), 0.02, context_s, forward_s=forward_s)


def test_time_left_is_right_if_the_shortest_clips_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoder that takes a second for 10 s of audio, and 100 clips of 1 to 100 s: 505 s in all."""
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    tally = Tally("made", 100, sum(range(1, 101)), start_s=0.0)
    for seconds in range(1, 101):
        clock[0] += seconds / 10
        tally.add(1, seconds, seconds)
        left = sum(range(seconds + 1, 101)) / 10
        assert tally.left_s == pytest.approx(left, abs=1e-6)
    assert tally.status() == "100/100 clips, 0.2 clips/s, 10 audio-s/s, in 505.0 s"


def test_without_lengths_time_left_follows_the_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    tally = Tally("made", 1000, start_s=0.0)
    clock[0] = 10.0
    tally.add(250, 0.0, 0.0)
    assert tally.status() == "250/1,000 clips, 25.0 clips/s, 30 s left"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (26, "26 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (725, "12 min"), (11_105, "3 h 5 min")],
)
def test_a_duration_is_said_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@given(st.floats(0.01, 1000))
def test_an_encoders_input_is_the_clip_with_its_padding(seconds: float) -> None:
    assert input_s(seconds, info(None)) == seconds
    assert input_s(seconds, info(10.0)) == pytest.approx(seconds)
    whisper = input_s(seconds, info(30.0, forward_s=30.0))
    assert whisper % 30 == 0
    assert seconds <= whisper < seconds + 30


@pytest.fixture
def tones(tmp_path: Path) -> Path:
    """A folder of two classes with 12 clips each, from a tenth of a second to two seconds."""
    for number in range(24):
        name, pitch = (("low", 300), ("high", 2000))[number % 2]
        (tmp_path / "tones" / name).mkdir(parents=True, exist_ok=True)
        seconds = np.arange(1600 * (1 + number)) / 16_000
        soundfile.write(tmp_path / "tones" / name / f"{number}.wav", np.sin(2 * np.pi * pitch * seconds), 16_000)
    return tmp_path / "tones"


def test_a_log_file_gets_the_plan_and_a_line_per_task(uwbench: Command, tones: Path) -> None:
    printed = uwbench("extract", "-m", "mfcc", "-t", tones).err
    assert "0 of 24 clips cached, 24 to encode" in printed
    assert re.search(r"^mfcc  tones: 24/24 clips, [\d.]+ clips/s, \d+ audio-s/s, in [\d.]+ s$", printed, re.M)
    assert "scan" not in printed, "a quick scan leaves no line"
    assert uwbench("extract", "-m", "mfcc", "-t", tones, "--quiet", "--force").err == ""


def test_a_program_is_silent_unless_it_asks(tones: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert not in_notebook()
    uwbench.extract("mfcc", tones)
    uwbench.check_data(tones)
    uwbench.probe("mfcc", "tones", methods="knn", progress=False)
    assert capfd.readouterr().err == ""
    uwbench.extract("logmel", tones, progress=True)
    assert "24/24 clips" in capfd.readouterr().err


def test_a_long_probe_leaves_a_line_in_a_log_and_a_short_one_none(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    reporter = progress.TerminalReporter()
    for seconds in (5.0, 75.0):
        reporter.started("mfcc", "tones (probe)", 0)
        reporter.tally.start_s = clock[0]
        clock[0] += seconds
        reporter.finished()
        clock[0] += 60.0
        reporter.finished()  # without a task
    assert capfd.readouterr().err == "mfcc  tones (probe): in 75.0 s\n"
