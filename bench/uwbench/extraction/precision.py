"""The distance of a lower precision from fp32, measured on some of the clips before they are extracted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from uwbench.audio.decode import chunks, samples_in
from uwbench.encoders.base import Encoder
from uwbench.errors import AudioError
from uwbench.extraction.encode import decode_clip
from uwbench.extraction.forward import Forward, Settings
from uwbench.extraction.plan import Plan
from uwbench.extraction.pooling import merge

_CLIPS = 8


@dataclass(frozen=True, slots=True)
class Parity:
    """The mean vectors of `clips` clips in two precisions: lowest cosine and largest relative distance."""

    clips: int
    cosine: float
    deviation: float

    def __str__(self) -> str:
        return (
            f"against fp32 on {self.clips} clips: cosine at least {self.cosine:.6f}, at most {self.deviation:.2%} apart"
        )


def measure_parity(encoder: Encoder, plan: Plan, settings: Settings, dtype: str) -> Parity:
    """Encode a few clips of all lengths in fp32 and in `dtype`; the encoder is left loaded in `dtype`."""
    rows = [row for part in plan.parts for row in part.rows]
    spread = [rows[i] for i in np.unique(np.linspace(0, len(rows) - 1, _CLIPS).round().astype(int))]
    waveforms = []
    for row in spread:
        try:
            waveforms.append(decode_clip(plan.task.clips[row], plan.task.hashes[row], encoder.info.sample_rate))
        except AudioError:  # the extraction reports it
            continue
    exact = _vectors(encoder, waveforms, settings, "fp32")
    lower = _vectors(encoder, waveforms, settings, dtype)
    distance = np.linalg.norm(exact - lower, axis=1) / np.linalg.norm(exact, axis=1)
    cosine = (exact * lower).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(lower, axis=1)
    return Parity(len(waveforms), float(cosine.min()), float(distance.max()))


def _vectors(encoder: Encoder, waveforms: Sequence[np.ndarray], settings: Settings, dtype: str) -> np.ndarray:
    info = encoder.info
    encoder.load(settings.device, dtype)
    forward = Forward(encoder, [len(info.layers) - 1], ("mean",), settings, needs_frames=False)
    limit = None if info.context_s is None else samples_in(info.context_s, info.sample_rate)
    vectors = []
    for index, samples in enumerate(waveforms):
        pieces = chunks(samples, limit)
        windows = forward(pieces, [f"clip {index}"] * len(pieces))
        vectors.append(merge([window.pooled for window in windows])["mean"][0].astype(np.float64))
    return np.stack(vectors)
