"""Notes on a clip table: what the reader of a score must know, from keys, splits, groups and labels.

`clips/silent.txt` has the keys of the clips that were found silent when they were decoded, one per line.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from uwbench.audio.clip import Event, Labels
from uwbench.base.sharing import follow_folder
from uwbench.cache.clip_table import ClipTable
from uwbench.errors import counted


@dataclass(frozen=True, slots=True)
class ClipNotes:
    """Sentences about the clips, and how many tested clips have the same audio as a training clip."""

    leaked: int
    sentences: tuple[str, ...]


def notes_on(table: ClipTable, root: Path) -> ClipNotes:
    """Return the notes on a table, with what the cache at `root` knows of its clips.

    The same audio is the same content and stretch, whatever the file is called.
    """
    folds = table.card.folds is not None
    kind, subsets = ("fold", table.folds) if folds else ("split", table.splits)
    parts: dict[bytes, dict[str | None, int]] = defaultdict(dict)  # key -> split or fold -> its first row
    groups: dict[str, set[str | None]] = defaultdict(set)
    classes: dict[str, set[str | None]] = defaultdict(set)
    repeated = []
    for row, (key, subset, group) in enumerate(zip(table.keys, subsets, table.groups, strict=True)):
        if parts[key].setdefault(subset, row) != row:
            repeated.append(row)
        if group is not None:
            groups[group].add(subset)
        for name in _names(table.labels[row]) if table.card.kind not in ("retrieval", "transcription") else ():
            classes[name].add(subset)
    tested = [row for row, subset in enumerate(subsets) if folds or subset == "test"]
    leaked = [row for row in tested if len(parts[table.keys[row]]) > 1]
    crossing = [group for group, found in groups.items() if len(found) > 1]
    untrained = [
        name
        for name, found in classes.items()
        if (len(found) == 1 if folds else "test" in found and "train" not in found)
    ]
    sentences = []
    if leaked:
        twin = next(row for subset, row in parts[table.keys[leaked[0]]].items() if subset != subsets[leaked[0]])
        first = f"{table.ids[leaked[0]]} is {table.ids[twin]} ({subsets[twin]})"
        sentences.append(f"{len(leaked)} of {len(tested)} test clips have a training clip's audio, first: {first}")
    if crossing:
        text = f"{len(crossing)} of {len(groups)} groups ({table.card.group}) are in more than one {kind}"
        sentences.append(f"{text}, first: {crossing[0]}")
    if untrained:
        sentences.append(f"{len(untrained)} of {len(classes)} classes have no training clip, first: {untrained[0]}")
    if repeated:
        text = f"{len(repeated)} clips have the audio of another clip of their {kind}"
        sentences.append(f"{text}, first: {table.ids[repeated[0]]}")
    known = _silent(root)
    if silent := [clip_id for clip_id, key in zip(table.ids, table.keys, strict=True) if key.hex() in known]:
        are = "is" if len(silent) == 1 else "are"
        sentences.append(f"{counted(len(silent), 'clip')} {are} silent, first: {silent[0]}")
    return ClipNotes(len(leaked), tuple(sentences))


def remember_silent(root: Path, keys: Iterable[bytes]) -> None:
    """Add clips that were found silent to those that the cache at `root` knows."""
    new = sorted({key.hex() for key in keys} - _silent(root))
    with suppress(OSError):  # a note is not worth a run
        if new:
            path = root / "clips" / "silent.txt"
            made = not path.exists()
            with path.open("a", encoding="ascii") as file:
                file.write("".join(f"{key}\n" for key in new))
            if made:
                follow_folder(path)


def _silent(root: Path) -> set[str]:
    try:
        return set((root / "clips" / "silent.txt").read_text(encoding="ascii").split())
    except (OSError, ValueError):
        return set()


def _names(labels: Labels) -> Sequence[str]:
    if isinstance(labels, str):
        return (labels,)
    return [label.label if isinstance(label, Event) else label for label in labels]
