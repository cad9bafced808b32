"""Own data in manifests: CSV, TSV, JSONL and Parquet.

A manifest has the columns `path`, `label`, and `split` or `fold`; `group`, `start` and `end` (seconds) are optional.
Paths are relative to the manifest's folder and must stay inside it unless that is allowed. Errors name the file, the
line and the column.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, cast

from uwbench.audio.clip import Audio, AudioFile, Clip, Event, Labels
from uwbench.base.json_text import parse_json
from uwbench.base.registry import suggestion
from uwbench.cards.card import Domain, Kind
from uwbench.errors import InputError
from uwbench.options import TaskSpec
from uwbench.sources.dataset import Dataset, Reading, with_unique_ids
from uwbench.sources.own_card import make_card, task_name

MANIFEST_SUFFIXES = frozenset({".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"})
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
}
_SPLITS_ALLOWED = "train, valid (validation, val, dev), test"


@dataclass(frozen=True, slots=True)
class Columns:
    """How to read the columns of a manifest. If `group` is None, the column `group` is used if there is one.

    With `gaps`, a clip with an empty label gets the labels `()`; without, an empty label is an error.
    """

    label: str = "label"
    group: str | None = None
    kind: Kind = "single-label"
    allow_outside: bool = False
    gaps: bool = False


def open_manifest(path: Path, spec: TaskSpec) -> Dataset:
    """Read a manifest as a task, which is named after its folder unless `spec` names it.

    Multi-label labels are joined by `;` or are a list. Labels of a frame-multi-label task are a list of `{onset,
    offset, label}`, captions are a list of texts. In CSV and TSV, lists are written as JSON. Raises InputError with
    the file, line and column.
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
    kind = cast(Kind, str(spec.kind or "single-label"))
    return Columns(spec.label or "label", spec.group, kind, spec.allow_outside)


def make_dataset(reading: Reading, spec: TaskSpec, *, name: str, where: str | Path, source: str) -> Dataset:
    """Return a table's clips with the card `name` that is made from them."""
    columns = columns_of(spec)
    grouped = any(clip.group is not None for clip in reading.clips)
    card = make_card(
        reading.clips,
        name=name,
        kind=columns.kind,
        domain=cast(Domain, str(spec.domain)),
        where=where,
        label=columns.label,
        group=(spec.group or "group") if grouped else None,
    )
    return Dataset(card, reading.clips, source, reading.problems)


def read_manifest(path: Path, columns: Columns) -> Reading:
    """Return a manifest's clips in its order; raise InputError with the file, line and column."""
    return read_rows(_rows(path), columns, path, "path", _audio_file)


