"""The miniature experiment: train on two of three real sets, score the original and the trained encoder on all three.

Each turn holds one set out of training altogether; a last one trains on all. Two arms, a language model and Whisper's
own decoder, hear the same clips and questions in the same steps. Every stage leaves its output in the folder, and a
stage whose output is there is not done again.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from uniwhisper.evaluate import Difference, differences, encoder_of, interval, spec_of
from uwbench import api
from uwbench.api import Folders, InputError, ModelSpec, Options, UsageError, UwbenchError

ARMS: dict[str, dict[str, Any]] = {"lm": {}, "whisper": {"lm": {"kind": "whisper", "lr": 1e-4}}}
ALL = "none"  # the turn that holds nothing out
_ROLES = {"1": "train", "2": "train", "3": "train", "4": "valid", "5": "test"}  # of ESC-10's folds
_TRAINED_FOLDS = ("1", "2", "3", "4")


@dataclass(frozen=True, slots=True)
class Source:
    """One of the three sets: the columns that are scored, as tasks of a domain."""

    name: str
    domain: str
    columns: tuple[str, ...]

    @property
    def tasks(self) -> tuple[str, ...]:
        """Return the names of its tasks."""
        return tuple(f"{self.name}_{column}" for column in self.columns)


SOURCES = (
    Source("fsdd", "speech", ("digit", "speaker")),
    Source("esc10", "sound", ("label",)),
    Source("philharmonia", "music", ("instrument", "dynamic")),
)
TURNS = (*(source.name for source in SOURCES), ALL)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the experiment is made of. `clips` is the most clips of a split that are scored, evenly spaced."""

    config: str = "cpu-mini"
    overlay: dict[str, Any] | None = None
    turns: tuple[str, ...] = TURNS
    arms: tuple[str, ...] = tuple(ARMS)
    clips: int = 600
    alpha: float = 1.0


@dataclass(frozen=True, slots=True)
class Scores:
    """One turn and arm: differences of the trained encoder from the original by scope, and what training heard."""

    turn: str
    arm: str
    steps: int
    audio_s: float
    scopes: dict[str, tuple[Difference, ...]]


def run_experiment(
    data: Path, encoder: Path, output: Path, settings: Settings, say: Callable[[str], None] = print
) -> list[Scores]:
    """Do what is not done yet and return all scores.

    Raises UsageError where `output` holds an experiment of other settings or a name is unknown.
    """
    for name, known in [(turn, TURNS) for turn in settings.turns] + [(arm, tuple(ARMS)) for arm in settings.arms]:
        if name not in known:
            raise UsageError(f"{name!r} is not one of {', '.join(known)}", where="experiment")
    _claim(output, {**asdict(settings), "encoder": _weights(encoder)})
    say("data: rows and shards of the training splits")
    for source in SOURCES:
        _convert(data, source, output / "rows" / source.name)
        _write_tasks(data, source, output / "tasks", settings.clips)
    say("original encoder: embeddings and probes")
    original = _score(ModelSpec(str(encoder), context="trimmed"), output)
    found = []
    for turn in settings.turns:
        for arm in settings.arms:
            done = output / f"{turn}-{arm}.json"
            if not done.is_file():
                say(f"held out {turn}, {arm}: training and scoring")
                scores = _turn(turn, arm, encoder, output, settings, original)
                text = json.dumps(asdict(scores), indent=1, sort_keys=True) + "\n"
                api.write_atomically(done, text.encode())
            found.append(_read(done))
    return found


def _turn(turn: str, arm: str, encoder: Path, output: Path, settings: Settings, original: str) -> Scores:
    from uniwhisper.config import load_config, overlaid
    from uniwhisper.export import export_encoder
    from uniwhisper.prepare import prepare
    from uniwhisper.train import train

    overlay = overlaid(overlaid({"encoder": {"init": str(encoder)}}, settings.overlay or {}), ARMS[arm])
    config = load_config(settings.config, overlay)
    heard = [source for source in SOURCES if source.name != turn]
    prepared = prepare(config, [output / "rows" / source.name for source in heard])
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
    scopes = {source.name: source.tasks for source in SOURCES}
    scopes["trained on"] = tuple(task for source in heard for task in source.tasks)
    scopes["all"] = tuple(task for source in SOURCES for task in source.tasks)
    if turn != ALL:
        scopes["held out"] = scopes[turn]
    return Scores(
        turn,
        arm,
        result.progress.step,
        result.progress.audio_s,
        {name: differences(output / "results", trained, original, tasks) for name, tasks in scopes.items()},
    )


