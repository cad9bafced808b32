"""Transcription: a CTC probe reads characters off the frames, greedily; the score counts words (1 - WER).

The probe sees one frame at a time; what a frame knows of its neighbours is the encoder's. Texts are compared in lower
case with single spaces. A frame longer than 25 ms gives several outputs, so that encoders of any hop can spell fast
speech. The grid is searched on part of the clips (`_SEARCH`): the probe of LibriSpeech's 100 hours reads 18 million
frames per epoch. There is no kNN: characters are not classes of clips.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from uwbench.cards.protocol import MlpSettings
from uwbench.errors import ProbeError
from uwbench.probes.data import TaskData, spread_rows
from uwbench.probes.kinds.base import ClipKind, Limits, Predicted, one_label, present, training_rows
from uwbench.results import metrics

if TYPE_CHECKING:
    import torch

    from uwbench.probes.kinds.base import Weights

BLANK = 0  # the class that stands for no character
_OUTPUT_S = 0.025  # one output for at most this many seconds: English is read at about 15 characters per second
_BATCH = 16  # clips
_SEARCH = Limits(500, 200)


class Transcription(ClipKind):
    """Tasks with one text per clip. A prediction holds the word errors and the words of each clip."""

    has_classes = False
    batch = _BATCH

    def __init__(self, data: TaskData) -> None:
        if data.frames is None:
            raise ProbeError("a transcription task needs frames", where=data.card.name)
        self.texts = [" ".join(one_label(data, row, "a text").lower().split()) for row in range(len(data.labels))]
        self.classes = tuple(sorted({sign for row in training_rows(data) for sign in self.texts[row]}))
        if not self.classes:
            raise ProbeError("no training text holds a character", where=data.card.name)
        number = {sign: code for code, sign in enumerate(self.classes, start=BLANK + 1)}
        # A character that no training text holds cannot be written; its word counts as an error.
        self.codes = [[number[sign] for sign in text if sign in number] for text in self.texts]
        self.offsets = np.asarray(data.frames.offsets, np.int64)
        self.steps = max(1, math.ceil(data.frames.hop_s / _OUTPUT_S - 1e-9))  # outputs in time per frame

    @property
    def outputs(self) -> int:
        return self.steps * (len(self.classes) + 1)

    def strata(self) -> Sequence[Sequence[int]]:
        return [[0]] * len(self.texts)

    def limits(self, _settings: MlpSettings) -> Limits:
        return _SEARCH

    def rows(self, items: np.ndarray, _limit: int | None = None) -> np.ndarray:
        total = int(self.rows_per_item(items).sum())
        if _limit is not None and total > _limit:
            return spread_rows(self.offsets, items, _limit)
        spans = [np.arange(int(self.offsets[row]), int(self.offsets[row + 1])) for row in items.tolist()]
        return np.concatenate(spans) if spans else np.zeros(0, np.int64)

    def rows_per_item(self, items: np.ndarray) -> np.ndarray:
        return self.offsets[items + 1] - self.offsets[items]

    def targets(self, items: np.ndarray, _rng: np.random.Generator | None = None) -> np.ndarray:
        return items

    def losses(self, outputs: torch.Tensor, targets: Sequence[np.ndarray], _weights: Weights) -> torch.Tensor:
        """Return the CTC loss per character; a text too long for its frames counts nothing."""
        import torch

        longest = max(map(len, targets))
        streams = [self._ctc(part, clips) for part, clips in zip(outputs, targets, strict=True)]
        return torch.stack([torch.nn.functional.pad(part, (0, longest - part.shape[1])) for part in streams])

    def _ctc(self, outputs: torch.Tensor, clips: np.ndarray) -> torch.Tensor:
        """Return the losses `(G, clips)` of one stream, from outputs `(G, rows, outputs)`."""
        import torch

        points = len(outputs)
        heard = np.flatnonzero(self.rows_per_item(clips) > 0)
        losses = outputs.new_zeros(points, len(clips))
        if len(heard) == 0:
            return losses + 0 * outputs.sum()  # keeps its place in the graph
        lengths = (self.rows_per_item(clips[heard]) * self.steps).tolist()
        logs = outputs.reshape(points, -1, len(self.classes) + 1)[:, : sum(lengths)].log_softmax(-1)
        codes = [self.codes[row] for row in clips[heard].tolist()] * points
        sizes = torch.tensor([len(text) for text in codes])
        values = torch.nn.functional.ctc_loss(
            torch.nn.utils.rnn.pad_sequence([part for probe in logs for part in probe.split(lengths)]),
            torch.tensor([code for text in codes for code in text], device=outputs.device),
            torch.tensor(lengths * points),
            sizes,
            blank=BLANK,
            reduction="none",
            zero_infinity=True,
        )
        values = (values / sizes.clamp(min=1).to(values.device)).view(points, -1)
        return losses.index_copy(1, torch.from_numpy(heard).to(losses.device), values)

    def scores(self, outputs: torch.Tensor, _weights: Weights, _clips: np.ndarray) -> np.ndarray:
        """Return the best class of each output in time, `(G, rows, outputs per frame)`."""
        return outputs[0].unflatten(-1, (self.steps, -1)).argmax(-1).cpu().numpy()

    def truths(self, clips: np.ndarray) -> list[str]:
        return [json.dumps(self.texts[row], ensure_ascii=False) for row in clips.tolist()]

    def predict(self, scores: np.ndarray, _items: np.ndarray, clips: np.ndarray) -> Predicted:
        """Return the predictions of `clips` from the best classes of their frames, end to end."""
        ends = np.cumsum(self.rows_per_item(clips))[:-1]
        texts = [self.spell(best.ravel()) for best in np.split(scores, ends)] if len(clips) else []
        counts = [metrics.word_errors(self.texts[row], text) for row, text in zip(clips.tolist(), texts, strict=True)]
        written = [json.dumps(text, ensure_ascii=False) for text in texts]
        return Predicted(written, counts=np.array(counts, np.float32).reshape(-1, 2))

    def spell(self, best: np.ndarray) -> str:
        """Return the text of the best classes of consecutive outputs: repeats are merged, blanks dropped."""
        fresh = np.append(True, best[1:] != best[:-1])[: len(best)] & (best != BLANK)
        return " ".join("".join(self.classes[code - 1] for code in best[fresh].tolist()).split())

    def measure(self, predicted: Predicted, clips: np.ndarray) -> float:
        return metrics.one_minus_wer(*self._totals(predicted, clips))

    def further(self, predicted: Predicted, clips: np.ndarray) -> dict[str, float]:
        """Return the word error rate itself, which may exceed 1."""
        errors, words = self._totals(predicted, clips)
        return {"wer": errors / max(words, 1)}

    def _totals(self, predicted: Predicted, clips: np.ndarray) -> tuple[int, int]:
        errors, words = present(predicted.counts, clips).sum(axis=0, dtype=np.float64)
        return int(errors), int(words)
