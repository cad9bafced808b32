"""Own data in manifests.

A manifest has the columns `path`, `label`, and `split` or `fold`; `group`, `start` and `end` (seconds) are optional.
Paths are relative to the manifest's folder or absolute, and must stay inside it unless that is allowed. Errors name
the file, the line and the column.
"""

from __future__ import annotations

import ast
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, time, timedelta
from pathlib import Path, PurePosixPath
from typing import Any, cast

from uwbench.audio.clip import Audio, AudioFile, Clip, Event, Labels
from uwbench.base.json_text import parse_json
from uwbench.base.registry import suggestion
from uwbench.cards.card import Domain, Kind
from uwbench.errors import InputError
from uwbench.options import TaskSpec
from uwbench.sources.dataset import Dataset, Reading, spelling_notes, with_unique_ids
from uwbench.sources.own_card import make_card, task_name
from uwbench.sources.real_names import renamed_note, with_real_names
from uwbench.sources.rows import Row, cell_text, rows_of

MANIFEST_NAMES = ("manifest.csv", "manifest.tsv", "manifest.jsonl", "manifest.parquet")

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "validation": "valid",
    "val": "valid",
    "dev": "valid",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
_USES = ("path", "label", "split", "fold", "group", "start", "end", "duration")
# Other common names of columns, which are used if the documented name is absent, and said.
_COMMON_NAMES = {
    "path": ("file_name", "filename", "filepath", "file_path", "audio_filepath", "audio_path", "audio", "file"),
    "start": ("offset", "start_s", "start_time"),
    "end": ("end_s", "end_time"),
    "duration": ("duration_s",),
}
_SAME_END_S = 0.02  # `end` and `start` plus `duration` may differ by this much
_SPLITS_ALLOWED = "train, valid (validation, val, dev), test (eval)"


@dataclass(frozen=True, slots=True)
class Columns:
    """How to read the columns of a manifest.

    `named` has the names of columns that were chosen by the user, by use (`path`, `label`, `group`, ...); the other
    columns have the documented or other common names. With `gaps`, a clip with an empty label gets the labels `()`;
    without, an empty label is an error.
    """

    named: Mapping[str, str]
    kind: Kind = "single-label"
    allow_outside: bool = False
    gaps: bool = False

    @property
    def label(self) -> str:
        return self.named.get("label", "label")


def open_manifest(path: Path, spec: TaskSpec) -> Dataset:
    """Read a manifest as a task, which is named after its folder unless `spec` names it.

    Multi-label labels are a list, or are joined by `;` or by what the column shows. Labels of a frame-multi-label task
    are a list of `{onset, offset, label}`, captions are a list of texts. In CSV and TSV, lists are written as JSON.
    Raises InputError with the file, line and column.
    """
    return make_dataset(
        read_manifest(path, columns_of(spec)),
        spec,
        name=task_name(spec.name, path.absolute().parent),
        where=path,
        source=f"manifest {path}",
    )


def columns_of(spec: TaskSpec) -> Columns:
    """Return how `spec` says to read the columns of a table."""
    named = {use: name for use in _USES if (name := getattr(spec, use)) is not None}
    return Columns(named, cast(Kind, str(spec.kind or "single-label")), spec.allow_outside)


def make_dataset(reading: Reading, spec: TaskSpec, *, name: str, where: str | Path, source: str) -> Dataset:
    """Return a table's clips with the card `name` that is made from them."""
    columns = columns_of(spec)
    grouped = any(clip.group is not None for clip in reading.clips)
    card = make_card(
        reading.clips,
        name=name,
        kind=columns.kind,
        domain=cast(Domain, str(spec.domain)),
        taken_from=spec.taken_from,
        where=where,
        label=columns.label,
        group=columns.named.get("group", "group") if grouped else None,
    )
    return Dataset(card, reading.clips, source, (*reading.problems, *spelling_notes(reading.clips, columns.kind)))


