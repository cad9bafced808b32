"""The experiment's stages: rows, training, export, scores.

Each turn holds one data set, or one kind of label of a set, out of training; the last turn trains on everything. The
arms, a language model, the same shape at random and Whisper's own decoder, train on the same clips and questions in the
same steps. Every stage leaves its output in the working folder and is skipped if the output is there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uniwhisper.evaluate import Difference, differences, encoder_of, spec_of
from uniwhisper_miniature.jobs import run_side_by_side
from uniwhisper_miniature.speech import Heard, heard_digits
from uniwhisper_miniature.tasks import (
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
from uwbench.base.atomic import write_atomically
from uwbench.base.hashing import sha256_file

if TYPE_CHECKING:
    from uniwhisper.config import Config

ARMS: dict[str, dict[str, Any]] = {
    "lm": {},
    "random": {"lm": {"kind": "random-causal", "train": "full"}},
    "whisper": {"lm": {"kind": "whisper", "train": "full", "lr": 1e-4}},
}
DEFAULT_RUNS = (
    (ALL, "lm"),
    (ALL, "whisper"),
    *((source.name, "lm") for source in SOURCES),
)
_DIGITS = "fsdd_digit"
_GO_ON = "run the same command again to continue"


@dataclass(frozen=True, slots=True)
class Settings:
    """The experiment's settings; each of `runs` is a turn and an arm.

    `clips` is the largest number of clips scored per split, `spoken` the number of digits that Whisper's decoder
    transcribes. With the split `valid`, test clips stay unseen, for choosing settings. `alpha` is the trained weights'
    share in the export.
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
    """One run: the differences between the trained and the original encoder by scope, and the training's length.

    `fingerprint` is the trained encoder's in the results; `spoken` is how its digits were transcribed.
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
    """All runs, the original's spoken digits, and by turn and other arm the `lm` arm minus that arm by scope."""

    runs: tuple[Scores, ...]
    spoken: Heard
    arms: dict[tuple[str, str], dict[str, tuple[Difference, ...]]]


def run_experiment(
    data: Path, encoder: Path, output: Path, settings: Settings, log: Callable[[str], None] = print, jobs: int = 1
) -> Outcome:
    """Run the stages that remain, `jobs` trainings at a time, and return all scores.

    Raises UsageError if `output` holds an experiment with other settings or a name is unknown, and InputError if a
    scored clip would be trained on.
    """
    for turn, arm in settings.runs:
        for name, known in ((turn, TURNS), (arm, tuple(ARMS))):
            if name not in known:
                raise UsageError(f"{name!r} is not one of {', '.join(known)}", where="experiment")
    for _, arm in settings.runs:
        arm_config(settings, encoder, arm)
    _claim(output, {**asdict(settings), "encoder": _weights_hash(encoder)})
    log("data: rows and shards of the training splits")
    write_tasks(data, output / "tasks", settings.clips, settings.split)
    refuse_leaks(data, write_rows(data, ALL, output / "rows"), log)
    log("original encoder: embeddings, probes, spoken digits")
    original = _score(ModelSpec(str(encoder), context="trimmed"), output)
    spoken = _spoken(encoder, encoder, output, settings.spoken, "original")
    calls = []
    for turn, arm in settings.runs:
        if not _scores_file(output, turn, arm).is_file():
            log(f"held out {turn}, {arm}: training and scoring")
            rows = tuple(write_rows(data, turn, output / "rows"))
            calls.append((turn, arm, encoder, output, rows, settings, original))
    run_side_by_side(_run, calls, jobs)
    runs = [_read_scores(_scores_file(output, turn, arm)) for turn, arm in settings.runs]
    return Outcome(tuple(runs), spoken, _compare_arms(runs, output))


def arm_config(settings: Settings, encoder: Path, arm: str) -> Config:
    """Return an arm's configuration; raise UsageError for the arm `random` beside a language model that is random."""
    from uniwhisper.config import load_config, overlaid

    base = overlaid({"encoder": {"init": str(encoder)}}, settings.overlay or {})
    if arm == "random" and load_config(settings.config, base).lm.kind != "causal":
        remedy = "give a pretrained one with --lm FOLDER"
        raise UsageError("is the arm lm, whose language model begins at random", where="--arm random", remedy=remedy)
    return load_config(settings.config, overlaid(base, ARMS[arm]))


def _scores_file(output: Path, turn: str, arm: str) -> Path:
    return output / f"{turn}-{arm}.json"


