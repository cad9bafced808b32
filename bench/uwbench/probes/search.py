"""The MLP probe of a task: the grid searched on validation data, then the final seeds. Test clips are only predicted.

Where validation was carved out of the training clips and the search saw all of them, the final seeds train on both
for the chosen number of epochs. Otherwise they train on the training part, and each keeps the epoch that is best on
validation: a published validation part never trains, and an epoch chosen on a subsample need not fit the whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from uwbench.card import MlpSettings, Xares
from uwbench.probes.kinds import Kind, Predicted, joined
from uwbench.probes.mlp import Point, Problem, Stack, Stream, train
from uwbench.probes.splits import Fold

if TYPE_CHECKING:
    import torch

_STATE_BYTES = 1 << 30  # weights, gradients and moments of the probes that train together
_SCORED_VALUES = 50_000_000  # test scores held at once: 200 MB
_STATISTICS_ITEMS = 16_384  # items read at once for means and deviations


@dataclass(frozen=True, slots=True)
class Choice:
    """What validation chose for a fold: a grid point, the share of the schedule to train, and its quality there."""

    point: Point
    share: float
    metric: float
    loss: float

    def better_than(self, other: Choice | None) -> bool:
        """Higher metric, then lower loss; what was tried earlier (grid order, then epoch) keeps a full tie."""
        return other is None or (-self.metric, self.loss) < (-other.metric, other.loss)


@dataclass(frozen=True, slots=True)
class Trained:
    """The outcome of a fold under one seed: test predictions, and the epochs that were trained or kept."""

    fold: int
    seed: int
    predicted: Predicted
    epochs: int
    valid_metric: float | None


@dataclass(frozen=True, slots=True)
class _Ended:
    """A stream that was trained: its place in the stack, the epochs kept, and the weights `(1, size)` that predict."""

    at: int
    seed: int
    epochs: int
    metric: float | None
    weights: torch.Tensor


def grid_points(settings: MlpSettings) -> list[Point]:
    """Return the grid in its fixed order: narrow before wide, then rates and decays as the card lists them."""
    return [Point(*values) for values in product(settings.widths, settings.learning_rates, settings.weight_decays)]


def epochs_for(settings: MlpSettings, xares: Xares, items: int) -> int:
    """Return the protocol's number of epochs for so many training items; `xares` is the card's own, where it counts."""
    epochs = xares.epochs if settings.epochs == "card" else settings.epochs
    if settings.shown is None:
        return epochs
    return max(min(epochs, round(settings.shown / max(items, 1))), min(settings.least_epochs, epochs))


class Search:
    """Everything the choice and the final training of one task share; `inputs` as Problem has it."""

    def __init__(
        self,
        kind: Kind,
        settings: MlpSettings,
        xares: Xares,
        inputs: Callable[[np.ndarray], np.ndarray],
        *,
        seed: int,
        device: str,
        positive_weight: float = 1.0,
        frames_a_clip: float = 1.0,
    ) -> None:
        self.kind, self.settings, self.xares, self.seed = kind, settings, xares, seed
        self.frames_a_clip = frames_a_clip
        shape = inputs(kind.items(np.zeros(1, np.int64))[:1]).shape[1:]
        self.problem = Problem(
            dim=shape[-1],
            layers=shape[0] if len(shape) > 1 else 1,
            classes=len(kind.classes),
            loss=kind.loss,
            inputs=inputs,
            targets=kind.targets,
            norm="input" if settings.normalise == "none" else "hidden",
            dropout=settings.dropout,
            final_rate=settings.final_rate,
            schedule=settings.schedule,
            device=device,
            positive_weight=positive_weight,
        )

    def choose(self, folds: Sequence[Fold]) -> list[Choice]:
        """Return the choice for each fold, from its training and validation clips alone."""
        best: dict[int, Choice] = {}
        for width in self.settings.widths:
            points = tuple(point for point in grid_points(self.settings) if point.width == width)
            jobs = [(index, self._search_stream(folds[index], points)) for index in range(len(folds))]
            for batch in self._batches(jobs):
                self._search(folds, dict(batch), best)
        return [best[index] for index in range(len(folds))]

    def train(self, folds: Sequence[Fold], choices: Sequence[Choice], seeds: Sequence[int]) -> Iterator[Trained]:
        """Train the final probes, a seed each and fold, and yield their test predictions in order of completion."""
        jobs = [
            (seed, (index, stream))
            for index, (fold, choice) in enumerate(zip(folds, choices, strict=True))
            for seed, stream in zip(seeds, self._final_streams(fold, choice, seeds), strict=True)
        ]
        for width in sorted({choice.point.width for choice in choices}):
            wanted = [job for job in jobs if job[1][1].points[0].width == width]
            for batch in self._batches(wanted, stream_of=lambda job: job[1][1]):
                yield from self._train(folds, batch)

    def refits(self, fold: Fold) -> bool:
        """Return whether the final seeds train on the fold's validation clips too."""
        return fold.carved and len(self._grid_items(fold.train)) == len(self._final_items(fold.train))

    def _grid_items(self, clips: np.ndarray) -> np.ndarray:
        return self.kind.thin(clips, self.settings.grid_frames if self.kind.of_frames else self.settings.grid_clips)

    def _final_items(self, clips: np.ndarray) -> np.ndarray:
        return self.kind.thin(clips, self.settings.train_frames if self.kind.of_frames else None)

    def _search_stream(self, fold: Fold, points: tuple[Point, ...]) -> Stream:
        return self._stream(self._grid_items(fold.train), ("search", self.seed, fold.name or ""), points)

    def _final_streams(self, fold: Fold, choice: Choice, seeds: Sequence[int]) -> list[Stream]:
        refit = self.refits(fold)
        items = self._final_items(fold.all_train if refit else fold.train)
        first = self._stream(items, (), (choice.point,), choice.share if refit else 1)
        return [replace(first, key=("final", self.seed, seed, fold.name or "")) for seed in seeds]

    def _stream(
        self, items: np.ndarray, key: tuple[str | int, ...], points: tuple[Point, ...], share: float = 1.0
    ) -> Stream:
        settings = self.settings
        batch = self.xares.batch if settings.batch == "card" else settings.batch
        if settings.batch == "card" and self.kind.of_frames:
            batch *= max(1, round(self.frames_a_clip))
        if settings.epoch_steps is not None:
            batch = max(batch, math.ceil(len(items) / settings.epoch_steps))
        epochs = epochs_for(settings, self.xares, len(items))
        centre = scale = None
        if settings.normalise == "standard":
            centre, scale = statistics(self.problem.inputs, items)
        return Stream(key, items, batch, epochs, max(1, round(share * epochs)), centre, scale, points)

    def _batches(self, jobs: Sequence, stream_of: Callable = lambda job: job[1]) -> Iterator[Sequence]:
        """Cut the jobs into stacks that fit the memory set aside for them."""
        if not jobs:
            return
        points = stream_of(jobs[0]).points
        width = points[0].width
        size = self.problem.dim * (width or self.problem.classes) + width * self.problem.classes
        at_once = max(1, _STATE_BYTES // (16 * size * len(points)))
        for start in range(0, len(jobs), at_once):
            yield jobs[start : start + at_once]

    def _search(self, folds: Sequence[Fold], streams: dict[int, Stream], best: dict[int, Choice]) -> None:
        indices = {stream.key: index for index, stream in streams.items()}

        def judge(stack: Stack, epoch: int) -> None:
            for at, stream in enumerate(stack.streams):
                index = indices[stream.key]
                clips, limit = folds[index].valid, self.settings.grid_clips
                for point, (metric, loss) in zip(stream.points, self._quality(stack, at, clips, limit), strict=True):
                    choice = Choice(point, (epoch + 1) / stream.epochs, metric, loss)
                    if choice.better_than(best.get(index)):
                        best[index] = choice

        train(Stack(self.problem, list(streams.values())), judge)

    def _train(self, folds: Sequence[Fold], jobs: Sequence[tuple[int, tuple[int, Stream]]]) -> Iterator[Trained]:
        place = {stream.key: (seed, index) for seed, (index, stream) in jobs}
        kept: dict[tuple[str | int, ...], tuple[Choice, torch.Tensor]] = {}
        done: list[Trained] = []
        refit = {index: self.refits(folds[index]) for _, (index, _) in jobs}

        def follow(stack: Stack, epoch: int) -> None:
            ended: dict[int, list[_Ended]] = {}
            for at, stream in enumerate(stack.streams):
                seed, index = place[stream.key]
                fold = folds[index]
                if not refit[index]:
                    metric, loss = self._quality(stack, at, fold.valid, None)[0]
                    choice = Choice(stream.points[0], (epoch + 1) / stream.epochs, metric, loss)
                    if choice.better_than(kept[stream.key][0] if stream.key in kept else None):
                        kept[stream.key] = (choice, stack.weights[at].clone())
                if stream.stop == epoch + 1:
                    choice, weights = kept.pop(stream.key, (None, stack.weights[at]))
                    epochs = epoch + 1 if choice is None else round(choice.share * stream.epochs)
                    metric = None if choice is None else choice.metric
                    ended.setdefault(index, []).append(_Ended(at, seed, epochs, metric, weights))
            for index, ends in ended.items():  # the seeds of a fold read its test items once
                predictions = self._predict(stack, ends[0].at, folds[index].test, [end.weights for end in ends])
                for end, predicted in zip(ends, predictions, strict=True):
                    done.append(Trained(index, end.seed, predicted, end.epochs, end.metric))

        train(Stack(self.problem, [stream for _, (_, stream) in jobs]), follow)
        yield from done

    def _predict(self, stack: Stack, at: int, clips: np.ndarray, weights: Sequence[torch.Tensor]) -> list[Predicted]:
        """Return what each of some probes `(1, size)` predicts, whose inputs are standardised as those of stream `at`.

        The scores of some clips are in memory at a time.
        """
        import torch

        sizes = (
            [len(self.kind.items(clips[row : row + 1])) for row in range(len(clips))] if self.kind.of_frames else [1]
        )
        at_once = max(1, _SCORED_VALUES // (max(sizes) * self.problem.classes * len(weights)))
        together = torch.cat(list(weights))
        parts: list[list[Predicted]] = [[] for _ in weights]
        for start in range(0, len(clips), at_once):
            part = clips[start : start + at_once]
            items = self.kind.items(part)
            for own, scores in zip(parts, self._scores(stack, at, items, together), strict=True):
                own.append(self.kind.predict(scores, items, part))
        return [joined(own) for own in parts]

    def _scores(self, stack: Stack, at: int, items: np.ndarray, weights: torch.Tensor | None = None) -> np.ndarray:
        """Return class scores `(G, items, classes)` of one stream's probes: logits, or probabilities for sigmoid."""
        blocks = []
        for logits in stack.logits(at, items, weights):
            scores = logits if self.problem.loss == "softmax" else logits.sigmoid()
            blocks.append(scores.to("cpu").numpy())
        return np.concatenate(blocks, axis=1)

    def _quality(self, stack: Stack, at: int, clips: np.ndarray, limit: int | None) -> list[tuple[float, float]]:
        """Return metric and mean loss of each of one stream's probes on `clips`, or on about `limit` of them."""
        if self.kind.of_frames:
            items = self.kind.sample(clips, self.settings.grid_frames)
        else:
            items = clips = self.kind.sample(clips, limit)
        scores = self._scores(stack, at, items)
        losses = _losses(self.problem, scores, self.kind.targets(items))
        measured = [self.kind.measure(self.kind.predict(part, items, clips), clips) for part in scores]
        return [(metric, float(loss)) for metric, loss in zip(measured, losses, strict=True)]


def statistics(inputs: Callable[[np.ndarray], np.ndarray], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the inverse standard deviation of each dimension, float32 `(dim,)`, summed in float64.

    A dimension that hardly varies (deviation below 1e-6 of its size) is centred and left alone.
    """
    total = squares = 0.0
    shift = inputs(rows[:1]).astype(np.float64)[0]  # against cancellation
    for start in range(0, len(rows), _STATISTICS_ITEMS):
        block = inputs(rows[start : start + _STATISTICS_ITEMS]) - shift
        total, squares = total + block.sum(axis=0), squares + (block * block).sum(axis=0)
    mean = total / len(rows)
    deviation = np.sqrt(np.maximum(squares / len(rows) - mean * mean, 0))
    flat = deviation <= 1e-6 * np.maximum(np.abs(shift + mean), 1e-6)
    scale = 1 / np.where(flat, 1.0, deviation)
    return (shift + mean).astype(np.float32), scale.astype(np.float32)


def _losses(problem: Problem, scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the mean cross-entropy of each probe, `(G,)`."""
    if problem.loss == "softmax":
        peak = scores.max(axis=-1, keepdims=True)
        logs = np.log(np.exp(scores - peak).sum(axis=-1)) + peak[..., 0]
        picked = scores[:, np.arange(len(targets)), targets]
        return (logs - picked).mean(axis=-1, dtype=np.float64)
    clipped = np.clip(scores, 1e-7, 1 - 1e-7)
    return np.array([-np.where(targets > 0, np.log(part), np.log1p(-part)).mean(dtype=np.float64) for part in clipped])
