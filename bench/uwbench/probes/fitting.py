"""Probes that no stack of classifiers covers (retrieval, transcription): heads trained side by side on shared batches.

The rules are the protocol's: a grid of width, learning rate and weight decay, AdamW under a cosine schedule, epoch and
grid point chosen on validation data by the metric, then the lower loss; one head a seed. Random numbers come from the
head's own key, so that it does not depend on the heads beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from uwbench.cards.card import Xares
from uwbench.cards.protocol import MlpSettings
from uwbench.probes.kinds import Predicted
from uwbench.probes.mlp import Point
from uwbench.probes.search import epochs_for, grid_points
from uwbench.probes.splits import Fold, random_numbers

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Head:
    """One probe in training: its weights by name, and its random numbers for dropout (on the CPU)."""

    point: Point
    weights: dict[str, torch.Tensor]
    rng: torch.Generator
    dropout: float


class Problem(Protocol):
    """What a kind of task gives to be fitted on one fold. Batches are what `batches` yields, opaque to the training."""

    xares: Xares  # the card's, for protocols that take epochs from it
    batch: int  # clips in a batch
    search_train: np.ndarray  # the clips that the grid trains on, and those it is measured on
    search_valid: np.ndarray

    def weights(self, width: int, rng: torch.Generator) -> dict[str, torch.Tensor]: ...

    def batches(self, clips: np.ndarray, rng: np.random.Generator) -> Iterator[Any]: ...

    def loss(self, head: Head, batch: Any) -> torch.Tensor: ...

    def quality(self, head: Head, clips: np.ndarray) -> tuple[float, float]: ...

    def predict(self, head: Head, clips: np.ndarray) -> Predicted: ...


@dataclass(frozen=True, slots=True)
class Fitted:
    """What came of a fold: a prediction of its test clips a seed, and what validation chose."""

    predicted: dict[int, Predicted]
    chosen: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Best:
    metric: float
    loss: float
    epoch: int  # from 1
    weights: dict[str, torch.Tensor]

    def beats(self, other: _Best | None) -> bool:
        return other is None or (self.metric, -self.loss) > (other.metric, -other.loss)


def fit_fold(problem: Problem, fold: Fold, settings: MlpSettings, seed: int) -> Fitted:
    """Choose a grid point and its epochs on the fold's validation clips, then train a head a seed and predict.

    Where validation was carved out of training clips that the grid saw in full, the final heads train on all of them
    for the chosen number of epochs; elsewhere each keeps its best epoch on validation.
    """
    points = grid_points(settings)
    name = fold.name or ""
    epochs = epochs_for(settings, problem.xares, len(problem.search_train))
    heads = [_head(problem, point, settings, "search", seed, name) for point in points]
    best = _follow(problem, heads, problem.search_train, problem.search_valid, epochs, settings, ("search", seed, name))
    at = max(range(len(points)), key=lambda index: (best[index].metric, -best[index].loss, -index))
    point, choice = points[at], best[at]
    refit = fold.carved and len(problem.search_train) == len(fold.train)
    train = fold.all_train if refit else fold.train
    heads = [_head(problem, point, settings, "final", seed, probe_seed, name) for probe_seed in settings.seeds]
    key = ("final", seed, name)
    if refit:
        _train(problem, heads, train, epochs, choice.epoch, settings, key)
        ended = [choice.epoch] * len(heads)
    else:
        longest = epochs_for(settings, problem.xares, len(train))
        kept = _follow(problem, heads, train, fold.valid, longest, settings, key)
        for head, own in zip(heads, kept, strict=True):
            head.weights.update(own.weights)
        ended = [own.epoch for own in kept]
    predicted = {
        probe_seed: problem.predict(head, fold.test) for probe_seed, head in zip(settings.seeds, heads, strict=True)
    }
    chosen = {
        **({} if fold.name is None else {"fold": fold.name}),
        "width": point.width,
        "learning_rate": point.learning_rate,
        "weight_decay": point.weight_decay,
        "epochs": ended,
        "validation": fold.validation,
        "validation_clips": len(fold.valid),
        "validation_metric": choice.metric,
        "trained_on": len(train),
    }
    return Fitted(predicted, chosen)


def new_weight(rows: int, columns: int, rng: torch.Generator) -> torch.Tensor:
    """Return a weight `(rows, columns)` drawn as torch's linear layers draw theirs: uniform within 1 / sqrt(rows)."""
    import torch

    return (torch.rand(rows, columns, generator=rng) * 2 - 1) / math.sqrt(rows)


