"""What a probe predicts, by kind of task: classes, targets of items, the quality of scores, rows of predictions."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from uwbench.audio.clip import Event
from uwbench.cards.find import load_vocabulary
from uwbench.errors import ProbeError
from uwbench.probes.data import TaskData
from uwbench.probes.splits import random_numbers, subsample
from uwbench.results import metrics

_THRESHOLD = 0.5  # a class is predicted where its score reaches this; untuned, the same for every model


@dataclass(frozen=True, slots=True)
class Predicted:
    """Predictions of `n` clips: JSON texts, and what the main metric is recomputed from.

    `codes` int `(n,)` are the classes of single-label tasks; `scores` float32 `(n, C)` those of mAP; `counts` float32
    `(n, K)` are summed by segment-F1, WER and R@1.
    """

    texts: list[str]
    codes: np.ndarray | None = None
    scores: np.ndarray | None = None
    counts: np.ndarray | None = None


def joined(parts: Sequence[Predicted]) -> Predicted:
    """Return predictions put end to end."""

    def whole(name: str) -> np.ndarray | None:
        arrays = [getattr(part, name) for part in parts]
        return None if arrays[0] is None else np.concatenate(arrays)

    texts = [text for part in parts for text in part.texts]
    return Predicted(texts, whole("codes"), whole("scores"), whole("counts"))


class Kind(Protocol):
    """One kind of task. Items are rows of the inputs: the clips, or frames of clips.

    `items` are all items of some clips; `thin` and `sample` give about `limit` of them, the first to train on, the
    second so that they can be measured. `counts` says how many of some items are each clip's.
    """

    classes: tuple[str, ...]
    loss: Literal["softmax", "sigmoid"]
    of_frames: bool

    def strata(self) -> Sequence[Sequence[int]]: ...

    def items(self, clips: np.ndarray) -> np.ndarray: ...

    def thin(self, clips: np.ndarray, limit: int | None) -> np.ndarray: ...

    def sample(self, clips: np.ndarray, limit: int | None) -> np.ndarray: ...

    def counts(self, items: np.ndarray, clips: np.ndarray) -> np.ndarray: ...

    def targets(self, items: np.ndarray) -> np.ndarray: ...

    def truths(self, clips: np.ndarray) -> list[str]: ...

    def predict(self, scores: np.ndarray, items: np.ndarray, clips: np.ndarray) -> Predicted: ...

    def measure(self, predicted: Predicted, clips: np.ndarray) -> float: ...

    def further(self, predicted: Predicted, clips: np.ndarray) -> dict[str, float]: ...


def kind_of(data: TaskData) -> Kind:
    """Return the kind of a task; raise ProbeError for labels that its card does not allow."""
    from uwbench.probes.frames import FrameLabels
    from uwbench.probes.retrieval import Retrieval
    from uwbench.probes.transcription import Transcription

    made: dict[str, Callable[[TaskData], Kind]] = {
        "single-label": SingleLabel,
        "multi-label": MultiLabel,
        "frame-multi-label": FrameLabels,
        "retrieval": Retrieval,
        "transcription": Transcription,
    }
    return made[data.card.kind](data)


class OfClips:
    """What tasks of whole clips share: a clip is an item, and fewer clips are taken class by class."""

    of_frames = False

    def strata(self) -> Sequence[Sequence[int]]:
        raise NotImplementedError

    def items(self, clips: np.ndarray) -> np.ndarray:
        return clips

    def thin(self, clips: np.ndarray, limit: int | None) -> np.ndarray:
        if limit is None:
            return clips
        return subsample(clips, self.strata(), limit, random_numbers("thin", limit, len(clips)))

    sample = thin

    def counts(self, items: np.ndarray, clips: np.ndarray) -> np.ndarray:
        _require_rows(items, items, clips)
        return np.ones(len(clips), np.int64)


class SingleLabel(OfClips):
    """One class a clip; scores are argmax'd, the first class among equals."""

    loss: Literal["softmax", "sigmoid"] = "softmax"

    def __init__(self, data: TaskData) -> None:
        labels = [_text(data, row) for row in range(len(data.labels))]
        self.metric = data.card.metric
        self.classes = vocabulary(data, [[label] for label in labels])
        self.codes = np.array([codes[0] for codes in encode(data, self.classes, [[label] for label in labels])])

    def strata(self) -> Sequence[Sequence[int]]:
        return self.codes[:, None].tolist()

    def targets(self, items: np.ndarray) -> np.ndarray:
        return self.codes[items]

    def truths(self, clips: np.ndarray) -> list[str]:
        return self._texts(self.codes[clips])

    def predict(self, scores: np.ndarray, items: np.ndarray, clips: np.ndarray) -> Predicted:
        _require_rows(scores, items, clips)
        return self.from_codes(scores.argmax(axis=-1))

    def from_codes(self, codes: np.ndarray) -> Predicted:
        return Predicted(self._texts(codes), codes=codes)

    def measure(self, predicted: Predicted, clips: np.ndarray) -> float:
        return metrics.of_labels(self.metric, self.codes[clips], _present(predicted.codes))

    def further(self, predicted: Predicted, clips: np.ndarray) -> dict[str, float]:
        truth, codes = self.codes[clips], _present(predicted.codes)
        return {name: metrics.of_labels(name, truth, codes) for name in ("accuracy", "macro-f1")}

    def _texts(self, codes: np.ndarray) -> list[str]:
        names = [json.dumps(name, ensure_ascii=False) for name in self.classes]
        return [names[code] for code in codes.tolist()]


