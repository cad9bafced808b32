"""Many small probes trained as one program: stacked weights, one batched product per layer, autograd and AdamW.

A stack is `S` streams x `G` grid points. A stream is one fold under one seed: its training items, their statistics,
order, initial weights and dropout. All random numbers come from the stream's own key, so a probe's result depends
neither on the stack it trains in nor on its place there. The points of a stream share its random numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from threading import Event
from typing import TYPE_CHECKING, Literal

import numpy as np

from uwbench.probes.data import Inputs
from uwbench.probes.grid import Point
from uwbench.probes.kinds.base import Kind, padded
from uwbench.probes.splits import random_numbers

if TYPE_CHECKING:
    import torch

    from uwbench.probes.kinds.base import Weights

_EPSILON = 1e-5  # of LayerNorm, as in torch
_BETAS, _ADAM_EPSILON = (0.9, 0.999), 1e-8  # torch's defaults
_ROWS_AT_ONCE = 8192  # rows put through the probes at once outside training


@dataclass(frozen=True, slots=True)
class Problem:
    """The training problem that all probes of a task share.

    `inputs(rows)` returns float32 `(len(rows), dim)`, or `(len(rows), vectors, dim)` of several layers or segments. The
    probe then sees their sum under a trained softmax of weights: one per vector for all rows, or, with `attention`
    hidden units, weights that a gated attention gives to the vectors of each row.
    """

    kind: Kind
    inputs: Inputs
    dim: int
    norm: Literal["input", "hidden"]  # LayerNorm on the input (with trained scale and shift), or in the hidden layer
    dropout: float
    final_rate: float
    schedule: Literal["step", "epoch"]
    device: str
    vectors: int = 1
    attention: int = 0

    def sizes(self, width: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of a probe's weights by name, in the order in which they are drawn."""
        mix: dict[str, tuple[int, ...]] = {"mix": (self.vectors,)} if self.vectors > 1 else {}
        if self.attention:
            gate = {"gate": (self.dim, 2 * self.attention), "gate_bias": (2 * self.attention,)}
            mix = {**gate, "query": (self.attention,), "place": (self.vectors,)}
        norm = {"gamma": (self.dim,), "beta": (self.dim,)} if self.norm == "input" else {}
        hidden = {"w1": (self.dim, width), "b1": (width,)} if width else {}
        out = {"w2": (width or self.dim, self.kind.outputs), "b2": (self.kind.outputs,)}
        return {**mix, **norm, **hidden, **out}

    def bound(self, name: str, width: int) -> float:
        """Return the largest first value of a drawn weight: 1/sqrt(inputs), as in torch's Linear."""
        if name == "query":
            return 1 / math.sqrt(self.attention)
        of_vectors = name.endswith("1") or name.startswith("gate") or width == 0
        return 1 / math.sqrt(self.dim if of_vectors else width)

    @property
    def rows_at_once(self) -> int:
        """Rows put through the probes at once outside training; with attention, each brings all its vectors."""
        return max(1, _ROWS_AT_ONCE // self.vectors) if self.attention else _ROWS_AT_ONCE


@dataclass(frozen=True, slots=True)
class Stream:
    """One fold under one seed. `items` `(n,)` are the training items.

    `epochs` is the length of the schedule and `stop` the number of epochs to train; `centre` and `scale` standardise
    the inputs.
    """

    key: tuple[str | int, ...]
    items: np.ndarray
    batch: int
    epochs: int
    stop: int
    centre: np.ndarray | None
    scale: np.ndarray | None
    points: tuple[Point, ...]

    @property
    def steps(self) -> int:
        """Steps per epoch."""
        return math.ceil(len(self.items) / self.batch)

    def rate(self, point: Point, epoch: int, step: int, problem: Problem) -> float:
        """Return the learning rate of a step: a cosine from the point's rate down to `final_rate` of it."""
        total = self.epochs * self.steps
        progress = epoch / self.epochs if problem.schedule == "epoch" else (epoch * self.steps + step) / total
        factor = problem.final_rate + (1 - problem.final_rate) * 0.5 * (1 + math.cos(math.pi * progress))
        return point.learning_rate * factor


class Stack:
    """The weights of `S` streams x `G` points of one width, and their optimiser's moments."""

    def __init__(self, problem: Problem, streams: Sequence[Stream]) -> None:
        import torch

        self.problem, self.streams = problem, tuple(streams)
        self.width, points = streams[0].points[0].width, len(streams[0].points)
        initial = [_initial(problem, self.width, stream) for stream in streams]
        self.weights: Weights = {}
        for name in initial[0]:
            values = torch.from_numpy(np.stack([weights[name] for weights in initial])).to(problem.device)
            self.weights[name] = values[:, None].repeat(1, points, *[1] * (values.ndim - 1)).requires_grad_()
        self.first, self.second = (
            {name: torch.zeros_like(value, requires_grad=False) for name, value in self.weights.items()}
            for _ in range(2)
        )

    def of_stream(self, index: int) -> Weights:
        """Return the weights of one stream's probes, each `(1, G, *shape)`."""
        return {name: value[index : index + 1] for name, value in self.weights.items()}

    def keep(self, streams: Sequence[int]) -> None:
        """Go on with some of the streams only."""
        self.streams = tuple(self.streams[index] for index in streams)
        for side in (self.weights, self.first, self.second):
            for name, value in side.items():
                side[name] = value.detach()[list(streams)].requires_grad_(value.requires_grad)

    def outputs(
        self, stream: int, items: np.ndarray, weights: Weights, inputs: Inputs | None = None
    ) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """Yield items with the outputs `(1, G, rows, outputs)` of probes for them, one block at a time, in order.

        The inputs are standardised as those of `stream`; `inputs` replaces those of the problem. The items of a block
        have at most `rows_at_once` rows unless it is one.
        """
        problem = self.problem if inputs is None else replace(self.problem, inputs=inputs)
        ends = np.cumsum(self.problem.kind.rows_per_item(items))
        start = 0
        while start < len(items):
            before = int(ends[start - 1]) if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, before + problem.rows_at_once, side="right")))
            x = _inputs(problem, [self.streams[stream]], [items[start:stop]])
            yield items[start:stop], _forward(problem, weights, x, None)
            start = stop


