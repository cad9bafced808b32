"""Evaluation: a trained encoder beside the original on real clips, and what it refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from transformers import WhisperModel

from uniwhisper.cli.main import main
from uniwhisper.evaluate import encoder_of
from uniwhisper.export import export_encoder
from uwbench.api import UsageError


def changed(whisper: Path, folder: Path) -> Path:
    """Write a Whisper whose last layer norm outputs only its bias, so that embeddings do not depend on the clip."""
    model = WhisperModel.from_pretrained(whisper)
    with torch.no_grad():
        model.encoder.layer_norm.weight.zero_()
    model.save_pretrained(folder)
    return folder


def call(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["uniwhisper", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_an_encoder_that_hears_nothing_scores_below_the_original(
    whisper_tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    export = export_encoder(changed(whisper_tiny, tmp_path / "deaf"), tmp_path / "export")
    words = ("evaluate", export, "--encoder", whisper_tiny, "--output", tmp_path / "out", "--context", "trimmed")
    assert call(monkeypatch, *words, "-t", "mini_speech", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["method"] for row in rows} == {"mlp", "knn"}
    assert {row["name"] for row in rows} == {"mini_speech", "average (weighted)"}
    for row in rows:
        assert row["difference"] == pytest.approx(row["trained"] - row["original"])
        assert row["low"] < row["difference"] < row["high"]
        assert row["difference"] < 0
    assert call(monkeypatch, *words, "-t", "mini_speech") == 0
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| mini_speech | mlp")]
    assert f"{100 * next(r for r in rows if r['method'] == 'mlp')['trained']:.1f}" in shown[0]


def test_a_run_or_checkpoint_is_exported_once(whisper_tiny: Path, tmp_path: Path) -> None:
    step = tmp_path / "run" / "step-0000003"
    export_encoder(whisper_tiny, step / "encoder")
    for name in ("trainer.json", "model.safetensors", "optimizer.pt"):
        (step / name).write_bytes(b"{}")
    first = encoder_of(step, tmp_path / "out")
    written = (first / "uniwhisper.json").stat().st_mtime_ns
    assert encoder_of(tmp_path / "run", tmp_path / "out") == first
    assert (first / "uniwhisper.json").stat().st_mtime_ns == written
    assert encoder_of(first, tmp_path / "elsewhere") == first
    other = tmp_path / "other"
    export_encoder(changed(whisper_tiny, tmp_path / "deaf"), other / "encoder")
    with pytest.raises(UsageError, match="another checkpoint"):
        encoder_of(other, tmp_path / "out")


def test_impossible_evaluations_are_refused(
    whisper_tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="neither an export nor a checkpoint"):
        encoder_of(tmp_path, tmp_path / "out")
    words = ("evaluate", whisper_tiny, "--encoder", whisper_tiny, "--output", tmp_path / "out")
    assert call(monkeypatch, *words) == 2
    assert call(monkeypatch, *words, "--suite", "mini", "--context", "long") == 2
