"""Retrieval: audio and captions share one space, and each looks for its partner among all of the other (R@1).

The clip's vector goes through the probe, the caption's frozen sentence embedding through a linear map that starts as
the identity. Both are scaled to length 1. The loss is the symmetric cross-entropy of a batch of clips, with one caption
drawn for each, under a trained temperature (Radford et al. 2021, ICML; X-ARES's loss for Clotho without its norm
penalties). The score is the mean of both directions: the share of clips whose nearest caption is one of theirs, and the
share of captions whose nearest clip is theirs. There is no kNN: captions are not classes that neighbours could vote
for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from uwbench.errors import ProbeError, UsageError
from uwbench.probes.data import TaskData
from uwbench.probes.kinds.base import ClipKind, Predicted, padded, present, require_equal
from uwbench.probes.sentences import TextVectors
from uwbench.results import metrics

if TYPE_CHECKING:
    import torch

    from uwbench.probes.kinds.base import Weights

_TEMPERATURE = 0.07  # at the start, as in the sources above
_HIGHEST = 100.0  # of the inverse temperature
_PADDED = -1e4  # logit between a clip and a place that is filled up


class Retrieval(ClipKind):
    """Clips with their captions. A prediction holds the hits and queries of each clip, in both directions."""

    has_classes = False
    ranks_clips = True

    def __init__(self, data: TaskData) -> None:
        self.captions = [_captions(data, row) for row in range(len(data.labels))]
        self.batch = data.card.xares.batch
        self._text, self._name = data.text, data.card.name

    @property
    def text(self) -> TextVectors:
        if self._text is None:
            remedy = "name one with --text-encoder NAME or FOLDER"
            raise UsageError("captions need a text encoder", where=self._name, remedy=remedy)
        return self._text

    @property
    def outputs(self) -> int:
        return self.text.values.shape[1]

    def strata(self) -> Sequence[Sequence[int]]:
        return [[0]] * len(self.captions)

    def targets(self, items: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Return the row of one caption per clip: a random one, or the first without `rng`."""
        starts, counts = self.text.offsets[items], np.diff(self.text.offsets)[items]
        return starts if rng is None else starts + np.floor(rng.random(len(items)) * counts).astype(np.int64)

    def weights(self) -> dict[str, np.ndarray]:
        # The temperature is trained as its distance from the start, so that weight decay pulls towards the start.
        return {"text": np.eye(self.outputs, dtype=np.float32), "temperature": np.zeros(1, np.float32)}

    def losses(self, outputs: torch.Tensor, targets: Sequence[np.ndarray], weights: Weights) -> torch.Tensor:
        import torch

        audio = torch.nn.functional.normalize(outputs, dim=-1)
        text = self._embed([self.text.values[rows] for rows in targets], weights)
        scale = (weights["temperature"].double() - math.log(_TEMPERATURE)).exp().clamp(max=_HIGHEST).float()
        logits = audio @ text.transpose(-1, -2) * scale[..., None]
        there = padded([np.ones(len(rows), bool) for rows in targets], outputs.device)
        logits = logits.masked_fill(~(there[:, :, None] & there[:, None, :])[:, None], _PADDED)
        of_clips, of_captions = (
            side.contiguous().log_softmax(dim=-1).diagonal(dim1=-2, dim2=-1)
            for side in (logits, logits.transpose(-1, -2))
        )
        return -(of_clips + of_captions) / 2

    def scores(self, outputs: torch.Tensor, weights: Weights, clips: np.ndarray) -> np.ndarray:
        """Return similarities `(G, rows, captions of the clips)`."""
        import torch

        audio = torch.nn.functional.normalize(outputs, dim=-1)
        spans = [self.text.values[int(self.text.offsets[row]) : int(self.text.offsets[row + 1])] for row in clips]
        similarity = audio @ self._embed([np.concatenate(spans)], weights).transpose(-1, -2)
        # Rounded, so that equal vectors tie on every machine and the order of clip ids decides.
        return similarity[0].cpu().numpy().round(6)

    def _embed(self, captions: Sequence[np.ndarray], weights: Weights) -> torch.Tensor:
        """Return the mapped vectors of each stream's captions, `(S, G, captions, outputs)`, of length 1."""
        import torch

        normalize = torch.nn.functional.normalize
        vectors = normalize(padded(captions, weights["text"].device), dim=-1)
        return normalize(vectors[:, None] @ weights["text"], dim=-1)

    def truths(self, clips: np.ndarray) -> list[str]:
        return [json.dumps(list(self.captions[row]), ensure_ascii=False) for row in clips.tolist()]

    def predict(self, scores: np.ndarray, items: np.ndarray, clips: np.ndarray) -> Predicted:
        """Return the predictions of `clips` from similarities `(clips, their captions end to end)`."""
        require_equal(scores, items, clips)
        owner = np.repeat(np.arange(len(clips)), [len(self.captions[row]) for row in clips.tolist()])
        relevant = owner[None, :] == np.arange(len(clips))[:, None]
        clip_hits = metrics.recall_at_1(scores, relevant)
        caption_hits = np.bincount(owner, metrics.recall_at_1(scores.T, relevant.T), minlength=len(clips))
        captions = np.bincount(owner, minlength=len(clips))
        counts = np.stack([clip_hits, np.ones(len(clips)), caption_hits, captions], axis=1)
        texts = [text for row in clips.tolist() for text in self.captions[row]]
        nearest = [json.dumps(texts[at], ensure_ascii=False) for at in scores.argmax(axis=1).tolist()]
        return Predicted(nearest, counts=counts.astype(np.float32))

    def measure(self, predicted: Predicted, clips: np.ndarray) -> float:
        return metrics.mean([*self.further(predicted, clips).values()])

    def further(self, predicted: Predicted, clips: np.ndarray) -> dict[str, float]:
        totals = present(predicted.counts, clips).sum(axis=0, dtype=np.float64)
        clip_hits, queries, caption_hits, captions = totals
        return {"audio to text": float(clip_hits / queries), "text to audio": float(caption_hits / captions)}


def _captions(data: TaskData, row: int) -> tuple[str, ...]:
    labels = data.labels[row]
    captions = tuple(label for label in labels if isinstance(label, str) and label.strip())
    if isinstance(labels, str) or not captions or len(captions) < len(labels):
        raise ProbeError(f"captions expected, found {labels!r}", where=str(data.ids[row]))
    return captions
