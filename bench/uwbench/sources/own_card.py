"""Make the card of a user's own data from its clips."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from uwbench.audio.clip import Clip, Labels
from uwbench.cards.card import METRICS_OF_KIND, Card, Domain, Kind, Splits
from uwbench.errors import InputError
from uwbench.sources.dataset import label_names, natural_key

SEGMENT_S = 1.0  # window of segment-based F1, as usual in DCASE


def make_card(
    clips: Sequence[Clip],
    *,
    name: str,
    kind: Kind,
    domain: Domain,
    where: str | Path,
    label: str = "label",
    group: str | None = None,
    taken_from: tuple[str, ...] = (),
) -> Card:
    """Return a card for `clips`; raise InputError, naming `where`, if they cannot be a task.

    The metric is the first of the kind. The chance level is the score to expect without audio: the share of the largest
    class among the tested clips, the mean share of a class for multi-label tasks, 1 / clips for retrieval, otherwise 0.
    """
    if not clips:
        raise InputError("contains no clips", where=where)
    fields: dict[str, Any] = {}
    folds = sorted({clip.fold for clip in clips if clip.fold is not None}, key=natural_key)
    if folds:
        if len(folds) < 2:
            raise InputError(f"fold: {folds[0]!r} is the only one, but a task needs at least two folds", where=where)
        fields["folds"] = tuple(folds)
        tested: Sequence[Clip] = clips
    else:
        counts = Counter(clip.split for clip in clips)
        for split in ("train", "test"):
            if not counts[split]:
                raise InputError(f"split: no clip is in {split!r}", where=where)
        fields["splits"] = Splits(train="train", valid="valid" if counts["valid"] else None, test="test")
        tested = [clip for clip in clips if clip.split == "test"]
    fields |= {"name": name, "version": 1, "title": name, "domain": domain, "labels": label, "group": group}
    fields |= {"taken_from": taken_from}
    fields |= {"kind": kind, "metric": METRICS_OF_KIND[kind][0]}
    fields |= {"chance": _chance([clip.labels for clip in tested], kind, where)}
    fields |= {"segment_s": SEGMENT_S if kind == "frame-multi-label" else None}
    return Card.model_validate(fields)


def task_name(name: str | None, folder: Path) -> str:
    """Return `name` if it is valid, or a valid name made from the folder's if it is None."""
    slug = _slug(folder.resolve().name if name is None else name)
    if name is not None and name != slug:
        raise InputError(
            f"the name {name!r} may contain only a-z, 0-9, '_', '.' and '-', and at most 64 characters",
            where="--name",
            remedy=f"for example {slug!r}" if slug else None,
        )
    return slug or "own-data"


def manifest_name(manifest: Path, label: str | None, *, alone: bool) -> str:
    """Return the name of a manifest's task: the folder's if the manifest is alone there, else the file's.

    A label column other than `label` is part of the name, so that two columns of one manifest are two tasks.
    """
    folder = manifest.absolute().parent.resolve().name
    name = folder if alone or manifest.stem.lower() == "manifest" else manifest.stem
    return _slug(name if label in (None, "label") else f"{name}-{label}") or "own-data"


def _slug(text: str) -> str:
    """Return `text` with the characters of a task's name alone."""
    return re.sub(r"[^a-z0-9_.-]+", "-", text.lower()).strip("-._")[:64].rstrip("-._")


def _chance(labels: Sequence[Labels], kind: Kind, where: str | Path) -> float:
    if kind == "retrieval":
        return round(1 / len(labels), 6) if len(labels) > 1 else 0.0
    if kind in ("transcription", "frame-multi-label"):
        return 0.0
    if kind == "multi-label":
        counts = Counter(name for names in labels for name in set(label_names(names)))
        if not counts:
            raise InputError("label: no tested clip has a label", where=where)
        return round(min(sum(counts.values()) / (len(counts) * len(labels)), 0.999999), 6)
    counts = Counter(str(name) for name in labels)
    share = max(counts.values()) / len(labels)
    if share == 1:
        raise InputError(f"label: all tested clips have the label {next(iter(counts))!r}", where=where)
    return round(share, 6)
