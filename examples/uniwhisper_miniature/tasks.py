"""The three data sets: training rows and their questions, scored tasks, and the check for leaks."""

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
ALL = "none"  # the turn that holds out nothing
# ESC-10's folds as splits.
_ROLES = {"1": "train", "2": "train", "3": "train", "4": "valid", "5": "test"}
_TRAINED_FOLDS = ("1", "2", "3")
_MIN_CLIPS = 5  # in training, for a label to be scored
_NTH = 4  # if the validation split is scored, probes choose on every fourth training clip


@dataclass(frozen=True, slots=True)
class Column:
    """A column of labels, the training question about it (as for `convert --label`), and if it is scored."""

    name: str
    ask: str
    scored: bool = True


@dataclass(frozen=True, slots=True)
class Source:
    """One data set: its domain, and its columns of labels."""

    name: str
    domain: str
    columns: tuple[Column, ...]

    def task(self, column: Column) -> str:
        """Return the name of a column's task, which is also the turn that holds it out."""
        return f"{self.name}_{column.name}"

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the scored tasks."""
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
    """Return the scored tasks that a turn keeps out of training: all of a data set, one, or none."""
    return next((source.tasks for source in SOURCES if source.name == turn), (turn,) if turn in TASKS else ())


def write_rows(data: Path, turn: str, folder: Path) -> list[Path]:
    """Write a turn's training rows, one folder per source and choice of questions, and return the folders."""
    from uniwhisper.data.convert import Request, convert

    folders = []
    for source in SOURCES:
        asked = [column for column in source.columns if turn not in (source.name, source.task(column))]
        if not asked:
            continue
        target = folder / "-".join([source.name, *(column.name for column in asked)])
        folds = _TRAINED_FOLDS if source.name == "esc10" else ()
        lines = tuple(f"{column.name}:{column.ask}" for column in asked)
        convert(Request(source=str(data / source.name), folds=folds, ask=lines), target, workers=1)
        folders.append(target)
    return folders


def refuse_leaks(data: Path, rows: Sequence[Path], log: Callable[[str], None]) -> None:
    """Compare training rows with the validation and test clips of every source, and log the result.

    Raises InputError if a row is such a clip by bytes, samples or the publisher's id.
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
        log(f"leakage gate: {' '.join(line.split())}")
    if leaks:
        raise InputError(f"holds {len(leaks)} rows of clips that are scored: {leaks[0].clip}", where=leaks[0].dataset)


def write_tasks(data: Path, folder: Path, clips: int, split: Split) -> None:
    """Write one manifest per task, with ESC-10's folds as splits; no clip of `test` is ever trained on.

    At most `clips` clips per split are used, evenly spaced. With the split `valid`, the validation clips are scored and
    probes choose on every fourth training clip, so that settings can be chosen without a look at the test clips.
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
        chosen = [(row, name) for name, members in parts.items() for row in _spread(members, clips)]
        for column in source.columns:
            if column.scored:
                _write_task(folder / source.task(column), manifest.parent, column.name, chosen)


def _write_task(folder: Path, audio: Path, column: str, chosen: Sequence[tuple[dict[str, str], str]]) -> None:
    counts = Counter(row[column] for row, split in chosen if split == "train")
    fewest = min(_MIN_CLIPS, max(counts.values(), default=0))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label", "split"])
    writer.writerows(
        [str((audio / row["path"]).resolve()), row[column], split]
        for row, split in chosen
        if counts[row[column]] >= fewest
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "manifest.csv", text.getvalue().encode())


def _spread(rows: Sequence[dict[str, str]], count: int) -> list[dict[str, str]]:
    if len(rows) <= count:
        return list(rows)
    return [rows[index * len(rows) // count] for index in range(count)]
