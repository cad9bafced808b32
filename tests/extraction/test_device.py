"""Extraction on a device against the CPU. `make gpu` runs these on a GPU; elsewhere the device is the CPU itself.

`UWBENCH_TEST_DEVICE` names the device.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from encoders.families import Case
from encoders.parity import CASES, lacks, noise
from tones import CARD, tones
from uwbench.encoders.base import Encoded, Encoder, ModelSpec
from uwbench.encoders.resolve import open_encoder
from uwbench.extraction.extract import extract
from uwbench.extraction.forward import Forward, Settings
from uwbench.extraction.identity import describe_encoder
from uwbench.extraction.plan import make_plan
from uwbench.extraction.task import scan_task

pytestmark = pytest.mark.gpu

DEVICE = os.environ.get("UWBENCH_TEST_DEVICE", "cpu")
CUDA = DEVICE.startswith("cuda")
TOLERANCE = {"fp32": 1e-3, "bf16": 0.1}  # relative, of a clip's mean vector in the worst of all layers


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    package = lacks(request.param)
    if package is not None:
        pytest.skip(f"{package} is not installed")
    return request.param


@pytest.fixture(scope="module")
def folder(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / case.name
    case.make(path)
    return path


@contextmanager
def no_waits() -> Iterator[None]:
    """Make torch raise where the host waits for CUDA, but for what it does not watch, such as events."""
    if not CUDA:
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def loaded(folder: Path, device: str, dtype: str, context: Literal["full", "trimmed"] = "full") -> Encoder:
    encoder = open_encoder(ModelSpec(str(folder), context=context))
    encoder.load(device, dtype)
    return encoder


def forward_of(encoder: Encoder, device: str, batch_s: float) -> Forward:
    layers = range(len(encoder.info.layers))
    return Forward(encoder, layers, ("mean",), Settings(device, batch_s, 1), needs_frames=False)


def means(forward: Forward, windows: Sequence[np.ndarray]) -> np.ndarray:
    return np.stack([window.pooled.mean for window in forward(windows, ["clip"] * len(windows))])


def distance(expected: np.ndarray, actual: np.ndarray) -> float:
    return float((np.linalg.norm(actual - expected, axis=-1) / np.linalg.norm(expected, axis=-1)).max())


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_batch_equals_clips_alone_on_the_cpu_and_is_launched_without_a_wait(
    case: Case, folder: Path, dtype: str, record_property: Callable[[str, object], None]
) -> None:
    windows = [noise(case, seconds) for seconds in (1.0, 1.3, 1.0)]
    alone = means(forward_of(loaded(folder, "cpu", "fp32"), "cpu", 0.1), windows)
    forward = forward_of(loaded(folder, DEVICE, dtype), DEVICE, 1e3)
    apart = distance(alone, means(forward, windows))  # libraries are loaded here
    record_property("apart", apart)
    with no_waits():
        finish = forward.start(windows, ["clip"] * len(windows))
    again = np.stack([window.pooled.mean for window in finish()])
    assert apart < TOLERANCE[dtype]
    assert distance(alone, again) < TOLERANCE[dtype]


@contextmanager
def room_for(encoder: Encoder, forward: Forward, window: np.ndarray, count: int) -> Iterator[None]:
    """Leave memory for half as many windows again as `count`: the allocator's limit on CUDA, a refusal on the CPU."""
    if CUDA:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        means(forward, [window] * count)
        total = torch.cuda.get_device_properties(DEVICE).total_memory
        torch.cuda.set_per_process_memory_fraction(1.5 * torch.cuda.max_memory_reserved() / total)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        return
    encode = encoder.encode

    def refusing(waveforms: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]) -> Encoded:
        if len(waveforms) > 1.5 * count:
            raise torch.OutOfMemoryError("planted")
        return encode(waveforms, lengths, layers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder, "encode", refusing)
        yield


def test_out_of_memory_halves_batches_and_changes_nothing(small_whisper: Path) -> None:
    encoder = loaded(small_whisper, DEVICE, "fp32")
    rng = np.random.default_rng(0)
    windows = [rng.normal(0, 0.1, 16_000).astype(np.float32) for _ in range(24)]
    expected = means(forward_of(encoder, DEVICE, 60.0), windows)
    forward = forward_of(encoder, DEVICE, 1e6)
    with room_for(encoder, forward, windows[0], 4):
        assert distance(expected, means(forward, windows)) < 1e-4
    assert 0 < min(forward.fits.values()) < 24


def test_interrupted_and_resumed_gives_the_same_bytes(small_whisper: Path, tmp_path: Path) -> None:
    clips = tones(100)

    def run(cache: Path, progress: Callable[[Sequence[int]], None]) -> int:
        encoder = loaded(small_whisper, DEVICE, "fp32", "trimmed")
        task = scan_task(CARD, clips, "made", (), cache, None)
        plan = make_plan(task, describe_encoder(encoder.info), cache)
        return extract(plan, encoder, Settings(DEVICE, 4.0, 2), progress).encoded

    left = [3]

    def interrupt(_rows: Sequence[int]) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt

    assert run(tmp_path / "whole", lambda *_: None) == 100
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "halves", interrupt)
    assert 0 < run(tmp_path / "halves", lambda *_: None) < 100
    assert parts(tmp_path / "halves") == parts(tmp_path / "whole")


def parts(cache: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in cache.rglob("pooled-*.arrow")}


@pytest.mark.parametrize("context", ["full", "trimmed"])
def test_clips_of_one_length_take_the_flash_kernel(small_whisper: Path, context: Literal["full", "trimmed"]) -> None:
    encoder = loaded(small_whisper, DEVICE, "bf16", context)
    forward = forward_of(encoder, DEVICE, 60.0)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # torch raises where it cannot take it
        assert np.isfinite(means(forward, [np.ones(16_000, np.float32)] * 2)).all()
