"""The miniature experiment on a few real clips: its stages, resuming, its page."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from runs import LM
from small_lm import write_lm
from small_whisper import ENCODER
from uniwhisper.cli.train import overlay_of
from uniwhisper.config import overlaid
from uniwhisper.data.rows import open_rows
from uniwhisper.evaluate import Difference
from uniwhisper.language_model import shape_of
from uniwhisper.training.checkpoint import checkpoints
from uniwhisper.training.train import train
from uniwhisper_miniature.experiment import ARMS, Outcome, Scores, Settings, arm_config, run_experiment
from uniwhisper_miniature.page import BEGIN, END, report, write_tables
from uniwhisper_miniature.speech import Heard, heard_digits
from uniwhisper_miniature.tasks import refuse_leaks, write_rows, write_tasks
from uwbench.api import InputError, UsageError, UwbenchError

OVERLAY = {
    "encoder": ENCODER,
    "lm": LM,
    "data": {"bins": 1},
    "stages": {"bridge": 1, "joint": 3},
    "run": {"batch_s": 24, "micro_batch_s": 24, "save_every": 100, "keep": 1},
    "optimiser": {"warmup_steps": 1},
}
SETTINGS = Settings(overlay=OVERLAY, runs=(("fsdd", "lm"),), clips=12, spoken=2)


def test_arms_differ_in_their_decoder_alone(small_whisper: Path, tmp_path: Path) -> None:
    lm = write_lm(tmp_path / "lm", "llama")
    settings = Settings(overlay=overlaid(OVERLAY, overlay_of(["lm.train=lora"], lm=str(lm))))
    arms = {arm: arm_config(settings, small_whisper, arm) for arm in ARMS}
    assert {arm: (config.lm.kind, config.lm.train) for arm, config in arms.items()} == {
        "lm": ("causal", "lora"),
        "random": ("random-causal", "full"),
        "whisper": ("whisper", "full"),
    }
    assert shape_of(arms["random"].lm) == shape_of(arms["lm"].lm)
    rest = [config.model_dump(exclude={"lm"}) for config in arms.values()]
    assert rest[0] == rest[1] == rest[2]
    with pytest.raises(UsageError, match="--arm random: is the arm lm, whose language model begins at random"):
        run_experiment(tmp_path, small_whisper, tmp_path / "out", replace(SETTINGS, runs=(("none", "random"),)))
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def data(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips of each of some labels and splits of the three sets, under their own names."""
    folder = tmp_path_factory.mktemp("data")
    for name, column, split in (
        ("fsdd", "digit", "split"),
        ("esc10", "label", "fold"),
        ("philharmonia", "label", "split"),
    ):
        with (shared_data / name / "manifest.csv").open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row.get("dynamic", "forte") in ("forte", "piano")]
        rows.sort(key=lambda row: row.get("dynamic", ""))
        labels = sorted({row[column] for row in rows})[:3]
        kept: list[dict[str, str]] = []
        for label in labels:
            for part in sorted({row[split] for row in rows}):
                own = [row for row in rows if (row[column], row[split]) == (label, part)]
                kept += [own[0], own[-1]] if len(own) > 1 else own
        (folder / name).mkdir()
        with (folder / name / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(kept)
        for row in kept:
            target = folder / name / row["path"]
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(shared_data / name / row["path"], target)
    return folder


@pytest.fixture(scope="module")
def done(data: Path, small_whisper: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("experiment")
    run_experiment(data, small_whisper, output, SETTINGS, log=lambda text: None)
    return output


def test_a_turn_scores_held_out_and_trained_tasks(data: Path, small_whisper: Path, done: Path) -> None:
    said: list[str] = []
    found = run_experiment(data, small_whisper, done, SETTINGS, log=said.append)
    (scores,) = found.runs
    assert [text for text in said if text.startswith("leakage gate: fsdd") and text.endswith("0 rows leak")]
    assert not [text for text in said if text.startswith("held out")]  # the second call trains nothing
    assert (scores.turn, scores.arm, scores.steps) == ("fsdd", "lm", 4)
    names = {scope: {row.name for row in rows} for scope, rows in scores.scopes.items()}
    assert names["held out"] >= {"fsdd_digit", "fsdd_speaker"}
    assert not {name for name in names["trained on"] if name.startswith("fsdd")}
    assert {"esc10_label", "philharmonia_instrument"} <= names["trained on"] <= names["all"]
    assert scores.spoken.clips == found.spoken.clips == 2
    lines = report(found)
    assert sum(line.startswith("| fsdd | lm | 4 |") and "| held out |" in line for line in lines) == 2
    assert any("fsdd_digit (held out)" in line for line in lines)


@pytest.mark.slow
def test_parallel_trainings_have_the_scores_of_sequential_ones(
    data: Path, small_whisper: Path, done: Path, tmp_path: Path
) -> None:
    output = tmp_path / "jobs"
    shutil.copytree(done, output)
    runs = (("esc10", "lm"), ("none", "whisper"), ("fsdd", "lm"))
    found = run_experiment(data, small_whisper, output, replace(SETTINGS, runs=runs), log=lambda text: None, jobs=2)
    assert [(one.turn, one.arm, one.steps) for one in found.runs] == [(*run, 4) for run in runs]
    assert {row.name for row in found.runs[0].scopes["held out"]} == {"esc10_label", "average (task)"}
    assert (output / "fsdd-lm.json").read_bytes() == (done / "fsdd-lm.json").read_bytes()


def test_no_scored_test_clip_is_trained_on(data: Path, done: Path) -> None:
    heard = {path.stem for path in (data / "esc10" / "audio").iterdir() if path.name.startswith("5-")}
    with (done / "tasks" / "esc10_label" / "manifest.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {Path(row["path"]).stem for row in rows if row["split"] == "test"} <= heard
    clips = [row.clip for row in open_rows([done / "rows" / "esc10-label"])]
    assert clips
    assert not [clip for clip in clips if Path(clip).name.startswith("5-")]
    folders = {"fsdd": "fsdd-digit-speaker", "philharmonia": "philharmonia-instrument-note-dynamic-articulation"}
    for name in folders:
        with (data / name / "manifest.csv").open(encoding="utf-8", newline="") as file:
            tests = {Path(row["path"]).stem for row in csv.DictReader(file) if row["split"] == "test"}
        assert tests
        assert not tests & {Path(row.clip).stem for row in open_rows([done / "rows" / folders[name]])}


def test_a_killed_experiment_resumes_from_its_checkpoint_to_the_same_scores(
    data: Path, small_whisper: Path, done: Path, tmp_path: Path
) -> None:
    output = tmp_path / "again"
    shutil.copytree(done, output)
    before = (output / "fsdd-lm.json").read_bytes()
    (output / "fsdd-lm.json").unlink()
    shutil.rmtree(output / "encoders")
    (kept,) = checkpoints(output / "runs" / "fsdd-lm")
    at = (kept / "model.safetensors").stat().st_mtime_ns
    run_experiment(data, small_whisper, output, SETTINGS, log=lambda text: None)
    assert (output / "fsdd-lm.json").read_bytes() == before
    assert (kept / "model.safetensors").stat().st_mtime_ns == at


def test_a_stopped_training_is_not_scored_and_resumes(
    data: Path, small_whisper: Path, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "stopped"
    shutil.copytree(done, output)
    for folder in ("runs", "encoders"):
        shutil.rmtree(output / folder)
    before = (output / "fsdd-lm.json").read_bytes()
    (output / "fsdd-lm.json").unlink()
    with monkeypatch.context() as patch:
        patch.setattr("uniwhisper.training.train.train", partial(train, until=2))
        with pytest.raises(UwbenchError, match="stopped by SIGTERM at step 2"):
            run_experiment(data, small_whisper, output, SETTINGS, log=lambda text: None)
    assert not (output / "fsdd-lm.json").exists()
    assert not (output / "encoders").exists()
    run_experiment(data, small_whisper, output, SETTINGS, log=lambda text: None)
    assert (output / "fsdd-lm.json").read_bytes() == before


def test_other_settings_in_the_same_folder_are_refused(data: Path, small_whisper: Path, done: Path) -> None:
    with pytest.raises(UsageError, match="another clips"):
        run_experiment(data, small_whisper, done, Settings(overlay=OVERLAY, clips=5, spoken=2), log=lambda text: None)
    with pytest.raises(UsageError, match="gtzan"):
        run_experiment(data, small_whisper, done, Settings(runs=(("gtzan", "lm"),)), log=lambda text: None)


def test_tables_go_between_the_marks_of_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    for _ in range(2):
        write_tables(page, "uniwhisper experiment", ["| a |"])
    assert page.read_text() == f"before\n{BEGIN}\n\n    uniwhisper experiment\n\n| a |\n\n{END}\nafter\n"
    page.write_text("no marks\n")
    with pytest.raises(InputError, match="marks"):
        write_tables(page, "uniwhisper experiment", [])


def test_holding_out_one_kind_of_label_keeps_the_other_questions(data: Path, tmp_path: Path) -> None:
    with_all = open_rows(write_rows(data, "none", tmp_path / "rows"))
    without = open_rows(write_rows(data, "philharmonia_dynamic", tmp_path / "rows"))
    lost = {row.id for row in with_all} - {row.id for row in without}
    assert lost
    assert all(name.startswith("philharmonia/") and name.endswith(":quality/dynamic") for name in lost)
    assert {row.clip for row in with_all} == {row.clip for row in without}
    assert not [row for row in open_rows(write_rows(data, "fsdd", tmp_path / "rows")) if row.dataset == "fsdd"]


def test_the_validation_split_is_scored_without_a_look_at_test_clips(data: Path, tmp_path: Path) -> None:
    splits: dict[str, dict[str, str]] = {}
    for split in ("test", "valid"):
        write_tasks(data, tmp_path / split, 600, split)
        with (tmp_path / split / "esc10_label" / "manifest.csv").open(encoding="utf-8", newline="") as file:
            splits[split] = {row["path"]: row["split"] for row in csv.DictReader(file)}
    tests = {path for path, split in splits["test"].items() if split == "test"}
    assert tests
    assert not tests & set(splits["valid"])
    scored = {path for path, split in splits["valid"].items() if split == "test"}
    assert scored
    assert scored <= {path for path, split in splits["test"].items() if split == "valid"}


def test_a_scored_clip_among_the_rows_stops_the_experiment(data: Path, tmp_path: Path) -> None:
    rows = write_rows(data, "none", tmp_path / "rows")
    path = tmp_path / "leaky" / "fsdd"
    shutil.copytree(data, tmp_path / "leaky")
    with (path / "manifest.csv").open(encoding="utf-8", newline="") as file:
        listed = list(csv.DictReader(file))
    trained, tested = (next(row for row in listed if row["split"] == split) for split in ("train", "test"))
    shutil.copyfile(path / trained["path"], path / tested["path"])
    said: list[str] = []
    with pytest.raises(InputError, match="clips that are scored"):
        refuse_leaks(tmp_path / "leaky", rows, said.append)
    assert any(tested["path"].split("/")[-1].removesuffix(".wav") in line for line in said)


def test_whispers_decoder_transcribes_digits_from_its_encoder_but_not_from_noise(
    data: Path, whisper_tiny: Path, tmp_path: Path
) -> None:
    import torch
    from transformers import WhisperModel

    write_tasks(data, tmp_path / "tasks", 600, "test")
    manifest = tmp_path / "tasks" / "fsdd_digit" / "manifest.csv"
    own = heard_digits(whisper_tiny, whisper_tiny, manifest, 6)
    assert own.clips == 6
    assert own.right >= 2
    encoder = WhisperModel.from_pretrained(whisper_tiny, dtype=torch.float32).encoder
    with torch.no_grad():
        encoder.layer_norm.weight.zero_()
    encoder.save_pretrained(tmp_path / "deaf")
    assert heard_digits(whisper_tiny, tmp_path / "deaf", manifest, 6).right < own.right


def test_the_mean_over_held_out_sets_has_the_interval_of_independent_differences() -> None:
    def scores(turn: str, difference: float, half: float) -> Scores:
        found = Difference(
            "average (task)", "mlp", 0.5, 0.5 + difference, difference, difference - half, difference + half
        )
        return Scores(turn, "lm", 1, 60.0, turn, Heard(2, 1, 0.5), {"held out": (found,), "all": (found,)})

    runs = (scores("fsdd", 0.03, 0.06), scores("esc10", 0.0, 0.03), scores("philharmonia", 0.06, 0.06))
    lines = report(Outcome(runs, Heard(2, 2, 0.0), {}))
    compared = report(Outcome(runs, Heard(2, 2, 0.0), {("none", "random"): runs[0].scopes}))
    assert [line for line in compared if line.startswith("| none | random | ")] == [
        "| none | random | held out | mlp | 50.0 | 53.0 | +3.0 [-3.0, +9.0] |",
        "| none | random | all | mlp | 50.0 | 53.0 | +3.0 [-3.0, +9.0] |",
    ]
    assert "| lm | mlp | 50.0 | 53.0 | +3.0 [+0.0, +6.0] |" in lines
    assert not [
        line for line in report(Outcome(runs[:2], Heard(2, 2, 0.0), {})) if line.startswith("| lm | mlp | 50.0")
    ]
