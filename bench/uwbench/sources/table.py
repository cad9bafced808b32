"""Own data: manifests (CSV, TSV, JSONL, Parquet) and folders with a sub-folder a class.

A manifest has the columns `path`, `label` and `split` or `fold`, and optionally `group`, `start` and `end` (seconds).
Paths are relative to the manifest's folder and may not leave it unless that is allowed. Errors name the file, the line
and the column.
"""

from __future__ import annotations

import csv
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from uwbench.audio.clip import AudioFile, Clip, Event, Labels
from uwbench.base.hashing import sha256_bytes
from uwbench.base.json_text import parse_json
from uwbench.base.registry import suggestion
from uwbench.cards.card import Domain, Kind
from uwbench.errors import InputError
from uwbench.sources.dataset import AUDIO_SUFFIXES, Dataset, Reading, require_utf8, with_unique_ids
from uwbench.sources.own_card import make_card, task_name

MANIFEST_SUFFIXES = frozenset({".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"})
MANIFEST_NAMES = ("manifest.csv", "manifest.tsv", "manifest.jsonl", "manifest.parquet")
HASH_FOLDS = 5  # for folders that come without splits

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
_Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns hold what; `group` None: the column `group` where there is one.

    With `gaps`, a clip whose label is empty has none, `()`; else that is an error.
    """

    label: str = "label"
    group: str | None = None
    kind: Kind = "single-label"
    allow_outside: bool = False
    gaps: bool = False


def open_manifest(
    path: Path,
    *,
    label: str | None = None,
    group: str | None = None,
    name: str | None = None,
    kind: Kind = "single-label",
    domain: Domain = "sound",
    allow_outside: bool = False,
) -> Dataset:
    """Read a manifest as a task of its own, named after its folder unless `name` is given.

    Labels of a multi-label task are joined by `;` or are a list; those of frame-multi-label are a list of
    `{onset, offset, label}`; captions are a list of texts. In CSV and TSV a list is written as JSON. Raises InputError,
    naming file, line and column.
    """
    columns = Columns(label or "label", group, kind, allow_outside)
    reading = read_manifest(path, columns)
    title = task_name(name, path.absolute().parent)
    grouped = any(clip.group is not None for clip in reading.clips)
    card = make_card(
        reading.clips,
        name=title,
        kind=kind,
        domain=domain,
        where=path,
        label=columns.label,
        group=(group or "group") if grouped else None,
    )
    return Dataset(card, reading.clips, f"manifest {path}", reading.problems)


def read_manifest(path: Path, columns: Columns) -> Reading:
    """Return the clips a manifest lists, in its order; raise InputError naming file, line and column."""
    clips: list[Clip] = []
    lines: list[str] = []
    place_column: str | None = None
    for where, row in _rows(path):
        if place_column is None:
            place_column = _check_columns(row, columns, path)
        clips.append(_clip(row, columns, place_column, path, where))
        lines.append(where)
    if place_column is None:
        raise InputError("holds no rows", where=path)
    _refuse_two_labels(clips, lines, path, columns)
    folds = {clip.fold for clip in clips if clip.fold is not None}
    if folds and all(fold.lower() in SPLIT_NAMES for fold in folds):
        raise InputError(
            f"column 'fold': holds names of splits ({', '.join(sorted(folds))}), and folds are tested in turn",
            where=path,
            remedy="call the column `split`",
        )
    unique, repeated = with_unique_ids(clips)
    problems = [f"{path.name} lists {len(repeated)} clips more than once, first {repeated[0]!r}"] if repeated else []
    return Reading(unique, tuple(problems))


def open_folder(folder: Path, *, name: str | None = None, domain: Domain = "sound") -> Dataset:
    """Read a folder with a sub-folder a class, or with sub-folders train, valid and test that each have those.

    Without splits, clips are dealt into five folds, class by class in the order of the sha256 of their paths: the same
    on every machine, and unchanged for the other classes when files are added to one.
    """
    children = sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__MACOSX"))
    )
    by_split = {SPLIT_NAMES[path.name.lower()]: path for path in children if path.name.lower() in SPLIT_NAMES}
    problems: list[str] = []
    clips: list[Clip] = []
    if by_split and len(by_split) == len(children):
        for split, root in by_split.items():
            for label, files in _classes(root, problems).items():
                clips += [Clip(_relative(file, folder), AudioFile(file), label, split=split) for file in files]
        how = "splits by sub-folder"
    else:
        for label, files in _classes(folder, problems).items():
            ordered = sorted(files, key=lambda file: sha256_bytes(_relative(file, folder).encode()))
            # Each class starts at a fold of its own, so that small classes do not all fill the first folds.
            first = int(sha256_bytes(label.encode())[:8], 16)
            fold_of = {file: str(1 + (first + i) % HASH_FOLDS) for i, file in enumerate(ordered)}
            clips += [Clip(_relative(f, folder), AudioFile(f), label, fold=fold_of[f]) for f in files]
        how = f"no splits given: {HASH_FOLDS} folds by hash of the paths, stratified by class"
    if not clips:
        raise InputError(
            "holds no sub-folder with audio in it",
            where=folder,
            remedy=f"a task's folder has a sub-folder a class, or a {MANIFEST_NAMES[0]}",
        )
    card = make_card(clips, name=task_name(name, folder), kind="single-label", domain=domain, where=folder)
    return Dataset(card, tuple(clips), f"folder {folder} ({how})", tuple(problems))


def _classes(root: Path, problems: list[str]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for child in sorted(
        path for path in root.iterdir() if path.is_dir() and not path.name.startswith((".", "__MACOSX"))
    ):
        files = sorted(
            path
            for path in child.rglob("*")
            if path.suffix.lower() in AUDIO_SUFFIXES and not path.name.startswith(".") and path.is_file()
        )
        if files:
            found[child.name] = files
        else:
            problems.append(f"the sub-folder {child} holds no audio")
    return found


def _relative(file: Path, folder: Path) -> str:
    name = file.relative_to(folder).as_posix()
    require_utf8(name, folder)
    return name


def _rows(path: Path) -> Iterator[tuple[str, _Row]]:
    """Yield ("line 2", row) for every row of a manifest."""
    try:
        match path.suffix.lower():
            case ".csv" | ".tsv":
                yield from _csv_rows(path)
            case ".jsonl" | ".ndjson":
                yield from _json_rows(path)
            case ".parquet":
                yield from _parquet_rows(path)
            case other:
                allowed = ", ".join(sorted(MANIFEST_SUFFIXES))
                raise InputError(f"a manifest's name ends in one of {allowed}, not {other!r}", where=path)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", where=path) from error
    except UnicodeDecodeError as error:
        raise InputError(f"is not UTF-8 text ({error.reason} at byte {error.start})", where=path) from error


def _csv_rows(path: Path) -> Iterator[tuple[str, _Row]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
        try:
            header = [name.strip() for name in next(reader, [])]
            twice = sorted({name for name in header if header.count(name) > 1})
            if twice:
                raise InputError(f"line 1: the column {twice[0]!r} is there twice", where=path)
            for values in reader:
                if not values:
                    continue
                if len(values) != len(header):
                    raise InputError(
                        f"line {reader.line_num}: {len(values)} values under {len(header)} columns", where=path
                    )
                yield f"line {reader.line_num}", dict(zip(header, values, strict=True))
        except csv.Error as error:
            raise InputError(f"line {reader.line_num}: is not valid CSV ({error})", where=path) from error


def _json_rows(path: Path) -> Iterator[tuple[str, _Row]]:
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


def _parquet_rows(path: Path) -> Iterator[tuple[str, _Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as data, pq.ParquetFile(data) as file:
            number = 0
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", row
    except (pa.ArrowException, ValueError, OverflowError) as error:  # the latter two: a date that is none
        raise InputError(f"is not a valid Parquet file ({' '.join(str(error).split())})", where=path) from error


def _check_columns(row: _Row, columns: Columns, path: Path) -> str:
    """Return the column that places clips, `split` or `fold`."""
    wanted = ["path", columns.label] + ([columns.group] if columns.group else [])
    for name in wanted:
        if name not in row:
            known = [column for column in row if isinstance(column, str) and column]
            option = {columns.label: "--label", columns.group: "--group"}.get(name)
            hint = f"{suggestion(name, known)}; columns: {', '.join(known)}"
            raise InputError(
                f"the column {name!r} is missing ({hint})",
                where=path,
                remedy=f"name another with {option}" if option else None,
            )
    places = [name for name in ("split", "fold") if name in row]
    if len(places) == 2:
        raise InputError("has a column `split` and a column `fold`", where=path, remedy="remove or rename one of them")
    if not places:
        raise InputError(f"has neither a column `split` ({_SPLITS_ALLOWED}) nor a column `fold`", where=path)
    return places[0]


def _clip(row: _Row, columns: Columns, place_column: str, path: Path, where: str) -> Clip:
    def fail(column: str, what: str) -> InputError:
        return InputError(f"{where}, column {column!r}: {what}", where=path)

    def cell(column: str) -> str:
        try:
            return _text(row.get(column))
        except TypeError as error:
            raise fail(column, str(error)) from error

    def text(column: str) -> str:
        value = cell(column)
        if not value:
            raise fail(column, "is empty")
        return value

    name = text("path")
    if "\0" in name:
        raise fail("path", "holds a null byte")
    file = _inside(name, path, columns.allow_outside)
    if file is None:
        raise InputError(
            f"{where}, column 'path': {name!r} lies outside the manifest's folder",
            where=path,
            remedy="move the audio below the manifest, or allow such paths and links with --allow-outside",
        )
    start, end = _seconds(cell("start")), _seconds(cell("end"))
    for column, value in (("start", start), ("end", end)):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise fail(column, f"{row[column]!r} is not a number of seconds")
    if end is not None and end <= (start or 0.0):
        raise fail("end", f"{row['end']!r} is not after the start")
    place = text(place_column)
    split = fold = None
    if place_column == "split":
        split = SPLIT_NAMES.get(place.lower())
        if split is None:
            raise fail("split", f"{place!r} is not one of {_SPLITS_ALLOWED}")
    else:
        fold = place
    try:
        gap = columns.gaps and row[columns.label] in (None, "", [])
        labels = () if gap else parse_labels(row[columns.label], columns.kind)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise fail(columns.label, f"{error}") from error
    group = cell(columns.group or "group") or None
    if columns.group is not None and group is None:
        raise fail(columns.group, "is empty")
    stretch = "" if start is None and end is None else f"#{start or 0:g}" + (f"-{end:g}" if end is not None else "")
    return Clip(PurePosixPath(name).as_posix() + stretch, AudioFile(file), labels, split, fold, group, start, end)


def parse_labels(value: Any, kind: Kind) -> Labels:
    """Return a label cell as what the kind needs; raise ValueError, KeyError or TypeError that says what is wrong."""
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
    """Return a cell as text without surrounding space; missing values (None, NaN) are empty."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # integers that a table with gaps made into floats
    if isinstance(value, (list, dict)):
        raise TypeError("holds a list or an object where a text is needed")
    return str(value).strip()


