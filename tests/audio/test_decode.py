"""Decoding: every format and every kind of broken file has a defined result."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from uwbench.audio.clip import AudioBytes, AudioFile
from uwbench.audio.decode import chunks, decode, read_header, samples_in
from uwbench.errors import AudioError

TONE = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)


def encoded(samples: np.ndarray, rate: int = 16_000, form: str = "WAV", subtype: str = "PCM_16") -> AudioBytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form, subtype=subtype)
    return AudioBytes(file.getvalue(), f"tone.{form.lower()}")


@pytest.mark.parametrize(
    ("form", "subtype", "tolerance"),
    [
        ("WAV", "PCM_U8", 1e-2),
        ("WAV", "PCM_16", 1e-4),
        ("WAV", "PCM_24", 1e-6),
        ("WAV", "PCM_32", 1e-6),
        ("WAV", "FLOAT", 1e-6),
        ("WAV", "DOUBLE", 1e-6),
        ("FLAC", "PCM_16", 1e-4),
        ("OGG", "VORBIS", 5e-2),
        ("AIFF", "PCM_16", 1e-4),
    ],
)
def test_formats(form: str, subtype: str, tolerance: float) -> None:
    decoded = decode(encoded(TONE, form=form, subtype=subtype), 16_000)
    assert decoded.dtype == np.float32
    np.testing.assert_allclose(decoded[: len(TONE)], TONE, atol=tolerance)


def test_adpcm_settles_on_the_tone() -> None:
    decoded = decode(encoded(TONE, subtype="IMA_ADPCM"), 16_000)
    np.testing.assert_allclose(decoded[100:16_000], TONE[100:], atol=2e-2)


@pytest.mark.parametrize("channels", [1, 2, 3, 8])
def test_channels_are_averaged(channels: int) -> None:
    rows = np.random.default_rng(0).uniform(-0.5, 0.5, (4000, channels))
    decoded = decode(encoded(rows, subtype="FLOAT"), 16_000)
    np.testing.assert_allclose(decoded, rows.astype(np.float32).mean(1), atol=1e-6)


@pytest.mark.parametrize("rate", [4_000, 8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_any_rate_becomes_the_rate_asked_for(rate: int) -> None:
    seconds = np.arange(rate) / rate
    decoded = decode(encoded(0.5 * np.sin(2 * np.pi * 440 * seconds), rate, subtype="FLOAT"), 16_000)
    assert abs(len(decoded) - 16_000) <= 1
    middle = slice(2000, 14_000)
    np.testing.assert_allclose(decoded[middle], TONE[middle], atol=2e-3)


@pytest.mark.parametrize("count", [300_000, 2_200_000])
def test_streaming_equals_one_call(count: int) -> None:
    """Clips of at most 32 blocks of 65,536 samples are resampled in one call, longer ones block by block."""
    import soxr

    samples = np.random.default_rng(0).standard_normal(count).astype(np.float32) * 0.1
    decoded = decode(encoded(samples, 44_100, subtype="FLOAT"), 16_000)
    np.testing.assert_array_equal(decoded, soxr.resample(samples, 44_100, 16_000, "VHQ"))


def test_a_stretch_is_cut_to_the_sample() -> None:
    samples = np.arange(16_000) / 32_768
    decoded = decode(encoded(samples), 16_000, start_s=0.25, end_s=0.5)
    np.testing.assert_allclose(decoded, samples[4000:8000], atol=1e-4)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is an empty file"),
        (b"this is no audio at all, whatever it is called", "cannot be decoded"),
        (encoded(TONE).data[:30], "cannot be decoded"),
        (encoded(np.zeros(0)).data, "holds no samples"),
        (encoded(np.full(100, np.nan), subtype="FLOAT").data, "NaN or infinite"),
        (encoded(np.full(100, np.inf), subtype="DOUBLE").data, "NaN or infinite"),
    ],
    ids=["empty", "text", "header cut", "no samples", "nan", "inf"],
)
def test_a_file_without_audio_is_an_error_that_names_the_clip(data: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    path.write_bytes(data)
    for audio in (AudioFile(path), AudioBytes(data, "clip.wav")):
        with pytest.raises(AudioError, match=f"clip.wav: .*{reason}"):
            decode(audio, 16_000)


def test_a_truncated_file_gives_the_samples_it_holds() -> None:
    decoded = decode(AudioBytes(encoded(TONE).data[:16_044], "cut.wav"), 16_000)
    np.testing.assert_allclose(decoded, TONE[:8000], atol=1e-4)


def test_one_sample_silence_and_clipping_are_audio() -> None:
    assert decode(encoded(np.array([0.5])), 16_000).shape == (1,)
    assert not decode(encoded(np.zeros(100)), 16_000).any()
    assert np.abs(decode(encoded(np.ones(100), subtype="FLOAT"), 16_000)).max() == 1.0


def test_the_extension_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "really.mp3"
    path.write_bytes(encoded(TONE, form="FLAC").data)
    assert len(decode(AudioFile(path), 16_000)) == 16_000


def test_real_files_decode_to_the_length_of_their_headers(shared_data: Path) -> None:
    for name in ("esc10/audio", "fsdd/recordings", "philharmonia/audio"):
        for path in sorted((shared_data / name).iterdir())[:5]:
            audio = AudioFile(path)
            header = read_header(audio)
            # libsndfile estimates an MP3's length from the size of the file, tags included.
            within = 4000 if path.suffix == ".mp3" else 2
            assert len(decode(audio, 16_000)) == pytest.approx(header.duration_s * 16_000, abs=within)


@given(samples=st.integers(1, 5000), chunk=st.integers(1, 700))
def test_chunks_join_to_the_whole(samples: int, chunk: int) -> None:
    values = np.arange(samples, dtype=np.float32)
    pieces = chunks(values, chunk)
    np.testing.assert_array_equal(np.concatenate(pieces), values)
    assert all(len(piece) == chunk for piece in pieces[:-1])


def test_samples_in_rounds_up_but_not_by_float_noise() -> None:
    assert [samples_in(seconds, 16_000) for seconds in (0.1, 30.0, 0.02, 0.00001)] == [1600, 480_000, 320, 1]
