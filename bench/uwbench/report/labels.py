"""Labels of models: what tables, pages and files call a model."""

from __future__ import annotations

from collections.abc import Mapping

from uwbench.base.hashing import SHORT
from uwbench.encoders.base import IMPORTED
from uwbench.errors import printable
from uwbench.results.record import ModelInfo

_FULL_PRECISION = "fp32"


def labels_of(models: Mapping[str, ModelInfo]) -> dict[str, str]:
    """Return one label per model, by its key: `whisper-tiny.en (trimmed)`.

    In brackets is what sets a model apart from the usual run under its name: trimmed context, imported vectors, a
    precision below fp32; and if several models would still have one label, their numbers of layers or, if some of
    these are equal, their fingerprints.
    """
    labels = {}
    for key, info in models.items():
        label = _label(info)
        namesakes = [other for other in models.values() if _label(other) == label]
        if len(namesakes) > 1:
            told_apart = len({len(other.layers) for other in namesakes}) == len(namesakes)
            label = _label(info, _layers(info)) if told_apart else f"{label} [{info.fingerprint[:SHORT]}]"
        labels[key] = printable(label)
    return labels


def _label(info: ModelInfo, more: str | None = None) -> str:
    marks = [
        info.context if info.context not in (None, "full") else None,
        IMPORTED if info.family == IMPORTED else None,
        info.dtype if info.dtype != _FULL_PRECISION else None,
        more,
    ]
    inside = ", ".join(mark for mark in marks if mark)
    return f"{info.name} ({inside})" if inside else info.name


def _layers(info: ModelInfo) -> str:
    return "1 layer" if len(info.layers) == 1 else f"{len(info.layers)} layers"
