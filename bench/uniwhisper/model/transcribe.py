"""Transcribe English from an encoder's output with Whisper's original decoder: does the encoder still carry speech?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from uniwhisper.data.examples import SAMPLE_RATE
from uniwhisper.model.collate import log_mel
from uwbench.api import InputError

if TYPE_CHECKING:
    from uniwhisper.model.model import AudioModel

WINDOW_S = 30  # what the decoder was trained with; it repeats itself after less
_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_MARKS = ("<|en|>", "<|transcribe|>", "<|notimestamps|>")  # English models know the last alone
_BATCH = 20  # clips
_TOKENS_PER_WORD = 3  # what the decoder may write for a word, and a few more for a clip
_MORE_TOKENS = 5


class Transcriber:
    """Whisper's decoder, which reads the states of any encoder of its width."""

    def __init__(self, whisper: str | Path, device: str = "cpu") -> None:
        """Load the decoder of `whisper`, a folder of a whole Whisper; raise InputError if it is none."""
        import torch
        from tokenizers import Tokenizer
        from transformers import WhisperForConditionalGeneration

        path = Path(whisper) / "tokenizer.json"
        if not path.is_file():
            raise InputError("is no Whisper folder with a tokenizer (no tokenizer.json)", where=whisper)
        self._tokenizer: Any = Tokenizer.from_file(str(path))
        model: Any = WhisperForConditionalGeneration.from_pretrained(whisper, dtype=torch.float32)
        self.encoder: Any = model.model.encoder.to(device).eval()
        self._decoder, self._scores = model.model.decoder.to(device).eval(), model.proj_out.to(device)
        self._device, self._mels, self._end = device, model.config.num_mel_bins, model.config.eos_token_id
        marks = [self._tokenizer.token_to_id(mark) for mark in _MARKS]
        # The tokenizers of English models may name languages that their decoders were not trained on.
        marks = marks if getattr(model.generation_config, "is_multilingual", False) else marks[-1:]
        self._start = [model.config.decoder_start_token_id, *(mark for mark in marks if mark is not None)]

    def write(
        self, model: AudioModel, audio: Sequence[np.ndarray], words: Sequence[int], *, window_s: float = WINDOW_S
    ) -> list[str]:
        """Return what the decoder hears in clips at 16 kHz, greedily, as words in lower case.

        Clips are padded with silence to `window_s`; `words`, the number said in each, bounds what is written.
        """
        texts: list[str] = []
        for start in range(0, len(audio), _BATCH):
            most = _TOKENS_PER_WORD * max(words[start : start + _BATCH]) + _MORE_TOKENS
            tokens = self._write(model, audio[start : start + _BATCH], window_s, most)
            texts += [plain_words(self._tokenizer.decode(ids)) for ids in tokens]
        return texts

    def _write(self, model: AudioModel, audio: Sequence[np.ndarray], window_s: float, most: int) -> list[list[int]]:
        """Return each clip's most likely tokens, at most `most`, up to the end token."""
        import torch

        width = round(window_s * SAMPLE_RATE)
        padded = [np.pad(clip, (0, max(0, width - len(clip)))) for clip in audio]
        ids, past = torch.tensor([self._start] * len(audio), device=self._device), None
        answers: list[list[int]] = [[] for _ in audio]
        with torch.no_grad():
            states = model.encode(log_mel(padded, self._mels).to(self._device)).float()
            for _ in range(most):
                out = self._decoder(input_ids=ids, encoder_hidden_states=states, past_key_values=past, use_cache=True)
                past = out.past_key_values
                ids = self._scores(out.last_hidden_state[:, -1]).argmax(dim=-1, keepdim=True)
                for tokens, (token,) in zip(answers, ids.tolist(), strict=True):
                    tokens.append(token)
                if all(self._end in tokens for tokens in answers):
                    break
        return [tokens[: tokens.index(self._end)] if self._end in tokens else tokens for tokens in answers]


def plain_words(text: str) -> str:
    """Return a transcript in lower case without punctuation, with numbers to ten as words."""
    words = re.findall(r"[a-z']+|10|\d", text.lower())
    return " ".join(_WORDS[int(word)] if word.isdigit() else word for word in words)
