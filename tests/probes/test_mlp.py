"""The stacked trainer equals torch's own layers and optimiser, and a probe does not feel the others in its stack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pytest
import torch

from probes.made_data import multi_label, single_label
from uwbench.probes.data import statistics
from uwbench.probes.grid import Point
from uwbench.probes.kinds.base import Kind, sigmoid_losses
from uwbench.probes.kinds.labels import MultiLabel, SingleLabel
from uwbench.probes.mlp import Problem, Stack, Stream, train
from uwbench.probes.splits import random_numbers

RNG = np.random.default_rng(0)
X = RNG.normal(2, 3, size=(90, 10)).astype(np.float32)
LAYERS = RNG.normal(size=(90, 3, 10)).astype(np.float32)
WIDE = RNG.standard_normal((90, 320), dtype=np.float32)

SINGLE = SingleLabel(single_label(90))
MULTI = MultiLabel(multi_label(90))


class Weighted(MultiLabel):
    """Multi-label with the loss of frames, whose positives may weigh more."""

    positive_weight = 10.0

    def losses(self, outputs: torch.Tensor, targets: Sequence[np.ndarray], _weights: dict) -> torch.Tensor:
        return sigmoid_losses(outputs, targets, self.positive_weight)


def problem(
    kind: Kind = SINGLE,
    inputs: np.ndarray = X,
    *,
    norm: Literal["input", "hidden"] = "hidden",
    dropout: float = 0.0,
    schedule: Literal["step", "epoch"] = "step",
    attention: int = 0,
) -> Problem:
    vectors = inputs.shape[1] if inputs.ndim == 3 else 1
    return Problem(kind, inputs.__getitem__, inputs.shape[-1], norm, dropout, 0.1, schedule, "cpu", vectors, attention)


def stream(key: str, rows: np.ndarray, points: list[Point], epochs: int = 4, stop: int = 4) -> Stream:
    return Stream((key,), rows, 16, epochs, stop, None, None, tuple(points))


def logits(stack: Stack, index: int) -> np.ndarray:
    blocks = [block for _, block in stack.outputs(index, np.arange(90), stack.of_stream(index))]
    return torch.cat(blocks, dim=2)[0].numpy()


def outcome(problem: Problem, streams: list[Stream]) -> dict[tuple[str, int], np.ndarray]:
    """Return the logits of all rows by stream and point, after each stream's last epoch."""
    ended: dict[tuple[str, int], np.ndarray] = {}

    def keep(stack: Stack, epoch: int) -> None:
        for at, stream in enumerate(stack.streams):
            if stream.stop == epoch + 1:
                ended.update({(str(stream.key[0]), index): part for index, part in enumerate(logits(stack, at))})

    train(Stack(problem, streams), keep)
    return ended


def by_torch(problem: Problem, stream: Stream, point: Point) -> np.ndarray:
    """Train the same probe with torch's layers, losses and AdamW, from the same first weights and order."""
    first = Stack(problem, [stream]).weights
    weights = {name: torch.nn.Parameter(value.detach()[0, 0].clone()) for name, value in first.items()}
    optimiser = torch.optim.AdamW(weights.values(), lr=1, weight_decay=point.weight_decay)

    def forward(rows: np.ndarray) -> torch.Tensor:
        x = torch.from_numpy(problem.inputs(rows))
        if problem.norm == "input":
            x = torch.nn.functional.layer_norm(x, x.shape[-1:])
        if "mix" in weights:
            x = (x * weights["mix"].softmax(0)[:, None]).sum(dim=1)
        if "gate" in weights:
            (v, u), (v_bias, u_bias) = weights["gate"].chunk(2, dim=1), weights["gate_bias"].chunk(2)
            gated = torch.tanh(x @ v + v_bias) * torch.sigmoid(x @ u + u_bias)
            x = (x * (gated @ weights["query"] + weights["place"]).softmax(1)[..., None]).sum(dim=1)
        if "gamma" in weights:
            x = x * weights["gamma"] + weights["beta"]
        if "w1" in weights:
            x = x @ weights["w1"] + weights["b1"]
            x = torch.relu(torch.nn.functional.layer_norm(x, x.shape[-1:]) if problem.norm == "hidden" else x)
        return x @ weights["w2"] + weights["b2"]

    for epoch in range(stream.stop):
        order = random_numbers(*stream.key, "order", epoch).permutation(len(stream.items))
        for step in range(stream.steps):
            rows = stream.items[order[step * stream.batch : (step + 1) * stream.batch]]
            target = torch.from_numpy(problem.kind.targets(rows))
            if isinstance(problem.kind, SingleLabel):
                loss = torch.nn.functional.cross_entropy(forward(rows), target)
            else:
                weight = torch.tensor(getattr(problem.kind, "positive_weight", 1.0))
                loss = torch.nn.functional.binary_cross_entropy_with_logits(forward(rows), target, pos_weight=weight)
            optimiser.param_groups[0]["lr"] = stream.rate(point, epoch, step, problem)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return forward(np.arange(90)).detach().numpy()