def read_rows(
    rows: Iterable[Row],
    columns: Columns,
    where: str | Path,
    audio_column: str,
    audio_of: Callable[[Row, Columns], tuple[str, Audio]],
) -> Reading:
    """Return the clips of a table's rows in order; `audio_of` returns a row's id and audio.

    Raises InputError with the row and the column.
    """
    clips: list[Clip] = []
    lines: list[str] = []
    subset_column: str | None = None
    for row in rows:
        if subset_column is None:
            subset_column = _check_columns(row.values, columns, where, audio_column)
        clips.append(_clip(row, columns, subset_column, *audio_of(row, columns)))
        lines.append(row.line)
    if subset_column is None:
        raise InputError("contains no rows", where=where)
    _refuse_two_labels(clips, lines, where, columns)
    folds = {clip.fold for clip in clips if clip.fold is not None}
    if folds and all(fold.lower() in SPLIT_NAMES for fold in folds):
        raise InputError(
            f"column 'fold': contains names of splits ({', '.join(sorted(folds))}), and each fold is tested in turn",
            where=where,
            remedy="rename the column to `split`",
        )
    unique, repeated = with_unique_ids(clips)
    note = f"{Path(where).name} lists {len(repeated)} clips more than once, first {repeated[0]!r}" if repeated else None
    return Reading(unique, (note,) if note else ())


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table; `where` names the table and `line` the row, e.g. "line 2"."""

    values: Mapping[str, Any]
    where: str | Path
    line: str

    def error(self, column: str, what: str, remedy: str | None = None) -> InputError:
        """Return an error that names this row and `column`."""
        return InputError(f"{self.line}, column {column!r}: {what}", where=self.where, remedy=remedy)

    def cell(self, column: str) -> str:
        """Return a cell as text; an absent or empty cell is the empty string."""
        try:
            return _text(self.values.get(column))
        except TypeError as error:
            raise self.error(column, str(error)) from error

    def required(self, column: str) -> str:
        """Return a cell that must not be empty."""
        text = self.cell(column)
        if not text:
            raise self.error(column, "is empty")
        return text

    def seconds(self, column: str) -> float | None:
        """Return a cell as seconds, or None if it is empty."""
        text = self.cell(column)
        if not text:
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= 0):
            raise self.error(column, f"{self.values[column]!r} is not a number of seconds")
        return value


def _rows(path: Path) -> Iterator[Row]:
    readers = {
        ".csv": _csv_rows,
        ".tsv": _csv_rows,
        ".jsonl": _json_rows,
        ".ndjson": _json_rows,
        ".parquet": _parquet_rows,
    }
    suffix = path.suffix.lower()
    if suffix not in readers:
        allowed = ", ".join(sorted(MANIFEST_SUFFIXES))
        raise InputError(f"a manifest's name must end in one of {allowed}, not {suffix!r}", where=path)
    try:
        for line, values in readers[suffix](path):
            yield Row(values, path, line)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", where=path) from error
    except UnicodeDecodeError as error:
        raise InputError(f"is not UTF-8 text ({error.reason} at byte {error.start})", where=path) from error


def _csv_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
        try:
            header = [name.strip() for name in next(reader, [])]
            repeated = sorted({name for name in header if header.count(name) > 1})
            if repeated:
                raise InputError(f"line 1: there are two columns {repeated[0]!r}", where=path)
            for values in reader:
                if not values:
                    continue
                if len(values) != len(header):
                    what = f"line {reader.line_num}: {len(values)} values for {len(header)} columns"
                    raise InputError(what, where=path)
                yield f"line {reader.line_num}", dict(zip(header, values, strict=True))
        except csv.Error as error:
            raise InputError(f"line {reader.line_num}: is not valid CSV ({error})", where=path) from error


def _json_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = parse_json(line)
            except ValueError as error:
                raise InputError(f"line {number}: is not valid JSON ({error})", where=path) from error
            if not isinstance(row, dict):
                raise InputError(f"line {number}: is not a JSON object", where=path)
            yield f"line {number}", row


def _parquet_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as data, pq.ParquetFile(data) as file:
            number = 0
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", row
    except (pa.ArrowException, ValueError, OverflowError) as error:  # the last two: an impossible date
        raise InputError(f"is not a valid Parquet file ({' '.join(str(error).split())})", where=path) from error


def _check_columns(row: Mapping[str, Any], columns: Columns, where: str | Path, audio_column: str) -> str:
    """Check that the required columns exist; return the one that says where clips belong, `split` or `fold`."""
    required = [audio_column, columns.label] + ([columns.group] if columns.group else [])
    for name in required:
        if name not in row:
            known = [column for column in row if isinstance(column, str) and column]
            option = {columns.label: "--label", columns.group: "--group"}.get(name)
            hint = f"{suggestion(name, known)}; columns: {', '.join(known)}"
            raise InputError(
                f"the column {name!r} is missing ({hint})",
                where=where,
                remedy=f"choose another column with {option}" if option else None,
            )
    subset_columns = [name for name in ("split", "fold") if name in row]
    if len(subset_columns) == 2:
        raise InputError("has a column `split` and a column `fold`", where=where, remedy="remove or rename one of them")
    if not subset_columns:
        raise InputError(f"has neither a column `split` ({_SPLITS_ALLOWED}) nor a column `fold`", where=where)
    return subset_columns[0]


def _clip(row: Row, columns: Columns, subset_column: str, name: str, audio: Audio) -> Clip:
    start, end = row.seconds("start"), row.seconds("end")
    if end is not None and end <= (start or 0.0):
        raise row.error("end", f"{row.values['end']!r} is not after the start")
    split = fold = None
    if subset_column == "split":
        split = SPLIT_NAMES.get(row.required("split").lower())
        if split is None:
            raise row.error("split", f"{row.cell('split')!r} is not one of {_SPLITS_ALLOWED}")
    else:
        fold = row.required("fold")
    try:
        label = row.values[columns.label]
        labels = () if columns.gaps and label in (None, "", []) else parse_labels(label, columns.kind)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise row.error(columns.label, f"{error}") from error
    group = row.cell(columns.group or "group") or None
    if columns.group is not None and group is None:
        raise row.error(columns.group, "is empty")
    stretch = "" if start is None and end is None else f"#{start or 0:g}" + (f"-{end:g}" if end is not None else "")
    return Clip(name + stretch, audio, labels, split, fold, group, start, end)


def _audio_file(row: Row, columns: Columns) -> tuple[str, Audio]:
    """Return the id and the file of a row; raise InputError if it is outside the manifest's folder and must not be.

    Links are followed, because a link in a downloaded dataset could point to any file.
    """
    name = row.required("path")
    if "\0" in name:
        raise row.error("path", "contains a null byte")
    folder = Path(row.where).parent
    file = folder / name
    if not columns.allow_outside:
        inner = Path(os.path.normpath(name))
        outside = PurePosixPath(name).is_absolute() or inner.is_absolute() or os.pardir in inner.parts
        if outside or not file.resolve().is_relative_to(folder.resolve()):
            remedy = "move the audio below the manifest, or allow such paths and links with --allow-outside"
            raise row.error("path", f"{name!r} is outside the manifest's folder", remedy)
    return PurePosixPath(name).as_posix(), AudioFile(file)


def parse_labels(value: Any, kind: Kind) -> Labels:
    """Return a label cell as a task of this kind needs it; raise ValueError, KeyError or TypeError if it is wrong."""
    if kind in ("single-label", "transcription"):
        label = _text(value)
        if not label:
            raise ValueError("is empty")
        return label
    listed = parse_json(value) if isinstance(value, str) and value.lstrip().startswith("[") else value
    if kind == "frame-multi-label":
        if not isinstance(listed, list):
            raise ValueError("is not a list of {onset, offset, label}")
        events = tuple(Event(float(item["onset"]), float(item["offset"]), _text(item["label"])) for item in listed)
        for event in events:
            if not (math.isfinite(event.offset_s) and 0 <= event.onset_s < event.offset_s):
                raise ValueError(f"the event from {event.onset_s} to {event.offset_s} s is empty or not in order")
        return events
    if kind == "multi-label" and isinstance(listed, str):
        listed = listed.split(";")
    items = [_text(item) for item in listed] if isinstance(listed, Iterable) and not isinstance(listed, str) else []
    if not items or not all(items):
        raise ValueError("is empty" if not listed else "is not a list of texts")
    return tuple(dict.fromkeys(items)) if kind == "multi-label" else tuple(items)


def _text(value: Any) -> str:
    """Return a cell as text without surrounding space; missing values (None, NaN) become the empty string."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # an integer that became a float because its column has gaps
    if isinstance(value, (list, dict)):
        raise TypeError("is a list or an object, not a text")
    return str(value).strip()


def _refuse_two_labels(clips: list[Clip], lines: list[str], where: str | Path, columns: Columns) -> None:
    """Raise InputError if a single-label task gives the same stretch of a file two labels."""
    if columns.kind != "single-label":
        return
    first: dict[str, tuple[Labels, str]] = {}
    for clip, line in zip(clips, lines, strict=True):
        labels, first_line = first.setdefault(clip.id, (clip.labels, line))
        if clip.labels != labels:
            what = f"{clip.id!r} is {clip.labels!r} here and {labels!r} at {first_line}"
            raise InputError(f"{line}, column {columns.label!r}: {what}", where=where)
