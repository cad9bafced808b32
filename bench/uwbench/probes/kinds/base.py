"""The contract of a kind of task, and the parts that several kinds share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from uwbench.cards.find import load_vocabulary
from uwbench.cards.protocol import KnnSettings, MlpSettings
from uwbench.errors import ProbeError
from uwbench.probes.data import TaskData
from uwbench.probes.splits import random_numbers, subsample

if TYPE_CHECKING:
    import torch

    Weights = dict[str, torch.Tensor]  # (S, G, *shape) by name


@dataclass(frozen=True, slots=True)
class Predicted:
    """Predictions of `n` clips: JSON texts, and the values that the main metric is recomputed from.

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


class Limits(NamedTuple):
    """The number of items used at each point of the MLP probe; None is all of them."""

    search_train: int | None
    search_valid: int | None
    final_train: int | None = None
    final_valid: int | None = None
    test: int | None = None


class Kind(Protocol):
    """One kind of task.

    An item is what is trained on and scored: a clip, or a frame of a clip. An item has one or more input rows (vectors
    or frames); the probe gives `outputs` numbers for each row. Arrays of clips and items hold their row numbers.
    """

    classes: tuple[str, ...]
    per_frame: bool  # items are frames; otherwise they are clips
    has_classes: bool  # items have classes that neighbours can vote for
    ranks_clips: bool  # clips are ranked against each other, so the clips of a part are scored together

    @property
    def batch(self) -> int | None:
        """Items per training step; None: as the protocol says."""
        ...

    @property
    def outputs(self) -> int:
        """Numbers that the probe gives for each input row."""
        ...

    def strata(self) -> Sequence[Sequence[int]]:
        """Return the class numbers of each clip, for splits and subsamples in proportion."""
        ...

    def limits(self, settings: MlpSettings, /) -> Limits: ...

    def knn_limits(self, settings: KnnSettings, /) -> tuple[int | None, int | None]:
        """Return the number of items in the bank and of queries; None is all of them."""
        ...

    def items(self, clips: np.ndarray) -> np.ndarray:
        """Return all items of the clips."""
        ...

    def thin(self, clips: np.ndarray, limit: int | None) -> np.ndarray:
        """Return at most `limit` items of the clips, to train on."""
        ...

    def sample(self, clips: np.ndarray, limit: int | None) -> np.ndarray:
        """Return about `limit` items of the clips, chosen so that they can be scored."""
        ...

    def items_per_clip(self, items: np.ndarray, clips: np.ndarray) -> np.ndarray:
        """Return how many of the items belong to each clip."""
        ...

    def rows(self, items: np.ndarray, limit: int | None = None, /) -> np.ndarray:
        """Return the input rows of the items, end to end; with `limit`, at most so many, for statistics."""
        ...

    def rows_per_item(self, items: np.ndarray) -> np.ndarray: ...

    def targets(self, items: np.ndarray, rng: np.random.Generator | None = None, /) -> np.ndarray:
        """Return what the loss compares the outputs with; `rng` draws among several right answers in training."""
        ...

    def weights(self) -> dict[str, np.ndarray]:
        """Return the first values of trained weights beside the probe's own, by name."""
        ...

    def losses(self, outputs: torch.Tensor, targets: Sequence[np.ndarray], weights: Weights, /) -> torch.Tensor:
        """Return the loss of each item, `(S, G, items)`, from outputs `(S, G, rows, outputs)`.

        `targets` holds those of each stream's items; streams with fewer items than others are filled up.
        """
        ...

    def scores(self, outputs: torch.Tensor, weights: Weights, clips: np.ndarray, /) -> np.ndarray:
        """Return the scores `(G, rows, K)` that `predict` needs, from outputs `(1, G, rows, outputs)`.

        `clips` are all clips that are scored together; the outputs may be those of some of them.
        """
        ...

    def truths(self, clips: np.ndarray) -> list[str]:
        """Return the right answer of each clip, as JSON."""
        ...

    def predict(self, scores: np.ndarray, items: np.ndarray, clips: np.ndarray, /) -> Predicted: ...

    def measure(self, predicted: Predicted, clips: np.ndarray) -> float:
        """Return the main metric."""
        ...

    def further(self, predicted: Predicted, clips: np.ndarray) -> dict[str, float]:
        """Return further metrics, by name."""
        ...


