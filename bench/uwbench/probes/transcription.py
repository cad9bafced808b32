"""Transcription: characters read off the frames by a CTC probe, greedily, and scored by words (1 - WER).

The head (linear, or one hidden layer) sees one frame at a time; what a frame knows of its neighbours is the encoder's.
Texts are compared in lower case with single spaces. A frame longer than 25 ms gives several outputs, so that encoders
of any hop can spell fast speech. The grid is searched on part of the clips (`_GRID_CLIPS`): the probe of LibriSpeech's
100 hours reads 18 million frames an epoch. There is no kNN: characters are not clips' classes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from uwbench.errors import ProbeError
from uwbench.probes.data import TaskData, spread_rows
from uwbench.probes.fitting import Head, apply_perceptron, perceptron
from uwbench.probes.kinds import OfClips, Predicted, joined
from uwbench.probes.search import statistics
from uwbench.probes.splits import Fold
from uwbench.results import metrics

if TYPE_CHECKING:
    import torch

BLANK = 0  # the class that stands for no character
_OUTPUT_S = 0.025  # an output for at most so much time: English is read at about 15 characters a second
_BATCH = 16  # clips
_GRID_CLIPS, _GRID_VALID = 500, 200
_STATISTICS_FRAMES = 60_000
_FRAMES_AT_ONCE = 60_000  # read and scored together


class Transcription(OfClips):
    """A text a clip; a prediction holds for each clip its word errors and its words."""

    loss: Literal["softmax", "sigmoid"] = "softmax"

    def __init__(self, data: TaskData) -> None:
        self.texts = [_text(data, row) for row in range(len(data.labels))]
        trained = [text for row, text in enumerate(self.texts) if data.splits is None or data.splits[row] == "train"]
        self.classes = tuple(sorted({sign for text in trained for sign in text}))
        number = {sign: code for code, sign in enumerate(self.classes, start=BLANK + 1)}
        # A character that no training text holds cannot be written; its word counts as an error.
        self.codes = [[number[sign] for sign in text if sign in number] for text in self.texts]

    def strata(self) -> Sequence[Sequence[int]]:
        return [[0]] * len(self.texts)

    def targets(self, items: np.ndarray) -> np.ndarray:
        return items

    def truths(self, clips: np.ndarray) -> list[str]:
        return [json.dumps(self.texts[row], ensure_ascii=False) for row in clips.tolist()]

    def predict(self, scores: np.ndarray, items: np.ndarray, clips: np.ndarray) -> Predicted:
        """Return the predictions of `clips` from the best class of each output; `items` number the clips."""
        rows = np.arange(len(clips))
        starts, stops = np.searchsorted(items, rows), np.searchsorted(items, rows, side="right")
        texts = [self.spell(scores[start:stop]) for start, stop in zip(starts, stops, strict=True)]
        counts = [metrics.word_errors(self.texts[row], text) for row, text in zip(clips.tolist(), texts, strict=True)]
        written = [json.dumps(text, ensure_ascii=False) for text in texts]
        return Predicted(written, counts=np.array(counts, np.float32).reshape(-1, 2))

    def spell(self, best: np.ndarray) -> str:
        """Return the text of the best classes of consecutive outputs: repeats are one, blanks are none."""
        fresh = np.append(True, best[1:] != best[:-1])[: len(best)] & (best != BLANK)
        return " ".join("".join(self.classes[code - 1] for code in best[fresh].tolist()).split())

    def measure(self, predicted: Predicted, clips: np.ndarray) -> float:
        errors, words = self._totals(predicted, clips)
        return metrics.one_minus_wer(errors, words)

    def further(self, predicted: Predicted, clips: np.ndarray) -> dict[str, float]:
        """Return the word error rate itself, which may exceed 1."""
        errors, words = self._totals(predicted, clips)
        return {"wer": errors / max(words, 1)}

    def _totals(self, predicted: Predicted, clips: np.ndarray) -> tuple[int, int]:
        if predicted.counts is None or len(predicted.counts) != len(clips):
            raise ProbeError("the predictions lack the counts of their words")
        errors, words = predicted.counts.sum(axis=0, dtype=np.float64)
        return int(errors), int(words)


@dataclass(frozen=True, slots=True)
class Batch:
    """Frames of some clips end to end `(frames, dim)`, standardised, and how many each has."""

    clips: np.ndarray
    values: torch.Tensor
    counts: list[int]


class TranscriptionProblem:
    """One fold of a transcription task; frames are read from disk batch by batch."""

    batch = _BATCH

    def __init__(self, data: TaskData, kind: Transcription, fold: Fold, device: str) -> None:
        import torch

        if data.frames is None:
            raise ProbeError("a transcription task needs frames", where=data.card.name)
        if not kind.classes:
            raise ProbeError("no training text holds a character", where=data.card.name)
        frames = data.frames
        self.frames, self.kind, self.device, self.xares = frames, kind, device, data.card.xares
        self.outputs = max(1, math.ceil(frames.hop_s / _OUTPUT_S - 1e-9))  # a frame
        self.search_train, self.search_valid = kind.thin(fold.train, _GRID_CLIPS), kind.sample(fold.valid, _GRID_VALID)
        seen = spread_rows(np.asarray(frames.offsets), fold.train, _STATISTICS_FRAMES)
        if len(seen) == 0:
            raise ProbeError("the training clips have no frames", where=data.card.name)
        centre, scale = statistics(frames.rows, seen)
        self.centre, self.scale = torch.from_numpy(centre).to(device), torch.from_numpy(scale).to(device)

    def weights(self, width: int, rng: torch.Generator) -> dict[str, torch.Tensor]:
        made = perceptron(len(self.centre), width, self.outputs * (len(self.kind.classes) + 1), rng)
        return {name: weight.to(self.device) for name, weight in made.items()}

    def batches(self, clips: np.ndarray, rng: np.random.Generator) -> Iterator[Batch]:
        """Yield clips in random order; those without frames have nothing to learn from."""
        order = rng.permutation(clips)
        for start in range(0, len(order), self.batch):
            part = order[start : start + self.batch]
            part = part[self.frames.counts(part) > 0]
            if len(part):
                yield self._read(part)

    def loss(self, head: Head, batch: Batch) -> torch.Tensor:
        """Return the mean over clips of the CTC loss a character; a text too long for its frames counts nothing."""
        return self._ctc(self._outputs(head, batch, training=True), batch).mean()

    def quality(self, head: Head, clips: np.ndarray) -> tuple[float, float]:
        total, parts = 0.0, []
        for batch in self._stretches(clips):
            outputs = self._outputs(head, batch, training=False)
            total += float(self._ctc(outputs, batch).sum())
            parts.append(self._decode(outputs, batch))
        return self.kind.measure(joined(parts), clips), total / len(clips)

    def predict(self, head: Head, clips: np.ndarray) -> Predicted:
        import torch

        with torch.no_grad():
            parts = [
                self._decode(self._outputs(head, batch, training=False), batch) for batch in self._stretches(clips)
            ]
        return joined(parts)

    def _stretches(self, clips: np.ndarray) -> Iterator[Batch]:
        for part, _ in self.frames.batches(clips, _FRAMES_AT_ONCE):
            yield self._read(part)

    def _read(self, clips: np.ndarray) -> Batch:
        import torch

        views = [np.asarray(self.frames[row], np.float32) for row in clips.tolist()]
        values = torch.from_numpy(np.concatenate(views)).to(self.device)
        return Batch(clips, (values - self.centre) * self.scale, [len(view) for view in views])

    def _outputs(self, head: Head, batch: Batch, *, training: bool) -> torch.Tensor:
        """Return log probabilities `(outputs of all clips, classes + 1)`."""
        outputs = apply_perceptron(head, batch.values, training=training)
        return outputs.reshape(-1, len(self.kind.classes) + 1).log_softmax(-1)

    def _ctc(self, outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return each clip's CTC loss divided by its characters, `(clips,)`."""
        import torch

        lengths = [count * self.outputs for count in batch.counts]
        padded = torch.nn.utils.rnn.pad_sequence(list(outputs.split(lengths)))
        codes = [self.kind.codes[row] for row in batch.clips.tolist()]
        sizes = torch.tensor([len(text) for text in codes])
        losses = torch.nn.functional.ctc_loss(
            padded,
            torch.tensor([code for text in codes for code in text], device=outputs.device),
            torch.tensor(lengths),
            sizes,
            blank=BLANK,
            reduction="none",
            zero_infinity=True,
        )
        return losses / sizes.clamp(min=1).to(losses.device)

    def _decode(self, outputs: torch.Tensor, batch: Batch) -> Predicted:
        owner = np.repeat(np.arange(len(batch.clips)), np.array(batch.counts, np.int64) * self.outputs)
        return self.kind.predict(outputs.argmax(-1).cpu().numpy(), owner, batch.clips)


def _text(data: TaskData, row: int) -> str:
    label = data.labels[row]
    if not isinstance(label, str):
        raise ProbeError(f"a text expected, found {label!r}", where=str(data.ids[row]))
    return " ".join(label.lower().split())
