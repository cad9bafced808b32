"""The kinds of tasks: how a probe is trained on them, what it predicts, and how its predictions are scored."""

from __future__ import annotations

from collections.abc import Callable

from uwbench.probes.data import TaskData
from uwbench.probes.kinds.base import Kind
from uwbench.probes.kinds.frames import FrameLabels
from uwbench.probes.kinds.labels import MultiLabel, SingleLabel
from uwbench.probes.kinds.retrieval import Retrieval
from uwbench.probes.kinds.transcription import Transcription

_KINDS: dict[str, Callable[[TaskData], Kind]] = {
    "single-label": SingleLabel,
    "multi-label": MultiLabel,
    "frame-multi-label": FrameLabels,
    "retrieval": Retrieval,
    "transcription": Transcription,
}


def kind_of(data: TaskData) -> Kind:
    """Return the kind of a task; raise ProbeError for labels that its card does not allow."""
    return _KINDS[data.card.kind](data)