def read_manifest(path: Path, columns: Columns) -> Reading:
    """Return a manifest's clips in its order; raise InputError with the file, line and column."""
    names = Names(columns, "path")
    notes: list[str] = []

    def audio_of(row: Row) -> tuple[str, Audio]:
        column = names.of(row.values).get("path", "path")
        return audio_file(row, column, path.parent, allow_outside=columns.allow_outside)

    reading = read_rows(rows_of(path, notes), names, path, audio_of)
    clips, renamed = with_real_names(reading.clips, path.parent, may_leave=columns.allow_outside)
    if renamed:
        notes.append(renamed_note(renamed))
    return Reading(clips, (*notes, *reading.problems))


def read_rows(
    rows: Iterable[Row], names: Names, where: str | Path, audio_of: Callable[[Row], tuple[str, Audio]]
) -> Reading:
    """Return the clips of a table's rows in order; `audio_of` returns a row's id and audio.

    Raises InputError with the row and the column.
    """
    columns = names.columns
    clips: list[Clip] = []
    lines: list[str] = []
    spellings: set[str] = set()  # of splits
    if columns.kind == "multi-label":
        rows = list(rows)
        names.find_separator(rows, where)
    for row in rows:
        if not clips:
            names.check(row.values, where)
        clips.append(_clip(row, names, *audio_of(row)))
        lines.append(row.line)
        spellings.add(row.cell(names.of(row.values).get("split", "split")).lower())
    if not clips:
        raise InputError("contains no rows", where=where)
    _refuse_two_labels(clips, lines, where, columns)
    tests = sorted(name for name in spellings if SPLIT_NAMES.get(name) == "test")
    if not {"eval", "evaluation"}.isdisjoint(tests) and len(tests) > 1:
        what = f"column {columns.named.get('split', 'split')!r}: holds {' and '.join(map(repr, tests))}"
        raise InputError(what, where=where, remedy="call the tested part test, and the other one valid")
    folds = {clip.fold for clip in clips if clip.fold is not None}
    if folds and all(fold.lower() in SPLIT_NAMES for fold in folds):
        column, splits = columns.named.get("fold", "fold"), ", ".join(sorted(folds))
        raise InputError(
            f"column {column!r}: contains names of splits ({splits}), and each fold is tested in turn",
            where=where,
            remedy="rename the column to `split`, or name it with --split",
        )
    unique, repeated = with_unique_ids(clips)
    problems = [f"{Path(where).name}: {note}" for note in names.notes()]
    problems.extend(f"{Path(where).name}: {note}" for note in _open_ends(clips, names))
    if repeated:
        problems.append(f"{Path(where).name} lists {len(repeated)} clips more than once, first {repeated[0]!r}")
    return Reading(unique, tuple(problems))