@pytest.mark.parametrize("width", [0, 12, 320])
@pytest.mark.parametrize(
    "made",
    [
        problem(),
        problem(norm="input", schedule="epoch"),
        problem(Weighted(multi_label(90))),
        problem(inputs=LAYERS),
        problem(MULTI, LAYERS, norm="input"),
        problem(inputs=WIDE),
        problem(inputs=LAYERS, attention=4),
        problem(MULTI, LAYERS, norm="input", attention=7),
    ],
    ids=["plain", "input", "sigmoid", "layers", "all", "wide", "attention", "attention, all"],
)
def test_equals_torch(made: Problem, width: int) -> None:
    point = Point(width, 0.01 if made.dim == 10 else 0.001, 0.3)
    one = stream("a", np.arange(3, 73), [point])  # 70 rows: the last batch is partial
    tolerance = 2e-5 if made.dim == 10 else 1e-4
    np.testing.assert_allclose(outcome(made, [one])["a", 0], by_torch(made, one, point), atol=tolerance)


@pytest.mark.parametrize("width", [0, 12, 320])
@pytest.mark.parametrize("kind", [SINGLE, MULTI], ids=["single-label", "multi-label"])
@pytest.mark.parametrize(
    ("inputs", "attention"),
    [(X, 0), (LAYERS, 0), (WIDE, 0), (LAYERS, 5)],
    ids=["narrow", "layers", "wide", "attention"],
)
def test_a_probe_trains_alone_as_in_a_stack(kind: Kind, inputs: np.ndarray, attention: int, width: int) -> None:
    made = problem(kind, inputs, dropout=0.5, attention=attention)
    points = [Point(width, rate, decay) for rate in (0.001, 0.01) for decay in (0.0, 1.0)]
    rows = {"a": np.arange(70), "b": np.arange(20, 90), "c": np.arange(5, 45)}  # unequal sizes
    stops = {"a": 4, "b": 2, "c": 3}
    together = outcome(made, [stream(key, rows[key], points, stop=stops[key]) for key in rows])
    for key in rows:
        for index, point in enumerate(points):
            alone = outcome(made, [stream(key, rows[key], [point], stop=stops[key])])[key, 0]
            np.testing.assert_allclose(together[key, index], alone, atol=1e-5)


def test_dropout_changes_training_and_not_prediction() -> None:
    one = [stream("a", np.arange(70), [Point(12, 0.01, 0.0)])]
    without, dropped = outcome(problem(), one), outcome(problem(dropout=0.5), one)
    assert not np.allclose(without["a", 0], dropped["a", 0])
    np.testing.assert_array_equal(outcome(problem(dropout=0.5), one)["a", 0], dropped["a", 0])


def test_the_rate_is_a_cosine_from_its_start_to_its_end() -> None:
    point = Point(0, 0.1, 0.0)
    one = stream("a", np.arange(32), [point], epochs=10)
    by_step = [one.rate(point, epoch, step, problem()) for epoch in range(10) for step in range(2)]
    np.testing.assert_allclose(by_step, 0.1 * (0.1 + 0.45 * (1 + np.cos(np.pi * np.arange(20) / 20))))
    by_epoch = one.rate(point, 9, 1, problem(schedule="epoch"))
    assert by_epoch == pytest.approx(0.1 * 0.122, abs=5e-5)  # X-ARES's last of 10 epochs


def test_statistics_are_those_of_float64_and_leave_constant_dimensions() -> None:
    values = X.copy()
    values[:, 0] += 1e5
    values[:, 1] = 7
    centre, scale = statistics(lambda rows: values[rows], np.arange(90))
    exact = values.astype(np.float64)
    np.testing.assert_allclose(centre, exact.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(scale[[0, *range(2, 10)]], 1 / exact.std(axis=0)[[0, *range(2, 10)]], rtol=1e-5)
    assert scale[1] == 1
