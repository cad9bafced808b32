"""A task whose audio has been scanned: its clips, their hashes and its clip table."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from uwbench.audio.clip import Clip
from uwbench.audio.corruption import Corruption
from uwbench.audio.scan import END_TOLERANCE_S, Scanned, scan_clips
from uwbench.cache.clip_notes import notes_on
from uwbench.cache.clip_table import ClipTable
from uwbench.cards.card import Card
from uwbench.errors import AudioError, DataError, printable


@dataclass(frozen=True, slots=True)
class Task:
    """A task whose audio has been scanned: `clips[i]` is row i of `table`, `hashes[i]` the sha256 of its audio.

    With `corruption`, the clips are the tested ones, corrupted once they are decoded, and have other keys.
    """

    table: ClipTable
    clips: tuple[Clip, ...]
    hashes: tuple[str, ...]
    problems: tuple[str, ...]
    corruption: Corruption | None = None

    @property
    def card(self) -> Card:
        return self.table.card

    def corrupted(self, corruption: Corruption) -> Task:
        """Return the task of the tested clips under a corruption."""
        rows = self.table.tested
        return replace(
            self,
            table=self.table.corrupted(corruption),
            clips=tuple(self.clips[row] for row in rows),
            hashes=tuple(self.hashes[row] for row in rows),
            problems=(),
            corruption=corruption,
        )


def scan_task(
    card: Card,
    clips: Sequence[Clip],
    source: str,
    problems: Sequence[str],
    cache: Path,
    limit: int | None,
    progress: Callable[[], None] = lambda: None,
) -> Task:
    """Hash every clip and return the task; the table lists the clips that cannot be read.

    `progress` is called once per clip.
    """
    selected = list(clips) if limit is None else limit_clips(clips, limit)
    scans = scan_clips(selected, cache / "clips" / f"{card.name}.scan.parquet", progress)
    readable = [(clip, scan) for clip, scan in zip(selected, scans, strict=True) if isinstance(scan, Scanned)]
    errors = tuple(
        _naming(clip.id, str(scan)) for clip, scan in zip(selected, scans, strict=True) if isinstance(scan, AudioError)
    )
    if not readable:
        first = errors[0] if errors else "the source lists none"
        raise DataError(f"{card.name} has no clip that can be read ({first})", where=source)
    table = ClipTable(
        card,
        printable(source),  # it names folders, which need not be UTF-8
        ids=tuple(clip.id for clip, _ in readable),
        keys=tuple(scan.key for _, scan in readable),
        labels=tuple(clip.labels for clip, _ in readable),
        splits=tuple(clip.split for clip, _ in readable),
        folds=tuple(clip.fold for clip, _ in readable),
        groups=tuple(clip.group for clip, _ in readable),
        durations_s=tuple(scan.duration_s for _, scan in readable),
        limited=limit is not None,
        unreadable=errors,
    )
    return Task(
        table,
        tuple(clip for clip, _ in readable),
        tuple(scan.sha256 for _, scan in readable),
        (
            *problems,
            *_late_ends(card.name, readable),
            *(f"{card.name}: {sentence}" for sentence in notes_on(table, cache).sentences),
        ),
    )


def _naming(clip_id: str, error: str) -> str:
    """Return the error with the clip's id, unless the file's name ends in it: a file may hold many clips."""
    return error if f"{clip_id}: " in error else printable(f"{clip_id}: {error}")


def _late_ends(name: str, readable: Sequence[tuple[Clip, Scanned]]) -> Iterator[str]:
    """Yield a note on clips whose end is after the end of the file, which ends them."""
    ends = [
        (clip.id, clip.end_s - (clip.start_s or 0.0) - s.duration_s) for clip, s in readable if clip.end_s is not None
    ]
    late = [clip_id for clip_id, missing_s in ends if missing_s > END_TOLERANCE_S]
    if late:
        yield f"{name}: {len(late)} clips end after their recording, first {late[0]!r}"


def limit_clips(clips: Sequence[Clip], limit: int) -> list[Clip]:
    """Return at most `limit` clips per split or fold, taking labels in turn, chosen by a hash of the clip's id."""
    parts: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    order = sorted(range(len(clips)), key=lambda i: hashlib.sha256(clips[i].id.encode()).digest())
    for i in order:
        parts[clips[i].split or clips[i].fold or ""][str(clips[i].labels)].append(i)
    chosen: set[int] = set()
    for labels in parts.values():
        turns = [(turn, name, i) for name, rows in labels.items() for turn, i in enumerate(rows)]
        chosen.update(i for _, _, i in sorted(turns)[:limit])
    return [clip for i, clip in enumerate(clips) if i in chosen]
