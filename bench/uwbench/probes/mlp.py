"""Many small probes trained as one program: stacked weights, one batched product a layer, own LayerNorm and AdamW.

A stack is `S` streams x `G` grid points. A stream is one fold under one seed: its training rows, their statistics, its
order, initial weights and dropout; all random numbers come from the stream's own key, so that a probe's result depends
neither on the stack it trains in nor on its place there. The points of a stream share its random numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, Literal

import numpy as np

from uwbench.probes.products import Products, multiply, products
from uwbench.probes.splits import random_numbers

if TYPE_CHECKING:
    import torch

_EPSILON = 1e-5  # of LayerNorm, as in torch
_BETAS, _ADAM_EPSILON = (0.9, 0.999), 1e-8  # torch's defaults
Slopes = dict[str, "torch.Tensor | Products"]  # gradients by name, then [stream, point]
_EVAL_ITEMS = 8192  # rows put through the probes at once outside training


@dataclass(frozen=True, slots=True)
class Point:
    """One point of the grid."""

    width: int
    learning_rate: float
    weight_decay: float


@dataclass(frozen=True, slots=True)
class Problem:
    """What all probes of a task share.

    `inputs(rows)` gives float32 `(len(rows), dim)`, or `(len(rows), layers, dim)` of several layers, whose sum under a
    trained softmax of weights the probe then sees; `targets(rows)` gives class numbers `(len(rows),)` for `softmax`,
    float32 `(len(rows), classes)` for `sigmoid`. `positive_weight` weighs the positives of a sigmoid.
    """

    dim: int
    classes: int
    loss: Literal["softmax", "sigmoid"]
    inputs: Callable[[np.ndarray], np.ndarray]
    targets: Callable[[np.ndarray], np.ndarray]
    norm: Literal["input", "hidden"]  # LayerNorm before all (with trained scale and shift), or in the hidden layer
    dropout: float
    final_rate: float
    schedule: Literal["step", "epoch"]
    device: str
    positive_weight: float = 1.0
    layers: int = 1


@dataclass(frozen=True, slots=True)
class Stream:
    """One fold under one seed. `units` `(n,)` are the training items.

    `epochs` is the length of the schedule, `stop` the epochs that are trained; `centre` and `scale` standardise inputs.
    """

    key: tuple[str | int, ...]
    units: np.ndarray
    batch: int
    epochs: int
    stop: int
    centre: np.ndarray | None
    scale: np.ndarray | None
    points: tuple[Point, ...]

    @property
    def steps(self) -> int:
        return math.ceil(len(self.units) / self.batch)

    def rate(self, point: Point, epoch: int, step: int, problem: Problem) -> float:
        """Return the learning rate of a step: a cosine from the point's rate down to `final_rate` of it."""
        done = epoch / self.epochs if problem.schedule == "epoch" else (epoch * self.steps + step) / self.total_steps
        return point.learning_rate * (
            problem.final_rate + (1 - problem.final_rate) * 0.5 * (1 + math.cos(math.pi * done))
        )

    @property
    def total_steps(self) -> int:
        return self.epochs * self.steps