def _score(spec: ModelSpec, output: Path) -> str:
    """Run the benchmark on all tasks and return the encoder's fingerprint."""
    folders = Folders(output / "cache", None, output / "results")
    fingerprint = ""
    for source in SOURCES:
        for task in source.tasks:
            options = Options(
                label="label", name=task, domain=source.domain, allow_outside=True, poolings=("mean",), device="cpu"
            )
            manifest = output / "tasks" / task / "manifest.csv"
            report = api.run([spec], [str(manifest)], folders=folders, options=options)
            if report.failures:
                raise UwbenchError("; ".join(report.failures), where=task)
            fingerprint = report.results[0][1].model.fingerprint
    return fingerprint


def _convert(data: Path, source: Source, folder: Path) -> None:
    from uniwhisper.convert import Request, convert

    folds = _TRAINED_FOLDS if source.name == "esc10" else ()
    convert(Request(source=str(data / source.name), folds=folds), folder, workers=1)


def _write_tasks(data: Path, source: Source, folder: Path, clips: int) -> None:
    """Write a manifest a task, in which ESC-10's folds are splits: no test clip is ever trained on."""
    manifest = data / source.name / "manifest.csv"
    try:
        with manifest.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=manifest) from error
    chosen: list[tuple[dict[str, str], str]] = []
    for split in ("train", "valid", "test"):
        own = [row for row in rows if (row.get("split") or _ROLES[row["fold"]]) == split]
        chosen += [(row, split) for row in _spread(own, clips)]
    for task, column in zip(source.tasks, source.columns, strict=True):
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["path", "label", "split"])
        writer.writerows(
            [str((manifest.parent / row["path"]).resolve()), f"{row[column]}", split] for row, split in chosen
        )
        (folder / task).mkdir(parents=True, exist_ok=True)
        api.write_atomically(folder / task / "manifest.csv", text.getvalue().encode())


def _spread(rows: Sequence[dict[str, str]], count: int) -> list[dict[str, str]]:
    if len(rows) <= count:
        return list(rows)
    return [rows[index * len(rows) // count] for index in range(count)]


def _claim(output: Path, settings: dict[str, Any]) -> None:
    output.mkdir(parents=True, exist_ok=True)
    own = json.loads(json.dumps(settings))
    path = output / "experiment.json"
    if path.is_file():
        held = json.loads(path.read_text(encoding="utf-8"))
        free = {"turns", "arms"}  # more of them may be asked for later
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
    scopes = {name: tuple(Difference(**row) for row in rows) for name, rows in held.pop("scopes").items()}
    return Scores(**held, scopes=scopes)


def report(found: Sequence[Scores]) -> list[str]:
    """Return the experiment's tables in Markdown: averages a turn, arm and scope, then every task of each turn."""
    lines = [
        "| held out | decoder | steps | audio | scope | probe | original | trained | difference [95 %] |",
        "| --- | --- | ---: | ---: | --- | --- | ---: | ---: | ---: |",
    ]
    for one in found:
        head = f"| {one.turn} | {one.arm} | {one.steps} | {one.audio_s / 60:.0f} min"
        for scope in ("held out", "trained on", "all"):
            for row in one.scopes.get(scope, ()):
                if row.name.startswith("average"):
                    scores = f"{100 * row.original:.1f} | {100 * row.trained:.1f}"
                    lines.append(f"{head} | {scope} | {row.method} | {scores} | {interval(row)} |")
    lines += ["", "| held out | decoder | task | probe | original | trained | difference [95 %] |"]
    lines += ["| --- | --- | --- | --- | ---: | ---: | ---: |"]
    for one in found:
        for row in one.scopes["all"]:
            if not row.name.startswith("average"):
                scores = f"{100 * row.original:.1f} | {100 * row.trained:.1f}"
                name = f"{row.name} (held out)" if row.name.startswith(f"{one.turn}_") else row.name
                lines.append(f"| {one.turn} | {one.arm} | {name} | {row.method} | {scores} | {interval(row)} |")
    return lines
