"""A file has one answer: by path or from bytes, under any name, of any size, whatever lies before its first frame."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from uwbench.audio.clip import AudioBytes, AudioFile
from uwbench.audio.decode import decode, read_header
from uwbench.errors import AudioError

TONE = np.sin(np.arange(32_000) / 10).astype(np.float32) * 0.5
BEFORE = {
    "nothing": b"",
    "zero": b"\0",
    "zeros": bytes(4096),
    "many zeros": bytes(200_000),
    "text": b"recorded in 2019\n" * 200,
    "noise": np.random.default_rng(0).bytes(3000),
    "an empty ID3 tag": b"ID3\3\0\0\0\0\0\0" + bytes(500),
}


def encoded(rate: int, kind: str) -> bytes:
    sink = io.BytesIO()
    soundfile.write(sink, TONE, rate, format=kind)
    return sink.getvalue()


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("rate", [11_025, 16_000, 44_100, 48_000])
def test_bytes_before_an_mp3_change_nothing(before: str, rate: int, tmp_path: Path) -> None:
    mp3 = encoded(rate, "MP3")
    expected = decode(AudioBytes(mp3, "clean"), rate)
    data = BEFORE[before] + mp3
    for name in ("x.mp3", "x.wav", "x.raw", "x"):
        path = tmp_path / name
        path.write_bytes(data)
        for audio in (AudioFile(path), AudioBytes(data, name)):
            assert np.array_equal(decode(audio, rate), expected), (name, audio)


@pytest.mark.parametrize("kind", ["WAV", "RF64", "VOC", "AIFF", "NIST", "W64", "CAF", "AU", "FLAC", "OGG"])
def test_a_format_is_read_under_any_name(kind: str, tmp_path: Path) -> None:
    data = encoded(16_000, kind)
    expected = decode(AudioBytes(data, "bytes"), 16_000)
    for suffix in ("", ".raw", ".gsm", ".mp3", ".m4a", ".wav"):
        path = tmp_path / f"x{suffix}"
        path.write_bytes(data)
        assert np.array_equal(decode(AudioFile(path), 16_000), expected)
        assert read_header(AudioFile(path)) == read_header(AudioBytes(data, "bytes"))


@pytest.mark.parametrize("data", [b"", b"text" * 5000, bytes(5000), b"\xff\xfb\x90\0" * 300, BEFORE["noise"] * 400])
@pytest.mark.parametrize("name", ["x.mp3", "x.gsm", "x.vox", "x.raw"])
def test_what_is_no_audio_is_refused_under_any_name(data: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    texts = set()
    for audio in (AudioFile(tmp_path / name), AudioBytes(data, name)):
        with pytest.raises(AudioError) as error:
            decode(audio, 16_000)
        texts.add(error.value.what)
    assert len(texts) == 1
