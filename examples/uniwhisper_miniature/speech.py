"""Check that an encoder still carries speech: Whisper's original decoder transcribes digits from its output."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uwbench.api import AudioFile, InputError, decode

_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_RATE = 16_000
_BATCH = 20  # clips
_WINDOW_S = 10  # clips are padded to this: with less silence the decoder invents words; 30 s take four times as long
_MAX_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Heard:
    """How spoken digits were transcribed: `right` of `clips` exactly, and the word error rate."""

    clips: int
    right: int
    wer: float


def heard_digits(whisper: Path, encoder: Path, manifest: Path, clips: int) -> Heard:
    """Transcribe test clips greedily with the decoder of `whisper` and the encoder in the folder `encoder`.

    `manifest` has the columns path, label (a digit) and split; `clips` evenly spaced test clips are used.
    """
    import jiwer

    with manifest.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    count = min(clips, len(rows))
    rows = [rows[index * len(rows) // count] for index in range(count)]
    model = _model(whisper, encoder)
    tokenizer = _tokenizer(whisper)
    transcripts: list[str] = []
    for start in range(0, count, _BATCH):
        audio = [decode(AudioFile(Path(row["path"])), _RATE) for row in rows[start : start + _BATCH]]
        transcripts += [_plain(tokenizer.decode(ids)) for ids in _decode_greedily(model, tokenizer, audio)]
    expected = [_WORDS[int(row["label"])] for row in rows]
    right = sum(a == b for a, b in zip(expected, transcripts, strict=True))
    return Heard(count, right, float(jiwer.wer(expected, transcripts)))


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


def _decode_greedily(model: Any, tokenizer: Any, audio: Sequence[Any]) -> list[list[int]]:
    """Return each clip's most likely tokens, up to the end token."""
    import numpy as np
    import torch

    from uniwhisper.model.collate import log_mel
    from uniwhisper.model.model import AudioModel

    config = model.config
    start = [config.decoder_start_token_id, tokenizer.token_to_id("<|notimestamps|>")]
    padded = [np.pad(clip, (0, max(0, _WINDOW_S * _RATE - len(clip)))) for clip in audio]
    ids, past = torch.tensor([start] * len(audio)), None
    answers: list[list[int]] = [[] for _ in audio]
    with torch.no_grad():
        states = AudioModel(model.model.encoder).encode(log_mel(padded, config.num_mel_bins))
        for _ in range(_MAX_TOKENS):
            out = model.model.decoder(input_ids=ids, encoder_hidden_states=states, past_key_values=past, use_cache=True)
            past = out.past_key_values
            ids = model.proj_out(out.last_hidden_state[:, -1]).argmax(dim=-1, keepdim=True)
            for tokens, (token,) in zip(answers, ids.tolist(), strict=True):
                tokens.append(token)
    end = config.eos_token_id
    return [tokens[: tokens.index(end)] if end in tokens else tokens for tokens in answers]


def _plain(text: str) -> str:
    """Return a transcript in lower case without punctuation, with single digits as words."""
    words = re.findall(r"[a-z']+|\d", text.lower())
    return " ".join(_WORDS[int(word)] if word.isdigit() else word for word in words)
