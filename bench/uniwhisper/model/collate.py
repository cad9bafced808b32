"""Turn examples into tensors: a micro-batch's log-mel features and the tokens of its questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from uniwhisper.data.examples import MAX_SAMPLES, MIN_SAMPLES, SAMPLE_RATE, Example
from uniwhisper.model.tokens import Row, Text
from uwbench.api import AudioError

if TYPE_CHECKING:
    import torch

FRAME = 320  # samples per encoder frame
_HOP = 160
_EDGE = 4 * FRAME  # waveforms are padded to whole tokens of the default stack
_TAIL = 3 * _HOP  # silence after the edge, so that the last frames are not of mirrored audio


def audio_tokens(samples: int, stack: int) -> int:
    """Return a clip's number of audio tokens: one per `stack` frames of 20 ms, rounded up (30 s by 4: 375)."""
    return -(-samples // (FRAME * stack))


@dataclass(frozen=True, slots=True)
class Batch:
    """A micro-batch: N clips, R rows (questions) of S tokens, of which A in all are answer and end tokens.

    `mel` (N, mels, frames); `tokens` (N,) audio tokens; `clip_of` (R,); `ids`, `is_audio`, `is_answer` (R, S);
    `weights` (A,) of the loss, in the order of `ids[is_answer]`; `tasks`, `domains` and `lengths` (tokens) of the
    rows; `samples` a clip's own length; `replaced` clips stand in for others that could not be read.
    """

    mel: torch.Tensor
    tokens: torch.Tensor
    clip_of: torch.Tensor
    ids: torch.Tensor
    is_audio: torch.Tensor
    is_answer: torch.Tensor
    weights: torch.Tensor
    tasks: tuple[str, ...]
    samples: tuple[int, ...]
    lengths: tuple[int, ...]
    domains: tuple[str, ...] = ()
    replaced: int = 0

    def to(self, device: str) -> Batch:
        """Return the batch with its tensors on a device."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _PLAIN}
        return replace(self, **{name: value.to(device, non_blocking=True) for name, value in tensors.items()})


_PLAIN = {"tasks", "samples", "lengths", "domains", "replaced"}
Reduction = Literal["token", "sample", "sqrt_tokens"]
_POWER = {"token": 0.0, "sample": -1.0, "sqrt_tokens": -0.5}


@dataclass(frozen=True)
class Collator:
    """Makes batches; the same examples give the same tensors in every process."""

    text: Text
    mels: int
    stack: int
    reduction: Reduction = "token"

    def __call__(self, examples: Sequence[Example]) -> Batch:
        """Return the micro-batch of `examples`, padded to 30 s if one of them asks for it."""
        rows, tasks, clips = [], [], []
        for index, example in enumerate(examples):
            count = audio_tokens(len(example.audio), self.stack)
            for question in example.questions:
                rows.append(self.text.row(question, self._slots(count)))
                tasks.append(question.task)
                clips.append(index)
        audio, pad30 = [example.audio for example in examples], any(example.pad30 for example in examples)
        return replace(
            self._batch(audio, rows, clips, tuple(tasks), pad30=pad30),
            domains=tuple(examples[clip].domain for clip in clips),
            replaced=sum(example.replaced for example in examples),
        )

    def prompts(self, audio: Sequence[Any], instructions: Sequence[str], *, pad30: bool = False) -> Batch:
        """Return a batch without answers: one instruction per clip."""
        counts = [audio_tokens(len(clip), self.stack) for clip in audio]
        rows = [self.text.prompt(text, self._slots(n)) for text, n in zip(instructions, counts, strict=True)]
        return self._batch(list(audio), rows, list(range(len(rows))), ("",) * len(rows), pad30=pad30)

    def _slots(self, tokens: int) -> int:
        """Return the number of positions of audio in a row: its tokens and two marks, or 0 with cross-attention."""
        return 0 if self.text.longest is not None else tokens + 2

    def _batch(
        self, audio: list[Any], rows: list[Row], clips: list[int], tasks: tuple[str, ...], *, pad30: bool
    ) -> Batch:
        import torch

        longest = max(len(row.ids) for row in rows)
        ids = torch.full((len(rows), longest), self.text.pad)
        is_audio, is_answer = (torch.zeros(len(rows), longest, dtype=torch.bool) for _ in range(2))
        weights = []
        for index, row in enumerate(rows):
            ids[index, : len(row.ids)] = torch.tensor(row.ids)
            is_audio[index, row.audio_start : row.audio_start + row.audio] = True
            is_answer[index, row.answer_start : len(row.ids)] = True
            answer = len(row.ids) - row.answer_start
            weights += [answer ** _POWER[self.reduction] if answer else 0.0] * answer
        return Batch(
            mel=log_mel(audio, self.mels, pad30=pad30),
            tokens=torch.tensor([audio_tokens(len(clip), self.stack) for clip in audio]),
            clip_of=torch.tensor(clips),
            ids=ids,
            is_audio=is_audio,
            is_answer=is_answer,
            weights=torch.tensor(weights, dtype=torch.float32),
            tasks=tasks,
            samples=tuple(len(clip) for clip in audio),
            lengths=tuple(len(row.ids) for row in rows),
        )


def log_mel(audio: Sequence[Any], mels: int, *, pad30: bool = False) -> torch.Tensor:
    """Return Whisper's log-mel `(clips, mels, frames)`, all padded with silence to the longest's edge, or to 30 s.

    Each clip is clamped by its own maximum, as in 30 s of silence. Raises AudioError for a clip that is empty, longer
    than 30 s or not finite.
    """
    import numpy as np
    from transformers import WhisperFeatureExtractor

    for index, clip in enumerate(audio):
        if not 0 < len(clip) <= MAX_SAMPLES or not np.isfinite(clip).all():
            raise AudioError(f"{len(clip)} samples, not 1 to {MAX_SAMPLES} finite ones", where=f"clip {index}")
    longest = max(MIN_SAMPLES, *(len(clip) for clip in audio))
    edge = MAX_SAMPLES if pad30 else min(-(-longest // _EDGE) * _EDGE, MAX_SAMPLES)
    extractor: Any = WhisperFeatureExtractor(feature_size=mels)
    window = edge if edge == MAX_SAMPLES else edge + _TAIL
    features = extractor(
        list(audio), sampling_rate=SAMPLE_RATE, padding="max_length", max_length=window, return_tensors="pt"
    )
    return features.input_features[..., : edge // _HOP].contiguous()
