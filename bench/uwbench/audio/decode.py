"""Decoding: encoded audio to mono float32 samples at a given rate.

libsndfile decodes and soxr resamples; both stream, so a long file needs memory for its mono samples at the target rate
and little more. docs/audio.md has the rules for odd input; each case has a defined result or is an AudioError.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import soundfile
import soxr

from uwbench.audio.clip import Audio, AudioArray, AudioBytes, AudioFile, AudioMember, read_bytes
from uwbench.errors import AudioError

# Part of every embedding's identity: raise it when a change here alters samples.
PREPROCESSING_VERSION = 1

_BLOCK = 1 << 16  # frames decoded at a time
_LEAST_RATE, _MOST_RATE = (
    1_000,
    1_000_000,
)  # Hz; a wrong header would turn a few bytes into gigabytes
RESAMPLER = "soxr_vhq"


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a file; `n_frames` may be wrong in broken files, so only plans rely on it."""

    n_frames: int
    rate: int
    channels: int

    @property
    def duration_s(self) -> float:
        return self.n_frames / self.rate


def read_header(audio: Audio, data: bytes | None = None) -> Header:
    """Return the header of `audio`, from `data` if its bytes were read already; raise AudioError naming it."""
    if isinstance(audio, AudioArray):
        return Header(len(audio.samples), audio.rate, 1)
    try:
        with _open(audio, data) as file:
            return Header(file.frames, file.samplerate, file.channels)
    except (soundfile.SoundFileError, OSError) as error:
        raise AudioError(_reason(error), where=str(audio)) from error


def decode(
    audio: Audio,
    rate: int,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    data: bytes | None = None,
) -> np.ndarray:
    """Return the stretch from `start_s` to `end_s` of `audio` as float32 `(samples,)`, mono, at `rate` Hz.

    Channels are averaged. `data` holds the encoded bytes if they were read already. Raise AudioError, naming the audio,
    if nothing can be decoded, the stretch is empty, or a sample is NaN or infinite.
    """
    parts = list(_decoded(audio, rate, start_s, end_s, data))
    samples = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    if samples.size == 0:
        raise _empty(audio, start_s)
    _require_finite(samples, audio)
    return samples


def _decoded(
    audio: Audio, rate: int, start_s: float | None, end_s: float | None, data: bytes | None
) -> Iterator[np.ndarray]:
    """Yield the stretch of `audio` at `rate` Hz, block by block."""
    try:
        if isinstance(audio, AudioArray):
            first, last = _stretch(start_s, end_s, audio.rate)
            blocks: Iterator[np.ndarray] = iter([audio.samples[first:last].astype(np.float32)])
            yield from _resample(blocks, audio.rate, rate)
        else:
            with _open(audio, data) as file:
                yield from _resample(_mono_blocks(file, start_s, end_s), file.samplerate, rate)
    except (soundfile.SoundFileError, OSError) as error:
        raise AudioError(_reason(error), where=str(audio)) from error


def _empty(audio: Audio, start_s: float | None) -> AudioError:
    return AudioError("holds no samples" if start_s is None else "ends before the clip starts", where=str(audio))


def _require_finite(samples: np.ndarray, audio: Audio) -> None:
    if not np.isfinite(samples).all():
        raise AudioError("holds samples that are NaN or infinite", where=str(audio))


def decode_windows(
    audio: Audio,
    rate: int,
    window: int,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
) -> Iterator[np.ndarray]:
    """Yield `chunks(decode(...), window)` one window at a time, in memory independent of the clip's length.

    Raise AudioError as `decode` does, but for a sample that is NaN or infinite only once it is reached.
    """
    blocks: list[np.ndarray] = []
    count = total = 0
    for block in _decoded(audio, rate, start_s, end_s, None):
        _require_finite(block, audio)
        blocks.append(block)
        count, total = count + len(block), total + len(block)
        if count >= window:
            samples = np.concatenate(blocks)
            for first in range(0, count - window + 1, window):
                yield samples[first : first + window]
            blocks, count = [samples[count - count % window :]], count % window
    if total == 0:
        raise _empty(audio, start_s)
    if count:
        yield np.concatenate(blocks)


def chunks(samples: np.ndarray, chunk: int | None) -> list[np.ndarray]:
    """Cut `samples` into consecutive pieces of `chunk` samples without overlap; the last may be shorter."""
    if chunk is None or len(samples) <= chunk:
        return [samples]
    return [samples[i : i + chunk] for i in range(0, len(samples), chunk)]


def _open(audio: Audio, data: bytes | None) -> Any:
    if data is None and isinstance(audio, AudioMember):
        data = read_bytes(audio)
    if isinstance(audio, AudioBytes):
        data = audio.data
    if data is not None:
        if not data:
            raise AudioError("is an empty file", where=str(audio))
        return _plausible(soundfile.SoundFile(_Memory(data)), audio)
    assert isinstance(audio, AudioFile)
    if audio.path.stat().st_size == 0:
        raise AudioError("is an empty file", where=str(audio))
    if audio.path.suffix.lower() == ".raw":  # soundfile would ask for the rate; libsndfile looks inside
        return _plausible(soundfile.SoundFile(_Memory(audio.path.read_bytes())), audio)
    name: Any = os.fsencode(audio.path)  # soundfile accepts bytes, which its types do not say
    return _plausible(soundfile.SoundFile(name), audio)


class _Memory(io.BytesIO):
    """Bytes for libsndfile, which follows wrong headers to places before the start: such a seek goes to the start."""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return super().seek(max(0, offset) if whence == io.SEEK_SET else offset, whence)


def _plausible(file: Any, audio: Audio) -> Any:
    if not _LEAST_RATE <= file.samplerate <= _MOST_RATE:
        file.close()
        raise AudioError(f"has a rate of {file.samplerate} Hz in its header, which no recording has", where=str(audio))
    return file


def _stretch(start_s: float | None, end_s: float | None, rate: int) -> tuple[int, int | None]:
    return round((start_s or 0.0) * rate), None if end_s is None else round(end_s * rate)


def _mono_blocks(file: Any, start_s: float | None, end_s: float | None) -> Iterator[np.ndarray]:
    """Yield the stretch as float32 blocks, channels averaged in float32.

    Samples are read from the start and counted, as seeking is not exact to the sample in every codec.
    """
    first, last = _stretch(start_s, end_s, file.samplerate)
    position = 0
    while last is None or position < last:
        count = _BLOCK if last is None else min(_BLOCK, last - position)
        block = file.read(count, dtype="float32", always_2d=True)
        if len(block) == 0:
            return
        skipped = max(0, first - position)
        position += len(block)
        if skipped < len(block):
            rest = block[skipped:]
            yield rest[:, 0] if rest.shape[1] == 1 else rest.mean(axis=1, dtype=np.float32)


def _resample(blocks: Iterator[np.ndarray], source: int, target: int) -> Iterator[np.ndarray]:
    if source == target:
        yield from blocks
        return
    stream = soxr.ResampleStream(source, target, 1, dtype="float32", quality="VHQ")
    for block in blocks:
        yield stream.resample_chunk(np.ascontiguousarray(block))
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def _reason(error: Exception) -> str:
    text = getattr(error, "error_string", None) or str(error)
    return f"cannot be decoded ({' '.join(text.split())})"


def samples_in(seconds: float, rate: int) -> int:
    """Return the number of samples in `seconds` at `rate` Hz, rounded up."""
    return math.ceil(seconds * rate - 1e-9)
