"""Two processes are one: the same global steps give the same weights, whole or sharded."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file


def spawn_world(asked: dict[str, object], world: int) -> None:
    """Run runs.py in `world` processes that know each other as torchrun would tell them."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    running = []
    for rank in range(world):
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
        if world > 1:
            env |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
            env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        program = Path(__file__).with_name("runs.py")
        running.append(
            subprocess.Popen([sys.executable, program, json.dumps(asked)], env=env, stderr=subprocess.PIPE, text=True)
        )
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp2"])
def test_two_processes_are_one(whisper_tiny: Path, shared_data: Path, tmp_path: Path, parallel: str) -> None:
    asked = {"whisper": str(whisper_tiny), "data": str(shared_data)}
    stages = {"bridge": 2, "joint": 4}
    overlay = {"run": {"save_every": 3, "parallel": parallel}, "stages": stages}
    for world in (1, 2):
        spawn_world({**asked, "output": str(tmp_path / str(world)), "overlay": overlay}, world)
    one, two = (load_file(tmp_path / world / "step-0000006" / "model.safetensors") for world in ("1", "2"))
    start = load_file(tmp_path / "1" / "step-0000003" / "model.safetensors")
    assert set(one) == set(two)
    moved = max(float((one[name] - start[name]).abs().max()) for name in one)
    for name, value in one.items():
        assert float((value - two[name]).abs().max()) < 0.02 * moved, name
    lines = [(tmp_path / world / "log.jsonl").read_text().splitlines() for world in ("1", "2")]
    norms = [[json.loads(line)["grad_norm"] for line in run] for run in lines]
    torch.testing.assert_close(torch.tensor(norms[1]), torch.tensor(norms[0]), rtol=1e-3, atol=0)
    # Resumed in the world that wrote it, a run goes on from its own state.
    last = tmp_path / "2" / "step-0000006"
    before = load_file(last / "model.safetensors")
    for path in last.iterdir():
        if path.is_file():
            path.unlink()
    spawn_world({**asked, "output": str(tmp_path / "2"), "overlay": overlay}, 2)
    after = load_file(last / "model.safetensors")
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=1e-6)
