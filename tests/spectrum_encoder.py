"""A small exact encoder for tests of extraction: the magnitude spectrum of consecutive 20 ms frames.

Frames do not overlap and padding enters no valid frame, so plain numpy computes the same vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from uwbench.encoders.base import Encoded, EncoderInfo

RATE, FRAME = 16_000, 320
DIM = FRAME // 2 + 1


class SpectrumEncoder:
    """Two layers: the magnitude spectrum, and its logarithm. `context_s` makes the extractor chunk."""

    def __init__(
        self,
        *,
        context_s: float | None = None,
        salt: str = "",
        most_windows: int | None = None,
        before: Callable[[int], None] | None = None,
        **info: Any,
    ) -> None:
        self.info = EncoderInfo(
            name="spectrum",
            family="spectrum",
            sample_rate=RATE,
            dim=DIM,
            layers=("magnitude", "log"),
            hop_s=FRAME / RATE,
            context_s=context_s,
            min_s=0.02,
            identity={"salt": salt},
            **info,
        )
        self.most_windows = most_windows
        self.before = before
        self.batches: list[int] = []

    def load(self, device: str, dtype: str) -> None:
        self.device = device

    def encode(self, waveforms: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]) -> Encoded:
        if self.most_windows is not None and len(waveforms) > self.most_windows:
            raise torch.OutOfMemoryError("too many windows for this device")
        self.batches.append(len(waveforms))
        if self.before is not None:
            self.before(len(self.batches))
        padded = torch.nn.functional.pad(waveforms, (0, -waveforms.shape[1] % FRAME))
        spectrum = torch.fft.rfft(padded.reshape(len(padded), -1, FRAME)).abs()
        frames = torch.stack([[spectrum, spectrum.log1p()][layer] for layer in layers], dim=1)
        return Encoded(frames, torch.clamp((lengths + FRAME - 1) // FRAME, min=1))


def reference(samples: np.ndarray, context: int | None = None) -> np.ndarray:
    """Return the mean over valid frames of both layers, in float64, chunk by chunk."""
    pieces = [samples[i : i + (context or len(samples))] for i in range(0, len(samples), context or len(samples))]
    rows = []
    for piece in pieces:
        padded = np.pad(piece.astype(np.float64), (0, -len(piece) % FRAME))
        rows.append(np.abs(np.fft.rfft(padded.reshape(-1, FRAME))))
    spectrum = np.concatenate(rows)
    return np.stack([spectrum.mean(0), np.log1p(spectrum).mean(0)])
