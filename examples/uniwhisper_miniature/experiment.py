"""The experiment: four arms on the same clips and questions in the same steps, scored on the same test clips.

The arms differ in what answers the questions: a pretrained language model, the same shape at random, Whisper's own
decoder, or linear heads without any language model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from uniwhisper.evaluate import Difference
from uniwhisper_miniature.jobs import run_side_by_side
from uniwhisper_miniature.speech import Transcribed
from uniwhisper_miniature.stages import (
    ARMS,
    Ready,
    Scores,
    Settings,
    Training,
    by_scope,
    make_ready,
    score_on_test,
    train_and_choose,
)
from uwbench.base.atomic import write_atomically


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
    trainings = [Training(arm, arm) for arm in settings.arms]
    ready = make_ready(data, encoder, output, settings, trainings, log)
    calls = []
    for arm in ARMS:
        if arm in settings.arms and not _scores_file(output, arm).is_file():
            log(f"{arm}: training and scoring")
            calls.append((Training(arm, arm), encoder, output, settings, ready))
    run_side_by_side(_run, calls, jobs)
    arms = tuple(_read_scores(_scores_file(output, arm)) for arm in settings.arms)
    return Outcome(arms, ready.speech, _compare_arms(arms, output))


def _scores_file(output: Path, arm: str) -> Path:
    return output / f"{arm}.json"


def _run(training: Training, encoder: Path, output: Path, settings: Settings, ready: Ready) -> None:
    """Train an arm, choose the interpolation on validation clips, score it on test clips, and write the scores."""
    chosen = train_and_choose(training, encoder, output, settings, ready)
    scores = score_on_test(chosen, encoder, output, settings, ready)
    text = json.dumps(asdict(scores), indent=1, sort_keys=True) + "\n"
    write_atomically(_scores_file(output, training.name), text.encode())


def _compare_arms(arms: Sequence[Scores], output: Path) -> dict[str, dict[str, tuple[Difference, ...]]]:
    """Return the differences between the encoders of `lm` and of each other arm."""
    fingerprints = {scores.arm: scores.fingerprint for scores in arms}
    if "lm" not in fingerprints:
        return {}
    lm = fingerprints.pop("lm")
    return {arm: by_scope(output, lm, other) for arm, other in fingerprints.items()}


def _read_scores(path: Path) -> Scores:
    fields = json.loads(path.read_text(encoding="utf-8"))
    scopes = {name: tuple(Difference(**row) for row in rows) for name, rows in fields["scopes"].items()}
    speech = {
        alpha: {kind: Transcribed(**said) for kind, said in kinds.items()} for alpha, kinds in fields["speech"].items()
    }
    return replace(Scores(**fields), scopes=scopes, speech=speech)