def train(stack: Stack, after_epoch: Callable[[Stack, int], None], given_up: Event | None = None) -> None:
    """Train until every stream has reached its `stop`; call `after_epoch(stack, epoch)` without gradients.

    Streams that stop leave the stack after the call for their last epoch. Raises CancelledError soon after another
    thread has set `given_up`.
    """
    import torch

    epoch = 0
    while stack.streams:
        orders = [random_numbers(*stream.key, "order", epoch) for stream in stack.streams]
        drops = [random_numbers(*stream.key, "dropout", epoch) for stream in stack.streams]
        items = [
            stream.items[rng.permutation(len(stream.items))] for stream, rng in zip(stack.streams, orders, strict=True)
        ]
        for step in range(max(stream.steps for stream in stack.streams)):
            if given_up is not None and given_up.is_set():
                raise CancelledError
            batches = [
                part[step * stream.batch : (step + 1) * stream.batch]
                for stream, part in zip(stack.streams, items, strict=True)
            ]
            _backward(stack, batches, orders, drops)
            _update(stack, epoch, step, [index for index, batch in enumerate(batches) if len(batch)])
        with torch.inference_mode():
            after_epoch(stack, epoch)
        epoch += 1
        going = [index for index, stream in enumerate(stack.streams) if stream.stop > epoch]
        if len(going) < len(stack.streams):
            stack.keep(going)


def _initial(problem: Problem, width: int, stream: Stream) -> dict[str, np.ndarray]:
    """Return one probe's first weights: uniform within `bound`, and those without inputs at 0 or 1."""
    rng = random_numbers(*stream.key, "weights", width)
    weights = {}
    for name, shape in problem.sizes(width).items():
        if name in ("mix", "place", "gamma", "beta"):
            weights[name] = np.full(shape, 1.0 if name == "gamma" else 0.0, np.float32)
        else:
            bound = np.float32(problem.bound(name, width))
            weights[name] = (rng.random(shape, dtype=np.float32) * 2 - 1) * bound
    return weights | problem.kind.weights()


def _inputs(problem: Problem, streams: Sequence[Stream], items: Sequence[np.ndarray]) -> torch.Tensor:
    """Return inputs `(S, 1, rows, [vectors,] dim)`, standardised or layer-normalised; filled up with zeros."""
    import torch

    rows = [problem.kind.rows(part) for part in items]
    several = problem.vectors > 1 or problem.attention
    empty = np.zeros((0, *((problem.vectors,) if several else ()), problem.dim), np.float32)
    x = padded([problem.inputs(part) if len(part) else empty for part in rows], problem.device)
    if streams[0].centre is not None:
        centre, scale = (
            torch.from_numpy(np.stack([getattr(stream, name) for stream in streams])).to(problem.device)[:, None]
            for name in ("centre", "scale")
        )
        x = (x - centre).mul_(scale)
    if problem.norm == "input":
        x = torch.nn.functional.layer_norm(x, x.shape[-1:], eps=_EPSILON)
    return x[:, None]


