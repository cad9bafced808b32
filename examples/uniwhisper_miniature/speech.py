"""Check that an encoder still carries speech: Whisper's original decoder transcribes it from the encoder's output."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from uniwhisper.model.transcribe import plain_words
from uwbench.api import AudioFile, InputError, decode

_RATE = 16_000
WORD_WINDOW_S = 10  # a single word is heard as well as in the decoder's 30 s, for a quarter of the work


@dataclass(frozen=True, slots=True)
class Utterance:
    """What is said, and its waveform `(samples,)` at 16 kHz."""

    text: str
    audio: np.ndarray


@dataclass(frozen=True, slots=True)
class Transcribed:
    """How utterances were transcribed: `right` of `clips` exactly, and the errors of their `words` as a share."""

    clips: int
    right: int
    words: int
    wer: float


def spoken_digits(manifest: Path, clips: int) -> list[Utterance]:
    """Return evenly spaced test clips of a task of digits, at most `clips`."""
    return [Utterance(plain_words(row["label"]), _audio(row["path"])) for row in _spread(_tested(manifest), clips)]


def read_sentences(folder: Path) -> list[Utterance]:
    """Return the sentences of a folder whose `manifest.csv` has the columns path and text."""
    manifest = folder / "manifest.csv"
    try:
        with manifest.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=manifest) from error
    if not rows or not {"path", "text"} <= set(rows[0]):
        raise InputError("has not the columns path and text", where=manifest)
    return [Utterance(plain_words(row["text"]), _audio(folder / row["path"])) for row in rows]


def transcribe(whisper: Path, encoder: Path, utterances: Sequence[Utterance], window_s: int) -> Transcribed:
    """Transcribe with the decoder of `whisper` and the encoder in the folder `encoder`, greedily, in windows."""
    import jiwer
    import torch
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    from uniwhisper.model.model import AudioModel
    from uniwhisper.model.transcribe import Transcriber

    transcriber = Transcriber(whisper)
    own: Any = transcriber.encoder
    model = AudioModel(own if encoder == whisper else WhisperEncoder.from_pretrained(encoder, dtype=torch.float32))
    expected, audio = [said.text for said in utterances], [said.audio for said in utterances]
    words = [len(text.split()) for text in expected]
    transcripts = transcriber.write(model.eval(), audio, words, window_s=window_s)
    right = sum(a == b for a, b in zip(expected, transcripts, strict=True))
    return Transcribed(len(expected), right, sum(words), float(jiwer.wer(expected, transcripts)))


def _tested(manifest: Path) -> list[dict[str, str]]:
    with manifest.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if row["split"] == "test"]


def _spread(items: Sequence[Any], count: int) -> list[Any]:
    count = min(count, len(items))
    return [items[index * len(items) // count] for index in range(count)]


def _audio(path: str | Path) -> np.ndarray:
    return decode(AudioFile(Path(path)), _RATE)
