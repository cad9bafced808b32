"""Every kind of task scores at chance without information in the input, and above it with; leaks would show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from probes import made_data, test_retrieval, test_transcription
from uwbench.audio.clip import Event
from uwbench.cards.find import find_protocol
from uwbench.cards.protocol import Protocol
from uwbench.probes.data import Frames, TaskData
from uwbench.probes.run import run_probes

UWBENCH = find_protocol("uwbench-1")
FEW: Protocol = UWBENCH.model_copy(
    update={
        "mlp": UWBENCH.mlp.model_copy(
            update={"learning_rates": (0.01,), "weight_decays": (0.01,), "seeds": (0, 1), "epochs": 10}
        )
    }
)
MADE: dict[str, Callable[[], TaskData]] = {
    "single-label": lambda: made_data.single_label(600),
    "multi-label": lambda: made_data.multi_label(600),
    "frame-multi-label": lambda: made_data.frame_task(90),
    "retrieval": test_retrieval.made,
    "transcription": test_transcription.made,
}


def with_inputs(data: TaskData, fill: Callable[[tuple[int, ...]], np.ndarray]) -> TaskData:
    """Return the task with its vectors, and its frames if any, replaced by `fill(shape)`."""
    frames = data.frames
    if frames is not None:
        values = fill(np.asarray(frames.values).shape).astype(np.float16)
        frames = Frames(values, frames.offsets, frames.hop_s)
    return replace(data, pooled=fill(data.pooled.shape).astype(np.float32), frames=frames)


def constant(shape: tuple[int, ...]) -> np.ndarray:
    return np.full(shape, 0.3)


def noise(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(11).normal(size=shape)


def scored(data: TaskData) -> dict[str, float]:
    return {method: score.main_score for method, score in run_probes(data, FEW).scores.items()}


@cache
def heard(kind: str) -> dict[str, float]:
    """Return the scores of the unchanged task."""
    return scored(MADE[kind]())


def without_hearing(data: TaskData) -> tuple[float, float]:
    """Return the best score of a constant prediction, and four standard errors of the noise around it.

    Accuracy: the share of the largest class in the test split. mAP: the mean over classes of a class's share of the
    test clips, which is the expected precision of any fixed order. Segment-F1: predicting every class everywhere has
    precision = prevalence and recall 1. R@1: one of the test clips. 1 - WER: the same words for every clip are right by
    luck, at most in the share of the most common word at each of the four places.
    """
    test = [row for row, split in enumerate(data.splits or ()) if split == "test"]
    n = len(test)
    kind = data.card.kind
    if kind == "single-label":
        labels = [str(data.labels[row]) for row in test]
        chance = max(labels.count(label) for label in set(labels)) / n
    elif kind == "multi-label":
        of_clips: list[Any] = list(data.labels)
        classes = {label for row in of_clips for label in row}
        chance = float(np.mean([np.mean([label in of_clips[row] for row in test]) for label in classes]))
    elif kind == "retrieval":
        chance = 1 / n
    elif kind == "frame-multi-label":
        share, n = _segments(data, test)
        chance = 2 * share / (1 + share)
    else:
        words = [str(data.labels[row]).split() for row in test]
        chance = float(np.mean([max(map(list(place).count, set(place))) / n for place in zip(*words, strict=True)]))
    return chance, 4 * float(np.sqrt(chance * (1 - chance) / n))


def _segments(data: TaskData, test: list[int]) -> tuple[float, int]:
    """Return the share of segments (one second, one class) that hold an event, and the number of segments."""
    positive = total = 0
    of_clips: list[Any] = list(data.labels)
    classes = {event.label for row in of_clips for event in row}
    for row in test:
        for second in range(int(np.ceil(data.durations_s[row]))):
            for label in classes:
                total += 1
                positive += any(
                    event.label == label and event.onset_s < second + 1 and event.offset_s > second
                    for event in of_clips[row]
                )
    return positive / total, total


@pytest.mark.parametrize("deaf", [constant, noise])
@pytest.mark.parametrize("kind", MADE)
def test_an_encoder_that_hears_nothing_scores_at_chance(kind: str, deaf: Callable[..., np.ndarray]) -> None:
    data = MADE[kind]()
    chance, around = without_hearing(data)
    scores = heard(kind)
    for method, score in scored(with_inputs(data, deaf)).items():
        assert score <= chance + around, (kind, method)
        assert scores[method] > chance + around, (kind, method)


def within(events: Any, end: float) -> tuple[Event, ...]:
    """Return a clip's events cut to another clip's length."""
    return tuple(Event(event.onset_s, min(event.offset_s, end), event.label) for event in events if event.onset_s < end)


@pytest.mark.parametrize("kind", MADE)
def test_random_labels_score_at_chance(kind: str) -> None:
    """With labels shuffled among the clips, no probe scores above a constant prediction."""
    data = MADE[kind]()
    order = np.random.default_rng(5).permutation(len(data.ids)).tolist()
    labels = [data.labels[row] for row in order]
    if kind == "frame-multi-label":
        labels = [within(events, end) for events, end in zip(labels, data.durations_s, strict=True)]
    shuffled = replace(data, labels=labels)
    if data.text is not None:
        shuffled = test_retrieval.made(related=False)
    chance, around = without_hearing(shuffled)
    for method, score in scored(shuffled).items():
        assert score <= chance + around, (kind, method)


@pytest.mark.parametrize("kind", MADE)
def test_a_canary_in_the_test_part_moves_nothing_that_was_chosen(kind: str) -> None:
    """With vectors of test clips replaced, every choice and its validation metric stay to the last digit.

    Standardisation uses the training split, so predictions for test clips with unchanged vectors stay too.
    """
    data = MADE[kind]()
    test = np.flatnonzero(np.array(data.splits) == "test")
    replaced = test[len(test) // 2 :]
    pooled, frames = data.pooled.copy(), data.frames
    pooled[replaced] = 1e3 * np.random.default_rng(1).normal(size=pooled[replaced].shape)
    if frames is not None:
        values = np.asarray(frames.values).copy()
        for row in replaced:
            values[frames.offsets[row] : frames.offsets[row + 1]] += 50
        frames = Frames(values, frames.offsets, frames.hop_s)
    grid = FEW.model_copy(update={"mlp": FEW.mlp.model_copy(update={"learning_rates": (0.001, 0.01)})})
    first, second = (run_probes(task, grid) for task in (data, replace(data, pooled=pooled, frames=frames)))
    assert first.scores["mlp"].chosen == second.scores["mlp"].chosen
    changed = {data.ids[row] for row in replaced}
    before, after = (outcome.predictions.to_pylist() for outcome in (first, second))
    assert len(before) == len(after) > 0
    unchanged = [(a, b) for a, b in zip(before, after, strict=True) if a["id"] not in changed]
    assert unchanged
    if kind != "retrieval":  # there each clip is ranked among the others
        assert all(a["prediction"] == b["prediction"] for a, b in unchanged)
    assert first.scores["mlp"].main_score != second.scores["mlp"].main_score