def _seconds(text: str) -> float | None:
    """Return a number of seconds, None where the cell is empty, NaN where it is not a number."""
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        return math.nan


def _inside(name: str, manifest: Path, allow_outside: bool) -> Path | None:
    """Return the path of `name` below the manifest's folder, None where it leads outside and that is not allowed.

    Links are followed: what comes with a dataset could point at any file.
    """
    inner = os.path.normpath(name)
    outside = PurePosixPath(name).is_absolute() or Path(inner).is_absolute() or os.pardir in Path(inner).parts
    if outside and not allow_outside:
        return None
    file = manifest.parent / name
    if not allow_outside and not file.resolve().is_relative_to(manifest.parent.resolve()):
        return None
    return file


def _refuse_two_labels(clips: list[Clip], lines: list[str], path: Path, columns: Columns) -> None:
    """The same stretch of the same file under two labels makes a single-label task contradict itself."""
    if columns.kind != "single-label":
        return
    seen: dict[str, int] = {}
    labels: dict[str, set[Labels]] = defaultdict(set)
    for index, clip in enumerate(clips):
        first = seen.setdefault(clip.id, index)
        labels[clip.id].add(clip.labels)
        if len(labels[clip.id]) > 1:
            raise InputError(
                f"{lines[index]}, column {columns.label!r}: {clip.id!r} is {clip.labels!r} here and "
                f"{clips[first].labels!r} at {lines[first]}",
                where=path,
            )
