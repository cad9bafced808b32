"""Tasks for probe tests: vectors drawn from classes, and plain log-mel statistics of real clips."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from uwbench.audio.clip import AudioFile, Event, Labels
from uwbench.audio.decode import decode
from uwbench.cards.card import Card
from uwbench.probes.data import Frames, TaskData


def card(kind: str = "single-label", **fields: Any) -> Card:
    defaults: dict[str, Any] = {
        "name": "made",
        "version": 1,
        "title": "Made",
        "domain": "sound",
        "kind": kind,
        "metric": {"single-label": "accuracy", "multi-label": "map"}.get(kind, "segment-f1-micro"),
        "chance": 0,
    }
    if "folds" not in fields:
        defaults["splits"] = {"train": "train", "valid": "valid", "test": "test"}
    if kind == "frame-multi-label":
        defaults["segment_s"] = 1.0
    return Card.model_validate(defaults | fields)


def task_data(
    made: Card,
    vectors: np.ndarray,
    labels: Sequence[Labels],
    *,
    splits: Sequence[str] | None = None,
    folds: Sequence[str] | None = None,
    groups: Sequence[str | None] | None = None,
    frames: Frames | None = None,
    durations_s: np.ndarray | None = None,
) -> TaskData:
    pooled = np.asarray(vectors, np.float32)
    pooled = pooled[:, None] if pooled.ndim == 2 else pooled
    return TaskData(
        card=made,
        ids=[f"clip-{row:05d}" for row in range(len(pooled))],
        labels=labels,
        splits=splits,
        folds=folds,
        groups=groups or [None] * len(pooled),
        durations_s=np.full(len(pooled), 5.0) if durations_s is None else durations_s,
        layers=tuple(f"layer {index}" for index in range(pooled.shape[1])),
        pooled=pooled,
        frames=frames,
    )


def single_label(n: int = 240, classes: int = 4, dim: int = 16, spread: float = 2.0, seed: int = 0) -> TaskData:
    """Gaussian classes, in thirds: train, valid, test."""
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % classes
    vectors = rng.normal(size=(classes, dim))[codes] + spread * rng.normal(size=(n, dim))
    splits = [("train", "valid", "test")[int(3 * row / n)] for row in range(n)]
    return task_data(card(), vectors, [f"c{code}" for code in codes], splits=splits)


def multi_label(n: int = 240, classes: int = 5, dim: int = 16, seed: int = 0) -> TaskData:
    rng = np.random.default_rng(seed)
    relevant = rng.random((n, classes)) < 0.3
    vectors = relevant @ rng.normal(size=(classes, dim)) * 2 + rng.normal(size=(n, dim))
    labels = [tuple(f"c{code}" for code in np.flatnonzero(row)) for row in relevant]
    splits = [("train", "valid", "test")[int(3 * row / n)] for row in range(n)]
    return task_data(card("multi-label"), vectors, labels, splits=splits)


def frame_task(clips: int = 45, classes: int = 3, hop_s: float = 0.1, dim: int = 12, seed: int = 0) -> TaskData:
    """Clips of 3 to 5 s whose frames lean towards the events that cover their centres."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(classes, dim)) * 2
    labels: list[tuple[Event, ...]] = []
    values, lengths, durations = [], [], rng.uniform(3, 5, clips)
    for duration in durations:
        frames = int(duration / hop_s)
        events = []
        for _ in range(3):
            onset = rng.uniform(0, duration - 0.5)
            events.append(Event(onset, min(duration, onset + rng.uniform(0.3, 2)), f"c{rng.integers(classes)}"))
        centres = (np.arange(frames) + 0.5) * hop_s
        x = rng.normal(size=(frames, dim))
        for event in events:
            x[(centres >= event.onset_s) & (centres < event.offset_s)] += directions[int(event.label[1:])]
        labels.append(tuple(sorted(events)))
        values.append(x)
        lengths.append(frames)
    frames = Frames(np.concatenate(values).astype(np.float16), np.cumsum([0, *lengths]), hop_s)
    splits = [("train", "valid", "test")[int(3 * row / clips)] for row in range(clips)]
    pooled = np.zeros((clips, dim))
    made = card("frame-multi-label")
    return task_data(made, pooled, labels, splits=splits, frames=frames, durations_s=durations)


def with_segments(data: TaskData, leaves: np.ndarray) -> TaskData:
    """The task with pyramids over `leaves` `(n, layers, 8, dim)`, and with their means as pooled vectors."""
    levels = [leaves.reshape(*leaves.shape[:2], level, 8 // level, -1).mean(3) for level in (1, 2, 4, 8)]
    segments = np.concatenate(levels, axis=2).astype(np.float32)
    layers = tuple(f"layer {index}" for index in range(leaves.shape[1]))
    return replace(data, pooled=segments[:, :, 0], layers=layers, segments=segments, segment_layers=layers)


def spread_over_segments(data: TaskData, seed: int = 0) -> TaskData:
    """The task with segments that are its last layer's vectors with noise."""
    noise = np.random.default_rng(seed).normal(size=(len(data.ids), 1, 8, data.pooled.shape[2]))
    return with_segments(data, data.pooled[:, -1:, None] + noise)


def esc10(folder: Path) -> TaskData:
    """ESC-10 with mean and deviation of 64 log-mel bands a clip, computed here from the real audio."""
    with (folder / "esc10" / "manifest.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    vectors = np.stack([_log_mel(AudioFile(folder / "esc10" / row["path"])) for row in rows])
    made = card(folds=["1", "2", "3", "4", "5"], splits=None)
    labels, folds = [row["label"] for row in rows], [row["fold"] for row in rows]
    groups = [row["path"].split("-")[1] for row in rows]  # the freesound recording that a clip was cut from
    return task_data(made, vectors, labels, folds=folds, groups=groups)


def shuffled(data: TaskData, seed: int) -> TaskData:
    """The same task with its clips in another order."""
    order = np.random.default_rng(seed).permutation(len(data.ids)).tolist()

    def pick(values: Any) -> Any:
        return None if values is None else [values[row] for row in order]

    frames = data.frames
    if frames is not None:
        parts = [frames[row] for row in order]
        frames = Frames(np.concatenate(parts), np.cumsum([0, *map(len, parts)]), frames.hop_s)
    return replace(
        data,
        ids=pick(data.ids),
        labels=pick(data.labels),
        splits=pick(data.splits),
        folds=pick(data.folds),
        groups=pick(data.groups),
        durations_s=data.durations_s[order],
        pooled=data.pooled[order],
        frames=frames,
        segments=None if data.segments is None else data.segments[np.array(order)],
    )


def _log_mel(audio: AudioFile) -> np.ndarray:
    samples = decode(audio, 16_000)
    windows = np.lib.stride_tricks.sliding_window_view(samples, 512)[::256] * np.hanning(512)
    power = np.abs(np.fft.rfft(windows, axis=1)) ** 2
    mels = np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 66)
    edges = 700 * (10 ** (mels / 2595) - 1) / 8000 * 256
    bins = np.arange(257)
    rise = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    logs = np.log(power @ np.clip(np.minimum(rise, fall), 0, None).T + 1e-6)
    return np.concatenate([logs.mean(axis=0), logs.std(axis=0)])
