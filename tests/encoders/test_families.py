"""Every family against a direct call of transformers, through the public path: save, open by folder, load, encode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from encoders.families import Case
from encoders.parity import CASES, deviations, lacks, loaded, noise, short_clip_deviation, silence_is_finite
from uwbench.encoders.base import Encoder, ModelSpec
from uwbench.encoders.catalogue import CATALOGUE
from uwbench.encoders.conformance import BATCH_TOLERANCE, HOP_TOLERANCE, check_encoder
from uwbench.encoders.resolve import open_encoder
from uwbench.extraction.forward import Forward, Settings

PUBLISHED = ("logmel", "mfcc", "whisper-tiny.en")  # those that are here in full, and are run below
# Padded families whose attention adds no bias of its own; Voxtral's tower is Whisper's encoder.
MASKED = [case for case in CASES if case.name in ("voxtral", "qwen2_audio", "wav2vec2-padded", "hubert-padded")]


class Attention(TorchDispatchMode):
    """Notes for each call of attention whether it came with a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.masked: list[bool] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.scaled_dot_product_attention.default:
            mask = args[3] if len(args) > 3 else (kwargs or {}).get("attn_mask")
            self.masked.append(mask is not None)
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    if package := lacks(request.param):
        pytest.skip(f"the extractor needs {package}")
    return request.param


@pytest.fixture(scope="module")
def folder(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / case.name
    case.make(path)
    return path


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Encoder:
    return loaded(folder)


def test_equals_a_direct_call_in_every_layer(case: Case, folder: Path, encoder: Encoder) -> None:
    assert max(deviations(case, folder, encoder)) < 1e-5


@torch.inference_mode()
def test_keeps_the_contract(case: Case, encoder: Encoder) -> None:
    clips = [noise(case, seconds) for seconds in (1.0, 1.7, 2.3)]
    found = check_encoder(encoder, clips=clips)
    assert found.problems == ()
    assert found.hop_seconds == pytest.approx(case.hop_s, rel=HOP_TOLERANCE)
    assert encoder.info.hop_s == pytest.approx(case.hop_s)
    assert encoder.info.batching == case.batching
    assert encoder.info.sample_rate == case.rate
    assert encoder.info.family == (case.family or case.name)
    assert silence_is_finite(case, encoder)
    if encoder.info.batching == "padded":
        assert short_clip_deviation(case, encoder) < BATCH_TOLERANCE


@torch.inference_mode()
def test_one_sample_and_a_lone_layer(case: Case, encoder: Encoder) -> None:
    width = max(1, round(encoder.info.min_s * case.rate))
    waveforms = torch.zeros(1, width)
    waveforms[0, 0] = 0.5
    found = encoder.encode(waveforms, torch.tensor([1]), [len(encoder.info.layers) - 1])
    assert found.frames.shape[1] == 1
    assert 1 <= int(found.valid[0]) <= found.frames.shape[2]
    assert bool(torch.isfinite(found.frames).all())


@pytest.mark.parametrize("seconds", [(1, 1), (1, 2, 1)], ids=["equal", "unequal"])
def test_launches_without_reading_anything_back(case: Case, folder: Path, seconds: tuple[int, ...]) -> None:
    """On torch's meta device nothing can be read back, so a launch that ends there never waits for a device."""
    if case.reads_back:
        pytest.skip("the class in transformers reads lengths back itself")
    encoder = open_encoder(ModelSpec(str(folder), context="trimmed"))
    encoder.load("meta", "bf16")
    forward = Forward(
        encoder, [0, len(encoder.info.layers) - 1], ("mean", "std"), Settings("meta", 60.0, 1), needs_frames=True
    )
    forward.start([np.zeros(count * case.rate, np.float32) for count in seconds], ["clip"] * len(seconds))


@torch.inference_mode()
@pytest.mark.parametrize("case", MASKED, ids=lambda case: case.name, indirect=True)
@pytest.mark.parametrize(("seconds", "masked"), [((1, 1), False), ((1, 2), True)], ids=["equal", "unequal"])
def test_only_batches_of_unequal_lengths_are_masked(
    case: Case, folder: Path, seconds: tuple[int, int], masked: bool
) -> None:
    """On a GPU, attention takes its flash kernel if there is no mask."""
    encoder = open_encoder(ModelSpec(str(folder), context="trimmed"))
    encoder.load("cpu", "fp32")
    waveforms = torch.zeros(2, max(seconds) * case.rate)
    with Attention() as attention:
        encoder.encode(waveforms, torch.tensor([count * case.rate for count in seconds]), [3])
    assert attention.masked == [masked] * 3


def test_the_verified_column_is_true() -> None:
    covered = {case.family or case.name for case in CASES if not case.needs} | {
        "uniwhisper"
    }  # its exports are Whisper's encoders
    for entry in CATALOGUE:
        if entry.wrapper is not None:  # test_packages.py
            continue
        assert (entry.name in PUBLISHED) == (entry.verified == "weights"), entry.name
        if entry.verified == "random":
            assert entry.family in covered, entry.name


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_weights_are_run(name: str, whisper_tiny: Path) -> None:
    entry = next(entry for entry in CATALOGUE if entry.name == name)
    place = str(whisper_tiny) if name == "whisper-tiny.en" else name
    encoder = open_encoder(ModelSpec(place, context="trimmed"))  # 30 s a clip would take six seconds
    assert check_encoder(encoder).problems == ()
    info = encoder.info
    assert (info.family, info.sample_rate, info.context_s) == (entry.family, entry.sample_rate, entry.context_s)
    assert (info.parameters or 0, len(info.layers), info.hop_s) == (entry.parameters, entry.layers, entry.hop_s)
