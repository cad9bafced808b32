"""The command `train` on real audio: exact resuming, launchers, unreadable audio, monitor, batch sizes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import WhisperModel

from packed import pack
from runs import SHAPE
from small_whisper import ENCODER
from uniwhisper.cli.main import main
from uniwhisper.cli.train import overlay_of
from uniwhisper.config import load_config
from uniwhisper.data.rows import open_rows
from uniwhisper.evaluate import encoder_of
from uniwhisper.export import export_encoder
from uniwhisper.sampling.batches import PlannedBatches
from uniwhisper.sampling.prepare import prepare
from uniwhisper.training import checkpoint
from uwbench.api import InputError, UsageError

SMALL = {f"lm.shape.{name}": value for name, value in SHAPE.items()} | {
    **{f"encoder.{name}": value for name, value in ENCODER.items()},
    "data.mixture": "mini",
    "data.qa_per_audio": 2,
    "run.batch_s": 16,
    "run.micro_batch_s": 8,
    "run.save_every": 4,
    "run.keep": 3,
    "run.log_every": 2,
    "stages.bridge": 2,
    "stages.joint": 6,
    "optimiser.warmup_steps": 2,
}


@pytest.fixture(scope="module")
def data(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    pack(shared_data, folder, 24)
    pack(shared_data, folder, 6, split="test")
    return folder


def words(data: Path, whisper: Path, output: Path, **asked: Any) -> list[str]:
    """Return the command line of a run of 2 + 6 steps; `asked` are further settings, `.` written as `__`."""
    values = SMALL | {name.replace("__", "."): value for name, value in asked.items()}
    pairs = [word for name, value in values.items() for word in ("--set", f"{name}={json.dumps(value)}")]
    return ["train", "cpu-mini", "--data", str(data), "--encoder", str(whisper), "--output", str(output), *pairs]


LAUNCHERS = {
    "torchrun": ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"],
    "accelerate": ["-m", "accelerate.commands.launch", "--cpu", "--num_machines", "1", "--num_processes"],
}


def spawn(line: list[str], *, ranks: int = 1, launcher: str = "torchrun") -> subprocess.Popen[str]:
    """Start the command, under a launcher for several ranks."""
    program = ["-m", "uniwhisper"] if ranks == 1 else [*LAUNCHERS[launcher], str(ranks), "-m", "uniwhisper"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *program, *line], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run(monkeypatch: pytest.MonkeyPatch, line: list[str]) -> None:
    """Run the command in this process."""
    torch.set_num_threads(1)
    monkeypatch.setattr(sys, "argv", ["uniwhisper", *line])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code


@pytest.fixture(scope="module")
def whole(data: Path, small_whisper: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an undisturbed run."""
    output = tmp_path_factory.mktemp("whole")
    done = spawn(words(data, small_whisper, output))
    out, errors = done.communicate()
    assert done.returncode == 0, errors
    assert out.strip() == str(output / "step-0000008")
    return output


