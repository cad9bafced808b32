"""Products of stacks are right whichever kernel computes them, and probes wide enough for oneDNN train the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from uwbench.probes.mlp import Point, Problem, Stack, Stream, train
from uwbench.probes.products import Products, multiply, products

RNG = np.random.default_rng(0)


def stack(streams: int, points: int, rows: int, columns: int) -> torch.Tensor:
    return torch.from_numpy(RNG.standard_normal((streams, points, rows, columns), dtype=np.float32))


@pytest.mark.parametrize(("inner", "columns"), [(5, 7), (300, 200)], ids=["small", "large"])
@pytest.mark.parametrize(("left", "right"), [(3, 3), (1, 3), (3, 1), (1, 1)])
@pytest.mark.parametrize("turned", ["neither", "left", "right"])
def test_equals_the_product_in_float64(inner: int, columns: int, left: int, right: int, turned: str) -> None:
    rows = inner // 4 + 1
    first, second = stack(2, left, rows, inner), stack(2, right, inner, columns)
    if turned == "left":  # the same values, stored the other way round
        first = first.transpose(-1, -2).contiguous().transpose(-1, -2)
    if turned == "right":
        second = second.transpose(-1, -2).contiguous().transpose(-1, -2)
    found = multiply(first, second)
    assert found.shape == (2, max(left, right), rows, columns)
    np.testing.assert_allclose(found, first.double() @ second.double(), atol=1e-5 * inner)


def test_a_large_product_is_that_of_its_own_matrices_alone_and_on_demand() -> None:
    first, second = stack(2, 1, 100, 300), stack(2, 3, 300, 200)
    together = products(first, second)
    if not isinstance(together, Products):
        pytest.skip("this torch has no oneDNN")
    for stream in range(2):
        for point in range(3):
            alone = multiply(first[stream : stream + 1], second[stream : stream + 1, point : point + 1])[0, 0]
            assert torch.equal(together[stream, point], alone)


def test_wide_probes_train_as_with_torch_layers_and_do_not_feel_their_stack() -> None:
    """64 x 320 x 320 multiplications a product: every one of the hidden layer goes through oneDNN, where it is."""
    x = RNG.standard_normal((200, 320), dtype=np.float32)
    codes = RNG.integers(0, 4, 200)
    made = Problem(320, 4, "softmax", x.__getitem__, codes.__getitem__, "hidden", 0.0, 0.1, "step", "cpu")
    points = (Point(320, 0.001, 0.3), Point(320, 0.003, 0.0))
    streams = [
        Stream((name,), np.arange(first, 190), 64, 3, 3, None, None, points) for name, first in (("a", 0), ("b", 9))
    ]
    together = Stack(made, streams)
    starts = together.weights.clone()
    ended: list[torch.Tensor] = []
    train(together, lambda held, epoch: ended.append(held.weights.clone()) if epoch == 2 else None)
    for index, stream in enumerate(streams):
        for at, point in enumerate(points):
            single = Stack(made, [Stream(stream.key, stream.units, 64, 3, 3, None, None, (point,))])
            assert torch.equal(single.weights[0, 0], starts[index, at])
            alone: list[torch.Tensor] = []
            train(single, lambda held, epoch, alone=alone: alone.append(held.weights.clone()) if epoch == 2 else None)
            np.testing.assert_allclose(ended[0][index, at], alone[0][0, 0], atol=1e-5)
            np.testing.assert_allclose(alone[0][0, 0], by_torch(made, stream, point, starts[index, at]), atol=1e-4)


def by_torch(made: Problem, stream: Stream, point: Point, start: torch.Tensor) -> np.ndarray:
    """The same probe by torch's layers, loss and AdamW; its parameters, flat."""
    from uwbench.probes.splits import random_numbers

    sizes = (320 * 320, 320, 320 * 4, 4)
    w1, b1, w2, b2 = (torch.nn.Parameter(part.clone()) for part in start.split(sizes))
    optimiser = torch.optim.AdamW((w1, b1, w2, b2), lr=1, weight_decay=point.weight_decay)
    for epoch in range(stream.stop):
        order = random_numbers(*stream.key, "order", epoch).permutation(len(stream.units))
        for step in range(stream.steps):
            rows = stream.units[order[step * 64 : (step + 1) * 64]]
            hidden = torch.from_numpy(made.inputs(rows)) @ w1.view(320, 320) + b1
            logits = torch.relu(torch.nn.functional.layer_norm(hidden, (320,))) @ w2.view(320, 4) + b2
            loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(made.targets(rows)))
            optimiser.param_groups[0]["lr"] = stream.rate(point, epoch, step, made)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return torch.cat([part.detach() for part in (w1, b1, w2, b2)]).numpy()
