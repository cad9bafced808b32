"""The companion: the recipe's arithmetic, and exports that the benchmark loads bit for bit."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import WhisperModel

from uniwhisper.cli.main import main
from uniwhisper.config import load_config
from uniwhisper.cost import Costs, make_plan
from uniwhisper.export import export_encoder, read_training_data
from uwbench.api import InputError, ModelSpec, UsageError
from uwbench.encoders.resolve import open_encoder


def test_the_full_recipe_has_the_counts_of_its_models() -> None:
    plan = make_plan(load_config("full"))
    assert plan.parameters == pytest.approx(1.239e9, rel=1e-3)
    assert plan.adapter_parameters == pytest.approx(6.31e6, rel=1e-3)
    assert plan.lm_parameters == pytest.approx(596.0e6, rel=1e-3)
    assert plan.forward_30s_encoder_flops == pytest.approx(2.274e12, rel=1e-3)
    assert plan.forward_30s_lm_flops == pytest.approx(0.457e12, rel=0.01)


def test_clips_of_their_own_length_cost_about_a_petaflop_an_hour() -> None:
    config = load_config("full", {"data": {"qa_per_audio": 1}})
    data = config.data.model_copy(update={"pad30_prob": 0.0})
    assert 0.9e15 < make_plan(config.model_copy(update={"data": data})).train_flops_per_hour < 1.1e15
    padded = config.data.model_copy(update={"pad30_prob": 1.0})
    assert make_plan(config.model_copy(update={"data": padded})).train_flops_per_hour == pytest.approx(
        2.69e15, rel=0.01
    )


@pytest.mark.parametrize(
    ("peak", "mfu", "seconds", "hours"),
    [(989, 0.3, 3.3, 35), (989, 0.4, 2.5, 26), (312, 0.3, 10.4, 110), (312, 0.4, 7.8, 82)],
)
def test_hours_and_memory_of_the_full_run_are_the_recipes(peak: float, mfu: float, seconds: float, hours: int) -> None:
    overlay = {"data": {"pad30_prob": 0.0, "qa_per_audio": 1}, "hardware": {"gpus": 1, "peak_tflops": peak, "mfu": mfu}}
    plan = make_plan(load_config("full", overlay))
    assert plan.train_flops_per_hour == pytest.approx(0.97e15, rel=0.02)
    assert plan.gpu_hours == plan.wall_hours == pytest.approx(hours, rel=0.02)
    assert plan.gpu_hours * 3600 / 38_118 == pytest.approx(seconds, abs=0.1)
    assert plan.state_gb == pytest.approx(18.5, rel=0.005)


def test_what_a_bridge_step_computes_is_the_plans_arithmetic() -> None:
    costs = Costs.of(load_config("full", {"run": {"checkpointing": False}}))
    encoder = costs.config.encoder.flops(1500)
    layer = 2 * 1024 * 16 * 128 + 2 * 1024 * 8 * 128 + 3 * 1024 * 3072  # attention's four matrices and three of the MLP
    lm = 28 * (2 * layer * 475 + 2 * 475**2 * 16 * 128) + 2 * 151_936 * 1024 * 40
    first, second = 2 * 4 * 1280 * 1024 * 375, 2 * 1024 * 1024 * 375
    # The encoder is frozen: one forward, and no gradient passes below the adapter's first layer. The language model
    # is frozen too, but the adapter's gradient passes through it.
    bridge = encoder + 2 * first + 3 * second + 2 * lm
    assert costs.clip(1500, 1500, 60, 40, stage="bridge") == pytest.approx(bridge, rel=1e-12)
    joint = 3 * (encoder + first + second + lm)
    assert costs.clip(1500, 1500, 60, 40) == pytest.approx(joint, rel=1e-12)
    assert bridge / joint == pytest.approx(3.19 / 8.21, rel=0.01)  # TFLOP
    new = Costs.of(load_config("full", {"lm": {"kind": "random-causal"}}))  # learns from the first step on
    assert new.clip(1500, 1500, 60, 40, stage="bridge") == pytest.approx(bridge + lm, rel=1e-12)
    frozen = Costs.of(load_config("full", {"encoder": {"train": "frozen"}, "lm": {"train": "frozen"}}))
    assert frozen.clip(1500, 1500, 60, 40) == pytest.approx(bridge, rel=1e-12)


def test_the_encoder_count_is_the_models_own(whisper_tiny: Path) -> None:
    encoder = WhisperModel.from_pretrained(whisper_tiny).encoder
    c = encoder.config
    shape = {"mels": c.num_mel_bins, "dim": c.d_model, "layers": c.encoder_layers, "ffn": c.encoder_ffn_dim}
    config = load_config("full").encoder.model_copy(update={**shape, "positions": c.max_source_positions})
    assert config.parameters() == sum(parameter.numel() for parameter in encoder.parameters())


def test_an_export_is_loaded_bit_for_bit(whisper_tiny: Path, tmp_path: Path) -> None:
    listing = tmp_path / "data.yaml"
    listing.write_text("- {dataset: esc50, split: train, licence: CC BY-NC 3.0}\n")
    folder = export_encoder(whisper_tiny, tmp_path / "out", training_data=listing)
    encoders = [open_encoder(ModelSpec("uniwhisper", weights=str(folder))), open_encoder(ModelSpec(str(whisper_tiny)))]
    assert encoders[0].info.training_data == ({"dataset": "esc50", "split": "train", "licence": "CC BY-NC 3.0"},)
    waveforms = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 16_000)).astype(np.float32)) * 0.1
    frames = []
    for encoder in encoders:
        encoder.load("cpu", "fp32")
        with torch.inference_mode():
            frames.append(encoder.encode(waveforms, torch.tensor([16_000]), [len(encoder.info.layers) - 1]).frames)
    assert torch.equal(*frames)


def test_interpolation_meets_both_ends(whisper_tiny: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    model = WhisperModel.from_pretrained(whisper_tiny)
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.add_(0.5)
    model.save_pretrained(other)
    half = export_encoder(other, tmp_path / "half", base=whisper_tiny, alpha=0.5)
    base = WhisperModel.from_pretrained(whisper_tiny).encoder.state_dict()
    from safetensors.torch import load_file

    tensors = load_file(half / "model.safetensors")
    for name, value in base.items():
        torch.testing.assert_close(tensors[name], value + 0.25)


def test_bad_requests(
    whisper_tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match="--alpha: needs the weights"):
        export_encoder(whisper_tiny, tmp_path / "a", alpha=0.5)
    with pytest.raises(UsageError, match="is not empty"):
        export_encoder(whisper_tiny, whisper_tiny)
    listing = tmp_path / "data.yaml"
    listing.write_text("- {dataset: esc50, split: training, licence: x}\n")
    with pytest.raises(InputError, match="entry 1: split 'training' is not one of"):
        read_training_data(listing)
    monkeypatch.setattr(sys, "argv", ["uniwhisper", "plan", "ful"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "did you mean full" in capsys.readouterr().err


def test_the_plan_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["uniwhisper", "plan", "small", "--json"])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    assert json.loads(capsys.readouterr().out)["gpu_hours"] > 0
