"""AAC, MP4, WebM and WMA through PyAV: the samples, the header, stretches, keys, and what is said without PyAV."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import missing
from media_files import encoded, tone
from uwbench.audio import media
from uwbench.audio.clip import AudioBytes, AudioFile, Clip
from uwbench.audio.decode import decode, decode_windows, read_header
from uwbench.audio.scan import Scanned, scan_clips
from uwbench.errors import AudioError
from uwbench.options import TaskSpec
from uwbench.sources.resolve import open_task

RATE = 44_100
# The delay of encoder and decoder that stays in the samples, and the least correlation with what was encoded.
FORMATS = {
    ".m4a": (0, 0.999),
    ".mp4": (0, 0.999999),
    ".aac": (1024, 0.999),
    ".webm": (0, 0.999),
    ".wma": (0, 0.0),  # its delay is not a whole number of frames
}


@pytest.fixture(scope="session")
def av() -> None:
    """Need the library that FFmpeg comes with."""
    if not media.is_installed():
        missing("the package av")


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("suffix", FORMATS)
def test_the_samples_are_those_encoded(suffix: str, channels: int, av: None, tmp_path: Path) -> None:
    delay, least = FORMATS[suffix]
    rate = 48_000 if suffix == ".webm" else RATE
    samples = tone(rate)
    path = tmp_path / f"x{suffix}"
    path.write_bytes(encoded(suffix, samples, rate, channels))
    header = read_header(AudioFile(path))
    assert (header.rate, header.channels, header.decoder) == (rate, channels, media.decoder())
    assert abs(header.duration_s - 1.0) < 0.05
    read = decode(AudioFile(path), rate)
    assert (read == decode(AudioBytes(path.read_bytes(), "a name without suffix"), rate)).all()
    assert (read == decode(AudioFile(path), rate)).all()
    assert (np.concatenate(list(decode_windows(AudioFile(path), rate, 1000))) == read).all()
    assert abs(len(read) / rate - header.duration_s) < 0.06
    if least:
        assert np.corrcoef(samples[4000:40_000], read[delay + 4000 : delay + 40_000])[0, 1] > least
    assert 0.3 < np.abs(read).max() < 0.6
    part = decode(AudioFile(path), rate, start_s=0.25, end_s=0.5)
    assert (part == read[round(0.25 * rate) : round(0.5 * rate)]).all()
    assert abs(len(decode(AudioFile(path), 16_000)) / 16_000 - len(read) / rate) < 0.001  # soxr resamples


def test_the_padding_of_an_mp4_is_no_audio(av: None) -> None:
    for count in (3000, 44_099):
        data = encoded(".m4a", tone(RATE)[:count], RATE)
        assert len(decode(AudioBytes(data, "x"), RATE)) == count


@pytest.mark.parametrize("suffix", FORMATS)
def test_damaged_files_are_errors_or_shorter(suffix: str, av: None, capfd: pytest.CaptureFixture[str]) -> None:
    data = encoded(suffix, tone(RATE if suffix != ".webm" else 48_000), RATE if suffix != ".webm" else 48_000)
    for size in (12, 40, 300, len(data) // 2, len(data) - 10):
        with suppress(AudioError):
            assert 0 < len(decode(AudioBytes(data[:size], f"x{suffix}"), 16_000)) < 17_000
    assert capfd.readouterr() == ("", "")


def test_the_decoder_is_part_of_a_clips_key(av: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, memory = tmp_path / "x.m4a", tmp_path / "clips" / "x.scan.parquet"
    memory.parent.mkdir()
    path.write_bytes(encoded(".m4a", tone(RATE), RATE))
    clip = Clip("x", AudioFile(path), "a", "train")

    def key() -> bytes:
        (scanned,) = scan_clips([clip], memory)
        assert isinstance(scanned, Scanned)
        return scanned.key

    first = key()
    assert key() == first
    monkeypatch.setattr(media, "decoder", lambda: "ffmpeg 1.2.3 4.5.6")
    assert key() != first
    monkeypatch.undo()
    assert key() == first


def folder_of(root: Path) -> Path:
    """Write a folder of two classes with an M4A, a WAV and a WebM in each fifth clip."""
    import soundfile

    for number, label in enumerate(("high", "low")):
        (root / label).mkdir(parents=True)
        for i in range(15):
            samples = tone(48_000, 0.3, 300 * (number + 1) + 10 * i)
            path = root / label / f"{i}{('.m4a', '.wav', '.webm')[i % 3]}"
            if path.suffix == ".wav":
                soundfile.write(path, samples, 48_000)
            else:
                path.write_bytes(encoded(path.suffix, samples, 48_000))
    return root


def test_from_media_to_a_score(av: None, tmp_path: Path, uwbench: Callable[..., Any], quick: Path) -> None:
    folder = folder_of(tmp_path / "tones")
    checked = uwbench("data", "check", folder, "--json")
    assert checked.code == 0, checked.out
    assert json.loads(checked.out)["clips"] == 30
    ran = uwbench("run", "-m", "logmel", "-t", folder, "--protocol", quick)
    assert ran.code == 0, ran.err


NO_AV = {".m4a": b"\0\0\0\x20ftypM4A \0\0\2\0", ".webm": b"\x1a\x45\xdf\xa3", ".aac": b"\xff\xf1\x50\x80"}
NO_AV |= {".wma": bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")}


@pytest.mark.parametrize("suffix", NO_AV)
def test_without_pyav_the_extra_is_named(suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "is_installed", lambda: False)
    with pytest.raises(AudioError, match=r"x: is in a format that needs PyAV; pip install 'uwbench\[media\]'"):
        decode(AudioBytes(NO_AV[suffix] + bytes(1000), "x"), 16_000)


def test_without_pyav_the_files_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_data: Path, uwbench: Callable[..., Any], quick: Path
) -> None:
    monkeypatch.setattr(media, "is_installed", lambda: False)
    for number, label in enumerate(("a", "b")):
        (tmp_path / "x" / label).mkdir(parents=True)
        for i in range(10):
            name = f"{number}_george_{i}.wav"
            data = (shared_data / "fsdd" / "recordings" / name).read_bytes()
            path = tmp_path / "x" / label / name
            (path.with_suffix(".m4a") if i < 3 else path).write_bytes(NO_AV[".m4a"] + bytes(900) if i < 3 else data)
    note = "6 of 20 clips need PyAV to be decoded (6 .m4a): pip install 'uwbench[media]'"
    assert note in open_task(TaskSpec(tmp_path / "x")).problems
    checked = uwbench("data", "check", tmp_path / "x")
    assert checked.code == 1
    assert "6 clips cannot be decoded" in checked.out
    ran = uwbench("run", "-m", "logmel", "-t", tmp_path / "x", "--protocol", quick)
    assert ran.code == 1
    assert note in ran.err
    assert "pip install 'uwbench[media]'" in ran.err
