"""Whisper's encoder against transformers' own, with OpenAI's weights on real audio."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from uwbench.audio.clip import AudioFile
from uwbench.audio.decode import decode
from uwbench.encoders.base import Encoder, ModelSpec
from uwbench.encoders.resolve import open_encoder
from uwbench.encoders.whisper import WhisperEncoder
from uwbench.errors import UsageError


@pytest.fixture(scope="module")
def clips(shared_data: Path) -> list[np.ndarray]:
    """Five seconds of sound, two spoken digits, a note, and 30 s made of two of them."""
    files = [
        sorted((shared_data / "esc10").rglob("*.ogg") or (shared_data / "esc10").rglob("*.wav"))[0],
        *sorted(p for p in (shared_data / "fsdd").rglob("*") if p.suffix in {".wav", ".flac", ".ogg"})[:40:39],
        sorted(p for p in (shared_data / "philharmonia").rglob("*") if p.suffix in {".wav", ".mp3", ".ogg", ".flac"})[
            0
        ],
    ]
    found = [decode(AudioFile(file), 16_000) for file in files]
    return [*found, np.resize(np.concatenate([found[0], found[3]]), 480_000)]


def loaded(folder: Path, context: str) -> Encoder:
    encoder = open_encoder(ModelSpec(str(folder), context="full" if context == "full" else "trimmed"))
    encoder.load("cpu", "fp32")
    return encoder


def batch(clips: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    waveforms = torch.zeros(len(clips), max(map(len, clips)))
    for row, clip in enumerate(clips):
        waveforms[row, : len(clip)] = torch.from_numpy(clip)
    return waveforms, torch.tensor([len(clip) for clip in clips])


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@torch.inference_mode()
def test_full_context_equals_transformers_in_every_layer(whisper_tiny: Path, clips: list[np.ndarray]) -> None:
    from transformers import WhisperFeatureExtractor, WhisperModel

    model = WhisperModel.from_pretrained(whisper_tiny).get_encoder().eval()
    extractor = WhisperFeatureExtractor.from_pretrained(whisper_tiny)
    encoder = loaded(whisper_tiny, "full")
    got = encoder.encode(*batch(clips), range(5))
    assert encoder.info.layers == ("0", "1", "2", "3", "4")
    for row, clip in enumerate(clips):
        features = extractor(clip, sampling_rate=16_000, return_tensors="pt").input_features
        expected = model(features, output_hidden_states=True)
        for layer, states in enumerate(expected.hidden_states):
            assert relative(got.frames[row, layer], states[0]) < 1e-5
        assert got.valid[row] == -(-len(clip) // 320)


@torch.inference_mode()
def test_the_mel_equals_the_feature_extractor(whisper_tiny: Path, clips: list[np.ndarray]) -> None:
    from transformers import WhisperFeatureExtractor

    extractor = WhisperFeatureExtractor.from_pretrained(whisper_tiny)
    expected = torch.from_numpy(extractor(clips, sampling_rate=16_000, return_tensors="np").input_features)
    full, trimmed = loaded(whisper_tiny, "full"), loaded(whisper_tiny, "trimmed")
    assert isinstance(full, WhisperEncoder)
    assert isinstance(trimmed, WhisperEncoder)
    torch.testing.assert_close(full.log_mel(batch(clips)[0]), expected, rtol=0, atol=2e-5)
    for row, clip in enumerate(clips):
        mel = trimmed.log_mel(torch.from_numpy(clip)[None])[0]
        assert mel.shape[1] >= min(3000, -(-len(clip) // 320) * 2 + 1)
        torch.testing.assert_close(mel, expected[row, :, : mel.shape[1]], rtol=0, atol=2e-5)


@torch.inference_mode()
@pytest.mark.parametrize("context", ["full", "trimmed"])
def test_a_clip_is_the_same_alone_and_with_longer_mates(
    whisper_tiny: Path, clips: list[np.ndarray], context: str
) -> None:
    encoder = loaded(whisper_tiny, context)
    together = encoder.encode(*batch(clips), range(5))
    for row, clip in enumerate(clips):
        alone = encoder.encode(*batch([clip]), range(5))
        count = int(alone.valid[0])
        assert count == together.valid[row]
        for layer in range(5):
            assert relative(together.frames[row, layer, :count], alone.frames[0, layer, :count]) < 1e-4


@torch.inference_mode()
def test_trimmed_is_full_where_nothing_is_trimmed_and_at_its_input(whisper_tiny: Path, clips: list[np.ndarray]) -> None:
    full, trimmed = loaded(whisper_tiny, "full"), loaded(whisper_tiny, "trimmed")
    long = batch([clips[-1]])
    assert relative(trimmed.encode(*long, [4]).frames, full.encode(*long, [4]).frames) < 1e-5
    short = batch([clips[1]])
    one, other = trimmed.encode(*short, [0]), full.encode(*short, [0])
    count = int(one.valid[0])
    assert one.frames.shape[2] == count < 1500
    assert relative(one.frames, other.frames[:, :, :count]) < 1e-5


@torch.inference_mode()
def test_only_the_layers_asked_for_come_back_in_that_order(whisper_tiny: Path, clips: list[np.ndarray]) -> None:
    encoder = loaded(whisper_tiny, "trimmed")
    inputs = batch(clips[:3])
    everything = encoder.encode(*inputs, range(5)).frames
    torch.testing.assert_close(encoder.encode(*inputs, [3, 1]).frames, everything[:, [3, 1]])


def test_one_sample_makes_one_frame(whisper_tiny: Path) -> None:
    for context in ("full", "trimmed"):
        with torch.inference_mode():
            got = loaded(whisper_tiny, context).encode(torch.full((1, 1), 0.5), torch.tensor([1]), [4])
        assert got.valid.tolist() == [1]
        assert bool(torch.isfinite(got.frames).all())


def test_the_identity_follows_the_content_and_nothing_else(whisper_tiny: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(whisper_tiny, tmp_path / "another-name"))
    spec = ModelSpec(str(whisper_tiny))
    first, second = open_encoder(spec).info, open_encoder(ModelSpec(str(copy))).info
    assert (first.name, second.name) == ("whisper-tiny.en", "another-name")
    assert first.identity == second.identity
    assert first.identity != open_encoder(replace(spec, context="trimmed")).info.identity

    weights = copy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert open_encoder(ModelSpec(str(copy))).info.identity != first.identity


def test_uniwhisper_asks_for_weights_and_carries_its_training_data(whisper_tiny: Path, tmp_path: Path) -> None:
    from transformers import WhisperModel

    with pytest.raises(UsageError, match="--weights DIR"):
        open_encoder(ModelSpec("uniwhisper"))

    export = tmp_path / "export"
    original = WhisperModel.from_pretrained(whisper_tiny).get_encoder()
    original.save_pretrained(export)
    (export / "training_data.json").write_text('[{"dataset": "esc50", "split": "train"}]')
    encoder = open_encoder(ModelSpec("uniwhisper", weights=str(export)))
    assert encoder.info.training_data == ({"dataset": "esc50", "split": "train"},)
    assert encoder.info.parameters == sum(p.numel() for p in original.parameters())
    encoder.load("cpu", "fp32")
    waveforms, lengths = torch.randn(1, 8000) * 0.1, torch.tensor([8000])
    with torch.inference_mode():
        found = encoder.encode(waveforms, lengths, [4]).frames
        expected = loaded(whisper_tiny, "full").encode(waveforms, lengths, [4]).frames
    torch.testing.assert_close(found, expected)