def perceptron(dim: int, width: int, out: int, rng: torch.Generator) -> dict[str, torch.Tensor]:
    """Return the weights of a linear map, or of one hidden layer of `width` with LayerNorm."""
    import torch

    if width == 0:
        return {"out": new_weight(dim, out, rng), "out_bias": torch.zeros(out)}
    return {
        "hidden": new_weight(dim, width, rng),
        "hidden_bias": torch.zeros(width),
        "scale": torch.ones(width),
        "shift": torch.zeros(width),
        "out": new_weight(width, out, rng),
        "out_bias": torch.zeros(out),
    }


def apply_perceptron(head: Head, x: torch.Tensor, *, training: bool) -> torch.Tensor:
    """Return the head's outputs `(n, out)` of inputs `(n, dim)`; dropout in the hidden layer while training."""
    import torch

    weights = head.weights
    if "hidden" in weights:
        x = x @ weights["hidden"] + weights["hidden_bias"]
        x = torch.nn.functional.layer_norm(x, x.shape[-1:], weights["scale"], weights["shift"]).relu()
        if training and head.dropout > 0:
            kept = torch.rand(x.shape, generator=head.rng) >= head.dropout
            x = x * kept.to(x.device, x.dtype) / (1 - head.dropout)
    return x @ weights["out"] + weights["out_bias"]


def _head(problem: Problem, point: Point, settings: MlpSettings, *key: str | int) -> Head:
    import torch

    seed = int(random_numbers("head", *key).integers(2**62))
    rng = torch.Generator().manual_seed(seed)
    weights = problem.weights(point.width, rng)
    for weight in weights.values():
        weight.requires_grad_(True)
    return Head(point, weights, rng, settings.dropout)


def _follow(
    problem: Problem,
    heads: Sequence[Head],
    train: np.ndarray,
    valid: np.ndarray,
    epochs: int,
    settings: MlpSettings,
    key: tuple[str | int, ...],
) -> list[_Best]:
    """Train all epochs and return each head's best one on `valid`."""
    best: list[_Best | None] = [None] * len(heads)

    def judge(epoch: int) -> None:
        for index, head in enumerate(heads):
            metric, loss = problem.quality(head, valid)
            found = _Best(metric, loss if math.isfinite(loss) else math.inf, epoch + 1, {})
            if found.beats(best[index]):
                weights = {name: value.detach().clone() for name, value in head.weights.items()}
                best[index] = _Best(found.metric, found.loss, found.epoch, weights)

    _train(problem, heads, train, epochs, epochs, settings, key, judge)
    return [own for own in best if own is not None]


def _train(
    problem: Problem,
    heads: Sequence[Head],
    clips: np.ndarray,
    epochs: int,
    stop: int,
    settings: MlpSettings,
    key: tuple[str | int, ...],
    judge: Callable[[int], None] | None = None,
) -> None:
    """Train all heads on the same batches for `stop` of `epochs` epochs of the schedule."""
    import torch

    optimisers = [
        torch.optim.AdamW(
            [
                {"params": [w for w in head.weights.values() if w.ndim > 1], "weight_decay": head.point.weight_decay},
                {"params": [w for w in head.weights.values() if w.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=head.point.learning_rate,
        )
        for head in heads
    ]
    steps = epochs * math.ceil(len(clips) / problem.batch)
    step = 0
    for epoch in range(stop):
        for batch in problem.batches(clips, random_numbers("order", *key, epoch)):
            share = (1 + math.cos(math.pi * min(1.0, step / steps))) / 2
            factor = settings.final_rate + (1 - settings.final_rate) * share
            for head, optimiser in zip(heads, optimisers, strict=True):
                for group in optimiser.param_groups:
                    group["lr"] = head.point.learning_rate * factor
                optimiser.zero_grad(set_to_none=True)
                problem.loss(head, batch).backward()
                optimiser.step()
            step += 1
        if judge is not None:
            with torch.no_grad():
                judge(epoch)
