"""Tasks whose clips have one label each, or any number of labels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from uwbench.audio.clip import Event
from uwbench.errors import ProbeError
from uwbench.probes.data import TaskData
from uwbench.probes.kinds.base import (
    ClipKind,
    Predicted,
    encode,
    one_label,
    padded,
    present,
    require_equal,
    sigmoid_losses,
    sigmoid_scores,
    vocabulary,
)
from uwbench.results import metrics

if TYPE_CHECKING:
    import torch

    from uwbench.probes.kinds.base import Weights

THRESHOLD = 0.5  # a class is predicted if its score reaches this; untuned, the same for every model


class SingleLabel(ClipKind):
    """Tasks with one class per clip. The class of the highest score is predicted, the first one on a tie."""

    def __init__(self, data: TaskData) -> None:
        labels = [[one_label(data, row, "one label")] for row in range(len(data.labels))]
        self.metric = data.card.metric
        self.classes = vocabulary(data, labels)
        self.codes = np.array([codes[0] for codes in encode(data, self.classes, labels)])

    def strata(self) -> Sequence[Sequence[int]]:
        return self.codes[:, None].tolist()

    def targets(self, items: np.ndarray, _rng: np.random.Generator | None = None) -> np.ndarray:
        return self.codes[items]

    def losses(self, outputs: torch.Tensor, targets: Sequence[np.ndarray], _weights: Weights) -> torch.Tensor:
        import torch

        codes = padded(targets, outputs.device)[:, None].expand(outputs.shape[:3])
        losses = torch.nn.functional.cross_entropy(outputs.flatten(0, 2), codes.flatten(), reduction="none")
        return losses.view(outputs.shape[:3])

    def scores(self, outputs: torch.Tensor, _weights: Weights, _clips: np.ndarray) -> np.ndarray:
        return outputs[0].cpu().numpy()

    def truths(self, clips: np.ndarray) -> list[str]:
        return self._texts(self.codes[clips])

    def predict(self, scores: np.ndarray, items: np.ndarray, clips: np.ndarray) -> Predicted:
        require_equal(scores, items, clips)
        return self.from_codes(scores.argmax(axis=-1))

    def from_codes(self, codes: np.ndarray) -> Predicted:
        """Return the predictions of clips from their class numbers."""
        return Predicted(self._texts(codes), codes=codes)

    def measure(self, predicted: Predicted, clips: np.ndarray) -> float:
        return metrics.of_labels(self.metric, self.codes[clips], present(predicted.codes, clips))

    def further(self, predicted: Predicted, clips: np.ndarray) -> dict[str, float]:
        truth, codes = self.codes[clips], present(predicted.codes, clips)
        return {name: metrics.of_labels(name, truth, codes) for name in ("accuracy", "macro-f1")}

    def _texts(self, codes: np.ndarray) -> list[str]:
        names = [json.dumps(name, ensure_ascii=False) for name in self.classes]
        return [names[code] for code in codes.tolist()]


class MultiLabel(ClipKind):
    """Tasks with any number of classes per clip. mAP ranks the scores; the threshold is for the written predictions."""

    def __init__(self, data: TaskData) -> None:
        labels = [_labels(data, row) for row in range(len(data.labels))]
        self.classes = vocabulary(data, labels)
        self.codes = encode(data, self.classes, labels)
        self.relevant = np.zeros((len(labels), len(self.classes)), dtype=bool)
        for row, codes in enumerate(self.codes):
            self.relevant[row, codes] = True

    def strata(self) -> Sequence[Sequence[int]]:
        return self.codes

    def targets(self, items: np.ndarray, _rng: np.random.Generator | None = None) -> np.ndarray:
        return self.relevant[items].astype(np.float32)

    def losses(self, outputs: torch.Tensor, targets: Sequence[np.ndarray], _weights: Weights) -> torch.Tensor:
        return sigmoid_losses(outputs, targets)

    def scores(self, outputs: torch.Tensor, _weights: Weights, _clips: np.ndarray) -> np.ndarray:
        return sigmoid_scores(outputs)

    def truths(self, clips: np.ndarray) -> list[str]:
        return self._texts(self.relevant[clips])

    def predict(self, scores: np.ndarray, items: np.ndarray, clips: np.ndarray) -> Predicted:
        require_equal(scores, items, clips)
        return Predicted(self._texts(scores >= THRESHOLD), scores=scores.astype(np.float32))

    def measure(self, predicted: Predicted, clips: np.ndarray) -> float:
        return metrics.mean_average_precision(self.relevant[clips], present(predicted.scores, clips))

    def further(self, predicted: Predicted, clips: np.ndarray) -> dict[str, float]:
        counts = metrics.segment_counts(self.relevant[clips], present(predicted.scores, clips) >= THRESHOLD)
        return {f"f1-{average}": metrics.f1_from_counts(counts, average=average) for average in ("micro", "macro")}

    def _texts(self, chosen: np.ndarray) -> list[str]:
        return [json.dumps([self.classes[code] for code in np.flatnonzero(row)], ensure_ascii=False) for row in chosen]


def _labels(data: TaskData, row: int) -> list[str]:
    labels = data.labels[row]
    if isinstance(labels, str) or any(isinstance(label, Event) for label in labels):
        raise ProbeError(f"a tuple of labels expected, found {labels!r}", where=str(data.ids[row]))
    return [str(label) for label in labels]