def _forward(problem: Problem, weights: Weights, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Return the outputs `(S, G, rows, outputs)` of inputs `x`."""
    import torch

    if "gate" in weights:
        x = _attended(x[:, 0], weights)
    if "mix" in weights:
        x = torch.einsum("sgl,sbld->sgbd", weights["mix"].softmax(dim=-1), x[:, 0])
    if "gamma" in weights:
        x = x * weights["gamma"][:, :, None] + weights["beta"][:, :, None]
    if "w1" in weights:
        x = _linear(x, weights["w1"], weights["b1"])
        if problem.norm == "hidden":
            x = torch.nn.functional.layer_norm(x, x.shape[-1:], eps=_EPSILON)
        x = x.relu()
        if mask is not None:
            x = x * mask
    return _linear(x, weights["w2"], weights["b2"])


def _attended(x: torch.Tensor, weights: Weights) -> torch.Tensor:
    """Return the attended vectors `(S, G, rows, dim)` of vectors `x` `(S, rows, vectors, dim)`.

    A vector h at place k has the weight softmax over k of q (tanh(V h + v) * sigmoid(U h + u)) + p(k): the gated
    attention of Ilse, Tomczak and Welling (2018, "Attention-based deep multiple instance learning", equation 9), to
    which a trained term for each place is added. V and U are the two halves of `gate`. The products are taken point by
    point, so that each has the shape it would have alone, and sigmoid(z) is (1 + tanh(z / 2)) / 2: torch's own rounds
    differently in the last places of a tensor.
    """
    import torch

    units = weights["query"].shape[-1]
    half = torch.ones(2 * units, device=x.device)
    half[units:] = 0.5
    flat, attended = x.flatten(1, 2), []
    for point in range(weights["gate"].shape[1]):
        gate, bias = weights["gate"][:, point] * half, weights["gate_bias"][:, point] * half
        hidden = torch.baddbmm(bias[:, None], flat, gate).tanh()
        gated = hidden[..., :units] * (1 + hidden[..., units:]) / 2
        scores = torch.bmm(gated, weights["query"][:, point, :, None]).view(x.shape[:3])
        attention = (scores + weights["place"][:, point, None]).softmax(dim=-1)
        attended.append(torch.matmul(attention[:, :, None], x).squeeze(2))
    return torch.stack(attended, dim=1)


def _linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Return `x @ weight + bias` for each probe: `(S, 1 or G, rows, in)` times `(S, G, in, out)`.

    Each matrix has the shape it would have alone, so that its product does not depend on the stack.
    """
    import torch

    x = x.expand(-1, weight.shape[1], -1, -1).flatten(0, 1)
    product = torch.baddbmm(bias.flatten(0, 1)[:, None], x, weight.flatten(0, 1))
    return product.unflatten(0, weight.shape[:2])


def _backward(
    stack: Stack,
    batches: Sequence[np.ndarray],
    orders: Sequence[np.random.Generator],
    drops: Sequence[np.random.Generator],
) -> None:
    """Compute the gradients of every probe's mean loss over its stream's batch."""
    problem = stack.problem
    x = _inputs(problem, stack.streams, batches)
    mask = _dropout(stack, [problem.kind.rows(batch) for batch in batches], drops)
    targets = [problem.kind.targets(batch, rng) for batch, rng in zip(batches, orders, strict=True)]
    losses = problem.kind.losses(_forward(problem, stack.weights, x, mask), targets, stack.weights)
    shares = padded([np.full(len(batch), 1 / max(len(batch), 1), np.float32) for batch in batches], problem.device)
    (losses * shares[:, None]).sum().backward()


def _dropout(stack: Stack, rows: Sequence[np.ndarray], rngs: Sequence[np.random.Generator]) -> torch.Tensor | None:
    """Return the factors of the hidden units, `(S, 1, rows, width)`: 0, or 1 / (1 - dropout).

    A unit is dropped if a random byte is below 256 x dropout: eight times cheaper than a random float.
    """
    import torch

    if stack.width == 0 or stack.problem.dropout == 0:
        return None
    threshold = round(256 * stack.problem.dropout)
    drawn = [
        np.frombuffer(rng.bytes(len(part) * stack.width), np.uint8).reshape(len(part), stack.width) >= threshold
        for part, rng in zip(rows, rngs, strict=True)
    ]
    return padded(drawn, stack.problem.device).to(torch.float32).mul_(256 / (256 - threshold))[:, None]


def _update(stack: Stack, epoch: int, step: int, live: Sequence[int]) -> None:
    """Take a step of AdamW (Loshchilov and Hutter 2019) for the probes of the `live` streams; drop all gradients.

    torch's fused kernel passes over memory once. Probes of equal rate, decay and step share a call.
    """
    import torch
    from torch.optim.adamw import adamw

    groups: dict[tuple[float, float, int], list[tuple[int, int]]] = {}
    for index in live:
        stream = stack.streams[index]
        for at, point in enumerate(stream.points):
            key = (stream.rate(point, epoch, step, stack.problem), point.weight_decay, epoch * stream.steps + step)
            groups.setdefault(key, []).append((index, at))
    weights = [value.detach() for value in stack.weights.values()]
    gradients = [value.grad for value in stack.weights.values() if value.grad is not None]
    first, second = stack.first.values(), stack.second.values()

    def of(values: Iterable[torch.Tensor], places: Sequence[tuple[int, int]]) -> list[torch.Tensor]:
        return [value[place] for place in places for value in values]

    for (rate, decay, steps), places in groups.items():
        adamw(
            of(weights, places),
            of(gradients, places),
            of(first, places),
            of(second, places),
            [],
            list(torch.full((len(places) * len(weights),), float(steps), device=stack.problem.device)),
            fused=True,
            amsgrad=False,
            beta1=_BETAS[0],
            beta2=_BETAS[1],
            lr=rate,
            weight_decay=decay,
            eps=_ADAM_EPSILON,
            maximize=False,
        )
    for value in stack.weights.values():
        value.grad = None
