"""The experiment's stages: rows, and for each arm training, interpolation, choice on validation clips, test scores.

The arms differ in what answers the questions: a pretrained language model, the same shape at random, Whisper's own
decoder, or linear heads without any language model. They train on the same clips and questions in the same steps. Every
stage leaves its output in the working folder and is skipped if the output is there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uniwhisper.evaluate import Difference, differences, spec_of
from uniwhisper.model.transcribe import WINDOW_S
from uniwhisper_miniature.jobs import GO_ON, run_side_by_side
from uniwhisper_miniature.scored_data import CHOOSING, SCOPES, Use, refuse_leaks, sources, write_tasks
from uniwhisper_miniature.speech import (
    WORD_WINDOW_S,
    Transcribed,
    read_sentences,
    spoken_digits,
    transcribe,
)
from uniwhisper_miniature.training_data import MIXTURE, classes_of, write_rows
from uwbench import api
from uwbench.api import ExtractOptions, InputError, ModelSpec, TaskSpec, UsageError, UwbenchError
from uwbench.base.atomic import write_atomically
from uwbench.base.hashing import sha256_file

if TYPE_CHECKING:
    from uniwhisper.config import Config

CONFIG = Path(__file__).parent / "miniature.yaml"
# The longest training first, so that none is left alone at the end. What is new learns at the rate of new parts.
ARMS: dict[str, dict[str, Any]] = {
    "random": {"kind": "random-causal", "train": "full", "lr": 5e-4},
    "lm": {},
    "whisper": {"kind": "whisper", "train": "full", "lr": 1e-4},
    "control": {"kind": "heads", "train": "full", "lr": 1e-3},
}


@dataclass(frozen=True, slots=True)
class Settings:
    """The experiment's settings.

    `alphas` are the trained weights' shares in the encoders of which one is chosen on validation clips. `clips` is the
    largest number of clips scored per split (half as many on validation), `spoken` that of spoken digits that Whisper's
    decoder transcribes, `sentences` a folder of sentences for it.
    """

    config: str = str(CONFIG)
    overlay: dict[str, Any] | None = None
    arms: tuple[str, ...] = tuple(ARMS)
    alphas: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    clips: int = 300
    spoken: int = 60
    sentences: Path | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """One arm: its training's length, the chosen alpha, and the chosen encoder's differences from the original.

    `valid` has the mean score on validation clips by alpha, 0 being the original; `fingerprint` is the chosen encoder's
    in the results, and `speech` says how speech was transcribed by alpha (the chosen and the largest) and kind.
    """

    arm: str
    steps: int
    audio_s: float
    alpha: float
    valid: dict[str, float]
    fingerprint: str
    scopes: dict[str, tuple[Difference, ...]]
    speech: dict[str, dict[str, Transcribed]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """All arms, the original's transcripts, and by other arm the `lm` arm minus that arm by scope."""

    arms: tuple[Scores, ...]
    speech: dict[str, Transcribed]
    compared: dict[str, dict[str, tuple[Difference, ...]]]


