"""Turn examples into tensors: a micro-batch's log-mel features and the tokens of its questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from uniwhisper.data.examples import MAX_SAMPLES, MIN_SAMPLES, SAMPLE_RATE, Example
from uniwhisper.language_model import attended_pairs
from uniwhisper.model.tokens import Classes, Row, Text
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
    """A micro-batch: N clips and R rows of S tokens with Q questions, A of the tokens being answer and end tokens.

    `mel` (N, mels, frames); `tokens` (N,) audio tokens; `clip_of` (R,); `ids`, `is_audio`, `is_answer` (R, S);
    `weights` (A,) of the loss, in the order of `ids[is_answer]`; `tasks`, `domains` and `answers` (tokens) of the
    questions, in the same order; `lengths` (tokens) and `pairs` (see `attended_pairs`) of the rows; `samples` a clip's
    own length; `replaced` clips stand in for others that could not be read.

    Where rows have several questions, `segments` (R, S) numbers them from 1, with 0 for what they share and -1 for
    padding, and `positions` (R, S) counts each question from the end of what it shares: it reads as if it were alone.
    Otherwise both are None, and a row is read from left to right.
    """

    mel: torch.Tensor
    tokens: torch.Tensor
    clip_of: torch.Tensor
    ids: torch.Tensor
    is_audio: torch.Tensor
    is_answer: torch.Tensor
    weights: torch.Tensor
    segments: torch.Tensor | None
    positions: torch.Tensor | None
    tasks: tuple[str, ...]
    answers: tuple[int, ...]
    samples: tuple[int, ...]
    lengths: tuple[int, ...]
    pairs: tuple[float, ...]
    domains: tuple[str, ...] = ()
    replaced: int = 0

    def to(self, device: str) -> Batch:
        """Return the batch with its tensors on a device."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        moved = {name: value.to(device, non_blocking=True) for name, value in values.items() if hasattr(value, "to")}
        return replace(self, **moved)


Reduction = Literal["token", "sample", "sqrt_tokens"]
_POWER = {"token": 0.0, "sample": -1.0, "sqrt_tokens": -0.5}


@dataclass(frozen=True)
class Collator:
    """Makes batches; the same examples give the same tensors in every process.

    With `packed`, the questions about a clip are in one row. Whisper's decoder and heads, whose rows hold no audio to
    share, read each in its own.
    """

    text: Text | Classes
    mels: int
    stack: int
    reduction: Reduction = "token"
    packed: bool = False

    def __call__(self, examples: Sequence[Example]) -> Batch:
        """Return the micro-batch of `examples`, padded to 30 s if one of them asks for it."""
        rows, questions, clips = [], [], []
        for index, example in enumerate(examples):
            slots = self._slots(audio_tokens(len(example.audio), self.stack))
            together = self.packed and self.text.longest is None
            for part in (example.questions,) if together else tuple((question,) for question in example.questions):
                rows.append(self.text.row(part, slots))
                clips.append(index)
            questions += [(question.task, example.domain) for question in example.questions]
        audio, pad30 = [example.audio for example in examples], any(example.pad30 for example in examples)
        return replace(
            self._batch(audio, rows, clips, pad30=pad30),
            tasks=tuple(task for task, _ in questions),
            domains=tuple(domain for _, domain in questions),
            replaced=sum(example.replaced for example in examples),
        )

    def prompts(self, audio: Sequence[Any], instructions: Sequence[str], *, pad30: bool = False) -> Batch:
        """Return a batch without answers: one instruction per clip, for a model that writes its answers."""
        assert isinstance(self.text, Text)
        counts = [audio_tokens(len(clip), self.stack) for clip in audio]
        rows = [self.text.prompt(text, self._slots(n)) for text, n in zip(instructions, counts, strict=True)]
        return self._batch(list(audio), rows, list(range(len(rows))), pad30=pad30)

    def _slots(self, tokens: int) -> int:
        """Return the number of positions of audio in a row: its tokens and two marks, or 0 where audio is no prefix."""
        return 0 if self.text.longest is not None else tokens + 2

    def _batch(self, audio: list[Any], rows: list[Row], clips: list[int], *, pad30: bool) -> Batch:
        import torch

        longest = max(len(row.ids) for row in rows)
        ids = torch.full((len(rows), longest), self.text.pad)
        is_audio, is_answer = (torch.zeros(len(rows), longest, dtype=torch.bool) for _ in range(2))
        segments, positions = torch.full((len(rows), longest), -1), torch.arange(longest).repeat(len(rows), 1)
        weights = []
        for index, row in enumerate(rows):
            shared = row.spans[0].start
            ids[index, : len(row.ids)] = torch.tensor(row.ids)
            is_audio[index, row.audio_start : row.audio_start + row.audio] = True
            segments[index, :shared] = 0
            for number, span in enumerate(row.spans, start=1):
                is_answer[index, span.answer : span.end] = True
                segments[index, span.start : span.end] = number
                positions[index, span.start : span.end] -= span.start - shared
                answer = span.end - span.answer
                weights += [answer ** _POWER[self.reduction] if answer else 0.0] * answer
        packed = any(len(row.spans) > 1 for row in rows)
        return Batch(
            mel=log_mel(audio, self.mels, pad30=pad30),
            tokens=torch.tensor([audio_tokens(len(clip), self.stack) for clip in audio]),
            clip_of=torch.tensor(clips),
            ids=ids,
            is_audio=is_audio,
            is_answer=is_answer,
            weights=torch.tensor(weights, dtype=torch.float32),
            segments=segments if packed else None,
            positions=positions if packed else None,
            tasks=(),
            answers=tuple(span.end - span.answer for row in rows for span in row.spans),
            samples=tuple(len(clip) for clip in audio),
            lengths=tuple(len(row.ids) for row in rows),
            pairs=tuple(
                attended_pairs(row.spans[0].start, [span.end - span.start for span in row.spans]) for row in rows
            ),
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
