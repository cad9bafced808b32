"""The miniature experiment: train without some of three real sets, score the original and the trained encoder on all.

Each turn holds one set, or one kind of label of a set, out of training altogether; a last one trains on all. Two arms,
a language model and Whisper's own decoder, hear the same clips and questions in the same steps. Every stage leaves its
output in the folder, and a stage whose output is there is not done again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from uniwhisper.evaluate import Difference, differences, encoder_of, spec_of
from uniwhisper.experiment_jobs import run_side_by_side
from uniwhisper.experiment_speech import Heard, heard_digits
from uniwhisper.experiment_tasks import (
    ALL,
    SOURCES,
    TASKS,
    TURNS,
    Split,
    held_out,
    refuse_leaks,
    write_rows,
    write_tasks,
)
from uwbench import api
from uwbench.api import ExtractOptions, InputError, ModelSpec, TaskSpec, UsageError, UwbenchError

ARMS: dict[str, dict[str, Any]] = {"lm": {}, "whisper": {"lm": {"kind": "whisper", "lr": 1e-4}}}
DEFAULT_RUNS = (
    (ALL, "lm"),
    (ALL, "whisper"),
    *((source.name, "lm") for source in SOURCES),
)
_DIGITS = "fsdd_digit"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the experiment is made of: `runs` are a turn and an arm each.

    `clips` is the most clips of a split that are scored, `spoken` the digits that Whisper's decoder writes down. With
    the split `valid`, no test clip is looked at: settings are chosen so. `alpha` is the trained weights' share.
    """

    config: str = "cpu-mini"
    overlay: dict[str, Any] | None = None
    runs: tuple[tuple[str, str], ...] = DEFAULT_RUNS
    clips: int = 300
    spoken: int = 60
    alpha: float = 1.0
    split: Split = "test"


