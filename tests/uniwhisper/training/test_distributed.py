"""Two processes equal one: the same global steps give the same gradients and weights, with DDP and sharded."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.slow


def run_world(whisper: Path, data: Path, output: Path, parallel: str, world: int) -> Path:
    """Run `one_rank.py` in `world` processes that know each other as torchrun would tell them; return `output`."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        ports = [sock.getsockname()[1] for sock in sockets]
    request = {"whisper": str(whisper), "data": str(data), "output": str(output), "parallel": parallel, "ports": ports}
    processes = []
    for rank in range(world):
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
        if world > 1:
            env |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1"}
        line = [sys.executable, Path(__file__).parents[1] / "one_rank.py", json.dumps(request)]
        processes.append(subprocess.Popen(line, env=env, stderr=subprocess.PIPE, text=True))
    for process in processes:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors[-3000:]
    return output


@pytest.fixture(scope="module")
def by_one(small_whisper: Path, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of one process: the gradients of a step of four micro-batches, and a run of 2 + 4 steps."""
    return run_world(small_whisper, shared_data, tmp_path_factory.mktemp("one"), "ddp", 1)


@pytest.fixture(scope="module", params=["ddp", "fsdp2"])
def by_two(
    small_whisper: Path,
    shared_data: Path,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Path:
    """The same of two processes."""
    return run_world(small_whisper, shared_data, tmp_path_factory.mktemp("two"), request.param, 2)


def test_the_gradient_of_two_processes_is_that_of_one(by_one: Path, by_two: Path) -> None:
    one, two = (load_file(output / "gradients.safetensors") for output in (by_one, by_two))
    assert set(two) == set(one)
    # Two micro-batches per rank: (a + c) + (b + d) instead of ((a + b) + c) + d. Only the rounding of sums differs,
    # which disappears in float64.
    for name, value in one.items():
        largest = 1e-6 if name.startswith("torch.float32") else 1e-13
        assert float((two[name] - value).norm()) <= largest * float(value.norm()), name


def test_two_processes_train_as_one(by_one: Path, by_two: Path) -> None:
    one, two = (load_file(output / "step-0000006" / "model.safetensors") for output in (by_one, by_two))
    start = load_file(by_one / "run" / "step-0000003" / "model.safetensors")
    assert set(one) == set(two)
    # The gradients agree to 1e-6 (above). AdamW divides each by its own size, so where a gradient is hardly larger than
    # its rounding, the weights agree less well.
    moved = max(float((one[name] - start[name]).abs().max()) for name in one)
    for name, value in one.items():
        assert float((value - two[name]).abs().max()) < 0.02 * moved, name
    lines = [(output / "run" / "log.jsonl").read_text().splitlines()[:3] for output in (by_one, by_two)]
    norms = [[json.loads(line)["grad_norm"] for line in run] for run in lines]
    torch.testing.assert_close(torch.tensor(norms[1]), torch.tensor(norms[0]), rtol=1e-3, atol=0)


def test_a_run_of_two_processes_resumes_from_its_own_state(by_two: Path) -> None:
    first, again = (load_file(run / "step-0000006" / "model.safetensors") for run in (by_two, by_two / "run"))
    for name, value in first.items():
        torch.testing.assert_close(again[name], value, rtol=0, atol=1e-6)
