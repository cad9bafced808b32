"""The MLP probe of a task: the grid searched on validation data, then the final seeds. Test clips are only predicted.

Where validation was carved out of the training clips and the search saw all of them, the final seeds train on both
for the chosen number of epochs. Otherwise they train on the training part, and each keeps the epoch that is best on
validation: a published validation part never trains, and an epoch chosen on a subsample need not fit the whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np

from uwbench.cards.card import Xares
from uwbench.cards.protocol import MlpSettings
from uwbench.probes.kinds import Kind, Predicted, joined
from uwbench.probes.mlp import Point, Problem, Stack, Stream, train
from uwbench.probes.splits import Fold

if TYPE_CHECKING:
    import torch

_STATE_BYTES = 1 << 30  # weights, gradients and moments of the probes that train together
_SCORED_VALUES = 50_000_000  # test scores held at once: 200 MB
_SIDE_BY_SIDE = 4  # stacks trained at once on the CPU, each by its share of the threads
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


def epochs_for(settings: MlpSettings, xares: Xares, items: int, shown: int | None = None) -> int:
    """Return the number of epochs for so many training items, so that about `shown` are seen (None: as the protocol
    says); `xares` is the task card's own, where it counts.
    """
    epochs = xares.epochs if settings.epochs == "card" else settings.epochs
    shown = settings.shown if shown is None else shown
    if shown is None:
        return epochs
    return max(min(epochs, round(shown / max(items, 1))), min(settings.least_epochs, epochs))


def _stacks(device: str) -> int:
    """Return how many stacks are trained at once on a device."""
    import torch

    return min(_SIDE_BY_SIDE, torch.get_num_threads()) if device == "cpu" else 1


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
        self.stacks = _stacks(device)
        self.given_up = Event()
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
            streams = [self._search_stream(fold, points) for fold in folds]
            parts = np.array_split(np.arange(len(points)), min(self.stacks, len(points)))
            batches = [
                batch
                for part in parts
                for batch in self._batches(
                    [
                        (index, replace(stream, points=tuple(points[at] for at in part)))
                        for index, stream in enumerate(streams)
                    ]
                )
            ]
            found = list(self._side_by_side(lambda batch: self._search(folds, dict(batch)), batches))
            for index in range(len(folds)):
                # Of a full tie, the earlier epoch; of one epoch, the earlier point: whatever trained side by side.
                own = (part[index] for part in found if index in part)
                choice = min(own, key=lambda choice: (-choice.metric, choice.loss, choice.share))
                if choice.better_than(best.get(index)):
                    best[index] = choice
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
            batches = list(self._batches(wanted, stream_of=lambda job: job[1][1], parts=self.stacks))
            for done in self._side_by_side(lambda batch: self._train(folds, batch), batches):
                yield from done

    def _side_by_side(self, work: Callable[[Any], Any], batches: Sequence[Any]) -> Iterator[Any]:
        """Yield what `work` makes of each batch, in order, several at a time.

        Two stacks with a core each train faster than one with two cores: the operations between the products are too
        small to be shared.
        """
        import torch

        if self.stacks == 1 or len(batches) == 1:
            yield from map(work, batches)
            return
        threads = torch.get_num_threads()

        def alone(batch: Any) -> Any:
            torch.set_num_threads(max(1, threads // self.stacks))
            return work(batch)

        try:
            with ThreadPoolExecutor(self.stacks) as pool:
                try:
                    yield from pool.map(alone, batches)
                except BaseException:  # most of all Ctrl-C: what trains is of no use any more, and may take minutes
                    self.given_up.set()
                    raise
        finally:
            torch.set_num_threads(threads)

    def refits(self, fold: Fold) -> bool:
        """Return whether the final seeds train on the fold's validation clips too."""
        return fold.carved and len(self._grid_items(fold.train)) == len(self._final_items(fold.train))

    def _grid_items(self, clips: np.ndarray) -> np.ndarray:
        return self.kind.thin(clips, self.settings.grid_frames if self.kind.of_frames else self.settings.grid_clips)

    def _final_items(self, clips: np.ndarray) -> np.ndarray:
        return self.kind.thin(clips, self.settings.train_frames if self.kind.of_frames else None)

    def _search_stream(self, fold: Fold, points: tuple[Point, ...]) -> Stream:
        items, key = self._grid_items(fold.train), ("search", self.seed, fold.name or "")
        return self._stream(items, key, points, shown=self.settings.grid_shown)

    def _final_streams(self, fold: Fold, choice: Choice, seeds: Sequence[int]) -> list[Stream]:
        refit = self.refits(fold)
        items = self._final_items(fold.all_train if refit else fold.train)
        first = self._stream(items, (), (choice.point,), choice.share if refit else 1)
        return [replace(first, key=("final", self.seed, seed, fold.name or "")) for seed in seeds]

    def _stream(
        self,
        items: np.ndarray,
        key: tuple[str | int, ...],
        points: tuple[Point, ...],
        share: float = 1.0,
        shown: int | None = None,
    ) -> Stream:
        settings = self.settings
        batch = self.xares.batch if settings.batch == "card" else settings.batch
        if settings.batch == "card" and self.kind.of_frames:
            batch *= max(1, round(self.frames_a_clip))
        if settings.epoch_steps is not None:
            batch = max(batch, math.ceil(len(items) / settings.epoch_steps))
        epochs = epochs_for(settings, self.xares, len(items), shown)
        centre = scale = None
        if settings.normalise == "standard":
            centre, scale = statistics(self.problem.inputs, items)
        return Stream(key, items, batch, epochs, max(1, round(share * epochs)), centre, scale, points)

    def _batches(self, jobs: Sequence, stream_of: Callable = lambda job: job[1], parts: int = 1) -> Iterator[Sequence]:
        """Cut the jobs into stacks, `parts` at least, that fit the memory set aside for them."""
        if not jobs:
            return
        points = stream_of(jobs[0]).points
        width = points[0].width
        size = self.problem.dim * (width or self.problem.classes) + width * self.problem.classes
        at_once = max(1, _STATE_BYTES // self.stacks // (16 * size * len(points)))
        at_once = min(at_once, -(-len(jobs) // parts))
        for start in range(0, len(jobs), at_once):
            yield jobs[start : start + at_once]

    def _search(self, folds: Sequence[Fold], streams: dict[int, Stream]) -> dict[int, Choice]:
        indices = {stream.key: index for index, stream in streams.items()}
        best: dict[int, Choice] = {}

        def judge(stack: Stack, epoch: int) -> None:
            for at, stream in enumerate(stack.streams):
                index = indices[stream.key]
                clips, limit = folds[index].valid, self.settings.grid_clips
                for point, (metric, loss) in zip(stream.points, self._quality(stack, at, clips, limit), strict=True):
                    choice = Choice(point, (epoch + 1) / stream.epochs, metric, loss)
                    if choice.better_than(best.get(index)):
                        best[index] = choice

        train(Stack(self.problem, list(streams.values())), judge, self.given_up)
        return best

    def _train(self, folds: Sequence[Fold], jobs: Sequence[tuple[int, tuple[int, Stream]]]) -> list[Trained]:
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

        train(Stack(self.problem, [stream for _, (_, stream) in jobs]), follow, self.given_up)
        return done

    def _predict(self, stack: Stack, at: int, clips: np.ndarray, weights: Sequence[torch.Tensor]) -> list[Predicted]:
        """Return what each of some probes `(1, size)` predicts, whose inputs are standardised as those of stream `at`.

        The scores of some clips are in memory at a time.
        """
        import torch

        items = self.kind.sample(clips, self.settings.test_frames) if self.kind.of_frames else clips
        ends = np.append(0, np.cumsum(self.kind.counts(items, clips)))
        largest = int(np.diff(ends).max())
        at_once = max(1, _SCORED_VALUES // self.stacks // (largest * self.problem.classes * len(weights)))
        together = torch.cat(list(weights))
        parts: list[list[Predicted]] = [[] for _ in weights]
        for start in range(0, len(clips), at_once):
            part = clips[start : start + at_once]
            taken = items[ends[start] : ends[start + len(part)]]
            for own, scores in zip(parts, self._scores(stack, at, taken, together), strict=True):
                own.append(self.kind.predict(scores, taken, part))
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
