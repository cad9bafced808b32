"""Whether speech is kept: Whisper's own decoder, untouched, writes down digits from an encoder's states."""

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
_AT_ONCE = 20  # clips
_WINDOW_S = 10  # of silence around a clip: less, and the decoder invents words; 30 s take four times as long
_LONGEST = 8  # tokens of an answer


@dataclass(frozen=True, slots=True)
class Heard:
    """How spoken digits were written down: `right` of `clips` exactly, and the word error rate."""

    clips: int
    right: int
    wer: float


def heard_digits(whisper: Path, encoder: Path, manifest: Path, clips: int) -> Heard:
    """Let `whisper`'s decoder write down the digits of the test clips from the states of `encoder`, greedily.

    `manifest` has the columns path, label (a digit) and split; `clips` of its test clips are taken, evenly spaced.
    """
    import jiwer

    with manifest.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    count = min(clips, len(rows))
    rows = [rows[index * len(rows) // count] for index in range(count)]
    model = _model(whisper, encoder)
    text = _tokenizer(whisper)
    said: list[str] = []
    for start in range(0, count, _AT_ONCE):
        audio = [decode(AudioFile(Path(row["path"])), _RATE) for row in rows[start : start + _AT_ONCE]]
        said += [_plain(text.decode(ids)) for ids in _written(model, text, audio)]
    wanted = [_WORDS[int(row["label"])] for row in rows]
    return Heard(count, sum(a == b for a, b in zip(wanted, said, strict=True)), float(jiwer.wer(wanted, said)))


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


def _written(model: Any, text: Any, audio: Sequence[Any]) -> list[list[int]]:
    """Return the tokens that the decoder finds likeliest one after the other, up to the end token."""
    import numpy as np
    import torch

    from uniwhisper.model.collate import log_mel
    from uniwhisper.model.model import AudioModel

    config = model.config
    start = [config.decoder_start_token_id, text.token_to_id("<|notimestamps|>")]
    padded = [np.pad(clip, (0, max(0, _WINDOW_S * _RATE - len(clip)))) for clip in audio]
    ids, past = torch.tensor([start] * len(audio)), None
    said: list[list[int]] = [[] for _ in audio]
    with torch.no_grad():
        states = AudioModel(model.model.encoder).encode(log_mel(padded, config.num_mel_bins))
        for _ in range(_LONGEST):
            out = model.model.decoder(input_ids=ids, encoder_hidden_states=states, past_key_values=past, use_cache=True)
            past = out.past_key_values
            ids = model.proj_out(out.last_hidden_state[:, -1]).argmax(dim=-1, keepdim=True)
            for tokens, (token,) in zip(said, ids.tolist(), strict=True):
                tokens.append(token)
    end = config.eos_token_id
    return [tokens[: tokens.index(end)] if end in tokens else tokens for tokens in said]


def _plain(text: str) -> str:
    """Return a transcript in lower case without marks, single figures as words."""
    words = re.findall(r"[a-z']+|\d", text.lower())
    return " ".join(_WORDS[int(word)] if word.isdigit() else word for word in words)
