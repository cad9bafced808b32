"""Mel filters for the spectral encoders and Whisper's front end."""

from __future__ import annotations

import math

import numpy as np


def slaney_filters(n_fft: int, bands: int, rate: int, *, top: float | None = None) -> np.ndarray:
    """Return float32 `(bands, n_fft // 2 + 1)` triangular filters on Slaney's mel scale, each of unit area.

    They end at `top` Hz, or at half of `rate`.

    Slaney, Auditory Toolbox (1998): linear below 1 kHz, logarithmic above, as in librosa and Whisper.
    """
    edges = np.array([_mel_to_hz(mel) for mel in np.linspace(0.0, _hz_to_mel(top or rate / 2), bands + 2)])
    bins = np.linspace(0.0, rate / 2, n_fft // 2 + 1)
    widths = np.diff(edges)[:, None]
    rising = (bins - edges[:-2, None]) / widths[:-1]
    falling = (edges[2:, None] - bins) / widths[1:]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return (triangles * (2.0 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)


def _hz_to_mel(hz: float) -> float:
    return hz * 3 / 200 if hz < 1000 else 15 + 27 * math.log(hz / 1000) / math.log(6.4)


def _mel_to_hz(mel: float) -> float:
    return mel * 200 / 3 if mel < 15 else 1000 * math.exp(math.log(6.4) * (mel - 15) / 27)