class Stack:
    """The parameters of `S` streams x `G` points of one width, and their optimiser's state."""

    def __init__(self, problem: Problem, streams: Sequence[Stream]) -> None:
        import torch

        self.problem, self.streams = problem, tuple(streams)
        self.width = streams[0].points[0].width
        shapes = _shapes(problem, self.width)
        points = len(streams[0].points)
        initial = np.stack([_initial(problem, self.width, stream) for stream in streams])
        weights = torch.from_numpy(initial).to(problem.device)
        self.weights = weights[:, None].expand(-1, points, -1).contiguous()
        self.first, self.second = (torch.zeros_like(self.weights) for _ in range(2))
        self.steps_done = torch.zeros(len(streams), points, len(shapes), device=problem.device)
        self._shapes = shapes

    @property
    def points(self) -> int:
        return self.weights.shape[1]

    def views(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the parameters in `flat` `(S, G, size)` by name, each `(S, G, *shape)`, sharing its memory."""
        found, at = {}, 0
        for name, shape in self._shapes:
            size = math.prod(shape)
            found[name] = flat[..., at : at + size].unflatten(-1, shape)
            at += size
        return found

    def keep(self, streams: Sequence[int]) -> None:
        """Go on with some of the streams only."""
        self.streams = tuple(self.streams[index] for index in streams)
        self.weights, self.first, self.second, self.steps_done = (
            part[list(streams)] for part in (self.weights, self.first, self.second, self.steps_done)
        )

    def logits(self, stream: int, rows: np.ndarray, weights: torch.Tensor | None = None) -> Iterator[torch.Tensor]:
        """Yield logits `(G, rows, classes)` of one stream's probes, a block of rows at a time, in order."""
        import torch

        flat = (self.weights[stream] if weights is None else weights)[None]
        parameters = self.views(flat)
        with torch.inference_mode():
            for start in range(0, len(rows), _EVAL_ITEMS):
                values = _prepare(self.problem, [self.streams[stream]], [rows[start : start + _EVAL_ITEMS]])
                yield _forward(self.problem, parameters, values, None).logits[0]


def train(stack: Stack, after_epoch: Callable[[Stack, int], None], given_up: Event | None = None) -> None:
    """Train until every stream has reached its `stop`; `after_epoch(stack, epoch)` sees the live streams each epoch.

    Streams that stop leave the stack after the call for their last epoch. Raises CancelledError soon after another
    thread has set `given_up`.
    """
    import torch

    epoch = 0
    with torch.inference_mode():
        while stack.streams:
            orders = [_order(stream, epoch) for stream in stack.streams]
            masks = [random_numbers(*stream.key, "dropout", epoch) for stream in stack.streams]
            for step in range(max(stream.steps for stream in stack.streams)):
                if given_up is not None and given_up.is_set():
                    raise CancelledError
                _step(stack, epoch, step, orders, masks)
            after_epoch(stack, epoch)
            epoch += 1
            going = [index for index, stream in enumerate(stack.streams) if stream.stop > epoch]
            if len(going) < len(stack.streams):
                stack.keep(going)


def _shapes(problem: Problem, width: int) -> list[tuple[str, tuple[int, ...]]]:
    mix = [("mix", (problem.layers,))] if problem.layers > 1 else []
    norm = [("gamma", (problem.dim,)), ("beta", (problem.dim,))] if problem.norm == "input" else []
    if width == 0:
        return [*mix, *norm, ("w2", (problem.dim, problem.classes)), ("b2", (problem.classes,))]
    hidden = [("w1", (problem.dim, width)), ("b1", (width,))]
    return [*mix, *norm, *hidden, ("w2", (width, problem.classes)), ("b2", (problem.classes,))]


def _initial(problem: Problem, width: int, stream: Stream) -> np.ndarray:
    """Return one probe's first parameters, flat: uniform in +-1/sqrt(inputs), as torch's Linear draws them."""
    rng = random_numbers(*stream.key, "weights", width)
    parts = []
    for name, shape in _shapes(problem, width):
        if name in ("mix", "gamma", "beta"):
            parts.append(np.full(shape, 1.0 if name == "gamma" else 0.0, np.float32))
        else:
            bound = 1 / math.sqrt(problem.dim if name.endswith("1") or width == 0 else width)
            parts.append(((rng.random(shape, dtype=np.float32) * 2 - 1) * bound).ravel())
    return np.concatenate(parts)


def _order(stream: Stream, epoch: int) -> np.ndarray:
    return random_numbers(*stream.key, "order", epoch).permutation(len(stream.units))


def _rows(stream: Stream, order: np.ndarray, step: int) -> np.ndarray:
    taken = order[step * stream.batch : (step + 1) * stream.batch]
    return stream.units[taken]


def _prepare(problem: Problem, streams: Sequence[Stream], rows: Sequence[np.ndarray]) -> torch.Tensor:
    """Return inputs `(S, 1, B, [layers,] dim)`, standardised or layer-normalised; filled up with zeros."""
    import torch

    longest = max(len(part) for part in rows)
    of_layers = (problem.layers,) if problem.layers > 1 else ()
    values = np.zeros((len(rows), longest, *of_layers, problem.dim), np.float32)
    for index, part in enumerate(rows):
        if len(part):
            values[index, : len(part)] = problem.inputs(part)
    x = torch.from_numpy(values).to(problem.device)
    if streams[0].centre is not None:
        centre, scale = (
            torch.from_numpy(np.stack([getattr(stream, name) for stream in streams])).to(problem.device)[:, None]
            for name in ("centre", "scale")
        )
        x = (x - centre).mul_(scale)
    if problem.norm == "input":
        _normalise(x)
    return x[:, None]


def _normalise(x: torch.Tensor) -> torch.Tensor:
    """LayerNorm over the last axis, in place; return the factors `(..., 1)` that the centred values were scaled by."""
    import torch

    x -= x.mean(dim=-1, keepdim=True)
    factor = torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + _EPSILON)
    x *= factor
    return factor


