"""Tell which form a folder or file of own data has, from listings, schemas and first rows alone."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from uwbench.base.json_text import parse_json
from uwbench.errors import InputError
from uwbench.options import TaskSpec
from uwbench.sources import cuts, embedded, tars
from uwbench.sources.dataset import AUDIO_SUFFIXES
from uwbench.sources.forms import Form, Table
from uwbench.sources.rows import MANIFEST_SUFFIXES, Row, rows_of
from uwbench.sources.splits import subset_in, subset_of, subset_of_file

_LINES = (".json", ".jsonl", ".ndjson", ".json.gz", ".jsonl.gz", ".ndjson.gz")
_TARS = (".tar", ".tar.gz", ".tgz")  # compressed ones are refused with the remedy
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_MOST_MANIFESTS = 64  # files of JSON in a folder; more of them are the notes of single clips
_DEPTH = 3  # levels at which tables are searched for: <folder>/data/<split>/0000.parquet
_PATH_COLUMNS = ("path", "file_name", "filename", "audio_filepath", "audio")


def find_form(path: Path) -> Form | None:
    """Return the form of own data at `path`, or None if it is a plain manifest or a folder of class folders.

    Raises InputError if it is a form that cannot be read.
    """
    if path.is_dir():
        return _saved(path) or _in_folder(path)
    if path.name.lower() in METADATA:
        return _audio_folder(path, path.parent, [path])
    if path.name.lower().endswith(_TARS) and path.is_file():
        form = _tars(path, path.parent, [Table(path)])
    elif path.suffix.lower() == ".parquet" and path.is_file():
        form = _parquet(path, path.parent, [Table(path)])
    elif path.name.lower().endswith(_LINES) and path.is_file():
        form = _lines(path, path.parent, [Table(path)])
    else:
        return None
    return form and replace(form, notes=tuple(_other_splits(path)))


def _other_splits(path: Path) -> Iterator[str]:
    """Yield a note if files beside this one name other splits."""
    suffix = path.name.partition(".")[2]
    subset = subset_of([path.name.partition(".")[0]])
    others = [file for file in sorted(path.parent.glob(f"*.{suffix}")) if subset_of([file.name]) not in (subset, None)]
    if subset is not None and others:
        yield f"{others[0].name} beside it may be another split; to use the splits, name the folder"


# save_to_disk


def _saved(folder: Path) -> Form | None:
    """Return the form of a folder that `datasets` saved: a Dataset, or a DatasetDict with one folder per split."""
    if (folder / "dataset_dict.json").is_file():
        splits = _record(folder / "dataset_dict.json").get("splits")
        if not isinstance(splits, list) or not splits or not all(map(_is_name, splits)):
            raise InputError("names no splits", where=folder / "dataset_dict.json")
        subsets = {name: _subset_of_split(folder, name) for name in splits}
        parts = [name for name in splits if subsets[name] is not None] or splits
        left = [name for name in splits if name not in parts]
        names = ", ".join(map(repr, left))
        notes = [f"splits that are not train, valid, test or a fold are left out: {names}"] if left else []
        if len(parts) > 1 and not any(subsets.values()):
            remedy = f"name one of them: -t {folder / splits[0]}"
            raise InputError(f"holds the splits {', '.join(map(repr, splits))}", where=folder, remedy=remedy)
        tables = [Table(path, subsets[name]) for name in parts for path in _arrow_files(folder / name)]
    elif (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file():
        tables, notes = [Table(path) for path in _arrow_files(folder)], []
    else:
        return None
    if not tables:
        raise InputError("holds no rows", where=folder)
    schema = embedded.arrow_schema(tables[0].path)
    column = embedded.choose_audio(schema, tables[0].path)
    if column is None:
        raise InputError(f"has no column of audio ({', '.join(schema.names)})", where=tables[0].path)
    names = embedded.class_names(schema.metadata) or embedded.names_in(
        _record(tables[0].path.parent / "dataset_info.json").get("features")
    )

    def rows(_: TaskSpec, __: list[str]) -> Iterator[tuple[Table, Row]]:
        for table in tables:
            for row in embedded.arrow_rows(table.path, column, names):
                yield table, row

    return Form("saved dataset", folder, folder, tuple(tables), rows, column, tuple(names), notes=tuple(notes))


def _subset_of_split(folder: Path, name: str) -> tuple[str, str] | None:
    try:
        return subset_in(name)
    except ValueError as error:
        raise InputError(f"the split {name!r} names several splits", where=folder) from error


def _arrow_files(folder: Path) -> list[Path]:
    """Return the files that a saved dataset's `state.json` lists; raise InputError if it cannot be read in place."""
    state = _record(folder / "state.json")
    if state.get("_indices_data_files"):
        remedy = "load it and save it again, which drops the indices"
        raise InputError("was saved with indices by an old version of `datasets`", where=folder, remedy=remedy)
    listed = state.get("_data_files")
    entries = listed if isinstance(listed, list) else [None]
    names = [entry.get("filename") if isinstance(entry, dict) else None for entry in entries]
    if not all(map(_is_name, names)):
        raise InputError("lists no data files", where=folder / "state.json")
    return [folder / str(name) for name in names]


