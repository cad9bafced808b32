"""Filter banks made on the device equal those of transformers' extractors, which make them clip by clip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from encoders.families import CASES
from uwbench.api import AudioFile, decode
from uwbench.encoders.base import ModelSpec
from uwbench.encoders.kaldi import FilterBanks, count_frames
from uwbench.encoders.resolve import open_encoder

RATE = 16_000


@pytest.fixture(scope="module")
def clips(shared_data: Path) -> list[np.ndarray]:
    """Real audio of two lengths, silence, a loud tone, and the shortest clips of one and two frames."""
    sound = decode(AudioFile(sorted((shared_data / "esc10" / "audio").iterdir())[0]), RATE)
    sound = sound[max(0, int(abs(sound).argmax()) - RATE) :][: 2 * RATE]  # the clip begins with silence
    digit = decode(AudioFile(sorted((shared_data / "fsdd" / "recordings").iterdir())[0]), RATE)
    tone = np.sin(2 * np.pi * 440 / RATE * np.arange(RATE)).astype(np.float32)
    return [sound, digit, np.zeros(RATE, np.float32), tone, sound[:400], sound[:560]]


def opened(family: str, folder: Path) -> Any:
    """Return the encoder of a small random model of `family`, saved in `folder`."""
    next(case for case in CASES if case.name == family).make(folder)
    return open_encoder(ModelSpec(str(folder)))


def made(banks: FilterBanks, clips: list[np.ndarray]) -> list[torch.Tensor]:
    """Return each clip's banks from one padded batch."""
    batch = torch.zeros(len(clips), max(map(len, clips)))
    for row, clip in zip(batch, clips, strict=True):
        row[: len(clip)] = torch.from_numpy(clip)
    counts = count_frames(torch.tensor([len(clip) for clip in clips]))
    return [rows[:count] for rows, count in zip(banks(batch), counts.tolist(), strict=True)]


@pytest.mark.parametrize("rate", [RATE, 32_000])
def test_filter_banks_are_those_of_the_extractors(clips: list[np.ndarray], rate: int) -> None:
    from transformers import ASTFeatureExtractor, SeamlessM4TFeatureExtractor

    extract: Any = ASTFeatureExtractor(sampling_rate=rate, num_mel_bins=64)
    if hasattr(extract, "mel_filters"):  # without torchaudio
        for clip, banks in zip(clips, made(FilterBanks(64, "hann", rate), clips), strict=True):
            expected = extract._extract_fbank_features(clip, max_length=len(banks))
            np.testing.assert_allclose(banks.numpy(), expected, atol=1e-5)
    extract = SeamlessM4TFeatureExtractor(sampling_rate=rate)
    for clip, banks in zip(clips, made(FilterBanks(80, "povey", rate, scale=2**15), clips), strict=True):
        np.testing.assert_allclose(banks.numpy(), extract._extract_fbank_features(clip), atol=1e-5)


@pytest.mark.parametrize("family", ["ast", "wav2vec2-bert"])
def test_the_input_of_real_clips_is_the_extractors(family: str, clips: list[np.ndarray], tmp_path: Path) -> None:
    encoder = opened(family, tmp_path / family)
    sound, digit, *_, frames_2 = clips  # where nothing changes, as in a tone, all that is normalised is rounding
    assert encoder.input_deviation([sound, digit, frames_2]) < 1e-5


@pytest.mark.parametrize("family", ["ast", "wav2vec2-bert"])
def test_a_batch_is_launched_without_reading_anything_back(family: str, tmp_path: Path) -> None:
    """On torch's meta device nothing can be read back, so a launch that succeeds there never waits for a device."""
    encoder = opened(family, tmp_path / family)
    encoder.load("meta", "bf16")
    with torch.inference_mode():
        encoded = encoder.encode(torch.zeros(3, 2 * RATE, device="meta"), torch.tensor([100, 2 * RATE, 9000]), [0, 1])
    assert encoded.frames.device.type == "meta"
    assert encoded.valid.device.type == "cpu"
