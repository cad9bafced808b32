"""Retrieval: audio and captions meet in one space, and each looks for its partner among all of the other (R@1).

The audio's vector goes through the probe's head (linear, or one hidden layer), the caption's frozen sentence embedding
through a linear map that starts as the identity. Both are scaled to length 1; the loss is the symmetric cross-entropy
of a batch of clips, one caption drawn for each, under a trained temperature (Radford et al. 2021, ICML; X-ARES's loss
for Clotho without its norm penalties). The score is the mean of both directions: the share of clips whose nearest
caption is one of theirs, and the share of captions whose nearest clip is theirs. There is no kNN: captions are no
classes that neighbours could vote for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from uwbench.errors import ProbeError, UsageError
from uwbench.probes.data import TaskData
from uwbench.probes.fitting import Head, apply_perceptron, perceptron
from uwbench.probes.kinds import OfClips, Predicted
from uwbench.probes.search import statistics
from uwbench.probes.splits import Fold
from uwbench.results import metrics

if TYPE_CHECKING:
    import torch

_TEMPERATURE = 0.07  # at the start, as in the sources above
_MOST = 100.0  # of the inverse temperature


class Retrieval(OfClips):
    """Clips with their captions; a prediction holds for each clip its hits and its queries, both ways."""

    classes: tuple[str, ...] = ()
    loss: Literal["softmax", "sigmoid"] = "softmax"

    def __init__(self, data: TaskData) -> None:
        self.captions = [_captions(data, row) for row in range(len(data.labels))]

    def strata(self) -> Sequence[Sequence[int]]:
        return [[0]] * len(self.captions)

    def targets(self, items: np.ndarray) -> np.ndarray:
        return items

    def truths(self, clips: np.ndarray) -> list[str]:
        """Return each clip's captions, as JSON."""
        return [json.dumps(list(self.captions[row]), ensure_ascii=False) for row in clips.tolist()]

    def predict(self, scores: np.ndarray, items: np.ndarray, clips: np.ndarray) -> Predicted:
        """Return the predictions of `clips` from similarities `(clips, their captions end to end)`."""
        if not len(scores) == len(items) == len(clips):
            raise ProbeError(f"{len(scores)} rows of similarities for {len(clips)} clips")
        owner = np.repeat(np.arange(len(clips)), [len(self.captions[row]) for row in clips.tolist()])
        relevant = owner[None, :] == np.arange(len(clips))[:, None]
        found = metrics.recall_at_1(scores, relevant)
        back = metrics.recall_at_1(scores.T, relevant.T)
        queries = np.bincount(owner, minlength=len(clips))
        counts = np.stack([found, np.ones(len(clips)), np.bincount(owner, back, minlength=len(clips)), queries], axis=1)
        texts = [text for row in clips.tolist() for text in self.captions[row]]
        nearest = [json.dumps(texts[at], ensure_ascii=False) for at in scores.argmax(axis=1).tolist()]
        return Predicted(nearest, counts=counts.astype(np.float32))

    def measure(self, predicted: Predicted, clips: np.ndarray) -> float:
        return metrics.mean([*self.further(predicted, clips).values()])

    def further(self, predicted: Predicted, clips: np.ndarray) -> dict[str, float]:
        if predicted.counts is None or len(predicted.counts) != len(clips):
            raise ProbeError("the predictions lack the counts of their queries")
        hits, queries, back, asked = predicted.counts.sum(axis=0, dtype=np.float64)
        return {"audio to text": float(hits / queries), "text to audio": float(back / asked)}


class RetrievalProblem:
    """One fold of a retrieval task: standardised vectors, caption vectors, heads and their loss."""

    def __init__(self, data: TaskData, kind: Retrieval, fold: Fold, grid_clips: int | None, device: str) -> None:
        import torch

        if data.text is None:
            what = "captions need a text encoder"
            raise UsageError(what, where=data.card.name, remedy="name one with --text-encoder NAME or FOLDER")
        self.kind, self.device = kind, device
        self.xares, self.batch = data.card.xares, data.card.xares.batch
        self.search_train, self.search_valid = kind.thin(fold.train, grid_clips), kind.sample(fold.valid, grid_clips)
        pooled = data.pooled[:, -1]
        centre, scale = statistics(lambda rows: pooled[rows], fold.train)
        self.audio = torch.from_numpy((pooled - centre) * scale).to(device)
        self.text = torch.nn.functional.normalize(torch.from_numpy(data.text.values).to(device), dim=-1)
        self.offsets = np.asarray(data.text.offsets, dtype=np.int64)

    def weights(self, width: int, rng: torch.Generator) -> dict[str, torch.Tensor]:
        import torch

        dim = self.text.shape[1]
        made = perceptron(self.audio.shape[1], width, dim, rng)
        made |= {"text": torch.eye(dim), "temperature": torch.tensor(math.log(1 / _TEMPERATURE))}
        return {name: weight.to(self.device) for name, weight in made.items()}

    def batches(self, clips: np.ndarray, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield clips in random order, each with the row of one of its captions."""
        order = rng.permutation(clips)
        drawn = self.offsets[order] + np.floor(rng.random(len(order)) * np.diff(self.offsets)[order]).astype(np.int64)
        for start in range(0, len(order), self.batch):
            yield order[start : start + self.batch], drawn[start : start + self.batch]

    def loss(self, head: Head, batch: tuple[np.ndarray, np.ndarray]) -> torch.Tensor:
        return self._loss(head, *batch, training=True)

    def quality(self, head: Head, clips: np.ndarray) -> tuple[float, float]:
        predicted = self.predict(head, clips)
        losses = [
            float(self._loss(head, part, self.offsets[part], training=False)) * len(part)
            for part in np.array_split(clips, math.ceil(len(clips) / self.batch))
        ]
        return self.kind.measure(predicted, clips), sum(losses) / len(clips)

    def predict(self, head: Head, clips: np.ndarray) -> Predicted:
        import torch

        captions = np.concatenate(
            [np.arange(int(self.offsets[row]), int(self.offsets[row + 1])) for row in clips.tolist()]
        )
        with torch.no_grad():
            audio, text = self._both(head, clips, captions, training=False)
            similarity = (audio @ text.T).cpu().numpy()
        # Rounded, so that equal vectors tie on every machine and the order of clip ids decides.
        return self.kind.predict(np.round(similarity, 6), clips, clips)

    def _loss(self, head: Head, clips: np.ndarray, captions: np.ndarray, *, training: bool) -> torch.Tensor:
        import torch

        audio, text = self._both(head, clips, captions, training=training)
        logits = audio @ text.T * head.weights["temperature"].exp().clamp(max=_MOST)
        own = torch.arange(len(clips), device=logits.device)
        cross_entropy = torch.nn.functional.cross_entropy
        return (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2

    def _both(
        self, head: Head, clips: np.ndarray, captions: np.ndarray, *, training: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        normalize = torch.nn.functional.normalize
        audio = apply_perceptron(head, self.audio[torch.from_numpy(clips)], training=training)
        return normalize(audio, dim=-1), normalize(self.text[torch.from_numpy(captions)] @ head.weights["text"], dim=-1)


def _captions(data: TaskData, row: int) -> tuple[str, ...]:
    labels = data.labels[row]
    captions = tuple(label for label in labels if isinstance(label, str) and label.strip())
    if isinstance(labels, str) or not captions or len(captions) < len(labels):
        raise ProbeError(f"captions expected, found {labels!r}", where=str(data.ids[row]))
    return captions
