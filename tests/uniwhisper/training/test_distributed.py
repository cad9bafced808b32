"""Two processes are one: the same global steps give the same weights, whole or sharded."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file


def spawn_world(asked: Mapping[str, object], world: int, program: str = "runs.py") -> None:
    """Run a program in `world` processes that know each other as torchrun would tell them."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    running = []
    for rank in range(world):
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
        if world > 1:
            env |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
            env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        line = [sys.executable, Path(__file__).parents[1] / program, json.dumps(asked)]
        running.append(subprocess.Popen(line, env=env, stderr=subprocess.PIPE, text=True))
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors[-3000:]


@pytest.fixture(scope="module")
def of_one(small_whisper: Path, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The gradients of a step of four micro-batches in one process."""
    path = tmp_path_factory.mktemp("one") / "gradients.safetensors"
    asked = {"whisper": str(small_whisper), "data": str(shared_data), "output": str(path), "parallel": "ddp"}
    spawn_world(asked, 1, "gradients.py")
    return load_file(path)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp2"])
def test_the_gradient_of_two_processes_is_that_of_one(
    small_whisper: Path, shared_data: Path, tmp_path: Path, of_one: dict[str, torch.Tensor], parallel: str
) -> None:
    path = tmp_path / "gradients.safetensors"
    asked = {"whisper": str(small_whisper), "data": str(shared_data), "output": str(path), "parallel": parallel}
    spawn_world(asked, 2, "gradients.py")
    found = load_file(path)
    assert set(found) == set(of_one)
    # Two micro-batches a rank: (a + c) + (b + d) where one process adds ((a + b) + c) + d. What differs is the rounding
    # of sums, so in float64 it goes away.
    for name, value in of_one.items():
        largest = 1e-6 if name.startswith("torch.float32") else 1e-13
        assert float((found[name] - value).norm()) <= largest * float(value.norm()), name


def trained(whisper: Path, data: Path, output: Path, parallel: str, world: int) -> Path:
    """Train 2 + 4 steps in `world` processes; return the run's folder."""
    overlay = {"run": {"save_every": 3, "parallel": parallel}, "stages": {"bridge": 2, "joint": 4}}
    spawn_world({"whisper": str(whisper), "data": str(data), "output": str(output), "overlay": overlay}, world)
    return output


@pytest.fixture(scope="module")
def by_one(small_whisper: Path, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(small_whisper, shared_data, tmp_path_factory.mktemp("one") / "run", "ddp", 1)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp2"])
def test_two_processes_are_one(
    small_whisper: Path, shared_data: Path, by_one: Path, tmp_path: Path, parallel: str
) -> None:
    by_two = trained(small_whisper, shared_data, tmp_path / "run", parallel, 2)
    one, two = (load_file(run / "step-0000006" / "model.safetensors") for run in (by_one, by_two))
    start = load_file(by_one / "step-0000003" / "model.safetensors")
    assert set(one) == set(two)
    # The gradients agree to 1e-6 (above). AdamW divides each by its own size, so that where a gradient is hardly more
    # than its rounding, its step is not: the weights agree less well.
    moved = max(float((one[name] - start[name]).abs().max()) for name in one)
    for name, value in one.items():
        assert float((value - two[name]).abs().max()) < 0.02 * moved, name
    lines = [(run / "log.jsonl").read_text().splitlines() for run in (by_one, by_two)]
    norms = [[json.loads(line)["grad_norm"] for line in run] for run in lines]
    torch.testing.assert_close(torch.tensor(norms[1]), torch.tensor(norms[0]), rtol=1e-3, atol=0)
    # Resumed in the world that wrote it, a run goes on from its own state.
    last = by_two / "step-0000006"
    before = load_file(last / "model.safetensors")
    for path in last.iterdir():
        if path.is_file():
            path.unlink()
    trained(small_whisper, shared_data, by_two, parallel, 2)
    after = load_file(last / "model.safetensors")
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=1e-6)