class Names:
    """The names of a manifest's columns: those documented, and others that are common for the same thing."""

    def __init__(self, columns: Columns, audio_column: str) -> None:
        self.columns = columns
        self._audio_column = audio_column
        self._names: dict[tuple[str, ...], dict[str, str]] = {}  # a row's columns -> what each is for -> its name
        self.subset = ""  # "split" or "fold"
        self.separator = ";"  # between the labels of a multi-label task

    def of(self, row: Mapping[str, Any]) -> dict[str, str]:
        """Return the column for path, label, split, fold, group, start, end and duration, if this row has it."""
        key = tuple(row)
        if key not in self._names:
            common = dict(_COMMON_NAMES)
            if "onset" in row:
                common |= {"start": ("onset",), "end": ("offset",)}
            if self.columns.kind == "transcription":
                common["label"] = ("text", "sentence", "transcript", "transcription")
            lower = {name.strip().lower(): name for name in reversed(key) if isinstance(name, str)}
            names: dict[str, str] = {}
            for use in self._uses():
                chosen = self.columns.named.get(use)
                name = chosen or (self._audio_column if use == "path" else use)
                others = (name.lower(),) if chosen else (name.lower(), *common.get(use, ()))
                choice = name if name in row else next(filter(None, map(lower.get, others)), None)
                if choice is not None:
                    names[use] = choice
            self._names[key] = names
        return self._names[key]

    def _uses(self) -> Iterator[str]:
        """Yield the uses of columns; a choice of `split` or `end` leaves a column `fold` or `duration` out."""
        alternatives = {"split": "fold", "fold": "split", "end": "duration", "duration": "end"}
        named = self.columns.named
        return (use for use in _USES if use in named or alternatives.get(use) not in named)

    def check(self, row: Mapping[str, Any], where: str | Path) -> None:
        """Raise InputError if a required column is missing in the first row."""
        names = self.of(row)
        for use, name in {"path": self._audio_column, "label": "label", **self.columns.named}.items():
            if use not in names:
                known = [column for column in row if isinstance(column, str) and column]
                hint = f"{suggestion(name, known)}; columns: {', '.join(known)}"
                what = f"the column {name!r} is missing ({hint})"
                raise InputError(what, where=where, remedy=f"choose another column with --{use}")
        subsets = [name for name in ("split", "fold") if name in names]
        if len(subsets) == 2:
            remedy = "name the one to use with --split or --fold"
            raise InputError("has a column `split` and a column `fold`", where=where, remedy=remedy)
        if not subsets:
            what = f"has neither a column `split` ({_SPLITS_ALLOWED}) nor a column `fold`"
            raise InputError(what, where=where, remedy="name one with --split or --fold")
        self.subset = subsets[0]

    def find_separator(self, rows: Iterable[Row], where: str | Path) -> None:
        """Find what separates multiple labels; raise InputError if that is not clear."""
        try:
            self.separator = find_separator(
                row.values.get(self.of(row.values).get("label", self.columns.label)) for row in rows
            )
        except ValueError as error:
            remedy = 'join labels by ";" alone, or write them as JSON lists: ["a", "b"]'
            raise InputError(f"column {self.columns.label!r}: {error}", where=where, remedy=remedy) from error

    def have(self, *uses: str) -> bool:
        """Return True if a row had a column for one of `uses`."""
        return any(use in names for names in self._names.values() for use in uses)

    def notes(self) -> Iterator[str]:
        """Yield what was taken for what, and columns that look like stretches but cannot be used."""
        taken = {(use, name) for names in self._names.values() for use, name in names.items()}
        for use, name in sorted(taken):
            if use != name and use not in self.columns.named and (use, name) != ("path", self._audio_column):
                yield f"the column {name!r} is taken as {use!r}"
        if self.separator != ";":
            yield f"labels are separated at {self.separator!r}"
        if "duration" in dict(taken) and "start" not in dict(taken):
            yield "the column 'duration' is not used, because there is no column 'start'"


def _clip(row: Row, names: Names, name: str, audio: Audio) -> Clip:
    columns, column = names.columns, names.of(row.values)
    start, end = _stretch(row, column)
    split = fold = None
    subset = column.get(names.subset, names.subset)
    if names.subset == "split":
        split = SPLIT_NAMES.get(row.required(subset).lower())
        if split is None:
            folds = "split" in columns.named and any(map(str.isdecimal, row.cell(subset)))
            remedy = "if these are folds, each of which is tested in turn, use --fold" if folds else None
            raise row.error(subset, f"{row.cell(subset)!r} is not one of {_SPLITS_ALLOWED}", remedy)
    else:
        fold = row.required(subset)
    label_column = column.get("label", columns.label)
    try:
        label = row.values[label_column]
        tags = columns.gaps or columns.kind in ("multi-label", "frame-multi-label")  # none of them is a label, too
        empty = tags and _is_empty(label.strip(" []") if isinstance(label, str) else label)
        labels = () if empty else parse_labels(label, columns.kind, names.separator)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise row.error(label_column, f"{error}") from error
    group = row.cell(column.get("group", "group")) or None
    if "group" in columns.named and group is None:
        raise row.error(columns.named["group"], "is empty")
    stretch = "" if start is None and end is None else f"#{_short(start or 0)}" + (f"-{_short(end)}" if end else "")
    return Clip(name + stretch, audio, labels, split, fold, group, start, end)


