"""Clips: one piece of audio each, with its labels and its split or fold.

`read_bytes` reads a clip's audio, `uwbench.audio.decode` decodes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from uwbench.errors import AudioError

if TYPE_CHECKING:
    import numpy as np


_HEAD = 64  # bytes that tell a format


@dataclass(frozen=True, slots=True)
class AudioFile:
    """A file of encoded audio."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class AudioMember:
    """Encoded audio inside an uncompressed archive: `size` bytes from byte `offset` of `path`."""

    path: Path
    offset: int
    size: int
    name: str

    def __str__(self) -> str:
        return f"{self.path}#{self.name}"


@dataclass(frozen=True, slots=True)
class AudioBytes:
    """Encoded audio held in memory."""

    data: bytes
    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, eq=False)
class AudioArray:
    """Decoded audio; `samples` is float32 `(n,)` at `rate` Hz."""

    samples: np.ndarray
    rate: int
    name: str

    def __str__(self) -> str:
        return self.name


Audio = AudioFile | AudioMember | AudioBytes | AudioArray


@dataclass(frozen=True, slots=True, order=True)
class Event:
    """A labelled stretch of a clip, in seconds from the clip's start."""

    onset_s: float
    offset_s: float
    label: str


# single-label and transcription: str; multi-label and retrieval (captions): tuple of str; frame-multi-label: events.
Labels = str | tuple[str, ...] | tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Clip:
    """One example of a task.

    Exactly one of `split` (`train`, `valid`, `test`) and `fold` (the fold in which the clip is tested) is set.
    `group` is the speaker, recording or song that must not cross a split and that the bootstrap clusters by.
    `start_s` and `end_s` bound the stretch of the audio that is the clip; None means from the start, to the end.
    """

    id: str
    audio: Audio
    labels: Labels
    split: str | None = None
    fold: str | None = None
    group: str | None = None
    start_s: float | None = None
    end_s: float | None = None

    def __post_init__(self) -> None:
        if (self.split is None) == (self.fold is None):
            raise ValueError(f"clip {self.id!r} needs either a split or a fold, not both and not neither")


def read_head(audio: Audio) -> bytes:
    """Return some of the first bytes of encoded audio; none if they cannot be read."""
    match audio:
        case AudioFile(path):
            offset, size = 0, _HEAD
        case AudioMember(path, offset, size):
            size = max(0, min(size, _HEAD))
        case AudioBytes(data):
            return data[:_HEAD]
        case AudioArray():
            return b""
    try:
        with path.open("rb") as file:
            file.seek(max(0, offset))
            return file.read(size)
    except OSError:
        return b""


def read_bytes(audio: Audio) -> bytes:
    """Return the bytes that identify the audio: the encoded file, or the samples with their rate.

    Raise AudioError, naming the audio, if they cannot be read.
    """
    try:
        match audio:
            case AudioFile(path):
                return path.read_bytes()
            case AudioMember(path, offset, size):
                with path.open("rb") as file:
                    available = max(0, path.stat().st_size - offset)
                    if offset < 0 or not 0 <= size <= available:  # before memory is allocated
                        raise AudioError(f"the archive ends after {available} of {size} bytes", where=str(audio))
                    file.seek(offset)
                    data = file.read(size)
                if len(data) != size:
                    raise AudioError(f"the archive ends after {len(data)} of {size} bytes", where=str(audio))
                return data
            case AudioBytes(data):
                return data
            case AudioArray(samples, rate):
                return f"float32 {rate} ".encode() + samples.astype("<f4").tobytes()
    except OSError as error:
        raise AudioError(f"cannot be read ({error.strerror or error})", where=str(audio)) from error
