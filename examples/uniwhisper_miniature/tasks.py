"""What the miniature experiment hears and is scored on: three real sets, their questions, rows, tasks and leaks."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from uwbench.api import InputError
from uwbench.base.atomic import write_atomically

Split = Literal["test", "valid"]
ALL = "none"  # the turn that holds nothing out
_ROLES = {"1": "train", "2": "train", "3": "train", "4": "valid", "5": "test"}  # of ESC-10's folds
_TRAINED_FOLDS = ("1", "2", "3")
_LEAST = 5  # training clips of a label that is scored
_NTH = 4  # of the training clips, which the probes choose on where the validation split is what is scored


@dataclass(frozen=True, slots=True)
class Column:
    """A column of labels, the question that training asks about it (as `convert --label`), and whether it is scored."""

    name: str
    ask: str
    scored: bool = True


@dataclass(frozen=True, slots=True)
class Source:
    """One of the three sets: what is asked about it, and the tasks of its domain that are scored."""

    name: str
    domain: str
    columns: tuple[Column, ...]

    def task(self, column: Column) -> str:
        """Return a column's name as a task and as a turn."""
        return f"{self.name}_{column.name}"

    @property
    def tasks(self) -> tuple[str, ...]:
        """Return the names of the tasks that are scored."""
        return tuple(self.task(column) for column in self.columns if column.scored)


SOURCES = (
    Source("fsdd", "speech", (Column("digit", "keyword/digit"), Column("speaker", "speaker_id"))),
    Source("esc10", "sound", (Column("label", "sound_cls"),)),
    Source(
        "philharmonia",
        "music",
        (
            Column("instrument", "instrument"),
            Column("note", "pitch"),
            Column("dynamic", "quality/dynamic"),
            # Asked but not scored: five in six clips are `normal`.
            Column("articulation", "quality/articulation", scored=False),
        ),
    ),
)
TASKS = tuple(task for source in SOURCES for task in source.tasks)
TURNS = (*(source.name for source in SOURCES), *(task for s in SOURCES if len(s.tasks) > 1 for task in s.tasks), ALL)


def held_out(turn: str) -> tuple[str, ...]:
    """Return the scored tasks that a turn keeps out of training: a set's, one of them, or none."""
    return next((source.tasks for source in SOURCES if source.name == turn), (turn,) if turn in TASKS else ())


def write_rows(data: Path, turn: str, folder: Path) -> list[Path]:
    """Write the training rows of a turn, each source and choice of questions once, and return their folders."""
    from uniwhisper.data.convert import Request, convert

    found = []
    for source in SOURCES:
        asked = [column for column in source.columns if turn not in (source.name, source.task(column))]
        if not asked:
            continue
        own = folder / "-".join([source.name, *(column.name for column in asked)])
        folds = _TRAINED_FOLDS if source.name == "esc10" else ()
        lines = tuple(f"{column.name}:{column.ask}" for column in asked)
        convert(Request(source=str(data / source.name), folds=folds, ask=lines), own, workers=1)
        found.append(own)
    return found


def refuse_leaks(data: Path, rows: Sequence[Path], say: Callable[[str], None]) -> None:
    """Compare training rows with the validation and test clips of every source and say what came out.

    Raises InputError where one is such a clip, by bytes, samples or the publisher's id.
    """
    from uniwhisper.data.leakage import find_leaks, leak_table, open_test_set
    from uniwhisper.data.rows import open_rows

    parts = {True: ",".join(fold for fold, role in _ROLES.items() if role != "train"), False: "valid,test"}
    table = open_rows(rows)
    tests = [
        open_test_set(f"{data / source.name / 'manifest.csv'}:{parts[source.name == 'esc10']}") for source in SOURCES
    ]
    leaks = find_leaks(table, tests)
    for line in leak_table(leaks, tests):
        say(f"leakage gate: {' '.join(line.split())}")
    if leaks:
        raise InputError(f"holds {len(leaks)} rows of clips that are scored: {leaks[0].clip}", where=leaks[0].dataset)


def write_tasks(data: Path, folder: Path, clips: int, split: Split) -> None:
    """Write a manifest a task, in which ESC-10's folds are splits: no clip of `test` is ever trained on.

    `clips` are the most of a split, evenly spaced. With the split `valid`, that is what is scored, and the probes
    choose on every fourth training clip: settings are chosen so, and the test clips stay unseen.
    """
    for source in SOURCES:
        manifest = data / source.name / "manifest.csv"
        try:
            with manifest.open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
        except OSError as error:
            raise InputError(f"cannot be read ({error.strerror})", where=manifest) from error
        parts = {
            name: [row for row in rows if (row.get("split") or _ROLES[row["fold"]]) == name]
            for name in ("train", "valid", "test")
        }
        if split == "valid":
            trained = parts["train"]
            parts = {
                "train": [row for place, row in enumerate(trained) if place % _NTH],
                "valid": trained[::_NTH],
                "test": parts["valid"],
            }
        chosen = [(row, name) for name, own in parts.items() for row in _spread(own, clips)]
        for column in source.columns:
            if column.scored:
                _write_task(folder / source.task(column), manifest.parent, column.name, chosen)


def _write_task(folder: Path, audio: Path, column: str, chosen: Sequence[tuple[dict[str, str], str]]) -> None:
    trained = Counter(row[column] for row, split in chosen if split == "train")
    least = min(_LEAST, max(trained.values(), default=0))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label", "split"])
    writer.writerows(
        [str((audio / row["path"]).resolve()), row[column], split]
        for row, split in chosen
        if trained[row[column]] >= least
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "manifest.csv", text.getvalue().encode())


def _spread(rows: Sequence[dict[str, str]], count: int) -> list[dict[str, str]]:
    if len(rows) <= count:
        return list(rows)
    return [rows[index * len(rows) // count] for index in range(count)]
