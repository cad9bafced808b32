"""Levers: one change each to the training of an arm, compared on validation clips; the best is scored on test clips."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from uniwhisper.ablate import Arm, find_arm
from uniwhisper_miniature.jobs import run_side_by_side
from uniwhisper_miniature.speech import Transcribed
from uniwhisper_miniature.stages import (
    Chosen,
    Ready,
    Scores,
    Settings,
    Training,
    make_ready,
    score_on_test,
    train_and_choose,
    training_config,
)
from uwbench.api import UsageError
from uwbench.base.atomic import write_atomically
from uwbench.base.registry import suggestion

FOLDER = Path(__file__).parent / "levers"


@dataclass(frozen=True, slots=True)
class Tried:
    """A lever's title, and how its training did on validation clips."""

    title: str
    chosen: Chosen


@dataclass(frozen=True, slots=True)
class Levers:
    """The trainings of an arm, unchanged first, the best of them on test clips, and the original's transcripts."""

    arm: str
    tried: tuple[Tried, ...]
    best: Scores
    speech: dict[str, Transcribed]


def run_levers(
    data: Path,
    encoder: Path,
    output: Path,
    settings: Settings,
    names: Sequence[str],
    log: Callable[[str], None] = print,
    jobs: int = 1,
) -> Levers:
    """Train one arm unchanged and with each lever, `jobs` at a time, and score the best on validation on test clips.

    A lever is a name in `levers/`, or the YAML file of an ablation arm. Raises UsageError for an unknown lever, for one
    that changes nothing, and for one that was trained in `output` with another change; else as `run_experiment` does.
    """
    (arm,) = settings.arms
    levers = [find_lever(name) for name in dict.fromkeys(names)]
    plain = Training(arm, arm)
    trainings = [plain, *(Training(f"{arm}+{lever.name}", arm, lever.change) for lever in levers)]
    ready = make_ready(data, encoder, output, settings, trainings, log)
    unchanged = training_config(settings, encoder, plain)
    for training in trainings[1:]:
        if training_config(settings, encoder, training) == unchanged:
            raise UsageError("changes nothing of this arm", where=f"--lever {training.name.partition('+')[2]}")
    calls = []
    for training in trainings:
        if _read(output, training) is None:
            log(f"{training.name}: training and validation")
            calls.append((training, encoder, output, settings, ready))
    run_side_by_side(_try, calls, jobs)
    titles = ["As it is", *(lever.title for lever in levers)]
    chosen = [_must_read(output, training) for training in trainings]
    best = max(chosen, key=lambda each: each.valid[f"{each.alpha:g}"])  # of equals, the first
    log(f"{best.arm}: test clips")
    scores = score_on_test(best, encoder, output, settings, ready)
    return Levers(arm, tuple(map(Tried, titles, chosen)), scores, ready.speech)


def find_lever(name: str) -> Arm:
    """Load a lever by its name or from a YAML file; raise UsageError with suggestions, or InputError."""
    if name.endswith((".yaml", ".yml")):
        return find_arm(name)
    names = sorted(path.stem for path in FOLDER.glob("*.yaml"))
    if name not in names:
        raise UsageError(f"unknown lever {name!r}", where="--lever", remedy=suggestion(name, names))
    return find_arm(str(FOLDER / f"{name}.yaml"))


def _try(training: Training, encoder: Path, output: Path, settings: Settings, ready: Ready) -> None:
    chosen = train_and_choose(training, encoder, output, settings, ready)
    path = _file(output, training)
    path.parent.mkdir(exist_ok=True)
    fields: dict[str, Any] = {**asdict(chosen), "change": training.change}
    write_atomically(path, (json.dumps(fields, indent=1, sort_keys=True) + "\n").encode())


def _file(output: Path, training: Training) -> Path:
    return output / "validation" / f"{training.name}.json"


def _read(output: Path, training: Training) -> Chosen | None:
    """Return how a training did on validation clips, or None if it has not ended."""
    path = _file(output, training)
    if not path.is_file():
        return None
    fields = json.loads(path.read_text(encoding="utf-8"))
    if fields.pop("change") != json.loads(json.dumps(training.change)):
        remedy = "give the lever another name, or name another --output"
        raise UsageError("was trained with another change", where=path, remedy=remedy)
    return Chosen(**fields)


def _must_read(output: Path, training: Training) -> Chosen:
    chosen = _read(output, training)
    assert chosen is not None, f"{training.name} has ended"
    return chosen
