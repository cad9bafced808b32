"""Frame tasks: targets of frames from events, and the score of fixed windows in time.

Frame t of a clip stands for its centre, `(t + 0.5) * hop` seconds. A window (segment) is positive for a class if an
event of the class overlaps it, and predicted positive if one of its frames is. Both depend on the clock alone, so
encoders of any hop are scored on the same windows, including the last and partial one of a clip.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from uwbench.audio.clip import Event
from uwbench.cards.protocol import KnnSettings, MlpSettings
from uwbench.errors import ProbeError
from uwbench.probes.data import TaskData, spread_rows
from uwbench.probes.kinds.base import (
    ClipKind,
    Limits,
    Predicted,
    encode,
    present,
    sigmoid_losses,
    sigmoid_scores,
    vocabulary,
)
from uwbench.probes.kinds.labels import THRESHOLD
from uwbench.probes.splits import random_numbers
from uwbench.results import metrics

if TYPE_CHECKING:
    import torch

    from uwbench.probes.kinds.base import Weights

_SLACK_S = 1e-9  # seconds that are float noise: an event that ends where a window begins does not touch it


def frame_targets(events: Sequence[tuple[float, float, int]], n_frames: int, hop_s: float, classes: int) -> np.ndarray:
    """Return bool `(frames, classes)`: frame t is positive if its centre lies in [onset, offset) of an event.

    `events` are onset and offset in seconds and the class number.
    """
    centres = (np.arange(n_frames) + 0.5) * hop_s
    targets = np.zeros((n_frames, classes), dtype=bool)
    for onset, offset, code in events:
        start, stop = np.searchsorted(centres, [onset, offset], side="left")
        targets[start:stop, code] = True
    return targets


def segment_truth(
    events: Sequence[tuple[float, float, int]], duration_s: float, segment_s: float, classes: int
) -> np.ndarray:
    """Return bool `(segments, classes)`: true if an event of the class overlaps the window of `segment_s` seconds."""
    truth = np.zeros((segment_count(duration_s, segment_s), classes), dtype=bool)
    for onset, offset, code in events:
        start, stop = np.floor((onset + _SLACK_S) / segment_s), np.ceil((offset - _SLACK_S) / segment_s)
        truth[max(int(start), 0) : max(int(stop), 0), code] = True
    return truth


def segment_count(duration_s: float, segment_s: float) -> int:
    """Return the number of windows of a clip, at least 1; the last one may be partial."""
    return max(1, int(np.ceil((duration_s - _SLACK_S) / segment_s)))


class FrameLabels(ClipKind):
    """Tasks with any number of classes at each moment of a clip. Items are frames; segments are scored."""

    per_frame = True
    positive_weight = 1.0  # of positives in the loss

    def __init__(self, data: TaskData) -> None:
        if data.frames is None or data.card.segment_s is None:
            raise ProbeError("a frame task needs frames and a segment length", where=data.card.name)
        self.hop_s = data.frames.hop_s
        self.offsets = np.asarray(data.frames.offsets, dtype=np.int64)
        self.segment_s, self.durations_s = data.card.segment_s, [float(value) for value in data.durations_s]
        self.average = data.card.metric.removeprefix("segment-f1-")
        events = [_events(data, row) for row in range(len(data.labels))]
        names = [[event.label for event in clip] for clip in events]
        self.classes = vocabulary(data, names)
        encode(data, self.classes, names)  # every label is known
        number = {name: code for code, name in enumerate(self.classes)}
        self.events = [[(e.onset_s, e.offset_s, number[e.label]) for e in clip] for clip in events]
        # One bit per frame and class: 36 million frames of 88 classes in 400 MB.
        self.packed = np.zeros((int(self.offsets[-1]), -(-len(self.classes) // 8)), np.uint8)
        for row, clip in enumerate(self.events):
            start, stop = self.offsets[row : row + 2]
            targets = frame_targets(clip, int(stop - start), self.hop_s, len(self.classes))
            self.packed[start:stop] = np.packbits(targets, axis=1)

    def limits(self, settings: MlpSettings) -> Limits:
        valid = settings.grid_frames
        return Limits(valid, valid, settings.train_frames, valid, settings.test_frames)

    def knn_limits(self, settings: KnnSettings) -> tuple[int | None, int | None]:
        return settings.bank_frames, settings.query_frames

    def strata(self) -> Sequence[Sequence[int]]:
        return [sorted({code for _, _, code in clip}) for clip in self.events]

    def items(self, clips: np.ndarray) -> np.ndarray:
        """Return all frames of the clips."""
        spans = [self._span(row) for row in clips.tolist()]
        return np.concatenate(spans) if spans else np.zeros(0, np.int64)

    def thin(self, clips: np.ndarray, limit: int | None) -> np.ndarray:
        """Return at most `limit` frames of the clips, evenly spaced."""
        total = int((self.offsets[clips + 1] - self.offsets[clips]).sum())
        if limit is None or total <= limit:
            return self.items(clips)
        return spread_rows(self.offsets, clips, limit)

    def sample(self, clips: np.ndarray, limit: int | None) -> np.ndarray:
        """Return the frames of a random sample of the clips' segments, about `limit` frames, or all if
        there are fewer. Segments stay whole, so that they can be scored.
        """
        total = int((self.offsets[clips + 1] - self.offsets[clips]).sum())
        if limit is None or total <= limit:
            return self.items(clips)
        rng = random_numbers("segments", limit, total)
        parts = []
        for row in clips.tolist():
            segments = self._segments(self._span(row), row)
            drawn = rng.random(segment_count(self.durations_s[row], self.segment_s)) < limit / total
            parts.append(self.offsets[row] + np.flatnonzero(drawn[segments]))
        return np.concatenate(parts)

    def items_per_clip(self, items: np.ndarray, clips: np.ndarray) -> np.ndarray:
        owner = np.searchsorted(self.offsets, items, side="right") - 1
        return np.bincount(owner, minlength=len(self.offsets) - 1)[clips]

    def targets(self, items: np.ndarray, _rng: np.random.Generator | None = None) -> np.ndarray:
        return np.unpackbits(self.packed[items], axis=1, count=len(self.classes)).astype(np.float32)

    def losses(self, outputs: torch.Tensor, targets: Sequence[np.ndarray], _weights: Weights) -> torch.Tensor:
        return sigmoid_losses(outputs, targets, self.positive_weight)

    def scores(self, outputs: torch.Tensor, _weights: Weights, _clips: np.ndarray) -> np.ndarray:
        return sigmoid_scores(outputs)

    def truths(self, clips: np.ndarray) -> list[str]:
        """Return the classes that occur in each clip, as JSON."""
        return [self._text(sorted({code for _, _, code in self.events[row]})) for row in clips]

    def predict(self, scores: np.ndarray, items: np.ndarray, clips: np.ndarray) -> Predicted:
        """Return each clip's counts over its segments, or over those that `items` have frames of."""
        owner = np.searchsorted(self.offsets, items, side="right") - 1
        order = np.argsort(owner, kind="stable")  # clips come in the order of their ids, not of their frames
        starts = np.searchsorted(owner[order], clips, side="left")
        stops = np.searchsorted(owner[order], clips, side="right")
        counts, texts = np.zeros((len(clips), 3 * len(self.classes)), np.float32), []
        for at, (row, start, stop) in enumerate(zip(clips.tolist(), starts, stops, strict=True)):
            rows = order[start:stop]
            truth = segment_truth(self.events[row], self.durations_s[row], self.segment_s, len(self.classes))
            segments = self._segments(items[rows], row)
            predicted = np.zeros_like(truth)
            np.logical_or.at(predicted, segments, scores[rows] >= THRESHOLD)
            if len(rows) < self.offsets[row + 1] - self.offsets[row]:
                sampled = np.unique(segments)
                truth, predicted = truth[sampled], predicted[sampled]
            counts[at] = metrics.segment_counts(truth, predicted)
            texts.append(self._text(np.flatnonzero(predicted.any(axis=0)).tolist()))
        return Predicted(texts, counts=counts)

    def measure(self, predicted: Predicted, clips: np.ndarray) -> float:
        return metrics.f1_from_counts(self._total(predicted, clips), average=self.average)

    def further(self, predicted: Predicted, clips: np.ndarray) -> dict[str, float]:
        total = self._total(predicted, clips)
        return {f"segment-f1-{name}": metrics.f1_from_counts(total, average=name) for name in ("micro", "macro")}

    def _total(self, predicted: Predicted, clips: np.ndarray) -> np.ndarray:
        return present(predicted.counts, clips).sum(axis=0, dtype=np.float64)

    def _span(self, row: int) -> np.ndarray:
        return np.arange(int(self.offsets[row]), int(self.offsets[row + 1]))

    def _segments(self, items: np.ndarray, row: int) -> np.ndarray:
        """Return the window in which the centre of each frame of one clip lies."""
        centres = (items - self.offsets[row] + 0.5) * self.hop_s
        last = segment_count(self.durations_s[row], self.segment_s) - 1
        return np.minimum(np.floor((centres + _SLACK_S) / self.segment_s).astype(np.int64), last)

    def _text(self, codes: Sequence[int]) -> str:
        return json.dumps([self.classes[code] for code in codes], ensure_ascii=False)


def _events(data: TaskData, row: int) -> list[Event]:
    events = [event for event in data.labels[row] if isinstance(event, Event)]
    if isinstance(data.labels[row], str) or len(events) < len(data.labels[row]):
        raise ProbeError(f"events expected, found {data.labels[row]!r}", where=str(data.ids[row]))
    return events
