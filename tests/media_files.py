"""Files in formats that libsndfile does not read, encoded by FFmpeg through PyAV."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

FORMATS = {
    ".m4a": ("ipod", "aac"),
    ".mp4": ("mp4", "alac"),
    ".aac": ("adts", "aac"),
    ".webm": ("webm", "libopus"),
    ".wma": ("asf", "wmav2"),
}  # suffix -> FFmpeg's muxer and its encoder


def tone(rate: int, seconds: float = 1.0, hertz: float = 440.0) -> np.ndarray:
    """Return two tones that sound together, float32 `(samples,)`."""
    time = np.arange(round(rate * seconds)) / rate
    return (0.3 * np.sin(2 * np.pi * hertz * time) + 0.2 * np.sin(2 * np.pi * 3.1 * hertz * time)).astype(np.float32)


def encoded(suffix: str, samples: np.ndarray, rate: int, channels: int = 1) -> bytes:
    """Return a file of mono samples `(samples,)` that fill each of the channels."""
    import av

    muxer, codec = FORMATS[suffix]
    layout = {1: "mono", 2: "stereo"}[channels]
    sink = io.BytesIO()
    with av.open(sink, "w", format=muxer) as container:
        stream: Any = container.add_stream(codec, rate=rate)  # of audio, as the codec is
        stream.layout = layout
        stream.bit_rate = 128_000
        frame = av.AudioFrame.from_ndarray(np.stack([samples] * channels), format="fltp", layout=layout)
        frame.rate, frame.pts = rate, 0
        resampler = av.AudioResampler(stream.format.name, layout, rate, frame_size=stream.frame_size or 1024)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return sink.getvalue()
