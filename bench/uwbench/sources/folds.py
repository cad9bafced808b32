"""Folds of own data that comes without splits: the same on every machine, and stratified by class."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from uwbench.audio.clip import Clip
from uwbench.base.hashing import sha256_bytes
from uwbench.cards.card import Kind

HASH_FOLDS = 5


def deal(label: str, names: Iterable[str]) -> dict[str, str]:
    """Return the fold of each of a class's clips or groups, dealt in the order of the sha256 of their names.

    Adding names to one class changes no other class's folds.
    """
    names = list(names)
    ordered = sorted(names, key=lambda name: sha256_bytes(name.encode()))
    # Classes start at different folds, so that small ones do not all fill the first folds.
    first = int(sha256_bytes(label.encode())[:8], 16)
    fold_of = {name: str(1 + (first + i) % HASH_FOLDS) for i, name in enumerate(ordered)}
    return {name: fold_of[name] for name in names}


def deal_clips(clips: Sequence[Clip], kind: Kind) -> tuple[Clip, ...]:
    """Return the clips with folds in place of splits; a group stays whole.

    Clips of a single-label task, or groups that have one class, are stratified by class.
    """
    labels_of: dict[tuple[str, str], set[str]] = defaultdict(set)  # ("group" or "clip", name) -> its classes
    unit_of = [("clip", clip.id) if clip.group is None else ("group", clip.group) for clip in clips]
    for unit, clip in zip(unit_of, clips, strict=True):
        labels_of[unit].add(str(clip.labels) if kind == "single-label" else "")
    units_of: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for unit, labels in labels_of.items():
        units_of[next(iter(labels)) if len(labels) == 1 else ""].append(unit)
    fold_of: dict[tuple[str, str], str] = {}
    for label, units in units_of.items():
        folds = deal(label, (f"{what} {name}" for what, name in units))
        fold_of |= {unit: folds[f"{unit[0]} {unit[1]}"] for unit in units}
    return tuple(replace(clip, split=None, fold=fold_of[unit]) for unit, clip in zip(unit_of, clips, strict=True))
