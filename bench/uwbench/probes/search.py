"""The MLP probe of a task: the grid searched on validation data, then the final seeds. Test clips are only predicted.

If validation was carved out of the training clips and the search saw all of them, the final seeds train on both for the
chosen number of epochs. Otherwise they train on the training part, and each keeps the epoch that is best on validation:
a published validation part never trains, and an epoch chosen on a subsample need not fit the whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Event
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from uwbench.cards.card import Xares
from uwbench.cards.protocol import MlpSettings
from uwbench.errors import ProbeError
from uwbench.probes.data import Inputs, statistics
from uwbench.probes.grid import Choice, best_choice, epochs_for, grid_points
from uwbench.probes.kinds.base import Kind, Predicted, joined
from uwbench.probes.mlp import Problem, Stack, Stream, train
from uwbench.probes.splits import Fold

if TYPE_CHECKING:
    from uwbench.probes.kinds.base import Weights

_STATE_BYTES = 1 << 30  # weights, gradients, moments and activations of the probes that train together
_SCORED_VALUES = 50_000_000  # test scores in memory at once: 200 MB
_SIDE_BY_SIDE = 4  # stacks trained at once on the CPU, each by its share of the threads
_STATISTICS_ROWS = 60_000  # read for means and deviations if an item has several rows

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Attention:
    """A gated attention over the vectors of a clip, which come layer by layer with `segments` each."""

    units: int
    segments: int
    train_clips: int  # larger training sets are thinned, as each clip has many vectors


@dataclass(frozen=True, slots=True)
class Job:
    """One stream to train, with its fold by number and its probe seed (0 while the grid is searched)."""

    seed: int
    fold: int
    stream: Stream


@dataclass(frozen=True, slots=True)
class Trained:
    """The outcome of a fold under one seed: test predictions, and the epochs that were trained or kept.

    `corrupted` has the predictions of the same test clips under each corruption.
    """

    fold: int
    seed: int
    predicted: Predicted
    epochs: int
    corrupted: dict[str, Predicted]


class Search:
    """The choice and the final training of one task over `inputs`."""

    def __init__(
        self,
        kind: Kind,
        settings: MlpSettings,
        xares: Xares,
        inputs: Inputs,
        *,
        seed: int,
        device: str,
        frames_per_clip: float = 1.0,
        corrupted: Mapping[str, Inputs] | None = None,
        attention: Attention | None = None,
    ) -> None:
        import torch

        self.corrupted = dict(corrupted or {})
        self.kind, self.settings, self.xares, self.seed = kind, settings, xares, seed
        self.limits, self.frames_per_clip, self.attention = kind.limits(settings), frames_per_clip, attention
        if attention is not None:
            self.limits = self.limits._replace(final_train=attention.train_clips, final_valid=attention.train_clips)
        self.stacks = min(_SIDE_BY_SIDE, torch.get_num_threads()) if device == "cpu" else 1
        self.given_up = Event()
        shape = inputs(kind.rows(kind.items(np.zeros(1, np.int64))[:1])).shape[1:]
        self.problem = Problem(
            kind=kind,
            inputs=inputs,
            dim=shape[-1],
            vectors=shape[0] if len(shape) > 1 else 1,
            attention=0 if attention is None else attention.units,
            norm="input" if settings.normalise == "none" else "hidden",
            dropout=settings.dropout,
            final_rate=settings.final_rate,
            schedule=settings.schedule,
            device=device,
        )

    def choose(self, folds: Sequence[Fold]) -> list[Choice]:
        """Return the choice for each fold, from its training and validation clips alone."""
        streams = [self._search_stream(fold) for fold in folds]
        stacks: list[list[Job]] = []
        for width in self.settings.widths:
            points = [point for point in grid_points(self.settings) if point.width == width]
            most = max(1, self._memory() // self._bytes(streams[0], width))  # points in a stack
            for part in np.array_split(
                np.arange(len(points)), max(min(self.stacks, len(points)), -(-len(points) // most))
            ):
                chosen = tuple(points[at] for at in part)
                jobs = [Job(0, index, replace(stream, points=chosen)) for index, stream in enumerate(streams)]
                stacks.extend(self._cut(jobs))
        choices: list[list[Choice]] = [[] for _ in folds]
        for best in self._side_by_side(lambda jobs: self._search(folds, jobs), stacks):
            for index, choice in best.items():
                choices[index].append(choice)
        return [best_choice(of_fold, self.settings) for of_fold in choices]

    def train(self, folds: Sequence[Fold], choices: Sequence[Choice], seeds: Sequence[int]) -> Iterator[Trained]:
        """Train one final probe per fold and seed, and yield their test predictions."""
        jobs = [
            Job(seed, index, replace(stream, key=("final", self.seed, seed, fold.name or "")))
            for index, (fold, choice) in enumerate(zip(folds, choices, strict=True))
            for stream in (self._final_stream(fold, choice),)
            for seed in seeds
        ]
        stacks: list[list[Job]] = []
        for width in sorted({choice.point.width for choice in choices}):
            stacks.extend(self._cut([job for job in jobs if job.stream.points[0].width == width], self.stacks))
        for trained in self._side_by_side(lambda jobs: self._train(folds, jobs), stacks):
            yield from trained

    def refits(self, fold: Fold) -> bool:
        """Return whether the final seeds train on the fold's validation clips too."""
        search, final = (
            self.kind.thin(fold.train, limit) for limit in (self.limits.search_train, self.limits.final_train)
        )
        return fold.carved and len(search) == len(final)

    def trained_on(self, fold: Fold) -> int:
        """Return the number of clips that the final seeds train on."""
        clips = fold.all_train if self.refits(fold) else fold.train
        return min(len(clips), self.attention.train_clips) if self.attention else len(clips)

    def _search_stream(self, fold: Fold) -> Stream:
        items, key = self.kind.thin(fold.train, self.limits.search_train), ("search", self.seed, fold.name or "")
        return self._stream(items, key, shown=self.settings.grid_shown)

    def _final_stream(self, fold: Fold, choice: Choice) -> Stream:
        refit = self.refits(fold)
        items = self.kind.thin(fold.all_train if refit else fold.train, self.limits.final_train)
        stream = self._stream(items, ())
        stop = max(1, round(choice.share * stream.epochs)) if refit else stream.epochs
        return replace(stream, stop=stop, points=(choice.point,))

    def _stream(self, items: np.ndarray, key: tuple[str | int, ...], shown: int | None = None) -> Stream:
        settings, kind = self.settings, self.kind
        batch = self.xares.batch if settings.batch == "card" else settings.batch
        if settings.batch == "card" and kind.per_frame:
            batch *= max(1, round(self.frames_per_clip))
        if settings.epoch_steps is not None:
            batch = max(batch, math.ceil(len(items) / settings.epoch_steps))
        epochs = epochs_for(settings, self.xares, len(items), shown)
        centre = scale = None
        if settings.normalise == "standard":
            rows = kind.rows(items, _STATISTICS_ROWS)
            if len(rows) == 0:
                raise ProbeError("the training clips have no frames", remedy="extract the task again")
            centre, scale = self._statistics(rows)
        return Stream(key, items, kind.batch or batch, epochs, epochs, centre, scale, ())

    def _statistics(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return means and scales of the inputs; the segments of a layer share theirs."""
        inputs, attention = self.problem.inputs, self.attention
        if attention is None:
            return statistics(inputs, rows)

        def by_layer(some: np.ndarray) -> np.ndarray:
            vectors = inputs(some)
            of_layers = vectors.reshape(len(some), -1, attention.segments, vectors.shape[-1])
            return of_layers.swapaxes(1, 2).reshape(-1, of_layers.shape[1], vectors.shape[-1])

        centre, scale = statistics(by_layer, rows, self.problem.rows_at_once)
        return np.repeat(centre, attention.segments, axis=0), np.repeat(scale, attention.segments, axis=0)

    def _memory(self) -> int:
        return _STATE_BYTES // self.stacks

    def _bytes(self, stream: Stream, width: int) -> int:
        """Return about how much memory one probe takes in training: four copies of its weights, and a batch."""
        outputs = self.kind.outputs
        weights = self.problem.dim * (width or outputs) + width * outputs
        rows = stream.batch * int(self.kind.rows_per_item(stream.items).mean())
        attended = 0
        if units := self.problem.attention:
            weights += 2 * self.problem.dim * units
            attended = self.problem.vectors * (self.problem.dim + 8 * units)
        return 16 * weights + 4 * rows * (attended + 2 * self.problem.dim + 6 * width + 3 * outputs)

    def _cut(self, jobs: Sequence[Job], parts: int = 1) -> list[list[Job]]:
        """Cut the jobs of one width into stacks, at least `parts`, that fit into the memory set aside for them."""
        stream = jobs[0].stream
        most = self._memory() // (self._bytes(stream, stream.points[0].width) * len(stream.points))
        size = max(1, min(most, -(-len(jobs) // parts)))
        return [list(jobs[start : start + size]) for start in range(0, len(jobs), size)]

    def _side_by_side(self, work: Callable[[list[Job]], Result], stacks: Sequence[list[Job]]) -> Iterator[Result]:
        """Yield the result of `work` for each stack, in order, several at a time.

        Two stacks with a core each train faster than one with two cores: the operations between the products are too
        small to be shared.
        """
        import torch

        if self.stacks == 1 or len(stacks) == 1:
            yield from map(work, stacks)
            return
        threads = torch.get_num_threads()

        def with_its_share(jobs: list[Job]) -> Result:
            torch.set_num_threads(max(1, threads // self.stacks))
            return work(jobs)

        try:
            with ThreadPoolExecutor(self.stacks) as pool:
                try:
                    yield from pool.map(with_its_share, stacks)
                except BaseException:  # most of all Ctrl-C: what trains is of no use any more, and may take minutes
                    self.given_up.set()
                    raise
        finally:
            torch.set_num_threads(threads)

    def _search(self, folds: Sequence[Fold], jobs: Sequence[Job]) -> dict[int, Choice]:
        """Train a stack of grid points and return the best choice of each fold."""
        fold_of = {job.stream.key: job.fold for job in jobs}
        best: dict[int, Choice] = {}

        def judge(stack: Stack, epoch: int) -> None:
            for at, stream in enumerate(stack.streams):
                index = fold_of[stream.key]
                qualities = self._quality(stack, at, folds[index].valid, self.limits.search_valid)
                for point, (metric, loss) in zip(stream.points, qualities, strict=True):
                    choice = Choice(point, (epoch + 1) / stream.epochs, metric, loss)
                    if choice.better_than(best.get(index)):
                        best[index] = choice

        train(Stack(self.problem, [job.stream for job in jobs]), judge, self.given_up)
        return best

    def _train(self, folds: Sequence[Fold], jobs: Sequence[Job]) -> list[Trained]:
        """Train a stack of final probes and predict the test clips of each fold."""
        job_of = {job.stream.key: job for job in jobs}
        refit = {job.fold: self.refits(folds[job.fold]) for job in jobs}
        best: dict[tuple[str | int, ...], tuple[Choice, Weights]] = {}
        trained: list[Trained] = []

        def follow(stack: Stack, epoch: int) -> None:
            ended: dict[int, list[tuple[int, int, int, Weights]]] = {}  # fold -> place, seed, epochs, weights
            for at, stream in enumerate(stack.streams):
                job = job_of[stream.key]
                if not refit[job.fold]:
                    metric, loss = self._quality(stack, at, folds[job.fold].valid, self.limits.final_valid)[0]
                    choice = Choice(stream.points[0], (epoch + 1) / stream.epochs, metric, loss)
                    if choice.better_than(best[stream.key][0] if stream.key in best else None):
                        best[stream.key] = choice, {name: v.clone() for name, v in stack.of_stream(at).items()}
                if stream.stop == epoch + 1:
                    epochs, weights = epoch + 1, stack.of_stream(at)
                    if stream.key in best:
                        choice, weights = best.pop(stream.key)
                        epochs = round(choice.share * stream.epochs)
                    ended.setdefault(job.fold, []).append((at, job.seed, epochs, weights))
            for index, ends in ended.items():  # the seeds of a fold read its test items once
                at, clips, probes = ends[0][0], folds[index].test, [end[-1] for end in ends]
                predictions = self._predict(stack, at, clips, probes)
                corrupted = {
                    name: self._predict(stack, at, clips, probes, inputs) for name, inputs in self.corrupted.items()
                }
                for place, (_, seed, epochs, _) in enumerate(ends):
                    under = {name: of_seeds[place] for name, of_seeds in corrupted.items()}
                    trained.append(Trained(index, seed, predictions[place], epochs, under))

        train(Stack(self.problem, [job.stream for job in jobs]), follow, self.given_up)
        return trained

    def _quality(self, stack: Stack, at: int, clips: np.ndarray, limit: int | None) -> list[tuple[float, float]]:
        """Return metric and mean loss of each of one stream's probes on `clips`, or on about `limit` of their items."""
        items = self.kind.sample(clips, limit)
        clips = clips if self.kind.per_frame else items
        weights = stack.of_stream(at)
        scores, losses = [], []
        for block, outputs in stack.outputs(at, items, weights):
            scores.append(self.kind.scores(outputs, weights, clips))
            losses.append(self.kind.losses(outputs, [self.kind.targets(block)], weights)[0].cpu().numpy())
        means = np.concatenate(losses, axis=1).mean(axis=1, dtype=np.float64).tolist()
        metrics = [
            self.kind.measure(self.kind.predict(part, items, clips), clips) for part in np.concatenate(scores, axis=1)
        ]
        return [
            (metric, loss if math.isfinite(loss) else math.inf) for metric, loss in zip(metrics, means, strict=True)
        ]

    def _predict(
        self, stack: Stack, at: int, clips: np.ndarray, probes: Sequence[Weights], inputs: Inputs | None = None
    ) -> list[Predicted]:
        """Return the predictions of several probes whose inputs are standardised as those of stream `at`.

        `inputs` replaces those that the probes are trained on. The scores of some clips are in memory at a time.
        """
        import torch

        kind = self.kind
        items = kind.sample(clips, self.limits.test) if kind.per_frame else clips
        ends = np.append(0, np.cumsum(kind.items_per_clip(items, clips)))
        largest = int(np.diff(ends).max()) * int(kind.rows_per_item(items).max(initial=1))
        at_once = max(1, _SCORED_VALUES // self.stacks // (max(largest, 1) * kind.outputs * len(probes)))
        if kind.ranks_clips:
            at_once = len(clips)
        weights = {name: torch.cat([probe[name] for probe in probes], dim=1) for name in probes[0]}
        parts: list[list[Predicted]] = [[] for _ in probes]
        for start in range(0, len(clips), at_once):
            part = clips[start : start + at_once]
            taken = items[ends[start] : ends[start + len(part)]]
            blocks = [kind.scores(outputs, weights, part) for _, outputs in stack.outputs(at, taken, weights, inputs)]
            for predictions, scores in zip(parts, np.concatenate(blocks, axis=1), strict=True):
                predictions.append(kind.predict(scores, taken, part))
        return [joined(predictions) for predictions in parts]
