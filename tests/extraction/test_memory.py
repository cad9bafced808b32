"""Extraction when memory runs out: batches are halved, no number changes, and memory stays bounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from spectrum_encoder import RATE, SpectrumEncoder, reference
from tones import CARD, run, tones
from uwbench.encoders.base import Encoded
from uwbench.errors import EncoderError
from uwbench.extraction.forward import Forward, Settings
from uwbench.extraction.identity import describe_encoder
from uwbench.extraction.plan import make_plan
from uwbench.extraction.task import scan_task


def test_out_of_memory_halves_batches_and_changes_no_number(tmp_path: Path) -> None:
    clips = tones(80)
    plan, _ = run(clips, tmp_path / "large", SpectrumEncoder())
    small = SpectrumEncoder(most_windows=3)
    other, done = run(clips, tmp_path / "small", small)
    assert done.encoded == 80
    assert max(small.batches) <= 3
    keys = plan.task.table.keys
    expected = plan.store.open_task("tones", keys).pooled()
    np.testing.assert_allclose(other.store.open_task("tones", keys).pooled(), expected, rtol=1e-5, atol=1e-6)


def test_the_size_that_fits_is_remembered_by_length_and_nothing_is_encoded_twice() -> None:
    """Of windows of two seconds, 40 do not fit and 5 do. The next batch of that length starts there, others do not."""
    tried: list[int] = []

    class Watched(SpectrumEncoder):
        def encode(self, waveforms: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]) -> Encoded:
            tried.append(len(waveforms))
            return super().encode(waveforms, lengths, layers)

    encoder = Watched(most_windows=5)
    encoder.load("cpu", "fp32")
    forward = Forward(encoder, [0, 1], ("mean",), Settings("cpu", 1e6, 1), needs_frames=False)
    rng = np.random.default_rng(0)
    long, short = (rng.standard_normal((40, seconds * RATE)).astype(np.float32) for seconds in (2, 1))
    found = forward(list(long), ["clip"] * 40)
    assert tried == [40, 20, 10, *[5] * 8]  # nothing is encoded twice
    for window, samples in zip(found, long, strict=True):
        np.testing.assert_allclose(window.pooled.mean, reference(samples), rtol=1e-4, atol=1e-4)
    tried.clear()
    forward(list(long), ["clip"] * 40)
    assert tried == [5] * 8
    tried.clear()
    forward(list(short), ["clip"] * 40)
    assert tried[0] == 40


def test_out_of_memory_goes_down_to_the_chunks_of_one_clip_and_changes_no_number(tmp_path: Path) -> None:
    clips = tones(6, longest=3.5)
    plan, _ = run(clips, tmp_path / "large", SpectrumEncoder(context_s=1.0))
    small = SpectrumEncoder(context_s=1.0, most_windows=1)
    other, done = run(clips, tmp_path / "small", small)
    assert done.encoded == 6
    assert done.chunked >= 2
    assert set(small.batches) == {1}
    keys = plan.task.table.keys
    expected = plan.store.open_task("tones", keys).pooled()
    np.testing.assert_allclose(other.store.open_task("tones", keys).pooled(), expected, rtol=1e-5, atol=1e-6)


def test_running_out_of_the_machines_memory_halves_batches_too(tmp_path: Path) -> None:
    """On the CPU torch raises a RuntimeError, here a real one: the request exceeds the address space."""

    class Greedy(SpectrumEncoder):
        def encode(self, waveforms: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]) -> Encoded:
            if len(waveforms) > 2:
                torch.empty(1 << 60, dtype=torch.uint8)
            return super().encode(waveforms, lengths, layers)

    greedy = Greedy()
    _, done = run(tones(9), tmp_path, greedy)
    assert done.encoded == 9
    assert max(greedy.batches) <= 2


def test_another_error_of_the_encoder_is_not_mistaken_for_out_of_memory(tmp_path: Path) -> None:
    class Broken(SpectrumEncoder):
        def encode(self, waveforms: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]) -> Encoded:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(EncoderError, match=r"spectrum failed on a batch of \d+: RuntimeError: mat1"):
        run(tones(4), tmp_path, Broken())


def test_one_window_that_does_not_fit_is_an_error_that_names_the_clip(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"clip\d+: does not fit in memory, even alone"):
        run(tones(5), tmp_path, SpectrumEncoder(most_windows=0))


def test_parts_of_many_layers_stay_small(tmp_path: Path) -> None:
    """A part's vectors are in memory while it is filled: 128 MiB at most, whatever the encoder."""
    encoder = SpectrumEncoder()
    info = replace(encoder.info, layers=tuple(map(str, range(33))), dim=128_000)
    plan = make_plan(
        scan_task(CARD, tones(40), "made", (), tmp_path, None), describe_encoder(info, layers="all"), tmp_path
    )
    assert max(len(part.rows) for part in plan.parts) * 33 * 128_000 * 2 * 4 <= 128 << 20
    assert plan.to_encode == 40
