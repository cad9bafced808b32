"""A run that is killed, stopped or given other workers ends with the same bits as an undisturbed one.

The two questions of a clip are packed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from runs import InMemory, digits, losses, settings
from uniwhisper.data.examples import Example
from uniwhisper.export import export_encoder
from uniwhisper.training import checkpoint
from uniwhisper.training.train import train
from uwbench.api import InputError, ModelSpec, UwbenchError
from uwbench.encoders.resolve import open_encoder

DATA = [{"dataset": "fsdd", "split": "train", "licence": "CC BY-SA 4.0"}]


@pytest.fixture(scope="module")
def clips(shared_data: Path) -> list[Example]:
    return digits(shared_data, 24)


@pytest.fixture(scope="module")
def whole(small_whisper: Path, clips: list[Example], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an undisturbed run of twenty steps."""
    torch.set_num_threads(1)
    output = tmp_path_factory.mktemp("whole")
    train(settings(str(small_whisper)), InMemory(clips), output, training_data=DATA)
    return output


def same(one: Path, two: Path) -> None:
    """Assert that weights and optimiser states are equal bit for bit."""
    a, b = load_file(one / "model.safetensors"), load_file(two / "model.safetensors")
    assert set(a) == set(b)
    assert all(torch.equal(a[name], b[name]) for name in a)
    first, second = (checkpoint.load_optimiser(folder)["state"] for folder in (one, two))
    assert len(first) == len(second) > 0
    for index, state in first.items():
        assert all(torch.equal(value, second[index][name]) for name, value in state.items())


def spawn(whisper: Path, data: Path, output: Path, **asked: Any) -> subprocess.Popen[str]:
    program = Path(__file__).parents[1] / "runs.py"
    words = {"whisper": str(whisper), "data": str(data), "output": str(output), **asked}
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, program, json.dumps(words)], env=env, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_killed_and_resumed_run_equals_an_undisturbed_one(
    whole: Path, small_whisper: Path, shared_data: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    killed = spawn(small_whisper, shared_data, output, kill_at=13)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert [path.name for path in checkpoint.checkpoints(output)] == ["step-0000010"]
    again = spawn(small_whisper, shared_data, output, overlay={"run": {"workers": 2}})
    _, errors = again.communicate()
    assert again.returncode == 0, errors
    same(whole / "step-0000020", output / "step-0000020")


def test_stopping_at_the_end_of_a_stage_changes_nothing(
    whole: Path, small_whisper: Path, clips: list[Example], tmp_path: Path
) -> None:
    config = settings(str(small_whisper))
    assert config.data.packed
    for until in (2, 4, 20):
        result = train(config, InMemory(clips), tmp_path, until=until, training_data=DATA)
        assert result.progress.step == until
    same(whole / "step-0000020", tmp_path / "step-0000020")


def test_sigterm_saves_a_checkpoint(small_whisper: Path, clips: list[Example], tmp_path: Path) -> None:
    class Telling(InMemory):
        def micro_batches(self, step: int, rank: int, world: int) -> list[list[Example]]:
            if step == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().micro_batches(step, rank, world)

    result = train(settings(str(small_whisper)), Telling(clips), tmp_path)
    assert result.checkpoint.name == "step-0000003"
    assert checkpoint.read_progress(result.checkpoint).step == 3


def test_the_loss_falls_in_the_log(whole: Path) -> None:
    found = list(losses(whole))
    assert len(found) == 10
    assert found[-1] < 0.9 * found[0]
    last = json.loads((whole / "log.jsonl").read_text().splitlines()[-1])
    assert set(last["loss_by_task"]) == {"digit", "speaker"}
    assert 0 < last["padded_audio"] < 1
    assert last["mfu"] > 0


def test_another_configuration_does_not_resume(whole: Path, small_whisper: Path, clips: list[Example]) -> None:
    with pytest.raises(InputError, match=r"another configuration: optimiser.clip was 1.0 and is 2.0;"):
        train(settings(str(small_whisper), optimiser={"clip": 2.0}), InMemory(clips), whole)


def test_an_export_is_the_trained_encoder(whole: Path, tmp_path: Path) -> None:
    found = whole / "step-0000020"
    folder = export_encoder(found, tmp_path / "out")
    weights = load_file(folder / "model.safetensors")
    trained = load_file(found / "model.safetensors")
    assert weights
    assert all(torch.equal(value, trained[f"encoder.{name}"]) for name, value in weights.items())
    encoder = open_encoder(ModelSpec("uniwhisper", weights=str(folder)))
    assert list(encoder.info.training_data or ()) == DATA
    encoder.load("cpu", "fp32")
    frames = encoder.encode(torch.zeros(1, 16_000), torch.tensor([16_000]), [2]).frames
    assert bool(torch.isfinite(frames).all())


def test_steps_that_are_not_finite_are_skipped_and_counted(
    small_whisper: Path, clips: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from uniwhisper.model.model import AudioModel

    forward, calls = AudioModel.forward, iter(range(10**6))

    def broken(self: AudioModel, batch: Any) -> torch.Tensor:
        lost = forward(self, batch)
        return lost * float("nan") if next(calls) in bad else lost

    monkeypatch.setattr(AudioModel, "forward", broken)
    bad: Any = {5}  # the second of the four micro-batches of step 1
    config = settings(str(small_whisper))
    result = train(config, InMemory(clips), tmp_path / "one", until=3)
    assert (result.progress.step, result.progress.skipped) == (3, 1)
    assert all(bool(torch.isfinite(v).all()) for v in load_file(result.checkpoint / "model.safetensors").values())
    bad = range(10**6)
    with pytest.raises(UwbenchError, match="20 steps in a row"):
        train(settings(str(small_whisper), stages={"bridge": 30, "joint": 1}), InMemory(clips[:8]), tmp_path / "two")