@dataclass(frozen=True, slots=True)
class _Passed:
    """What the way back needs: logits `(S, G, B, classes)`, the inputs of the first and of the last linear layer, the
    normalised hidden values and their factors, where LayerNorm is there.
    """

    logits: torch.Tensor
    inputs: torch.Tensor
    last: torch.Tensor
    hidden: torch.Tensor | None
    factor: torch.Tensor | None


def _forward(
    problem: Problem, parameters: dict[str, torch.Tensor], x: torch.Tensor, mask: torch.Tensor | None
) -> _Passed:
    import torch

    inputs = x
    if "mix" in parameters:
        inputs = torch.einsum("sgl,sbld->sgbd", parameters["mix"].softmax(dim=-1), x[:, 0])
    if "gamma" in parameters:
        inputs = inputs * parameters["gamma"][:, :, None] + parameters["beta"][:, :, None]
    last, hidden, factor = inputs, None, None
    if "w1" in parameters:
        hidden = multiply(inputs, parameters["w1"]).add_(parameters["b1"][:, :, None])
        if problem.norm == "hidden":
            factor = _normalise(hidden)
        last = hidden.relu()
        if mask is not None:
            last *= mask
    logits = multiply(last, parameters["w2"]).add_(parameters["b2"][:, :, None])
    return _Passed(logits, inputs, last, hidden, factor)


def _step(
    stack: Stack, epoch: int, step: int, orders: Sequence[np.ndarray], masks: Sequence[np.random.Generator]
) -> None:
    """One step of AdamW for every stream that has a batch left in this epoch."""

    problem = stack.problem
    rows = [_rows(stream, order, step) for stream, order in zip(stack.streams, orders, strict=True)]
    x = _prepare(problem, stack.streams, rows)
    mask = _dropout(stack, rows, masks)
    parameters = stack.views(stack.weights)
    passed = _forward(problem, parameters, x, mask)
    error = _error(problem, passed.logits, rows)
    slopes: Slopes = {"w2": products(passed.last.transpose(-1, -2), error), "b2": error.sum(dim=2)}
    back = None
    if "w1" in parameters:
        back = multiply(error, parameters["w2"].transpose(-1, -2))
        back *= passed.last > 0
        if mask is not None:
            back *= mask
        if passed.hidden is not None and passed.factor is not None:  # back through LayerNorm
            along = (back * passed.hidden).mean(dim=-1, keepdim=True)
            back -= back.mean(dim=-1, keepdim=True)
            back.sub_(passed.hidden * along).mul_(passed.factor)
        slopes |= {"w1": products(passed.inputs.transpose(-1, -2), back), "b1": back.sum(dim=2)}
    if "gamma" in parameters or "mix" in parameters:
        weights, above = (parameters["w2"], error) if back is None else (parameters["w1"], back)
        slopes |= _slopes_of_inputs(parameters, x, multiply(above, weights.transpose(-1, -2)))
    _adamw(stack, epoch, step, [index for index, part in enumerate(rows) if len(part)], slopes)


