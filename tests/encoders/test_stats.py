"""The encoders without weights, against librosa's definitions written out in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from uwbench.encoders.base import Encoded, ModelSpec
from uwbench.encoders.resolve import open_encoder


def encode(name: str, *clips: np.ndarray) -> Encoded:
    encoder = open_encoder(ModelSpec(name))
    encoder.load("cpu", "fp32")
    waveforms = torch.zeros(len(clips), max(map(len, clips)))
    for row, clip in enumerate(clips):
        waveforms[row, : len(clip)] = torch.from_numpy(clip)
    with torch.inference_mode():
        return encoder.encode(waveforms, torch.tensor([len(clip) for clip in clips]), [0])


def noise(seed: int, samples: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


def reference_log_mel(samples: np.ndarray) -> np.ndarray:
    from transformers.audio_utils import mel_filter_bank

    filters = mel_filter_bank(257, 64, 0.0, 8000.0, 16_000, norm="slaney", mel_scale="slaney")
    count = math.ceil(len(samples) / 160)
    padded = np.concatenate([np.zeros(120), samples.astype(np.float64), np.zeros(400)])
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    power = [np.abs(np.fft.rfft(padded[160 * t : 160 * t + 400] * window, 512)) ** 2 for t in range(count)]
    return np.log10(np.maximum(np.array(power) @ filters, 1e-10))


def test_logmel_equals_a_float64_computation() -> None:
    samples = noise(0, 12_345)
    got = encode("logmel", samples)
    expected = reference_log_mel(samples)
    assert got.valid.tolist() == [len(expected)]
    np.testing.assert_allclose(got.frames[0, 0].numpy(), expected, atol=1e-4)


def test_mfcc_is_the_cosine_transform_with_slopes() -> None:
    from scipy.fft import dct
    from scipy.signal import savgol_filter

    samples = noise(1, 16_000)
    cepstra = np.asarray(dct(reference_log_mel(samples), type=2, norm="ortho", axis=1))[:, :20]
    first = np.asarray(savgol_filter(cepstra, 9, polyorder=1, deriv=1, axis=0, mode="nearest"))
    second = np.asarray(savgol_filter(first, 9, polyorder=1, deriv=1, axis=0, mode="nearest"))
    expected = np.concatenate([cepstra, first, second], axis=1)
    np.testing.assert_allclose(encode("mfcc", samples).frames[0, 0].numpy(), expected, atol=1e-3)


@pytest.mark.parametrize("name", ["logmel", "mfcc"])
@given(lengths=st.lists(st.integers(1, 9000), min_size=1, max_size=4))
def test_a_clip_is_the_same_alone_and_with_mates(name: str, lengths: list[int]) -> None:
    clips = [noise(row, length) for row, length in enumerate(lengths)]
    together = encode(name, *clips)
    for row, clip in enumerate(clips):
        alone = encode(name, clip)
        count = math.ceil(len(clip) / 160)
        assert alone.valid.tolist() == [count]
        assert together.valid[row] == count
        torch.testing.assert_close(together.frames[row, 0, :count], alone.frames[0, 0, :count], rtol=1e-5, atol=1e-5)