class MultiLabel(OfClips):
    """Any number of classes a clip; the class scores are ranked (mAP), and thresholded at 0.5 for the texts alone."""

    loss: Literal["softmax", "sigmoid"] = "sigmoid"

    def __init__(self, data: TaskData) -> None:
        labels = [_texts(data, row) for row in range(len(data.labels))]
        self.classes = vocabulary(data, labels)
        self.codes = encode(data, self.classes, labels)
        self.relevant = np.zeros((len(labels), len(self.classes)), dtype=bool)
        for row, codes in enumerate(self.codes):
            self.relevant[row, codes] = True

    def strata(self) -> Sequence[Sequence[int]]:
        return self.codes

    def targets(self, items: np.ndarray) -> np.ndarray:
        return self.relevant[items].astype(np.float32)

    def truths(self, clips: np.ndarray) -> list[str]:
        return self._texts(self.relevant[clips])

    def predict(self, scores: np.ndarray, items: np.ndarray, clips: np.ndarray) -> Predicted:
        _require_rows(scores, items, clips)
        return Predicted(self._texts(scores >= _THRESHOLD), scores=scores.astype(np.float32))

    def measure(self, predicted: Predicted, clips: np.ndarray) -> float:
        return metrics.mean_average_precision(self.relevant[clips], _present(predicted.scores))

    def further(self, predicted: Predicted, clips: np.ndarray) -> dict[str, float]:
        counts = metrics.segment_counts(self.relevant[clips], _present(predicted.scores) >= _THRESHOLD)
        return {f"f1-{average}": metrics.f1_from_counts(counts, average=average) for average in ("micro", "macro")}

    def _texts(self, chosen: np.ndarray) -> list[str]:
        return [json.dumps([self.classes[code] for code in np.flatnonzero(row)], ensure_ascii=False) for row in chosen]


def vocabulary(data: TaskData, labels: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Return the classes: the card's list, else the sorted labels of what is trained on (all folds, or train)."""
    if data.card.vocabulary is not None:
        return load_vocabulary(data.card.vocabulary)
    trained = (
        range(len(labels)) if data.splits is None else [r for r, name in enumerate(data.splits) if name == "train"]
    )
    return tuple(sorted({label for row in trained for label in labels[row]}))


def encode(data: TaskData, classes: Sequence[str], labels: Sequence[Sequence[str]]) -> list[list[int]]:
    """Return the sorted class numbers of each clip; raise ProbeError naming a clip whose label is no class."""
    number = {name: code for code, name in enumerate(classes)}
    found = []
    for row, names in enumerate(labels):
        unknown = [name for name in names if name not in number]
        if unknown:
            remedy = "train on it too, or correct the label"
            raise ProbeError(
                f"the label {unknown[0]!r} is no class of the task", where=str(data.ids[row]), remedy=remedy
            )
        found.append(sorted({number[name] for name in names}))
    return found


def _text(data: TaskData, row: int) -> str:
    label = data.labels[row]
    if not isinstance(label, str):
        raise ProbeError(f"one label expected, found {label!r}", where=str(data.ids[row]))
    return label


def _texts(data: TaskData, row: int) -> list[str]:
    labels = data.labels[row]
    if isinstance(labels, str) or any(isinstance(label, Event) for label in labels):
        raise ProbeError(f"a tuple of labels expected, found {labels!r}", where=str(data.ids[row]))
    return [str(label) for label in labels]


def _require_rows(scores: np.ndarray, items: np.ndarray, clips: np.ndarray) -> None:
    if not len(scores) == len(items) == len(clips):
        raise ProbeError(f"{len(scores)} rows of scores for {len(items)} items of {len(clips)} clips")


def _present(array: np.ndarray | None) -> np.ndarray:
    if array is None:
        raise ProbeError("the predictions lack what the metric is computed from")
    return array
