"""The clips of a task together with the card that says how they are scored."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from uwbench.audio.clip import Clip
from uwbench.cards.card import Card
from uwbench.errors import DataError

Origin = Literal["own", "generated", "shards", "publisher", "hub"]

# What libsndfile decodes, by file name; X-ARES's own list adds sox, m4a and wma, which are reported as undecodable.
AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".mp3", ".ogg", ".opus", ".oga", ".aif", ".aiff", ".au", ".caf", ".w64"})


@dataclass(frozen=True, slots=True)
class Dataset:
    """A task's clips as one source has them, in the source's order; `origin` is the kind of that source.

    `source` says where they came from, e.g. "manifest /x/manifest.csv". `problems` are sentences about what was found
    odd while the labels were read; nothing was decoded for them.
    """

    card: Card
    clips: tuple[Clip, ...]
    source: str
    problems: tuple[str, ...] = ()
    origin: Origin = "own"

    def __post_init__(self) -> None:
        for clip in self.clips:
            require_text(clip.id, self.source)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reader of labels returns: clips, and sentences about what was odd."""

    clips: tuple[Clip, ...]
    problems: tuple[str, ...] = ()


def with_unique_ids(clips: Iterable[Clip]) -> tuple[tuple[Clip, ...], tuple[str, ...]]:
    """Return the clips with `~2`, `~3`, ... added to an id that was seen before, and the ids that repeat."""
    counts: dict[str, int] = {}
    unique = []
    for clip in clips:
        counts[clip.id] = count = counts.get(clip.id, 0) + 1
        unique.append(clip if count == 1 else replace(clip, id=f"{clip.id}~{count}"))
    return tuple(unique), tuple(name for name, count in counts.items() if count > 1)


def require_text(name: str, where: str | Path) -> None:
    """Raise DataError where a name came from bytes that are not UTF-8: no table could hold it, and no terminal show it.

    Python reads such names of files and archives with a lone surrogate for each byte.
    """
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"the name {name!a} is not UTF-8", where=where, remedy="rename it") from error


def natural_key(text: str) -> tuple[int, int, str]:
    """Sort numbers by value and before words: 1, 2, 10, a."""
    return (0, int(text), text) if text.isdecimal() and len(text) < 19 else (1, 0, text)
