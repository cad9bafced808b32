"""Audio that libsndfile does not read: AAC, MP4 and M4A, WebM, WMA. FFmpeg's libraries decode it, through PyAV.

PyAV is the extra `media`. A stream is read through the methods of `soundfile.SoundFile` that decoding uses, with one
thread and without conversion other than to float32, so that a version of the libraries always gives the same samples.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from uwbench.errors import AudioError

if TYPE_CHECKING:
    import numpy as np

SUFFIXES = frozenset({".m4a", ".aac", ".mp4", ".webm", ".wma"})
REMEDY = "pip install 'uwbench[media]'"
_SCALES = {"u8": 1 << 7, "s16": 1 << 15, "s32": 1 << 31, "flt": 1, "dbl": 1}
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_LONGEST_S = 86_400 * 7  # a wrong time stamp would make a clip of years


def is_installed() -> bool:
    """Return True if PyAV is installed; it is not imported."""
    return importlib.util.find_spec("av") is not None


@cache
def decoder() -> str:
    """Return what decodes media here and its version, as part of a clip's key; empty if nothing does."""
    if not is_installed():
        return ""
    import av  # type: ignore[import-not-found]

    numbers = (".".join(map(str, av.library_versions[name])) for name in ("libavcodec", "libavformat"))
    return "ffmpeg " + " ".join(numbers)


def container(head: bytes) -> str | None:
    """Return FFmpeg's name for the container that a file's first bytes begin, or None if it is none of these."""
    if head[4:8] == b"ftyp":
        return "mp4"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "matroska"
    if head.startswith(_ASF):
        return "asf"
    if head.startswith(b"ID3") and len(head) > 10:  # a tag before the first frame
        size = sum((byte & 0x7F) << 7 * (3 - i) for i, byte in enumerate(head[6:10]))
        return container(head[10 + size :])
    return "aac" if len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0 else None


class MediaFile:
    """The first audio stream of a file, open for reading from its start; `frames` is what its packets last."""

    def __init__(self, file: BinaryIO, form: str, name: str) -> None:
        if not is_installed():
            raise AudioError("is in a format that needs PyAV", where=name, remedy=REMEDY)
        import av  # type: ignore[import-not-found]
        from av.error import FFmpegError  # type: ignore[import-not-found]

        self._errors = (FFmpegError, ValueError, OSError, EOFError, MemoryError)
        self._name = name
        self._left: list[np.ndarray] = []  # decoded, not yet read
        self._container: Any = None
        try:
            length_s = self._open(av, file, form).length_s()
            self._container.close()
            file.seek(0)
            self._open(av, file, form)
            self._blocks = self._decoded()
            first = next(self._blocks, None)
        except self._errors as error:
            self.close()
            raise self._unreadable(error) from error
        if first is None:
            self.close()
            raise AudioError("holds no samples", where=name)
        self._left.append(first)
        self.frames = round(length_s * self.samplerate)
        self.channels = first.shape[1]
        # An MP4 says how much of its last frame is padding; other containers do not say it reliably.
        self._rest = self.frames if form == "mp4" else None

    def _open(self, av: Any, file: BinaryIO, form: str) -> MediaFile:
        file.seek(0)
        self._container = av.open(cast(Any, file), format=form, metadata_errors="replace")
        if not self._container.streams.audio:
            raise AudioError("holds no audio", where=self._name)
        self._stream = self._container.streams.audio[0]
        if self._stream.codec_context is None:
            raise ValueError("its codec is unknown")
        self._stream.codec_context.thread_count = 1
        return self

    def length_s(self) -> Fraction:
        """Return the length that the stream's packets have together, in seconds."""
        first, last = None, Fraction(0)
        for packet in self._container.demux(self._stream):
            if packet.pts is not None and packet.time_base is not None:
                start = packet.pts * packet.time_base
                first = start if first is None else min(first, start)
                last = max(last, start + (packet.duration or 0) * packet.time_base)
        length = last - max(first or Fraction(0), Fraction(0))
        if not 0 <= length < _LONGEST_S:
            raise ValueError(f"its time stamps last {float(length):.0f} s")
        return length

    def _decoded(self) -> Iterator[np.ndarray]:
        """Yield blocks of float32 `(samples, channels)`; raise if rate or channels change."""
        import numpy as np

        channels = None
        for frame in self._container.decode(self._stream):
            layout = len(frame.layout.channels)
            if channels is None:
                channels, self.samplerate = layout, frame.sample_rate
            if (layout, frame.sample_rate) != (channels, self.samplerate):
                raise ValueError("changes its rate or its channels")
            scale = _SCALES.get(frame.format.name.removesuffix("p"))
            if scale is None:
                raise ValueError(f"has samples of the type {frame.format.name}")
            samples = frame.to_ndarray()
            block = samples.T if frame.format.is_planar else samples.reshape(-1, layout)
            offset = _SCALES["u8"] if block.dtype == np.uint8 else 0
            if block.size:
                yield ((block.astype(np.float64) - offset) / scale).astype(np.float32)

    def read(self, count: int, **_: Any) -> np.ndarray:
        """Return the next samples, float32 `(at most count, channels)`; none at the end."""
        import numpy as np

        size = sum(map(len, self._left))
        try:
            while size < count and (block := next(self._blocks, None)) is not None:
                self._left.append(block)
                size += len(block)
        except self._errors as error:
            raise self._unreadable(error) from error
        samples = np.concatenate(self._left) if self._left else np.zeros((0, self.channels), np.float32)
        self._left = [samples[count:]] if size > count else []
        samples = samples[: count if self._rest is None else min(count, self._rest)]
        if self._rest is not None:
            self._rest -= len(samples)
        return samples

    def close(self) -> None:
        """Close the file's decoder."""
        if self._container is not None:
            self._container.close()

    def __enter__(self) -> MediaFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _unreadable(self, error: BaseException) -> AudioError:
        text = getattr(error, "strerror", None) or str(error)
        return AudioError(f"cannot be decoded ({' '.join(text.split())})", where=self._name)
