"""The experiment's stages: rows, and for each training its interpolation, choice on validation clips, test scores.

Every stage leaves its output in the working folder and is skipped if the output is there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uniwhisper.evaluate import Difference, differences, spec_of
from uniwhisper.model.transcribe import WINDOW_S
from uniwhisper_miniature.jobs import GO_ON
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
_NOT_READ: dict[str, list[str]] = {"any question": ["any answer"]}  # the control's classes before rows are read


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
class Training:
    """A training of the encoder: an arm, and what a lever changes of it. Its files are called by `name`."""

    name: str
    arm: str
    change: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Chosen:
    """How long an arm was trained, and the alpha that was chosen on validation clips.

    `valid` has the mean score on them by alpha, 0 being the original.
    """

    arm: str
    steps: int
    audio_s: float
    alpha: float
    valid: dict[str, float]


@dataclass(frozen=True, slots=True)
class Scores(Chosen):
    """One arm on test clips: the chosen encoder's differences from the original.

    `fingerprint` is the chosen encoder's in the results, and `speech` says how speech was transcribed by alpha (the
    chosen and the largest) and kind.
    """

    fingerprint: str
    scopes: dict[str, tuple[Difference, ...]]
    speech: dict[str, dict[str, Transcribed]]


@dataclass(frozen=True, slots=True)
class Ready:
    """The inputs of all arms: folders of training rows, the original encoder's fingerprint, and its transcripts."""

    rows: tuple[Path, ...]
    original: str
    speech: dict[str, Transcribed]


def make_ready(
    data: Path,
    encoder: Path,
    output: Path,
    settings: Settings,
    trainings: Sequence[Training],
    log: Callable[[str], None],
) -> Ready:
    """Check the settings, write the training rows, and score the original encoder.

    Raises as `run_experiment` does.
    """
    for training in trainings:
        if training.arm not in ARMS:
            raise UsageError(f"{training.arm!r} is not one of {', '.join(ARMS)}", where="experiment")
        training_config(settings, encoder, training)
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
    return Ready(tuple(rows), original, _speech(encoder, encoder, output, settings, "original"))


def training_config(
    settings: Settings, encoder: Path, training: Training, classes: Mapping[str, Sequence[str]] = _NOT_READ
) -> Config:
    """Return a training's configuration; `classes` are the control's. Raises UsageError if the arm needs `--lm`."""
    from uniwhisper.config import load_config, overlaid

    arm = training.arm
    base = overlaid({"encoder": {"init": str(encoder)}}, settings.overlay or {})
    answers = ARMS[arm] | ({"classes": dict(classes)} if arm == "control" else {})
    if arm in ("lm", "random") and not base.get("lm", {}).get("init"):
        raise UsageError("needs a pretrained language model", where=f"--arm {arm}", remedy="give --lm FOLDER")
    return load_config(settings.config, overlaid(overlaid(base, {"lm": answers}), training.change))


def train_and_choose(training: Training, encoder: Path, output: Path, settings: Settings, ready: Ready) -> Chosen:
    """Train an encoder, or go on with its training, and choose its interpolation on validation clips."""
    from uniwhisper.sampling.prepare import prepare
    from uniwhisper.training.train import train

    classes = classes_of(ready.rows) if training.arm == "control" else _NOT_READ
    config = training_config(settings, encoder, training, classes)
    prepared = prepare(config, ready.rows, mixture=str(MIXTURE))
    result = train(
        config,
        prepared.batches,
        output / "runs" / training.name,
        training_data=prepared.training_data,
        data_digest=prepared.digest,
    )
    if result.progress.step < config.stages.bridge + config.stages.joint:
        raise UwbenchError(f"stopped by SIGTERM at step {result.progress.step}", where=training.name, remedy=GO_ON)
    valid: dict[float, float] = {}
    for alpha in settings.alphas:
        folder = _exported(result.checkpoint, encoder, output, training.name, alpha)
        scored = _score(spec_of(folder, "trimmed"), output, "valid")
        averages = _averages(output, "valid", scored, ready.original, CHOOSING)
        valid[alpha] = sum(row.trained for row in averages) / len(averages)
        valid[0.0] = sum(row.original for row in averages) / len(averages)
    alpha = max(settings.alphas, key=lambda alpha: (valid[alpha], -alpha))  # of equals, the nearest to the original
    by_alpha = {f"{alpha:g}": valid[alpha] for alpha in sorted(valid)}
    return Chosen(training.name, result.progress.step, result.progress.audio_s, alpha, by_alpha)


def score_on_test(chosen: Chosen, encoder: Path, output: Path, settings: Settings, ready: Ready) -> Scores:
    """Score a chosen encoder on test clips, and transcribe speech from it and from the one of the largest alpha."""
    folders = {alpha: _encoder_folder(output, chosen.arm, alpha) for alpha in settings.alphas}
    trained = _score(spec_of(folders[chosen.alpha], "trimmed"), output, "test")
    return Scores(
        **asdict(chosen),
        fingerprint=trained,
        scopes=by_scope(output, trained, ready.original),
        speech={
            f"{alpha:g}": _speech(encoder, folders[alpha], output, settings, f"{chosen.arm}-{alpha:g}")
            for alpha in sorted({chosen.alpha, max(folders)})
        },
    )


def _encoder_folder(output: Path, name: str, alpha: float) -> Path:
    return output / "encoders" / f"{name}-{alpha:g}"


def _exported(checkpoint: Path, encoder: Path, output: Path, name: str, alpha: float) -> Path:
    """Return the folder of a trained encoder, interpolated with the original."""
    from uniwhisper.export import export_encoder

    folder = _encoder_folder(output, name, alpha)
    if not (folder / "uniwhisper.json").is_file():
        export_encoder(checkpoint, folder, base=encoder, alpha=alpha)
    return folder


def _averages(output: Path, use: Use, first: str, second: str, tasks: Sequence[str]) -> list[Difference]:
    """Return the differences of the averages over tasks, one per probe."""
    named = [f"{task}_{use}" for task in tasks]
    compared = differences(output / "results", first, second, named, average="task")
    return [row for row in compared if row.name not in named]


def by_scope(output: Path, first: str, second: str) -> dict[str, tuple[Difference, ...]]:
    """Return the test's differences by scope (see `SCOPES`): each task's and the average's."""
    return {
        name: differences(output / "results", first, second, [f"{task}_test" for task in tasks], average="task")
        for name, tasks in SCOPES.items()
    }


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
