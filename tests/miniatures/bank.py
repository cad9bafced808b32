"""Real audio, cut to size, for miniatures of datasets; no part of it is used twice."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from pathlib import Path

import numpy as np
import soundfile
import soxr

_CORPUS = {"speech": "fsdd", "sound": "esc10", "music": "philharmonia"}


class Bank:
    """Cuts of the shared corpora by domain and class; the same calls give the same cuts."""

    def __init__(self, shared: Path) -> None:
        self._files: dict[tuple[str, str], list[Path]] = defaultdict(list)
        self._pitch: dict[Path, int] = {}
        self._used: dict[tuple[str, str], int] = defaultdict(int)
        for domain, corpus in _CORPUS.items():
            with (shared / corpus / "manifest.csv").open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    path = shared / corpus / row["path"]
                    self._files[domain, row["label"]].append(path)
                    if "note" in row:
                        self._pitch[path] = midi_pitch(row["note"])
        self._classes = {domain: sorted(c for d, c in self._files if d == domain) for domain in _CORPUS}

    def cut(self, domain: str, number: int, seconds: float, rate: int, channels: int = 1) -> np.ndarray:
        """Return the next unused recording of class `number` as float32 `(samples, channels)` of exactly that length.

        Recordings that are too short are repeated: speech of the corpus lasts well under a second.
        """
        samples, source_rate = self._next(domain, number)[0:2]
        resampled = soxr.resample(samples, source_rate, rate)
        length = round(seconds * rate)
        whole = np.tile(resampled, -(-length // len(resampled)))[:length]
        return np.repeat(whole[:, None], channels, axis=1).astype(np.float32)

    def note(self, number: int, seconds: float, rate: int) -> tuple[np.ndarray, int]:
        """Return the next tone of an instrument, mono float32, and its MIDI pitch."""
        samples, source_rate, path = self._next("music", number)
        resampled = soxr.resample(samples, source_rate, rate)[: round(seconds * rate)]
        return resampled.astype(np.float32), self._pitch[path]

    def _next(self, domain: str, number: int) -> tuple[np.ndarray, int, Path]:
        classes = self._classes[domain]
        key = (domain, classes[number % len(classes)])
        files = self._files[key]
        used = self._used[key]
        self._used[key] += 1
        path = files[used % len(files)]
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        mono = samples.mean(axis=1)
        # Skip silence at the start, which could fill a short cut. A second pass over the corpus starts later.
        first = int(np.argmax(np.abs(mono) > 0.1 * np.abs(mono).max())) + used // len(files) * rate // 50
        return mono[min(first, len(mono) - rate // 10) :], rate, path


def midi_pitch(note: str) -> int:
    """Return the MIDI number of a note named as in the corpus: A4 is 69, As4 (A sharp) is 70."""
    semitone = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}[note[0]] + ("s" in note)
    return 12 * (int(note[-1]) + 1) + semitone


def encode(samples: np.ndarray, rate: int, kind: str) -> bytes:
    """Return samples as the bytes of a wav (16 bit), flac (16 bit) or mp3 file."""
    buffer = io.BytesIO()
    if kind == "mp3":
        soundfile.write(buffer, samples, rate, format="MP3", subtype="MPEG_LAYER_III")
    else:
        soundfile.write(buffer, samples, rate, format=kind.upper(), subtype="PCM_16")
    return buffer.getvalue()


def write_audio(path: Path, samples: np.ndarray, rate: int) -> None:
    """Write samples to `path` in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(samples, rate, path.suffix[1:]))