def _run(
    turn: str, arm: str, encoder: Path, output: Path, rows: Sequence[Path], settings: Settings, original: str
) -> None:
    """Train, export and score, and write the scores."""
    from uniwhisper.export import export_encoder
    from uniwhisper.sampling.prepare import prepare
    from uniwhisper.training.train import train

    config = arm_config(settings, encoder, arm)
    prepared = prepare(config, rows)
    result = train(
        config,
        prepared.batches,
        output / "runs" / f"{turn}-{arm}",
        training_data=prepared.training_data,
        data_digest=prepared.digest,
    )
    if result.progress.step < config.stages.bridge + config.stages.joint:
        raise UwbenchError(f"stopped by SIGTERM at step {result.progress.step}", where=f"{turn}, {arm}", remedy=_GO_ON)
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
    write_atomically(_scores_file(output, turn, arm), text.encode())


def _by_scope(output: Path, turn: str, first: str, second: str) -> dict[str, tuple[Difference, ...]]:
    excluded = held_out(turn)
    scopes = {"held out": excluded, "trained on": tuple(task for task in TASKS if task not in excluded), "all": TASKS}
    return {
        name: differences(output / "results", first, second, tasks, average="task")
        for name, tasks in scopes.items()
        if tasks
    }


def _compare_arms(runs: Sequence[Scores], output: Path) -> dict[tuple[str, str], dict[str, tuple[Difference, ...]]]:
    """Return the differences between the encoders of `lm` and of each other arm, for the turns that have both."""
    fingerprints = {(run.turn, run.arm): run.fingerprint for run in runs}
    turns = dict.fromkeys(run.turn for run in runs)
    return {
        (turn, other): _by_scope(output, turn, fingerprints[turn, "lm"], fingerprints[turn, other])
        for other in ("random", "whisper")
        for turn in turns
        if (turn, "lm") in fingerprints and (turn, other) in fingerprints
    }


def _score(spec: ModelSpec, output: Path) -> str:
    """Run the benchmark on all tasks and return the encoder's fingerprint."""
    fingerprint = ""
    for source in SOURCES:
        for task in source.tasks:
            manifest = output / "tasks" / task / "manifest.csv"
            results = api.evaluate(
                spec,
                TaskSpec(manifest, label="label", name=task, domain=source.domain, allow_outside=True),
                cache=output / "cache",
                results=output / "results",
                device="cpu",
                extract=ExtractOptions(poolings=("mean",)),
            )
            if results.failures:
                raise UwbenchError("; ".join(results.failures), where=task)
            fingerprint = results.results[0][1].model.fingerprint
    return fingerprint


def _spoken(whisper: Path, encoder: Path, output: Path, clips: int, name: str) -> Heard:
    path = output / "spoken" / f"{name}.json"
    if not path.is_file():
        heard = heard_digits(whisper, encoder, output / "tasks" / _DIGITS / "manifest.csv", clips)
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, (json.dumps(asdict(heard), sort_keys=True) + "\n").encode())
    return Heard(**json.loads(path.read_text(encoding="utf-8")))


def _claim(output: Path, settings: dict[str, Any]) -> None:
    """Record the settings in the folder; raise UsageError if it holds an experiment with others."""
    output.mkdir(parents=True, exist_ok=True)
    settings = json.loads(json.dumps(settings))
    path = output / "experiment.json"
    if path.is_file():
        recorded = json.loads(path.read_text(encoding="utf-8"))
        # More runs may be asked for later.
        changed = sorted(name for name in settings if name != "runs" and settings[name] != recorded.get(name))
        if changed:
            message = f"holds an experiment with another {', '.join(changed)}"
            raise UsageError(message, where=output, remedy="name another --output")
    write_atomically(path, (json.dumps(settings, indent=1, sort_keys=True) + "\n").encode())


def _weights_hash(encoder: Path) -> str:
    path = encoder / "model.safetensors"
    if not path.is_file():
        raise InputError("is no Whisper folder (no model.safetensors)", where=encoder)
    return sha256_file(path)


def _read_scores(path: Path) -> Scores:
    fields = json.loads(path.read_text(encoding="utf-8"))
    scopes = {name: tuple(Difference(**row) for row in rows) for name, rows in fields["scopes"].items()}
    return replace(Scores(**fields), scopes=scopes, spoken=Heard(**fields["spoken"]))