class ClipKind:
    """Defaults of the kinds whose items are clips with one input row each."""

    classes: tuple[str, ...] = ()
    per_frame = False
    has_classes = True
    ranks_clips = False
    batch: int | None = None

    @property
    def outputs(self) -> int:
        return len(self.classes)

    def strata(self) -> Sequence[Sequence[int]]:
        raise NotImplementedError

    def limits(self, settings: MlpSettings) -> Limits:
        return Limits(settings.grid_clips, settings.grid_clips)

    def knn_limits(self, _settings: KnnSettings) -> tuple[int | None, int | None]:
        return None, None

    def items(self, clips: np.ndarray) -> np.ndarray:
        return clips

    def thin(self, clips: np.ndarray, limit: int | None) -> np.ndarray:
        if limit is None:
            return clips
        return subsample(clips, self.strata(), limit, random_numbers("thin", limit, len(clips)))

    sample = thin

    def items_per_clip(self, items: np.ndarray, clips: np.ndarray) -> np.ndarray:
        require_equal(items, items, clips)
        return np.ones(len(clips), np.int64)

    def rows(self, items: np.ndarray, _limit: int | None = None) -> np.ndarray:
        return items

    def rows_per_item(self, items: np.ndarray) -> np.ndarray:
        return np.ones(len(items), np.int64)

    def weights(self) -> dict[str, np.ndarray]:
        return {}


def sigmoid_losses(outputs: torch.Tensor, targets: Sequence[np.ndarray], positive_weight: float = 1.0) -> torch.Tensor:
    """Return the binary cross-entropy of each item, the mean over classes; `positive_weight` weighs the positives.

    By `logsigmoid`, whose value at a place does not depend on the place. torch's `sigmoid`, `exp` and binary
    cross-entropy round differently in the last places of a tensor, so that a probe would feel the others in its stack.
    """
    import torch

    truth = padded(targets, outputs.device)[:, None]
    losses = -torch.nn.functional.logsigmoid(outputs * (2 * truth - 1))
    return (losses if positive_weight == 1 else losses * (1 + (positive_weight - 1) * truth)).mean(dim=-1)


def sigmoid_scores(outputs: torch.Tensor) -> np.ndarray:
    """Return class probabilities `(G, rows, C)` of outputs `(1, G, rows, C)`, by `logsigmoid` for the same reason."""
    import torch

    return np.exp(torch.nn.functional.logsigmoid(outputs[0]).cpu().numpy())


def padded(parts: Sequence[np.ndarray], device: str | torch.device) -> torch.Tensor:
    """Return arrays that differ in length alone as one tensor `(parts, longest, ...)`, filled up with zeros."""
    import torch

    out = np.zeros((len(parts), max(map(len, parts)), *parts[0].shape[1:]), parts[0].dtype)
    for index, part in enumerate(parts):
        out[index, : len(part)] = part
    return torch.from_numpy(out).to(device)


def vocabulary(data: TaskData, labels: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Return the classes: the card's list, or the sorted labels of the training clips (train, or all folds)."""
    if data.card.vocabulary is not None:
        return load_vocabulary(data.card.vocabulary)
    return tuple(sorted({label for row in training_rows(data) for label in labels[row]}))


def training_rows(data: TaskData) -> Sequence[int]:
    """Return the rows of the clips that any probe trains on."""
    if data.splits is None:
        return range(len(data.ids))
    return [row for row, name in enumerate(data.splits) if name == "train"]


def encode(data: TaskData, classes: Sequence[str], labels: Sequence[Sequence[str]]) -> list[list[int]]:
    """Return the sorted class numbers of each clip; raise ProbeError naming a clip whose label is not a class."""
    number = {name: code for code, name in enumerate(classes)}
    codes = []
    for row, names in enumerate(labels):
        unknown = [name for name in names if name not in number]
        if unknown:
            remedy = "train on it too, or correct the label"
            raise ProbeError(
                f"the label {unknown[0]!r} is no class of the task", where=str(data.ids[row]), remedy=remedy
            )
        codes.append(sorted({number[name] for name in names}))
    return codes


def one_label(data: TaskData, row: int, name: str) -> str:
    """Return a clip's only label; raise ProbeError, calling it `name`, if it has several or none."""
    label = data.labels[row]
    if not isinstance(label, str):
        raise ProbeError(f"{name} expected, found {label!r}", where=str(data.ids[row]))
    return label


def require_equal(scores: np.ndarray, items: np.ndarray, clips: np.ndarray) -> None:
    """Raise ProbeError unless there is one row of scores per item and one item per clip."""
    if not len(scores) == len(items) == len(clips):
        raise ProbeError(f"{len(scores)} rows of scores for {len(items)} items of {len(clips)} clips")


def present(array: np.ndarray | None, clips: np.ndarray) -> np.ndarray:
    """Return the part of a prediction that the metric needs; raise ProbeError if it is missing."""
    if array is None or len(array) != len(clips):
        raise ProbeError("the predictions lack the values that the metric is computed from")
    return array