def _is_name(name: Any) -> bool:
    """Return True for the name of a file or folder that lies directly in its folder."""
    return isinstance(name, str) and name not in ("", ".", "..") and not set(name) & {"/", "\\", "\0"}


def _record(path: Path) -> dict[str, Any]:
    try:
        record = parse_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", where=path) from error
    except ValueError as error:
        raise InputError(f"is not valid JSON ({error})", where=path) from error
    if not isinstance(record, dict):
        raise InputError("is not a JSON object", where=path)
    return record


# Folders of tables


@dataclass(slots=True)
class _Listing:
    """The files of a folder that tell its form."""

    metadata: list[Path] = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)
    tars: list[Path] = field(default_factory=list)
    audio: bool = False


def _list(folder: Path, depth: int, listing: _Listing) -> _Listing:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return listing
    for entry in entries:
        name = entry.name.lower()
        if name.startswith((".", "__macosx")):
            continue
        if entry.is_dir():
            if depth:
                _list(Path(entry.path), depth - 1, listing)
        elif name in METADATA:
            listing.metadata.append(Path(entry.path))
        elif name.endswith(MANIFEST_SUFFIXES):
            listing.tables.append(Path(entry.path))
        elif name.endswith(".tar"):
            listing.tars.append(Path(entry.path))
        elif not listing.audio:
            listing.audio = Path(name).suffix in AUDIO_SUFFIXES
    return listing


def _in_folder(folder: Path) -> Form | None:
    listing = _list(folder, _DEPTH, _Listing())
    if listing.metadata:
        return _audio_folder(folder, folder, listing.metadata)
    parquet = [path for path in listing.tables if path.suffix.lower() == ".parquet"]
    texts = [path for path in listing.tables if path.suffix.lower() != ".parquet"]
    lines = [path for path in texts if path.name.lower().endswith(_LINES)]
    if len(lines) <= _MOST_MANIFESTS and (form := _manifests(folder, lines)) is not None:
        return form
    archives = [] if listing.audio else listing.tars  # beside audio, they are what it was unpacked from
    forms = [
        form
        for paths, make in ((parquet, _parquet), (texts, _texts), (archives, _tars))
        if (form := _of_kind(folder, paths, make, listing.audio)) is not None
    ]
    if len(forms) > 1:
        names = " and ".join(form.tables[0].path.name for form in forms)
        raise InputError(
            f"holds two kinds of tables ({names})", where=folder, remedy="name one file, or move the others"
        )
    return forms[0] if forms else None


def _of_kind(
    folder: Path, paths: Sequence[Path], make: Callable[[Path, Path, list[Table]], Form | None], has_audio: bool
) -> Form | None:
    """Return the form that tables of one kind make. Those of train and test win over class folders, others do not."""
    tables = [Table(path, subset_of_file(path, folder)) for path in paths]
    named = [table for table in tables if table.subset is not None]
    wins = len({table.subset for table in named}) > 1
    if not wins and has_audio:
        return None
    chosen = named if wins else tables
    form = make(folder, folder, chosen) if chosen else None
    left = [table for table in tables if table not in chosen]
    return form and replace(form, notes=_left_out(left, folder))


def _parquet(place: Path, root: Path, tables: list[Table]) -> Form | None:
    """Return the form of Parquet files with embedded audio, or None if they hold none."""
    schemas = {table.path: embedded.parquet_schema(table.path) for table in tables}
    columns = {path: embedded.choose_audio(schema, path) for path, schema in schemas.items()}
    column = columns[tables[0].path]
    if column is None:
        return None
    other = next((path for path, name in columns.items() if name != column), None)
    if other is not None:
        raise InputError(f"has no column {column!r} of audio ({', '.join(schemas[other].names)})", where=other)
    _refuse_configurations(place, root, tables)
    classes = {name for schema in schemas.values() for name in embedded.class_names(schema.metadata)}
    files = [table.path for table in tables]
    table_of = {table.path: table for table in tables}
    home = embedded.home_beside(root, "own" if place.is_dir() else place.name)

    def rows(_: TaskSpec, __: list[str]) -> Iterator[tuple[Table, Row]]:
        for path, row in embedded.parquet_rows(files, column, home):
            yield table_of[path], row

    return Form("Parquet", place, root, tuple(tables), rows, column, tuple(sorted(classes)))


def _refuse_configurations(place: Path, root: Path, tables: Iterable[Table]) -> None:
    """Raise InputError if the tables lie in several folders that are not splits, so that they are several datasets."""
    homes: dict[tuple[str, ...], Path] = {}
    for table in tables:
        folders = table.path.relative_to(root).parts[:-1]
        home = tuple(name for name in folders if not subset_of([name]))
        homes.setdefault(home, table.path.parent)
    if len(homes) > 1:
        names = ", ".join("/".join(home) or "." for home in homes)
        remedy = f"name one of them, for example -t {next(iter(homes.values()))}"
        raise InputError(f"holds several datasets: {names}", where=place, remedy=remedy)


