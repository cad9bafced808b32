"""The static check: no data on which a probe is trained or chosen is data on which it is scored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from fnmatch import fnmatchcase

from uwbench.audio.clip import AudioArray, AudioBytes, AudioFile, AudioMember, Clip
from uwbench.cards.card import Card, Splits
from uwbench.sources.dataset import Dataset


def card_leaks(card: Card) -> list[str]:
    """Return what in a card's own words would let its parts meet: splits of one name, shard patterns that overlap."""
    return [*_names(card), *_patterns(card)]


def dataset_leaks(dataset: Dataset) -> list[str]:
    """Return a line for each piece of audio, told by its place on disk, that is in two splits or folds.

    Stretches of one file meet where they overlap. Copies under other names are the work of `check_dataset`.
    """
    places: dict[tuple[str, int], list[Clip]] = defaultdict(list)
    for clip in dataset.clips:
        places[_place(clip)].append(clip)
    return [line for clips in places.values() if len(clips) > 1 for line in _meetings(clips)]


def _names(card: Card) -> Iterator[str]:
    hub = card.sources.hub
    for where, splits in (
        ("splits", card.splits),
        ("sources.shards.splits", card.sources.shards.splits if card.sources.shards else None),
        # With a column of folds, every fold is in the one split that the hub knows.
        ("sources.hub.splits", hub.splits if hub is not None and hub.fold is None else None),
    ):
        for one, other in _pairs(splits):
            if one[1] == other[1]:
                yield f"{where}: {one[0]} and {other[0]} are both {one[1]!r}"


def _pairs(splits: Splits | None) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    if splits is None:
        return []
    named = [("train", splits.train), ("valid", splits.valid), ("test", splits.test)]
    there = [(role, name) for role, name in named if name is not None]
    return [(one, other) for i, one in enumerate(there) for other in there[i + 1 :]]


def _patterns(card: Card) -> Iterator[str]:
    shards = card.sources.shards
    if shards is None:
        return
    if card.folds is not None:
        patterns = [shards.pattern.format(fold=(shards.folds or {}).get(fold, fold)) for fold in card.folds]
    else:
        splits = shards.splits or card.splits
        names = [splits.train, splits.valid, splits.test] if splits is not None else []
        patterns = [shards.pattern.format(split=name) for name in names if name is not None]
    for i, one in enumerate(patterns):
        for other in patterns[i + 1 :]:
            # A name that stands for what a star may be; patterns hold no other signs.
            if fnmatchcase(other.replace("*", "0"), one) or fnmatchcase(one.replace("*", "0"), other):
                yield f"sources.shards: {one} and {other} match the same names"


def _place(clip: Clip) -> tuple[str, int]:
    match clip.audio:
        case AudioFile(path):
            return str(path), 0
        case AudioMember(path, offset):
            return str(path), offset
        case AudioBytes() | AudioArray():
            return f"#{clip.audio.name}", 0


def _meetings(clips: list[Clip]) -> Iterator[str]:
    ordered = sorted(clips, key=lambda clip: clip.start_s or 0.0)
    for i, one in enumerate(ordered):
        for other in ordered[i + 1 :]:
            if one.end_s is not None and (other.start_s or 0.0) >= one.end_s:
                break
            if (one.split, one.fold) != (other.split, other.fold):
                places = f"({one.split or one.fold}) and {other.id} ({other.split or other.fold})"
                yield f"{one.id} {places} are the same audio"
