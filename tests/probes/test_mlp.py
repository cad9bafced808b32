"""The stacked trainer equals torch's own layers and optimiser, and a probe does not feel the others in its stack."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from uwbench.probes.mlp import Point, Problem, Stack, Stream, train
from uwbench.probes.search import statistics
from uwbench.probes.splits import random_numbers

RNG = np.random.default_rng(0)
X = RNG.normal(2, 3, size=(90, 10)).astype(np.float32)
LAYERS = RNG.normal(size=(90, 3, 10)).astype(np.float32)
CODES = RNG.integers(0, 4, 90)
MANY = (RNG.random((90, 4)) < 0.4).astype(np.float32)


def problem(loss: str = "softmax", **fields) -> Problem:
    settings = {"norm": "hidden", "dropout": 0.0, "final_rate": 0.1, "schedule": "step", "device": "cpu"} | fields
    inputs = LAYERS if settings.get("layers", 1) > 1 else X
    return Problem(
        dim=10,
        classes=4,
        loss="softmax" if loss == "softmax" else "sigmoid",
        inputs=lambda rows: inputs[rows],
        targets=(lambda rows: CODES[rows]) if loss == "softmax" else (lambda rows: MANY[rows]),
        **settings,
    )


def stream(key: str, rows: np.ndarray, points: list[Point], epochs: int = 4, stop: int = 4) -> Stream:
    return Stream((key,), rows, 16, epochs, stop, None, None, tuple(points))


def outcome(made: Problem, streams: list[Stream]) -> dict[tuple[str, int], np.ndarray]:
    """Logits of all rows by stream and point, after each stream's last epoch."""
    found: dict[tuple[str, int], np.ndarray] = {}

    def look(stack: Stack, epoch: int) -> None:
        for at, one in enumerate(stack.streams):
            if one.stop == epoch + 1:
                logits = torch.cat(list(stack.logits(at, np.arange(90))), dim=1).numpy()
                found.update({(str(one.key[0]), index): part for index, part in enumerate(logits)})

    train(Stack(made, streams), look)
    return found


def by_torch(made: Problem, one: Stream, point: Point) -> np.ndarray:
    """The same probe with torch's layers, losses and AdamW, from the same first weights and order."""
    stack = Stack(made, [one])
    first = {name: value[0, 0].clone() for name, value in stack.views(stack.weights).items()}
    parameters = {name: torch.nn.Parameter(value) for name, value in first.items()}
    optimiser = torch.optim.AdamW(parameters.values(), lr=1, weight_decay=point.weight_decay)

    def forward(rows: np.ndarray) -> torch.Tensor:
        x = torch.from_numpy(made.inputs(rows))
        if made.norm == "input":
            x = torch.nn.functional.layer_norm(x, (10,))
        if "mix" in parameters:
            x = (x * parameters["mix"].softmax(0)[:, None]).sum(dim=1)
        if "gamma" in parameters:
            x = x * parameters["gamma"] + parameters["beta"]
        if "w1" in parameters:
            x = x @ parameters["w1"] + parameters["b1"]
            x = torch.relu(torch.nn.functional.layer_norm(x, x.shape[-1:]) if made.norm == "hidden" else x)
        return x @ parameters["w2"] + parameters["b2"]

    for epoch in range(one.stop):
        order = random_numbers(*one.key, "order", epoch).permutation(len(one.units))
        for step in range(one.steps):
            rows = one.units[order[step * one.batch : (step + 1) * one.batch]]
            target = torch.from_numpy(made.targets(rows))
            if made.loss == "softmax":
                loss = torch.nn.functional.cross_entropy(forward(rows), target)
            else:
                weight = torch.tensor(made.positive_weight)
                loss = torch.nn.functional.binary_cross_entropy_with_logits(forward(rows), target, pos_weight=weight)
            optimiser.param_groups[0]["lr"] = one.rate(point, epoch, step, made)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return forward(np.arange(90)).detach().numpy()


@pytest.mark.parametrize("width", [0, 12])
@pytest.mark.parametrize(
    "made",
    [
        problem(),
        problem(norm="input", schedule="epoch"),
        problem("sigmoid", positive_weight=10.0),
        problem(layers=3),
        problem("sigmoid", layers=3, norm="input"),
    ],
    ids=["plain", "input", "sigmoid", "layers", "all"],
)
def test_equals_torch(made: Problem, width: int) -> None:
    point = Point(width, 0.01, 0.3)
    one = stream("a", np.arange(3, 73), [point])  # 70 rows: the last batch is partial
    np.testing.assert_allclose(outcome(made, [one])["a", 0], by_torch(made, one, point), atol=2e-5)


@pytest.mark.parametrize("width", [0, 12])
def test_a_probe_trains_alone_as_in_a_stack(width: int) -> None:
    made = problem(dropout=0.5)
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
    kept, dropped = outcome(problem(), one), outcome(problem(dropout=0.5), one)
    assert not np.allclose(kept["a", 0], dropped["a", 0])
    np.testing.assert_array_equal(outcome(problem(dropout=0.5), one)["a", 0], dropped["a", 0])


def test_the_rate_is_a_cosine_from_its_start_to_its_end() -> None:
    point = Point(0, 0.1, 0.0)
    one = stream("a", np.arange(32), [point], epochs=10)
    by_step = [one.rate(point, epoch, step, problem()) for epoch in range(10) for step in range(2)]
    np.testing.assert_allclose(by_step, 0.1 * (0.1 + 0.45 * (1 + np.cos(np.pi * np.arange(20) / 20))))
    by_epoch = one.rate(point, 9, 1, problem(schedule="epoch"))
    assert by_epoch == pytest.approx(0.1 * 0.122, abs=5e-5)  # X-ARES's last of 10 epochs: tasks.md, 3.7


def test_statistics_are_those_of_float64_and_leave_constant_dimensions() -> None:
    values = X.copy()
    values[:, 0] += 1e5
    values[:, 1] = 7
    centre, scale = statistics(lambda rows: values[rows], np.arange(90))
    exact = values.astype(np.float64)
    np.testing.assert_allclose(centre, exact.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(scale[[0, *range(2, 10)]], 1 / exact.std(axis=0)[[0, *range(2, 10)]], rtol=1e-5)
    assert scale[1] == 1