def _texts(place: Path, root: Path, tables: list[Table]) -> Form | None:
    """Return the form of text tables whose names tell their splits, or None."""
    if len({table.subset for table in tables}) < 2:
        return None
    listing = [table for table in tables if _lists_audio(table.path)]
    if len({table.subset for table in listing}) < 2:
        return None
    return Form("tables", place, root, tuple(listing), partial(_text_rows, listing))


def _lists_audio(path: Path) -> bool:
    return any(str(name).strip().lower() in _PATH_COLUMNS for name in _first_row(path))


def _text_rows(tables: Sequence[Table], _: TaskSpec, notes: list[str]) -> Iterator[tuple[Table, Row]]:
    for table in tables:
        for row in rows_of(table.path, notes):
            yield table, row


# NeMo and Lhotse


def _lines(place: Path, root: Path, tables: list[Table]) -> Form | None:
    """Return the form of files of JSON objects if they are manifests of NeMo or Lhotse, else None."""
    first = _first_row(tables[0].path)
    if cuts.holds_cuts(first) or cuts.holds_supervisions(first):
        return _cuts_form(place, root, tables)
    if _holds_nemo(first):
        return Form("NeMo manifest", place, root, tuple(tables), partial(_text_rows, tables))
    return None


def _first_row(path: Path) -> Mapping[str, Any]:
    """Return the first row of a table, or nothing if it cannot be read, which its reader will say."""
    try:
        first = next(rows_of(path, []), None)
    except InputError:
        return {}
    return first.values if first else {}


def _manifests(folder: Path, files: Sequence[Path]) -> Form | None:
    """Return the form of a folder's cuts, or else its supervisions, or else its manifests of NeMo, or None."""
    first_of = {path: _first_row(path) for path in files}
    for holds in (cuts.holds_cuts, cuts.holds_supervisions, _holds_nemo):
        tables = [Table(path, subset_of_file(path, folder)) for path in files if holds(first_of[path])]
        if not tables:
            continue
        named = [table for table in tables if table.subset is not None]
        if len(tables) > 1 and not named:
            names = ", ".join(table.path.name for table in tables)
            raise InputError(f"holds several manifests ({names})", where=folder, remedy="name one of them")
        left = [table for table in tables if named and table not in named]
        form = _lines(folder, folder, named or tables)
        return form and replace(form, notes=_left_out(left, folder))
    return None


def _left_out(tables: Sequence[Table], folder: Path) -> tuple[str, ...]:
    if not tables:
        return ()
    return (f"{len(tables)} files name no split and are left out, first {tables[0].path.relative_to(folder)}",)


def _holds_nemo(first: Mapping[str, Any]) -> bool:
    return "audio_filepath" in first


def _cuts_form(place: Path, root: Path, tables: list[Table]) -> Form:
    def rows(spec: TaskSpec, notes: list[str]) -> Iterator[tuple[Table, Row]]:
        for table in tables:
            of_cuts = cuts.holds_cuts(_first_row(table.path))
            read = cuts.cut_rows if of_cuts else cuts.supervision_rows
            for row in read(table.path, spec, notes):
                yield table, row

    return Form("Lhotse cuts", place, root, tuple(tables), rows, cuts.AUDIO)


# WebDataset


def _tars(place: Path, root: Path, files: list[Table]) -> Form:
    """Return the form of WebDataset tars."""
    _refuse_configurations(place, root, files)

    def rows(_: TaskSpec, notes: list[str]) -> Iterator[tuple[Table, Row]]:
        for table in files:
            for row in tars.tar_rows(table.path, notes):
                yield table, row

    return Form("WebDataset", place, root, tuple(files), rows, tars.AUDIO)


# AudioFolder


def _audio_folder(place: Path, root: Path, files: list[Path]) -> Form:
    """Return the form of an AudioFolder: audio files, and tables that list them in a column `file_name`.

    Splits are folders, of the table or of the audio. https://huggingface.co/docs/datasets/audio_dataset#audiofolder
    """
    formats: dict[Path, list[Path]] = defaultdict(list)
    for file in files:
        formats[file.parent].append(file)
    twice = next((names for names in formats.values() if len(names) > 1), None)
    if twice is not None:
        names = " and ".join(file.name for file in twice)
        raise InputError(f"holds {names}", where=twice[0].parent, remedy="keep one of them")
    tables = [Table(file, subset_of_file(file, root)) for file in files]
    rows = partial(_text_rows, tables)
    first = next(iter(next(rows_of(file, []), None) for file in files), None)
    column = _file_name_column(first, files[0])
    return Form("AudioFolder", place, root, tuple(tables), rows, column, by_folder=True)


def _file_name_column(first: Row | None, path: Path) -> str:
    columns = [name for name in (first.values if first else ()) if isinstance(name, str)]
    named = [name for name in columns if name.strip().lower().endswith("file_name")]
    if "file_name" in columns or len(named) == 1:
        return "file_name" if "file_name" in columns else named[0]
    if named:
        remedy = "call the one with the clips file_name"
        raise InputError(f"has several columns of files: {', '.join(named)}", where=path, remedy=remedy)
    return "file_name"
