"""A task's clips together with the card that says how they are scored."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from uwbench.audio import media
from uwbench.audio.clip import Clip, Event, Labels
from uwbench.cards.card import Card, Kind
from uwbench.errors import DataError

Origin = Literal["own", "generated", "shards", "publisher", "hub"]

# A file with one of these suffixes is a clip even if it cannot be decoded, and is then reported.
_LOSSLESS = {".wav", ".wave", ".flac", ".aif", ".aiff", ".aifc", ".au", ".caf", ".w64", ".rf64", ".sph", ".voc"}
AUDIO_SUFFIXES = frozenset(_LOSSLESS | {".mp3", ".ogg", ".opus", ".oga"} | media.SUFFIXES)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A task's clips from one source, in the source's order.

    `origin` is the kind of source and `source` describes it, e.g. "manifest /x/manifest.csv". `problems` are sentences
    about oddities seen while reading the labels; the audio itself was not decoded.
    """

    card: Card
    clips: tuple[Clip, ...]
    source: str
    problems: tuple[str, ...] = ()
    origin: Origin = "own"

    def __post_init__(self) -> None:
        for clip in self.clips:
            require_utf8(clip.id, self.source)


@dataclass(frozen=True, slots=True)
class Reading:
    """The clips that a reader returns, with sentences about oddities in the labels."""

    clips: tuple[Clip, ...]
    problems: tuple[str, ...] = ()


def label_names(labels: Labels) -> tuple[str, ...]:
    """Return the names in a clip's labels: the label itself, or the names of all labels or events."""
    if isinstance(labels, str):
        return (labels,)
    return tuple(label.label if isinstance(label, Event) else label for label in labels)


def spelling_notes(clips: Iterable[Clip], kind: Kind) -> Iterator[str]:
    """Yield a note on labels that differ in case, white space or Unicode form alone."""
    if kind in ("retrieval", "transcription"):
        return
    spellings: dict[str, set[str]] = defaultdict(set)
    for name in {name for clip in clips for name in label_names(clip.labels)}:
        spellings[" ".join(unicodedata.normalize("NFKC", name).casefold().split())].add(name)
    for names in sorted(sorted(names) for names in spellings.values() if len(names) > 1):
        yield f"the labels {', '.join(map(repr, names))} differ in case, white space or Unicode form alone"


def with_unique_ids(clips: Iterable[Clip]) -> tuple[tuple[Clip, ...], tuple[str, ...]]:
    """Return the clips with `~2`, `~3`, ... appended to ids that occur again, and the ids that do."""
    counts: dict[str, int] = {}
    unique = []
    for clip in clips:
        counts[clip.id] = count = counts.get(clip.id, 0) + 1
        unique.append(clip if count == 1 else replace(clip, id=f"{clip.id}~{count}"))
    return tuple(unique), tuple(clip_id for clip_id, count in counts.items() if count > 1)


def require_utf8(name: str, where: str | Path) -> None:
    """Raise DataError if a name is not valid UTF-8, which no table could store and no terminal show.

    Python decodes such file names, and names in archives, with one lone surrogate per bad byte.
    """
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"the name {name!a} is not UTF-8", where=where, remedy="rename it") from error


def natural_key(text: str) -> tuple[int, int, str]:
    """Return a sort key that orders numbers by value and before words: 1, 2, 10, a."""
    return (0, int(text), text) if text.isdecimal() and len(text) < 19 else (1, 0, text)