@dataclass(frozen=True, slots=True)
class Scores:
    """One turn and arm: differences of the trained encoder from the original by scope, and what training heard.

    `fingerprint` is the trained encoder's in the results; `spoken` the digits that Whisper's decoder wrote down.
    """

    turn: str
    arm: str
    steps: int
    audio_s: float
    fingerprint: str
    spoken: Heard
    scopes: dict[str, tuple[Difference, ...]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """All runs, the original's spoken digits, and by turn how far the `lm` arm is above the `whisper` arm by scope."""

    runs: tuple[Scores, ...]
    spoken: Heard
    arms: dict[str, dict[str, tuple[Difference, ...]]]


def run_experiment(
    data: Path, encoder: Path, output: Path, settings: Settings, say: Callable[[str], None] = print, jobs: int = 1
) -> Outcome:
    """Do what is not done yet, `jobs` trainings at a time, and return all scores.

    Raises UsageError where `output` holds an experiment of other settings or a name is unknown, InputError where a
    clip that is scored would be trained on.
    """
    for turn, arm in settings.runs:
        for name, known in ((turn, TURNS), (arm, tuple(ARMS))):
            if name not in known:
                raise UsageError(f"{name!r} is not one of {', '.join(known)}", where="experiment")
    _claim(output, {**asdict(settings), "encoder": _weights(encoder)})
    say("data: rows and shards of the training splits")
    write_tasks(data, output / "tasks", settings.clips, settings.split)
    refuse_leaks(data, write_rows(data, ALL, output / "rows"), say)
    say("original encoder: embeddings, probes, spoken digits")
    original = _score(ModelSpec(str(encoder), context="trimmed"), output)
    spoken = _spoken(encoder, encoder, output, settings.spoken, "original")
    given = []
    for turn, arm in settings.runs:
        if not _done(output, turn, arm).is_file():
            say(f"held out {turn}, {arm}: to be trained and scored")
            rows = tuple(write_rows(data, turn, output / "rows"))
            given.append((turn, arm, encoder, output, rows, settings, original))
    run_side_by_side(_turn, given, jobs)
    found = [_read(_done(output, turn, arm)) for turn, arm in settings.runs]
    return Outcome(tuple(found), spoken, _arms(found, output))


def _done(output: Path, turn: str, arm: str) -> Path:
    return output / f"{turn}-{arm}.json"


def _turn(
    turn: str, arm: str, encoder: Path, output: Path, rows: Sequence[Path], settings: Settings, original: str
) -> None:
    """Train, export and score, and write the scores."""
    from uniwhisper.config import load_config, overlaid
    from uniwhisper.export import export_encoder
    from uniwhisper.sampling.prepare import prepare
    from uniwhisper.training.train import train

    overlay = overlaid(overlaid({"encoder": {"init": str(encoder)}}, settings.overlay or {}), ARMS[arm])
    config = load_config(settings.config, overlay)
    prepared = prepare(config, rows)
    result = train(
        config,
        prepared.batches,
        output / "runs" / f"{turn}-{arm}",
        training_data=prepared.training_data,
        data_digest=prepared.digest,
    )
    if result.progress.step < config.stages.bridge + config.stages.joint:
        remedy = "give the same command again to go on"
        raise UwbenchError(f"told to stop at step {result.progress.step}", where=f"{turn}, {arm}", remedy=remedy)
    folder = output / "encoders" / f"{turn}-{arm}"
    if settings.alpha == 1:
        folder = encoder_of(result.checkpoint, folder)
    elif not (folder / "uniwhisper.json").is_file():
        folder = export_encoder(result.checkpoint, folder, base=encoder, alpha=settings.alpha)
    trained = _score(spec_of(folder, "trimmed"), output)
    scores = Scores(
        turn,
        arm,
        result.progress.step,
        result.progress.audio_s,
        trained,
        _spoken(encoder, folder, output, settings.spoken, f"{turn}-{arm}"),
        _by_scope(output, turn, trained, original),
    )
    text = json.dumps(asdict(scores), indent=1, sort_keys=True) + "\n"
    api.write_atomically(_done(output, turn, arm), text.encode())


def _by_scope(output: Path, turn: str, first: str, second: str) -> dict[str, tuple[Difference, ...]]:
    shut = held_out(turn)
    scopes = {"held out": shut, "trained on": tuple(task for task in TASKS if task not in shut), "all": TASKS}
    return {
        name: differences(output / "results", first, second, tasks, average="task")
        for name, tasks in scopes.items()
        if tasks
    }


def _arms(found: Sequence[Scores], output: Path) -> dict[str, dict[str, tuple[Difference, ...]]]:
    """Return the differences of the two arms' encoders, of those turns that have both."""
    prints = {(one.turn, one.arm): one.fingerprint for one in found}
    turns = dict.fromkeys(one.turn for one in found)
    return {
        turn: _by_scope(output, turn, prints[turn, "lm"], prints[turn, "whisper"])
        for turn in turns
        if (turn, "lm") in prints and (turn, "whisper") in prints
    }


def _score(spec: ModelSpec, output: Path) -> str:
    """Run the benchmark on all tasks and return the encoder's fingerprint."""
    fingerprint = ""
    for source in SOURCES:
        for task in source.tasks:
            manifest = output / "tasks" / task / "manifest.csv"
            report = api.evaluate(
                spec,
                TaskSpec(manifest, label="label", name=task, domain=source.domain, allow_outside=True),
                cache=output / "cache",
                results=output / "results",
                device="cpu",
                extract=ExtractOptions(poolings=("mean",)),
            )
            if report.failures:
                raise UwbenchError("; ".join(report.failures), where=task)
            fingerprint = report.results[0][1].model.fingerprint
    return fingerprint


def _spoken(whisper: Path, encoder: Path, output: Path, clips: int, name: str) -> Heard:
    done = output / "spoken" / f"{name}.json"
    if not done.is_file():
        found = heard_digits(whisper, encoder, output / "tasks" / _DIGITS / "manifest.csv", clips)
        done.parent.mkdir(exist_ok=True)
        api.write_atomically(done, (json.dumps(asdict(found), sort_keys=True) + "\n").encode())
    return Heard(**json.loads(done.read_text(encoding="utf-8")))


def _claim(output: Path, settings: dict[str, Any]) -> None:
    output.mkdir(parents=True, exist_ok=True)
    own = json.loads(json.dumps(settings))
    path = output / "experiment.json"
    if path.is_file():
        held = json.loads(path.read_text(encoding="utf-8"))
        free = {"runs"}  # more of them may be asked for later
        other = sorted(name for name in own if name not in free and own[name] != held.get(name))
        if other:
            what = f"holds an experiment with another {', '.join(other)}"
            raise UsageError(what, where=output, remedy="name another --output")
    api.write_atomically(path, (json.dumps(own, indent=1, sort_keys=True) + "\n").encode())


def _weights(encoder: Path) -> str:
    path = encoder / "model.safetensors"
    if not path.is_file():
        raise InputError("is no Whisper folder (no model.safetensors)", where=encoder)
    return api.sha256_file(path)


def _read(path: Path) -> Scores:
    held = json.loads(path.read_text(encoding="utf-8"))
    scopes = {name: tuple(Difference(**row) for row in rows) for name, rows in held["scopes"].items()}
    return replace(Scores(**held), scopes=scopes, spoken=Heard(**held["spoken"]))