def _open_ends(clips: Iterable[Clip], names: Names) -> Iterator[str]:
    """Yield notes on empty cells of a stretch, which mean the start or the end of the file."""
    stretches = [(clip.start_s is None, clip.end_s is None) for clip in clips]
    if (count := stretches.count((False, True))) and names.have("end", "duration"):
        yield f"{count} clips have a start and no end, and run to the end of the file"
    if (count := stretches.count((True, False))) and names.have("start"):
        yield f"{count} clips have an end and no start, and begin with the file"


def _stretch(row: Row, column: Mapping[str, str]) -> tuple[float | None, float | None]:
    """Return the start and end of a row's clip in seconds, from `start` with `end` or `duration`."""
    start, end, length = (row.seconds(column[use]) if use in column else None for use in ("start", "end", "duration"))
    if end is not None and end <= (start or 0.0):
        raise row.error(column["end"], f"{row.values[column['end']]!r} is not after the start")
    if length is None or "start" not in column:
        return start, end
    stop = round((start or 0.0) + length, 9)
    if end is not None and abs(end - stop) > _SAME_END_S:
        raise row.error(column["duration"], f"start and duration end at {stop:g} s, but the end is {end:g} s")
    if length == 0:
        raise row.error(column["duration"], "is 0")
    return start, stop if end is None else end


def _short(seconds: float) -> str:
    return f"{seconds:g}" if float(f"{seconds:g}") == seconds else f"{seconds:.10g}"


def audio_file(row: Row, column: str, root: Path, *, allow_outside: bool) -> tuple[str, AudioFile]:
    """Return the id and the file of a row; raise InputError if it is outside `root` and must not be.

    Paths are relative to the row's table, which is in `root`, or absolute; the id is the path from `root`. Links are
    followed, because a link in a downloaded dataset could point to any file.
    """
    name = row.required(column)
    if "\0" in name:
        raise row.error(column, "contains a null byte")
    if "://" in name:
        raise row.error(column, f"{name!r} is a URL", "download the audio, and list the files")
    folder = Path(row.where).parent
    if name.startswith("~/"):
        name = str(Path(name).expanduser())
    file = folder / name
    path = PurePosixPath(_within(name, folder, root) or name)
    if not allow_outside:
        outside = path.is_absolute() or Path(path).is_absolute() or os.pardir in Path(os.path.normpath(path)).parts
        if outside or not file.resolve().is_relative_to(root.resolve()):
            remedy = "move the audio below the manifest, or allow such paths and links with --allow-outside"
            raise row.error(column, f"{name!r} is outside the manifest's folder", remedy)
    return path.as_posix(), AudioFile(file)


def _within(name: str, folder: Path, root: Path) -> str | None:
    """Return a path in a table in `folder` as a path from `root`, or None if it leads elsewhere."""
    if folder == root and not Path(name).is_absolute():
        return name
    path = Path(os.path.normpath(folder.absolute() / name))
    for file, place in ((path, Path(os.path.normpath(root.absolute()))), (path.resolve(), root.resolve())):
        if file.is_relative_to(place):
            return file.relative_to(place).as_posix()
    return None


