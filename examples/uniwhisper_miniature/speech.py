"""Check that an encoder still carries speech: Whisper's original decoder transcribes it from the encoder's output."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from uwbench.api import AudioFile, InputError, decode

_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_RATE = 16_000
_BATCH = 20  # clips
# What clips are padded to. The decoder was trained with 30 s and repeats itself after less; a single word is heard
# well enough in 10 s, a quarter of the work.
WORD_WINDOW_S = 10
SENTENCE_WINDOW_S = 30
_TOKENS_PER_WORD = 3  # what the decoder may write for a word, and a few more for a clip
_MORE_TOKENS = 5


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
    return [Utterance(_WORDS[int(row["label"])], _audio(row["path"])) for row in _spread(_tested(manifest), clips)]


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
    return [Utterance(_plain(row["text"]), _audio(folder / row["path"])) for row in rows]


def transcribe(whisper: Path, encoder: Path, utterances: Sequence[Utterance], window_s: int) -> Transcribed:
    """Transcribe with the decoder of `whisper` and the encoder in the folder `encoder`, greedily, in windows."""
    import jiwer

    model, tokenizer = _model(whisper, encoder), _tokenizer(whisper)
    transcripts: list[str] = []
    for start in range(0, len(utterances), _BATCH):
        part = utterances[start : start + _BATCH]
        most = _TOKENS_PER_WORD * max(len(said.text.split()) for said in part) + _MORE_TOKENS
        answers = _decode_greedily(model, tokenizer, [said.audio for said in part], window_s, most)
        transcripts += [_plain(tokenizer.decode(ids)) for ids in answers]
    expected = [said.text for said in utterances]
    right = sum(a == b for a, b in zip(expected, transcripts, strict=True))
    words = sum(len(text.split()) for text in expected)
    return Transcribed(len(expected), right, words, float(jiwer.wer(expected, transcripts)))


def _tested(manifest: Path) -> list[dict[str, str]]:
    with manifest.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if row["split"] == "test"]


def _spread(items: Sequence[Any], count: int) -> list[Any]:
    count = min(count, len(items))
    return [items[index * len(items) // count] for index in range(count)]


def _audio(path: str | Path) -> np.ndarray:
    return decode(AudioFile(Path(path)), _RATE)


def _model(whisper: Path, encoder: Path) -> Any:
    import torch
    from transformers import WhisperForConditionalGeneration
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    model: Any = WhisperForConditionalGeneration.from_pretrained(whisper, dtype=torch.float32)
    if encoder != whisper:
        model.model.encoder = WhisperEncoder.from_pretrained(encoder, dtype=torch.float32)
    return model.eval()


def _tokenizer(whisper: Path) -> Any:
    from tokenizers import Tokenizer

    path = whisper / "tokenizer.json"
    if not path.is_file():
        raise InputError("is no Whisper folder with a tokenizer (no tokenizer.json)", where=whisper)
    return Tokenizer.from_file(str(path))


def _decode_greedily(
    model: Any, tokenizer: Any, audio: Sequence[np.ndarray], window_s: int, most: int
) -> list[list[int]]:
    """Return each clip's most likely tokens, at most `most`, up to the end token."""
    import torch

    from uniwhisper.model.collate import log_mel
    from uniwhisper.model.model import AudioModel

    config = model.config
    start = [config.decoder_start_token_id, tokenizer.token_to_id("<|notimestamps|>")]
    padded = [np.pad(clip, (0, max(0, window_s * _RATE - len(clip)))) for clip in audio]
    ids, past = torch.tensor([start] * len(audio)), None
    answers: list[list[int]] = [[] for _ in audio]
    with torch.no_grad():
        states = AudioModel(model.model.encoder).encode(log_mel(padded, config.num_mel_bins))
        for _ in range(most):
            out = model.model.decoder(input_ids=ids, encoder_hidden_states=states, past_key_values=past, use_cache=True)
            past = out.past_key_values
            ids = model.proj_out(out.last_hidden_state[:, -1]).argmax(dim=-1, keepdim=True)
            for tokens, (token,) in zip(answers, ids.tolist(), strict=True):
                tokens.append(token)
            if all(config.eos_token_id in tokens for tokens in answers):
                break
    end = config.eos_token_id
    return [tokens[: tokens.index(end)] if end in tokens else tokens for tokens in answers]


def _plain(text: str) -> str:
    """Return a transcript in lower case without punctuation, with numbers to ten as words."""
    words = re.findall(r"[a-z']+|10|\d", text.lower())
    return " ".join(_WORDS[int(word)] if word.isdigit() else word for word in words)
