"""The table in docs/audio.md holds for every odd audio file, and no embedding is ever NaN."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from conftest import ROOT, Command
from hostile.bad_audio import RATE, TONE, bad_files, encoded
from uwbench.audio.clip import AudioBytes, AudioFile
from uwbench.audio.decode import decode
from uwbench.cache.store import EncoderStore, open_encoders
from uwbench.errors import AudioError

FILES = bad_files()
TABLE = dict(
    re.findall(r"^\| (.+?) \| ((?:error|decoded): .+?) \|$", (ROOT / "docs" / "audio.md").read_text("utf-8"), re.M)
)
DECODED = [name for name, result in TABLE.items() if result.startswith("decoded")]


def test_the_table_lists_every_file() -> None:
    assert list(TABLE) == list(FILES)


@pytest.mark.parametrize("name", FILES)
def test_the_table_says_what_happens(name: str, tmp_path: Path) -> None:
    path = tmp_path / ("clip.mp3" if name.endswith(".mp3") else "clip.wav")
    path.write_bytes(FILES[name])
    outcome, _, result = TABLE[name].partition(": ")
    for audio in (AudioFile(path), AudioBytes(FILES[name], path.name)):
        if outcome == "error":
            with pytest.raises(AudioError, match=f"{path.name}: .*{re.escape(result)}"):
                decode(audio, RATE)
        else:
            samples = decode(audio, RATE)
            assert np.isfinite(samples).all()
            assert len(samples) > 0


@pytest.mark.parametrize(
    ("name", "count", "expected"),
    [
        ("a WAV cut in the middle", 8000, TONE),
        ("a FLAC named .mp3", RATE, TONE),
        ("8-bit integers", RATE, TONE),
        ("24-bit integers", RATE, TONE),
        ("64-bit floats", RATE, TONE),
        ("two channels", RATE, TONE / 2),
        ("eight channels", RATE, TONE),
        ("floats beyond full scale", RATE, TONE * 8),
        ("a constant offset (DC)", RATE, np.full(RATE, 0.5)),
        ("a WAV whose data size is too large", RATE, TONE),
        ("a WAV whose data size is too small", 8000, TONE),
        ("a WAV whose RIFF size is wrong", RATE, TONE),
        ("a FLAC whose length is too small", 8000, TONE),
    ],
)
def test_what_is_decoded_is_what_was_recorded(name: str, count: int, expected: np.ndarray) -> None:
    samples = decode(AudioBytes(FILES[name], "clip"), RATE)
    assert len(samples) == count
    np.testing.assert_allclose(samples, expected[:count], atol=1e-2)


def test_no_embedding_is_nan_in_any_pooling(tmp_path: Path, uwbench: Command, small_whisper: Path) -> None:
    data = tmp_path / "odd"
    data.mkdir()
    rows = []
    for index, name in enumerate(DECODED):
        path = data / f"{index:02d}.wav"
        path.write_bytes(FILES[name])
        rows.append((path.name, "ab"[index % 2], ("train", "train", "valid", "test")[index // 2 % 4]))
    with (data / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    for model, more in (("logmel", ()), ("mfcc", ()), (small_whisper, ("--context", "trimmed"))):
        words = ("-m", model, "-t", data / "manifest.csv", "--layers", "all", *more)
        done = uwbench("extract", *words, "--pooling", "mean,mean-all,std,max")
        assert done.code == 0, done.err
    stores, unread = open_encoders(tmp_path / "cache")
    assert (len(stores), unread) == (3, [])
    for store in stores:
        for pooling in ("mean", "mean-all", "std", "max"):
            vectors = _vectors(store, pooling)
            assert len(vectors) == len({FILES[name] for name in DECODED})
            assert np.isfinite(vectors).all(), (store.record.name, pooling)


@pytest.mark.slow
def test_a_clip_of_three_hours_is_a_clip(tmp_path: Path, uwbench: Command) -> None:
    data = tmp_path / "long"
    data.mkdir()
    with soundfile.SoundFile(data / "long.wav", "w", 4_000, 1, subtype="PCM_U8") as file:
        for _ in range(180):  # one minute at a time
            file.write(np.tile(TONE[::4], 60))
    for index in range(3):
        (data / f"{index}.wav").write_bytes(encoded(TONE * (index + 1) / 4))
    rows = [("long.wav", "a", "train"), ("0.wav", "b", "train"), ("1.wav", "a", "test"), ("2.wav", "b", "test")]
    with (data / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    done = uwbench("extract", "-m", "logmel", "-t", data / "manifest.csv")
    assert done.code == 0, done.err
    ((store,), _) = open_encoders(tmp_path / "cache")
    vectors = _vectors(store, "mean")
    assert len(vectors) == 4
    assert np.isfinite(vectors).all()


def _vectors(store: EncoderStore, pooling: str) -> np.ndarray:
    """Return every vector of the only task of a store."""
    (task,) = store.tasks()
    manifest = store.manifest(task)
    assert manifest is not None
    keys = [key for part in manifest.parts for key in store.part_keys(task, part)]
    return store.open_task(task, keys).pooled(pooling)
