"""The scored tasks, on clips that training never hears, and the check that it does not.

Of ESC-10 and Philharmonia no clip is heard. Of a data set that is trained on, the clips that are scored are kept out.
Validation clips choose the interpolation; test clips are scored once it is chosen.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from uwbench.api import InputError
from uwbench.base.atomic import write_atomically
from uwbench.base.hashing import sha256_bytes

Row = dict[str, str]
Use = Literal["valid", "test"]
_MIN_CLIPS = 5  # for a label to be scored
_NTH = 4  # if validation clips are scored, probes choose on every fourth training clip


@dataclass(frozen=True, slots=True)
class Scored:
    """A data set that is scored: its domain, its columns of labels, and each clip's part.

    `part` is `train`, `valid` or `test`, or for a set that is cross-validated `valid` or the name of a fold. `heard`
    says that other clips of the set are trained on, `chooses` that its validation clips choose the interpolation, and
    `group` gives the publisher's id of a clip's recording.
    """

    name: str
    domain: str
    columns: tuple[str, ...]
    part: Callable[[Row], str]
    heard: bool
    group: Callable[[Row], str] | None = None
    chooses: bool = True

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the tasks, one per column."""
        return tuple(f"{self.name}_{column}" for column in self.columns)


def _fold_of(row: Row) -> str:
    """Return ESC-10's fold, of which the first is for validation."""
    return "valid" if row["fold"] == "1" else row["fold"]


def _drawn_fold(row: Row) -> str:
    """Return `valid` for Philharmonia's validation split, else one of four folds by the clip's name."""
    return "valid" if row["split"] == "valid" else str(int(sha256_bytes(row["path"].encode())[:8], 16) % 4)


def _split_of(row: Row) -> str:
    return row["split"]


def _kept_fold(row: Row, fold: str) -> str:
    """Return `train` outside a fold, and `valid` or `test` inside it, the same for all clips of a recording."""
    if row["fold"] != fold:
        return "train"
    return ("valid", "test")[int(sha256_bytes(row["group"].encode())[:8], 16) % 2]


SCORED = (
    Scored("esc10", "sound", ("label",), _fold_of, False, lambda row: Path(row["path"]).name.split("-")[1]),
    Scored("philharmonia", "music", ("instrument", "note"), _drawn_fold, False),
    # Shows what was learnt of what was heard; what was not heard, and speech, are to choose by.
    Scored("urbansound8k", "sound", ("label",), partial(_kept_fold, fold="3"), True, lambda row: row["group"], False),
    Scored("fsdd", "speech", ("digit", "speaker"), _split_of, True),
)
# Tasks whose scores are averaged: of sets never heard, of other takes by the speakers that training heard, and of other
# recordings of the sounds that it heard. The last are of few recordings, and their intervals as wide.
SCOPES = {
    "held out": tuple(task for source in SCORED if not source.heard for task in source.tasks),
    "other takes": ("fsdd_digit", "fsdd_speaker"),
    "other recordings": ("urbansound8k_label",),
}
CHOOSING = tuple(task for source in SCORED if source.chooses for task in source.tasks)


def read_rows(data: Path, name: str) -> list[Row]:
    """Return the rows of a data set's manifest; raise InputError if it cannot be read."""
    manifest = data / name / "manifest.csv"
    try:
        with manifest.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=manifest) from error


def is_scored(name: str, row: Row) -> bool:
    """Return whether a clip is scored, and so never trained on."""
    return any(source.name == name and (not source.heard or source.part(row) != "train") for source in SCORED)


def write_tasks(data: Path, folder: Path, clips: int, use: Use) -> dict[str, Path]:
    """Write one manifest per task for validation or test, and return their paths by task.

    At most `clips` clips a split are used, evenly spaced; sets that are cross-validated are used whole. For
    validation, probes train on the clips that are not scored, and choose on every fourth of these.
    """
    manifests = {}
    for source in sources(use):
        rows = read_rows(data, source.name)
        for task, column in zip(source.tasks, source.columns, strict=True):
            labelled = _labelled(source, rows, clips, use)
            manifests[task] = _write_task(folder / use / task, data / source.name, source, column, labelled)
    return manifests


def sources(use: Use) -> tuple[Scored, ...]:
    """Return the data sets that are scored in a use."""
    return tuple(source for source in SCORED if use == "test" or source.chooses)


def _labelled(source: Scored, rows: Sequence[Row], clips: int, use: Use) -> list[tuple[Row, str]]:
    """Return the clips of a use with their split or fold."""
    parts: dict[str, list[Row]] = {}
    for row in rows:
        parts.setdefault(source.part(row), []).append(row)
    valid, test = parts.pop("valid"), parts.pop("test", [])
    if use == "test" and not source.heard:
        return [(row, fold) for fold in sorted(parts) for row in parts[fold]]
    trained = [row for fold in sorted(parts) for row in parts[fold]]
    if source.heard:
        trained = _spread(trained, clips)
    if use == "test":
        splits = {"train": trained, "valid": _spread(valid, clips), "test": _spread(test, clips)}
    else:
        fitted = [row for place, row in enumerate(trained) if place % _NTH]
        splits = {"train": fitted, "valid": trained[::_NTH], "test": _spread(valid, clips)}
    return [(row, name) for name, members in splits.items() for row in members]


def _write_task(folder: Path, audio: Path, source: Scored, column: str, labelled: Sequence[tuple[Row, str]]) -> Path:
    parts = {part for _, part in labelled}
    counts = Counter(row[column] for row, part in labelled if part == "train" or "train" not in parts)
    fewest = min(_MIN_CLIPS, max(counts.values(), default=0))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label", "split" if "test" in parts else "fold", "group"])
    writer.writerows(
        [str((audio / row["path"]).resolve()), row[column], part, source.group(row) if source.group else ""]
        for row, part in labelled
        if counts[row[column]] >= fewest
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "manifest.csv", text.getvalue().encode())
    return folder / "manifest.csv"


def _spread(rows: Sequence[Row], count: int) -> list[Row]:
    if len(rows) <= count:
        return list(rows)
    return [rows[index * len(rows) // count] for index in range(count)]


def refuse_leaks(data: Path, rows: Sequence[Path], folder: Path, log: Callable[[str], None]) -> None:
    """Compare the training rows with every clip that is scored or held out, and log the result.

    Raises InputError if a row is such a clip by bytes, by samples, or by the publisher's id of its recording: ESC-10
    and UrbanSound8K are both taken from Freesound.
    """
    from uniwhisper.data.leakage import find_leaks, leak_table, open_test_set
    from uniwhisper.data.rows import open_rows

    tests = []
    for source in SCORED:
        kept = [row for row in read_rows(data, source.name) if is_scored(source.name, row)]
        clips = [(row, str(place % 2)) for place, row in enumerate(kept)]  # a task of folds is all test clips
        manifest = _write_task(folder / "kept-out" / source.name, data / source.name, source, source.columns[0], clips)
        tests.append(open_test_set(str(manifest), allow_outside=True))
    leaks = find_leaks(open_rows(rows), tests)
    for line in leak_table(leaks, tests):
        log(f"leakage gate: {' '.join(line.split())}")
    if leaks:
        raise InputError(f"holds {len(leaks)} rows of clips that are scored: {leaks[0].clip}", where=leaks[0].dataset)