def run_experiment(
    data: Path, encoder: Path, output: Path, settings: Settings, log: Callable[[str], None] = print, jobs: int = 1
) -> Outcome:
    """Run the stages that remain, `jobs` arms at a time, and return all scores.

    Raises UsageError if `output` holds an experiment with other settings or an arm is unknown, and InputError if a
    scored clip would be trained on.
    """
    for arm in settings.arms:
        if arm not in ARMS:
            raise UsageError(f"{arm!r} is not one of {', '.join(ARMS)}", where="experiment")
        arm_config(settings, encoder, arm, {"any question": ["any answer"]})
    _claim(output, settings, encoder)
    log("data: rows and shards of the training clips")
    rows = write_rows(data, output / "rows")
    for use in ("valid", "test"):
        write_tasks(data, output / "tasks", settings.clips // (2 if use == "valid" else 1), use)
    refuse_leaks(data, rows, output, log)
    log("original encoder: embeddings, probes, transcripts")
    spec = ModelSpec(str(encoder), context="trimmed")
    original = _score(spec, output, "valid")
    _score(spec, output, "test")
    speech = _speech(encoder, encoder, output, settings, "original")
    calls = []
    for arm in ARMS:
        if arm in settings.arms and not _scores_file(output, arm).is_file():
            log(f"{arm}: training and scoring")
            calls.append((arm, encoder, output, rows, settings, original))
    run_side_by_side(_run, calls, jobs)
    arms = tuple(_read_scores(_scores_file(output, arm)) for arm in settings.arms)
    return Outcome(arms, speech, _compare_arms(arms, output))


def arm_config(settings: Settings, encoder: Path, arm: str, classes: Mapping[str, Sequence[str]]) -> Config:
    """Return an arm's configuration; `classes` are the control's. Raises UsageError if the arm needs `--lm`."""
    from uniwhisper.config import load_config, overlaid

    base = overlaid({"encoder": {"init": str(encoder)}}, settings.overlay or {})
    answers = ARMS[arm] | ({"classes": dict(classes)} if arm == "control" else {})
    if arm in ("lm", "random") and not base.get("lm", {}).get("init"):
        raise UsageError("needs a pretrained language model", where=f"--arm {arm}", remedy="give --lm FOLDER")
    return load_config(settings.config, overlaid(base, {"lm": answers}))


def _scores_file(output: Path, arm: str) -> Path:
    return output / f"{arm}.json"


def _run(arm: str, encoder: Path, output: Path, rows: Sequence[Path], settings: Settings, original: str) -> None:
    """Train an arm, choose the interpolation on validation clips, score it on test clips, and write the scores."""
    from uniwhisper.sampling.prepare import prepare
    from uniwhisper.training.train import train

    config = arm_config(settings, encoder, arm, classes_of(rows) if arm == "control" else {})
    prepared = prepare(config, rows, mixture=str(MIXTURE))
    result = train(
        config,
        prepared.batches,
        output / "runs" / arm,
        training_data=prepared.training_data,
        data_digest=prepared.digest,
    )
    if result.progress.step < config.stages.bridge + config.stages.joint:
        raise UwbenchError(f"stopped by SIGTERM at step {result.progress.step}", where=arm, remedy=GO_ON)
    folders = {alpha: _exported(result.checkpoint, encoder, output, arm, alpha) for alpha in settings.alphas}
    valid: dict[float, float] = {}
    for alpha, folder in folders.items():
        rows_of = _averages(output, "valid", _score(spec_of(folder, "trimmed"), output, "valid"), original, CHOOSING)
        valid[alpha] = sum(row.trained for row in rows_of) / len(rows_of)
        valid[0.0] = sum(row.original for row in rows_of) / len(rows_of)
    chosen = max(folders, key=lambda alpha: (valid[alpha], -alpha))  # of equals, the nearest to the original
    trained = _score(spec_of(folders[chosen], "trimmed"), output, "test")
    scores = Scores(
        arm,
        result.progress.step,
        result.progress.audio_s,
        chosen,
        {f"{alpha:g}": valid[alpha] for alpha in sorted(valid)},
        trained,
        _by_scope(output, trained, original),
        {
            f"{alpha:g}": _speech(encoder, folders[alpha], output, settings, f"{arm}-{alpha:g}")
            for alpha in sorted({chosen, max(folders)})
        },
    )
    text = json.dumps(asdict(scores), indent=1, sort_keys=True) + "\n"
    write_atomically(_scores_file(output, arm), text.encode())


def _exported(checkpoint: Path, encoder: Path, output: Path, arm: str, alpha: float) -> Path:
    """Return the folder of an arm's encoder, interpolated with the original."""
    from uniwhisper.export import export_encoder

    folder = output / "encoders" / f"{arm}-{alpha:g}"
    if not (folder / "uniwhisper.json").is_file():
        export_encoder(checkpoint, folder, base=encoder, alpha=alpha)
    return folder


def _averages(output: Path, use: Use, first: str, second: str, tasks: Sequence[str]) -> list[Difference]:
    """Return the differences of the averages over tasks, one per probe."""
    named = [f"{task}_{use}" for task in tasks]
    compared = differences(output / "results", first, second, named, average="task")
    return [row for row in compared if row.name not in named]


def _by_scope(output: Path, first: str, second: str) -> dict[str, tuple[Difference, ...]]:
    """Return the test's differences by scope (see `SCOPES`): each task's and the average's."""
    return {
        name: differences(output / "results", first, second, [f"{task}_test" for task in tasks], average="task")
        for name, tasks in SCOPES.items()
    }


def _compare_arms(arms: Sequence[Scores], output: Path) -> dict[str, dict[str, tuple[Difference, ...]]]:
    """Return the differences between the encoders of `lm` and of each other arm."""
    fingerprints = {scores.arm: scores.fingerprint for scores in arms}
    if "lm" not in fingerprints:
        return {}
    lm = fingerprints.pop("lm")
    return {arm: _by_scope(output, lm, other) for arm, other in fingerprints.items()}


def _score(spec: ModelSpec, output: Path, use: Use) -> str:
    """Run the benchmark on all tasks of a use and return the encoder's fingerprint."""
    fingerprint = ""
    for source in sources(use):
        for task in source.tasks:
            results = api.evaluate(
                spec,
                TaskSpec(
                    output / "tasks" / use / task / "manifest.csv",
                    label="label",
                    group="group" if source.group else None,
                    name=f"{task}_{use}",
                    domain=source.domain,
                    allow_outside=True,
                ),
                cache=output / "cache",
                results=output / "results",
                device="cpu",
                extract=ExtractOptions(poolings=("mean",)),
            )
            if results.failures:
                raise UwbenchError("; ".join(results.failures), where=task)
            fingerprint = results.results[0][1].model.fingerprint
    return fingerprint


def _speech(whisper: Path, encoder: Path, output: Path, settings: Settings, name: str) -> dict[str, Transcribed]:
    """Return how Whisper's decoder transcribes speech from an encoder's output, by kind of speech."""
    path = output / "speech" / f"{name}.json"
    if not path.is_file():
        digits = spoken_digits(output / "tasks" / "test" / "fsdd_digit" / "manifest.csv", settings.spoken)
        heard = {"digits": asdict(transcribe(whisper, encoder, digits, WORD_WINDOW_S))}
        if settings.sentences is not None:
            sentences = read_sentences(settings.sentences)
            heard["sentences"] = asdict(transcribe(whisper, encoder, sentences, WINDOW_S))
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, (json.dumps(heard, sort_keys=True) + "\n").encode())
    return {kind: Transcribed(**fields) for kind, fields in json.loads(path.read_text(encoding="utf-8")).items()}