def same(one: Path, two: Path) -> None:
    for name in ("model.safetensors", "trainer.json", "optimizer.pt", "encoder/model.safetensors"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


def lines(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "log.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
def test_a_killed_command_resumes_to_the_same_bytes(
    data: Path, small_whisper: Path, whole: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    first = spawn(words(data, small_whisper, output))
    while not checkpoint.checkpoints(output) and first.poll() is None:
        time.sleep(0.005)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert [path.name for path in checkpoint.checkpoints(output)] in (["step-0000004"], [])
    assert first.returncode == -signal.SIGKILL
    again = spawn(words(data, small_whisper, output, run__workers=1))
    _, errors = again.communicate()
    assert again.returncode == 0, errors
    trained = json.loads((output / "step-0000008" / "trainer.json").read_text())
    assert trained["config"]["run"].pop("workers") == 1
    record = json.loads((whole / "step-0000008" / "trainer.json").read_text())
    del record["config"]["run"]["workers"]
    assert trained == record
    for name in ("model.safetensors", "optimizer.pt", "encoder/model.safetensors"):
        assert (output / "step-0000008" / name).read_bytes() == (whole / "step-0000008" / name).read_bytes(), name


def test_the_export_lists_the_training_data(whole: Path, tmp_path: Path) -> None:
    folder = export_encoder(whole / "step-0000008", tmp_path / "encoder")
    listed = json.loads((folder / "uniwhisper.json").read_text())["training_data"]
    assert listed == [
        {"dataset": "esc10", "split": "train", "licence": "CC BY 3.0"},
        {"dataset": "esc50", "split": "train", "licence": "CC BY 3.0"},  # of which ESC-10 is a part
        {"dataset": "fsdd", "split": "train", "licence": "CC BY-SA 4.0"},
        {"dataset": "philharmonia", "split": "train", "licence": "CC BY-SA 3.0"},
    ]
    last = lines(whole)[-1]
    assert set(last["loss_by_domain"]) <= {"speech", "sound", "music"}
    assert set(last["grad_norm_by_part"]) == {"encoder", "adapter", "lm"}
    assert sum(norm**2 for norm in last["grad_norm_by_part"].values()) == pytest.approx(
        last["grad_norm"] ** 2, rel=1e-5
    )
    assert 0 < last["mfu"] < last["hfu"]
    assert last["peak_gb"] > 0.1
    assert set(lines(whole)[0]["grad_norm_by_part"]) == {"adapter", "lm"}  # the bridge


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_processes_of_a_launcher_equal_one(
    data: Path, small_whisper: Path, whole: Path, tmp_path: Path, launcher: str
) -> None:
    output = tmp_path / "two"
    done = spawn(words(data, small_whisper, output), ranks=2, launcher=launcher)
    _, errors = done.communicate()
    assert done.returncode == 0, errors[-3000:]
    one, two = (load_file(folder / "step-0000008" / "model.safetensors") for folder in (whole, output))
    assert set(one) == set(two)
    # Two micro-batches per step, one per rank: their gradients are added in the same order as by one process.
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    for first, second in zip(lines(whole), lines(output), strict=True):
        assert first["loss"] == pytest.approx(second["loss"], rel=1e-12)
        assert first["loss_by_task"] == pytest.approx(second["loss_by_task"], rel=1e-12)


@pytest.mark.slow
def test_a_sharded_model_is_monitored_averaged_and_resumed_like_a_whole_one(
    data: Path, small_whisper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"run__monitor_every": 2, "run__monitor_clips": 8, "run__ema": 0.75, "run__parallel": "fsdp2"}
    run(monkeypatch, words(data, small_whisper, tmp_path / "whole", **asked))
    for until in ("5", "8"):  # the second goes on with sharded averages
        line = [*words(data, small_whisper, tmp_path / "sharded", **asked), "--until", until]
        done = spawn(line, ranks=2)
        _, errors = done.communicate()
        assert done.returncode == 0, errors[-3000:]
    one, two = ([x["monitor"] for x in lines(tmp_path / name) if "monitor" in x] for name in ("whole", "sharded"))
    assert len(one) == len(two) == 4
    for first, second in zip(one, two, strict=True):
        assert second["cosine"] == pytest.approx(first["cosine"], abs=1e-4)
        assert second["knn"].keys() == first["knn"].keys()
        for task, value in first["knn"].items():
            assert second["knn"][task] == pytest.approx(value, abs=0.26)  # one clip of four may be near two others
        assert second["exact"].keys() == first["exact"].keys()
    start = WhisperModel.from_pretrained(small_whisper).encoder.state_dict()
    for name in ("encoder-ema", "encoder"):
        path = Path("step-0000008", name, "model.safetensors")
        whole, sharded = (load_file(tmp_path / folder / path) for folder in ("whole", "sharded"))
        assert set(whole) == set(sharded)
        moved = max(float((value - start[key]).abs().max()) for key, value in whole.items())
        assert moved > 0
        for key, value in whole.items():
            assert float((sharded[key] - value).abs().max()) < 0.02 * moved, key


def test_a_run_does_not_resume_on_other_rows(
    data: Path,
    shared_data: Path,
    small_whisper: Path,
    whole: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = tmp_path / "rows"
    pack(shared_data, other, 20)
    monkeypatch.setattr(sys, "argv", ["uniwhisper", *words(other, small_whisper, whole)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "is of other rows or another mixture" in capsys.readouterr().err


def test_monitoring_changes_nothing(
    data: Path, small_whisper: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = tmp_path / "looked"
    run(monkeypatch, words(data, small_whisper, looked, run__monitor_every=2, run__monitor_clips=12))
    for name in ("model.safetensors", "optimizer.pt"):
        assert (looked / "step-0000008" / name).read_bytes() == (whole / "step-0000008" / name).read_bytes()
    seen = [line["monitor"] for line in lines(looked) if "monitor" in line]
    assert len(seen) == 4
    assert set(seen[0]["exact"]) == {"instrument", "keyword", "sound_cls", "speaker_id"}
    assert seen[0]["cosine"] == pytest.approx(1, abs=1e-6)  # after the bridge, in which the encoder stands still
    assert seen[0]["cosine"] > seen[1]["cosine"] > seen[3]["cosine"] > 0
    assert all(0 <= value <= 1 for look in seen for value in look["knn"].values())
    assert all(1 < look["effective_rank"] <= 12 for look in seen)
    joint = {step: sum(look["knn"].values()) / len(look["knn"]) for step, look in zip((4, 6, 8), seen[1:], strict=True)}
    best = json.loads((looked / "best" / "uniwhisper.json").read_text())
    step = max(joint, key=lambda step: (joint[step], -step))  # the first of equals
    assert best["best"] == {"mean_knn": pytest.approx(joint[step]), "step": step}
    same_step = looked / f"step-{step:07d}" / "encoder" / "model.safetensors"
    if same_step.is_file():
        assert (looked / "best" / "model.safetensors").read_bytes() == same_step.read_bytes()
    assert encoder_of(looked / "best", tmp_path / "export") == looked / "best"
    again = tmp_path / "again"
    run(monkeypatch, [*words(data, small_whisper, again, run__monitor_every=2, run__monitor_clips=12), "--until", "3"])
    run(monkeypatch, words(data, small_whisper, again, run__monitor_every=2, run__monitor_clips=12))
    assert [line["monitor"] for line in lines(again) if "monitor" in line] == seen
    for name in ("uniwhisper.json", "model.safetensors"):
        assert (again / "best" / name).read_bytes() == (looked / "best" / name).read_bytes()


def test_the_suite_mini_is_looked_at_without_held_out_clips(
    shared_data: Path, small_whisper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    pack(shared_data, tmp_path / "rows", 24)
    line = words(tmp_path / "rows", small_whisper, tmp_path / "run", run__monitor_every=3, run__monitor_mini=True)
    run(monkeypatch, [*line, "--until", "3"])
    (look,) = [line["monitor"] for line in lines(tmp_path / "run") if "monitor" in line]
    assert set(look["knn"]) == {"mini_speech:label", "mini_sound:label", "mini_music:label"}
    assert look["exact"] == {}
    curves = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    curves.Reload()
    shown = set(curves.Tags()["scalars"])
    assert shown >= {"loss", "audio_s_per_s", "padded_audio", "padded_tokens", "loss_by_domain/speech"}
    assert shown >= {"loss_by_task/keyword", "monitor/effective_rank", "monitor/knn/mini_music:label"}


def test_averages_are_those_of_the_steps_and_resume(
    data: Path, small_whisper: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"run__ema": 0.75, "run__save_every": 1, "run__keep": 20}
    run(monkeypatch, [*words(data, small_whisper, tmp_path / "run", **asked), "--until", "5"])
    run(monkeypatch, words(data, small_whisper, tmp_path / "run", **asked))
    folders = checkpoint.checkpoints(tmp_path / "run")
    states = [load_file(folder / "encoder" / "model.safetensors") for folder in folders]
    mean = {name: value.double() for name, value in states[1].items()}  # the bridge's end
    for state in states[2:]:
        mean = {name: 0.75 * value + 0.25 * state[name].double() for name, value in mean.items()}
    exported = load_file(export_encoder(folders[-1], tmp_path / "ema", ema=True) / "model.safetensors")
    assert set(exported) == set(mean)
    for name, value in mean.items():
        torch.testing.assert_close(exported[name].double(), value, rtol=1e-5, atol=1e-6)
    trained, other = (load_file(folder / "step-0000008" / "model.safetensors") for folder in (whole, tmp_path / "run"))
    assert all(torch.equal(value, other[name]) for name, value in trained.items())
    with pytest.raises(UsageError, match="has no averaged weights"):
        export_encoder(whole / "step-0000008", tmp_path / "none", ema=True)


@pytest.mark.parametrize("asked", [{"run__precision": "bf16"}, {"data__pad30_prob": 0.5, "run__micro_batch_s": 32}])
def test_bf16_and_thirty_seconds_run(
    data: Path, small_whisper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any]
) -> None:
    sizes = {"run__batch_s": 32} if "data__pad30_prob" in asked else {}
    run(monkeypatch, [*words(data, small_whisper, tmp_path, run__log_every=1, **asked, **sizes), "--until", "4"])
    found = lines(tmp_path)
    assert all(np.isfinite(line["loss"]) for line in found)
    assert sum(line["skipped"] for line in found) == 0
    assert load_file(tmp_path / "step-0000004" / "model.safetensors")["encoder.conv1.weight"].dtype == torch.float32
    if sizes:
        assert max(line["padded_audio"] for line in found) > 0.8


def test_unreadable_audio_is_replaced_and_counted(
    data: Path, small_whisper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "rows"
    shutil.copytree(data, folder)
    table = open_rows([folder])
    broken = {index for index in range(0, len(table), 5) if table[index].split == "train"}
    for row in (table[index] for index in broken):
        with Path(row.audio.shard).open("r+b") as file:
            file.seek(row.audio.offset)
            file.write(b"\0" * row.audio.size)
    config = load_config("cpu-mini", overlay_of([f"{name}={json.dumps(value)}" for name, value in SMALL.items()]))
    batches = prepare(config, [folder]).batches
    healthy = prepare(config, [data]).batches
    clips = {table[index].clip for index in broken}
    replaced = 0
    for step in range(4):
        found, wanted = (one.micro_batches(step, 0, 1) for one in (batches, healthy))
        again = batches.micro_batches(step, 0, 1)
        for micro, other, third in zip(found, wanted, again, strict=True):
            for example, original, repeated in zip(micro, other, third, strict=True):
                assert example.row == repeated.row
                assert example.dataset == original.dataset
                assert example.replaced == any(clip in original.row for clip in clips)
                assert not any(clip in example.row for clip in clips)
                replaced += example.replaced
    assert replaced > 0
    assert "another clip stands in" in capsys.readouterr().err
    run(monkeypatch, [*words(folder, small_whisper, tmp_path / "run"), "--until", "4"])
    assert sum(line["replaced"] for line in lines(tmp_path / "run")) == replaced


def test_a_missing_or_short_shard_stops_a_run_before_it_begins(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    shutil.copytree(data, folder)
    config = load_config("cpu-mini", overlay_of([f"{name}={json.dumps(value)}" for name, value in SMALL.items()]))
    prepare(config, [folder])
    shard = next(iter(sorted(folder.glob("train-*.tar"))))
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=rf"{shard.name}: has {len(whole) // 2} bytes, its index lists \d+"):
        prepare(config, [folder])
    shard.unlink()
    with pytest.raises(InputError, match=rf"{shard.name}: is missing"):
        prepare(config, [folder])


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "trainer.json"])
def test_a_damaged_checkpoint_is_named(
    data: Path,
    small_whisper: Path,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    shutil.copytree(whole / "step-0000004", tmp_path / "run" / "step-0000004")
    path = tmp_path / "run" / "step-0000004" / name
    path.write_bytes(path.read_bytes()[:300])
    monkeypatch.setattr(sys, "argv", ["uniwhisper", *words(data, small_whisper, tmp_path / "run")])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "step-0000004" in capsys.readouterr().err


@pytest.mark.parametrize("workers", [0, 1])
def test_a_data_error_is_printed_as_one_line(
    data: Path,
    small_whisper: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    workers: int,
) -> None:
    monkeypatch.setattr(PlannedBatches, "micro_batches", refuse)
    monkeypatch.setattr(sys, "argv", ["uniwhisper", *words(data, small_whisper, tmp_path, run__workers=workers)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "\nuniwhisper: rows: refused; mend them\n" in "\n" + capsys.readouterr().err
    assert not checkpoint.checkpoints(tmp_path)


def refuse(*_: object) -> None:
    raise InputError("refused", where="rows", remedy="mend them")


def test_long_clips_are_cropped_by_visit(data: Path, shared_data: Path) -> None:
    from uniwhisper.data.shards import Asked, Item, write_shards
    from uniwhisper.sampling.batches import heard
    from uniwhisper.sampling.held_out import hold_out
    from uwbench.api import AudioArray

    rng = np.random.default_rng(0)
    noise = AudioArray((0.1 * rng.standard_normal(16_000 * 40)).astype(np.float32), 16_000, "noise")
    item = Item("esc10", "train", "long", "sound", "CC0", noise, (Asked("sound_cls", ("rain",)),))
    folder = data.parent / "long"
    write_shards(folder, [item, replace(item, clip="said", asked=(Asked("asr", ("a",)),))])
    table = open_rows([folder])
    starts = []
    whole = heard(table[1], 0, 0, whole=True)
    assert len(whole) == 640_000
    for visit in range(4):
        crop = heard(table[0], 0, visit, whole=False)
        assert len(crop) == 480_000
        starts.append(int(np.flatnonzero(whole == crop[0])[0]))
        assert np.array_equal(heard(table[0], 0, visit, whole=False), crop)
    assert len(set(starts)) == 4
    from uniwhisper.sampling.clips import units_of

    units = units_of(table)
    assert units.too_long == 1
    assert units.rows.tolist() == [0]
    assert [example.dataset for example in hold_out(open_rows([data]), 4).examples] == [
        "esc10",
        "fsdd",
        "fsdd",
        "philharmonia",
    ]


def test_settings_are_read() -> None:
    assert overlay_of(["run.batch_s=24", "lm.kind=whisper"], encoder="here") == {
        "run": {"batch_s": 24},
        "lm": {"kind": "whisper"},
        "encoder": {"init": "here"},
    }
    with pytest.raises(UsageError, match="'x' is not KEY=VALUE"):
        overlay_of(["x"])
    with pytest.raises(UsageError, match="a value and as a section"):
        overlay_of(["run=1", "run.seed=2"])