def _slopes_of_inputs(parameters: dict[str, torch.Tensor], x: torch.Tensor, error: torch.Tensor) -> Slopes:
    """Return the gradients of what lies before the first linear layer, given the `error` in its input."""
    import torch

    slopes: Slopes = {}
    shares = parameters["mix"].softmax(dim=-1) if "mix" in parameters else None
    if "gamma" in parameters:
        mixed = x if shares is None else torch.einsum("sgl,sbld->sgbd", shares, x[:, 0])
        slopes = {"gamma": (error * mixed).sum(dim=2), "beta": error.sum(dim=2)}
        error = error * parameters["gamma"][:, :, None]
    if shares is not None:
        slope = torch.einsum("sgbd,sbld->sgl", error, x[:, 0])
        slopes["mix"] = shares * (slope - (shares * slope).sum(dim=-1, keepdim=True))
    return slopes


def _dropout(stack: Stack, rows: Sequence[np.ndarray], rngs: Sequence[np.random.Generator]) -> torch.Tensor | None:
    """Return what the hidden units are multiplied with, `(S, 1, B, width)`: 0, or 1 / (1 - dropout).

    A unit is dropped where a random byte is below 256 x dropout: eight times cheaper than a random float.
    """
    import torch

    problem = stack.problem
    if stack.width == 0 or problem.dropout == 0:
        return None
    threshold = round(256 * problem.dropout)
    longest = max(len(part) for part in rows)
    kept = np.ones((len(rows), longest, stack.width), dtype=bool)
    for index, part in enumerate(rows):
        drawn = np.frombuffer(rngs[index].bytes(len(part) * stack.width), np.uint8)
        kept[index, : len(part)] = (drawn >= threshold).reshape(len(part), stack.width)
    mask = torch.from_numpy(kept).to(problem.device)
    return mask.to(torch.float32).mul_(256 / (256 - threshold))[:, None]


def _error(problem: Problem, logits: torch.Tensor, rows: Sequence[np.ndarray]) -> torch.Tensor:
    """Return the gradient in the logits of the mean loss over a stream's rows (and classes, for sigmoid)."""
    import torch

    streams, _, longest, classes = logits.shape
    shares = np.zeros((streams, longest), np.float32)
    for index, part in enumerate(rows):
        shares[index, : len(part)] = 1 / max(len(part), 1)
    share = torch.from_numpy(shares).to(problem.device)[:, None, :, None]
    if problem.loss == "softmax":
        codes = np.zeros((streams, longest), np.int64)
        for index, part in enumerate(rows):
            codes[index, : len(part)] = problem.targets(part)
        error = torch.softmax(logits, dim=-1)
        index = torch.from_numpy(codes).to(problem.device)[:, None, :, None].expand(-1, logits.shape[1], -1, 1)
        error.scatter_add_(-1, index, torch.full((), -1.0, device=problem.device).expand(index.shape))
        return error.mul_(share)
    wanted = np.zeros((streams, longest, classes), np.float32)
    for index, part in enumerate(rows):
        wanted[index, : len(part)] = problem.targets(part)
    positive = torch.from_numpy(wanted).to(problem.device)[:, None]
    error = torch.sigmoid(logits)
    if problem.positive_weight != 1:
        error = error * (1 + (problem.positive_weight - 1) * positive)
    return error.sub_(problem.positive_weight * positive).mul_(share / classes)


def _adamw(stack: Stack, epoch: int, step: int, live: Sequence[int], slopes: Slopes) -> None:
    """A step of AdamW (Loshchilov and Hutter 2019) for the probes of the `live` streams, given all gradients.

    torch's fused kernel passes over memory once.
    """
    from torch.optim.adamw import adamw

    weights, first, second = (stack.views(flat) for flat in (stack.weights, stack.first, stack.second))
    for stream in live:
        for at, point in enumerate(stack.streams[stream].points):
            adamw(
                [weights[name][stream, at] for name in weights],
                [slopes[name][stream, at] for name in weights],
                [first[name][stream, at] for name in weights],
                [second[name][stream, at] for name in weights],
                [],
                list(stack.steps_done[stream, at]),
                fused=True,
                amsgrad=False,
                beta1=_BETAS[0],
                beta2=_BETAS[1],
                lr=stack.streams[stream].rate(point, epoch, step, stack.problem),
                weight_decay=point.weight_decay,
                eps=_ADAM_EPSILON,
                maximize=False,
            )
