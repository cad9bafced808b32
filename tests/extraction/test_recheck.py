"""Cached vectors of an own encoder are used only while it still returns them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

import uwbench
from conftest import Command
from uwbench import ExtractOptions

ENCODER = """
import os
from pathlib import Path

import torch
from uwbench import Encoded, EncoderInfo


class Own:
    def __init__(self, spec=None):
        self.info = EncoderInfo("own", "own", 16000, 4, ("last",), 0.02, None, identity={"version": 1})

    def load(self, device, dtype):
        HOW

    def encode(self, waveforms, lengths, layers):
        count = -(-waveforms.shape[1] // 320)
        padded = torch.nn.functional.pad(waveforms, (0, count * 320 - waveforms.shape[1]))
        power = padded.unflatten(1, (count, 320)).square().mean(-1)
        bands = torch.stack([power, power.sqrt(), power + self.scale, power * self.scale], -1)
        return Encoded(bands[:, None].expand(-1, len(layers), -1, -1), (-(-lengths // 320)).clamp(min=1))
"""


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rows = [("path", "label", "split")]
    for index in range(24):
        tone = np.sin(2 * np.pi * (300 if index % 2 else 900) * np.arange(3200) / 16_000)
        soundfile.write(tmp_path / f"{index}.wav", (0.1 + 0.01 * index) * tone, 16_000)
        rows.append((f"{index}.wav", str(index % 2), ("train", "valid", "test")[index // 2 % 3]))
    with (tmp_path / "tones.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return tmp_path / "tones.csv"


def encoded(model: object, manifest: Path) -> int:
    """Extract and return how many clips were encoded."""
    results = uwbench.extract(model, str(manifest))  # type: ignore[arg-type]
    assert results.exit_code == 0, results.failures
    return sum(extraction.encoded for _, _, extraction in results.extractions if extraction is not None)


@pytest.mark.parametrize(
    "how",
    ['self.scale = float(os.environ.get("SCALE", "1"))', 'self.scale = float(Path("scale.txt").read_text())'],
    ids=["an environment variable", "a file"],
)
def test_a_change_that_no_fingerprint_sees_is_noticed(
    how: str, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uwbench: Command
) -> None:
    model = f"{tmp_path}/own.py:Own"
    (tmp_path / "own.py").write_text(ENCODER.replace("HOW", how))

    def set_scale(scale: str) -> None:
        monkeypatch.setenv("SCALE", scale)
        (tmp_path / "scale.txt").write_text(scale)

    set_scale("1")
    assert encoded(model, manifest) == 24
    assert encoded(model, manifest) == 0
    set_scale("5")
    changed = uwbench("extract", "-m", model, "-t", manifest)
    assert changed.code == 0
    assert "own no longer returns the vectors in the cache" in changed.err
    assert "24 clips" in changed.out
    assert encoded(model, manifest) == 0
    scale = uwbench_vectors(manifest)
    assert scale == pytest.approx(5.0, rel=1e-4)
    set_scale("1")
    assert encoded(model, manifest) == 0  # the first generation is still true


def uwbench_vectors(manifest: Path) -> float:
    """Return the scale that the vectors found by the encoder's name were made with."""
    vectors = uwbench.load_embeddings("own", str(manifest)).vectors[:, 0]
    return float((vectors[:, 3] / vectors[:, 0]).mean())


def test_random_weights_that_nobody_seeded_are_refused(manifest: Path, tmp_path: Path, uwbench: Command) -> None:
    how = (
        "self.scale = 10 * float(torch.rand(1, generator=torch.Generator().manual_seed(int.from_bytes(os.urandom(4)))))"
    )
    (tmp_path / "own.py").write_text(ENCODER.replace("HOW", how))
    words = ("run", "-m", f"{tmp_path}/own.py:Own", "-m", "logmel", "-t", manifest, "--method", "knn")
    assert uwbench(*words).code == 0
    again = uwbench(*words)
    assert again.code == 1
    assert "returns different vectors for the clip" in again.err
    assert "seed its random numbers" in again.err
    assert "logmel" in again.out


def test_an_instance_is_checked_and_its_loading_changes_no_identity(manifest: Path) -> None:
    import torch

    class Own:
        def __init__(self, scale: float) -> None:
            self.scale = scale
            self.info = uwbench.EncoderInfo("own", "own", 16_000, 1, ("last",), 0.02, None)

        def load(self, device: str, dtype: str) -> None:
            self.loaded = torch.ones(1)

        def encode(self, waveforms: torch.Tensor, lengths: torch.Tensor, layers: list[int]) -> uwbench.Encoded:
            power = waveforms[:, : waveforms.shape[1] // 320 * 320].unflatten(1, (-1, 320)).square().mean(-1)
            frames = (power * self.scale)[:, None, :, None].expand(-1, len(layers), -1, -1)
            return uwbench.Encoded(frames, (lengths // 320).clamp(min=1))

    first, second = Own(1.0), Own(2.0)
    assert encoded(first, manifest) == 24
    assert encoded(first, manifest) == 0
    assert encoded(second, manifest) == 24
    assert encoded(Own(1.0), manifest) == 0
    assert not hasattr(first, "loaded")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("return bands, lengths", "encode returns a tuple"),
        ("return Encoded(bands.numpy(), lengths)", "frames as ndarray"),
        ("return Encoded(bands[:, None], [1] * len(lengths))", "valid as list"),
        ("return Encoded(bands, lengths)", "frames of shape"),
        ("return Encoded(bands[:, None].expand(-1, len(layers), -1, -1), lengths / 2)", "valid of shape"),
        ("return undefined_name", "encode fails with NameError"),
        ("raise SystemError('odd')", "encode fails with SystemError: odd"),
    ],
)
def test_an_encoder_that_fails_takes_no_other_model_with_it(
    wrong: str, said: str, manifest: Path, tmp_path: Path, uwbench: Command
) -> None:
    source = ENCODER.replace("HOW", "self.scale = 1.0")
    head, _, _ = source.partition("        return Encoded(")
    (tmp_path / "own.py").write_text(f"{head}        {wrong}\n")
    words = ("-m", f"{tmp_path}/own.py:Own", "-m", "logmel", "-t", manifest, "--method", "knn")
    ran = uwbench("run", *words)
    assert ran.code == 1
    (line,) = [line for line in ran.err.splitlines() if said in line]
    assert "own" in line
    assert "Traceback" not in ran.err
    assert "logmel" in ran.out


@pytest.mark.parametrize("line", ["import no_such_package", "1 / 0", "raise SystemError('torchaudio does not match')"])
def test_an_encoder_that_cannot_be_imported_takes_no_other_model_with_it(
    line: str, manifest: Path, tmp_path: Path, uwbench: Command
) -> None:
    (tmp_path / "own.py").write_text(f"{line}\n{ENCODER.replace('HOW', 'self.scale = 1.0')}")
    model = f"{tmp_path}/own.py:Own"
    ran = uwbench("run", "-m", model, "-m", "logmel", "-t", manifest, "--method", "knn")
    assert ran.code == 1
    assert "own.py:1" in ran.err
    assert "logmel" in ran.out
    assert uwbench("run", "-m", model, "-t", manifest).code == 2


def test_forced_extraction_needs_no_check(manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(ENCODER.replace("HOW", "self.scale = 1.0"))
    for _ in range(2):
        results = uwbench.extract(f"{tmp_path}/own.py:Own", str(manifest), extract=ExtractOptions(force=True))
        assert [extraction.encoded for _, _, extraction in results.extractions if extraction] == [24]