def parse_labels(value: Any, kind: Kind, separator: str = ";") -> Labels:
    """Return a label cell as a task of this kind needs it; raise ValueError, KeyError or TypeError if it is wrong."""
    if kind in ("single-label", "transcription"):
        label = _name_of(value)
        if not label:
            raise ValueError("is empty")
        return label
    listed = _list_of(value.strip()) if isinstance(value, str) else value
    if kind == "frame-multi-label":
        if not isinstance(listed, list):
            raise ValueError("is not a list of {onset, offset, label}")
        events = tuple(Event(float(item["onset"]), float(item["offset"]), cell_text(item["label"])) for item in listed)
        for event in events:
            if not (math.isfinite(event.offset_s) and 0 <= event.onset_s < event.offset_s):
                raise ValueError(f"the event from {event.onset_s} to {event.offset_s} s is empty or not in order")
        return events
    if kind == "multi-label" and isinstance(listed, str):
        listed = listed.split() if separator == " " else listed.split(separator)
    items = [_name_of(item) for item in listed] if isinstance(listed, Iterable) and not isinstance(listed, str) else []
    if not items or not all(items):
        raise ValueError("is empty" if not listed else "is not a list of texts")
    if kind == "multi-label" and len(items) > 2 and {"0", "1"}.issuperset(items):
        raise ValueError("is a vector of zeros and ones, not a list of the names of the clip's labels")
    return tuple(dict.fromkeys(items)) if kind == "multi-label" else tuple(items)


def _name_of(value: Any) -> str:
    """Return a label as text; raise TypeError if it is of a type that names no class."""
    text = cell_text(value)
    if isinstance(value, float) and text and not value.is_integer():
        raise TypeError(f"is {text}, a number with a fraction, which names no class")
    if isinstance(value, bytes | date | time | timedelta):
        raise TypeError(f"is of the type {type(value).__name__}, which names no class")
    return text


def _list_of(text: str) -> Any:
    """Return the list that `text` is in JSON or Python, or `text` itself if it is none; raise ValueError."""
    if text.startswith('"[') and text.endswith(']"'):  # quoted as in CSV, but in a TSV
        text = text[1:-1].replace('""', '"')
    if not text.startswith("["):
        return text
    try:
        return parse_json(text)
    except ValueError:
        if re.search(r"""['"]\s+['"]""", text):  # Python would join the two texts
            raise
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise ValueError("is not a list in JSON or Python") from error


def _is_empty(label: Any) -> bool:
    return label in (None, "", [], ()) or (isinstance(label, float) and math.isnan(label))


def find_separator(cells: Iterable[Any]) -> str:
    """Return what stands between the labels in a column of texts; raise ValueError if that is not clear."""
    texts = {cell.strip() for cell in cells if isinstance(cell, str)}
    texts = {text for text in texts if text and not text.startswith(("[", '"['))}
    marks = [mark for mark in ";|," if any(mark in text for text in texts)]
    if len(marks) > 1:
        example = next(text for text in sorted(texts) if marks[1] in text)
        raise ValueError(f"holds {' and '.join(map(repr, marks))}, for example {example!r}")
    if marks and marks != [","]:
        return marks[0]
    mark = marks[0] if marks else " "
    pieces = [{piece.strip() for piece in text.split(mark)} for text in texts]
    joined = [names for names in pieces if len(names) > 1]
    counts = Counter(name for names in pieces for name in names)
    if mark == " " and all(counts[name] > 1 and name in texts for names in joined for name in names):
        return mark if joined else ";"
    if mark == "," and any(counts[name] > 1 for names in joined for name in names):
        return mark
    raise ValueError(f"may be joined by {mark!r} or have that in its names, for example {max(texts, key=len)!r}")


def _refuse_two_labels(clips: list[Clip], lines: list[str], where: str | Path, columns: Columns) -> None:
    """Raise InputError if a single-label task gives the same stretch of a file two labels."""
    if columns.kind != "single-label":
        return
    first: dict[str, tuple[Labels, str]] = {}
    for clip, line in zip(clips, lines, strict=True):
        labels, first_line = first.setdefault(clip.id, (clip.labels, line))
        if clip.labels != labels:
            what = f"{clip.id!r} is {clip.labels!r} here and {labels!r} at {first_line}"
            remedy = "name the columns of start and end if rows are parts of files: --start, --end or --duration"
            whole = clip.start_s is None and clip.end_s is None
            raise InputError(f"{line}, column {columns.label!r}: {what}", where=where, remedy=remedy if whole else None)