def _claim(output: Path, settings: Settings, encoder: Path) -> None:
    """Record the settings in the folder; raise UsageError if it holds an experiment with others; arms may be added."""
    claimed = {**asdict(settings), "arms": None, "sentences": None, "encoder": _weights_hash(encoder)}
    if Path(settings.config).is_file():  # by what it says, wherever it lies
        claimed["config"] = sha256_file(Path(settings.config))
    if settings.sentences is not None:
        claimed["sentences"] = sha256_file(settings.sentences / "manifest.csv")
    claimed = json.loads(json.dumps(claimed))
    output.mkdir(parents=True, exist_ok=True)
    path = output / "experiment.json"
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = sorted(key for key in {**before, **claimed} if before.get(key) != claimed.get(key))
        if changed:
            message = f"holds an experiment with another {', '.join(changed)}"
            raise UsageError(message, where=output, remedy="name another --output")
    write_atomically(path, (json.dumps(claimed, indent=1, sort_keys=True) + "\n").encode())


def _weights_hash(encoder: Path) -> str:
    path = encoder / "model.safetensors"
    if not path.is_file():
        raise InputError("is no Whisper folder (no model.safetensors)", where=encoder)
    return sha256_file(path)


def _read_scores(path: Path) -> Scores:
    fields = json.loads(path.read_text(encoding="utf-8"))
    scopes = {name: tuple(Difference(**row) for row in rows) for name, rows in fields["scopes"].items()}
    speech = {
        alpha: {kind: Transcribed(**said) for kind, said in kinds.items()} for alpha, kinds in fields["speech"].items()
    }
    return replace(Scores(**fields), scopes=scopes, speech=speech)
