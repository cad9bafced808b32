"""Decoding: encoded audio to mono float32 samples at a given rate.

libsndfile decodes, or FFmpeg what that does not read (`uwbench.audio.media`), and soxr resamples; all stream, so a long
file needs memory for its mono samples at the target rate and little more. docs/audio.md has the rules for odd input;
each case has a defined result or is an AudioError.
"""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import numpy as np
import soundfile
import soxr

from uwbench.audio import media
from uwbench.audio.clip import Audio, AudioArray, AudioBytes, AudioFile, AudioMember, read_bytes
from uwbench.errors import AudioError

# Part of every embedding's identity: raise it when a change here alters samples.
PREPROCESSING_VERSION = 1

_BLOCK = 1 << 16  # frames decoded at a time
_WHOLE = 32  # a clip of at most so many blocks is resampled in one call
_LEAST_RATE, _MOST_RATE = (
    1_000,
    1_000_000,
)  # Hz; a wrong header would turn a few bytes into gigabytes
RESAMPLER = "soxr_vhq"
_MOST_BEFORE_FRAMES = 1 << 20  # bytes searched for the first frame of an MP3
_FRAMES_IN_A_ROW = 5  # frame headers that make it an MP3 and no accident
_MPEG_SYNC = re.compile(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb]", re.DOTALL)  # MPEG 2.5, 2 or 1; layer III
_MPEG1_KBPS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_MPEG2_KBPS = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a file; `n_frames` may be wrong in broken files, so only plans rely on it."""

    n_frames: int
    rate: int
    channels: int
    decoder: str = ""  # what decodes the file and its version, if that is not libsndfile

    @property
    def duration_s(self) -> float:
        return self.n_frames / self.rate


def read_header(audio: Audio, data: bytes | None = None) -> Header:
    """Return the header of `audio`, from `data` if its bytes were read already; raise AudioError naming it."""
    if isinstance(audio, AudioArray):
        return Header(len(audio.samples), audio.rate, 1)
    try:
        with _open(audio, data) as file:
            decoder = media.decoder() if isinstance(file, media.MediaFile) else ""
            return Header(file.frames, file.samplerate, file.channels, decoder)
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


@contextmanager
def _open(audio: Audio, data: bytes | None) -> Iterator[Any]:
    """Open encoded audio by its content alone, so that a file and its bytes give the same samples under any name."""
    if data is None and isinstance(audio, AudioMember | AudioBytes):
        data = read_bytes(audio)
    with _encoded(audio, data) as file:
        if file.seek(0, io.SEEK_END) == 0:
            raise AudioError("is an empty file", where=str(audio))
        try:
            sound = _sound(file, 0)
        except soundfile.SoundFileError:
            sound = _other_sound(file, str(audio))
            if sound is None:
                raise
        with sound:
            if not _LEAST_RATE <= sound.samplerate <= _MOST_RATE:
                what = f"has a rate of {sound.samplerate} Hz in its header, which no recording has"
                raise AudioError(what, where=str(audio))
            yield sound


def _encoded(audio: Audio, data: bytes | None) -> BinaryIO:
    if data is not None:
        return io.BytesIO(data)
    assert isinstance(audio, AudioFile)
    return audio.path.open("rb")


def _sound(file: BinaryIO, start: int) -> Any:
    file.seek(start)
    return soundfile.SoundFile(cast(BinaryIO, _Stream(file, start)))


def _other_sound(file: BinaryIO, name: str) -> Any:
    """Open what libsndfile refuses: a container that FFmpeg reads, or an MP3 behind other bytes; else return None."""
    file.seek(0)
    form = media.container(file.read(_MOST_BEFORE_FRAMES))
    if form is not None:
        return media.MediaFile(file, form, name)
    start = _mp3_start(file)
    return _sound(file, start) if start else None


@dataclass(frozen=True, slots=True)
class _Stream:
    """The bytes of `file` from `start` on, for libsndfile, which follows wrong headers to places before the start.

    Such a seek goes to the start. It has no name, because soundfile would draw conclusions from its suffix.
    """

    file: BinaryIO
    start: int

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_SET:
            offset = self.start + max(0, offset)
        return self.file.seek(offset, whence) - self.start

    def tell(self) -> int:
        return self.file.tell() - self.start

    def read(self, size: int = -1) -> bytes:
        return self.file.read(size)

    def readinto(self, buffer: Any) -> int:
        return cast(io.BufferedReader, self.file).readinto(buffer)

    def write(self, _data: bytes) -> int:
        """Exist only because soundfile asks for it."""
        raise io.UnsupportedOperation


def _mp3_start(file: BinaryIO) -> int:
    """Return where the first of several MPEG audio frames in a row begins, if bytes before it hide them, or 0."""
    file.seek(0)
    head = file.read(_MOST_BEFORE_FRAMES)
    for match in _MPEG_SYNC.finditer(head):
        position = match.start()
        for _ in range(_FRAMES_IN_A_ROW):
            size = _mpeg_frame_size(head[position : position + 4])
            if not size:
                break
            position += size
        else:
            return match.start()
    return 0


def _mpeg_frame_size(header: bytes) -> int:
    """Return the size in bytes of the MPEG layer III frame that `header` begins, or 0 if it begins none."""
    if len(header) < 4 or not _MPEG_SYNC.match(header):
        return 0
    version, bit_rate, rate = header[1] >> 3 & 3, header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or bit_rate in (0, 15) or rate == 3:
        return 0
    kbps = (_MPEG1_KBPS if version == 3 else _MPEG2_KBPS)[bit_rate - 1]
    hertz = (44_100, 48_000, 32_000)[rate] >> {3: 0, 2: 1, 0: 2}[version]
    padding = header[2] >> 1 & 1
    return (144 if version == 3 else 72) * kbps * 1000 // hertz + padding


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
    first = list(itertools.islice(blocks, _WHOLE + 1))
    if len(first) <= _WHOLE:
        # The same samples; here, making the filter does not hold the interpreter's lock, so that threads scale.
        if first:
            yield soxr.resample(np.concatenate(first), source, target, quality="VHQ")
        return
    stream = soxr.ResampleStream(source, target, 1, dtype="float32", quality="VHQ")
    for block in itertools.chain(first, blocks):
        yield stream.resample_chunk(np.ascontiguousarray(block))
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def _reason(error: Exception) -> str:
    text = getattr(error, "error_string", None) or str(error)
    return f"cannot be decoded ({' '.join(text.split())})"


def samples_in(seconds: float, rate: int) -> int:
    """Return the number of samples in `seconds` at `rate` Hz, rounded up."""
    return math.ceil(seconds * rate - 1e-9)
