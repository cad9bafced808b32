"""Own data as other libraries write it, read without code and in place.

AudioFolder, Parquet and save_to_disk folders of `datasets`, manifests of NeMo and Lhotse, WebDataset tars, and tables
whose names tell the split. A form is a set of tables, each of one split or fold or of none; their rows are read as
those of a manifest.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from uwbench.audio.clip import Audio, AudioBytes, AudioMember, Clip
from uwbench.errors import InputError
from uwbench.options import TaskSpec
from uwbench.sources.dataset import AUDIO_SUFFIXES, Dataset, Reading
from uwbench.sources.folds import HASH_FOLDS, deal_clips
from uwbench.sources.own_card import manifest_name, task_name
from uwbench.sources.rows import Row
from uwbench.sources.splits import Subset, subset_of
from uwbench.sources.table import SPLIT_NAMES, Names, audio_file, columns_of, make_dataset, read_rows


@dataclass(frozen=True, slots=True)
class Table:
    """One file of rows, and the split or fold that its name or folder tells."""

    path: Path
    subset: Subset | None = None


@dataclass(frozen=True, slots=True)
class Form:
    """Tables that are one task. `rows` yields the rows of all of them for a spec, and adds sentences to its notes.

    Cells of the column `audio` hold clips in place, or paths, which must stay in `root`. `classes` are the columns
    whose labels are classes by declaration. With `by_folder`, a clip's own folder tells its split.
    """

    title: str
    place: Path  # what the user named
    root: Path
    tables: tuple[Table, ...]
    rows: Callable[[TaskSpec, list[str]], Iterator[tuple[Table, Row]]]
    audio: str = "path"
    classes: tuple[str, ...] = ()
    by_folder: bool = False
    notes: tuple[str, ...] = ()


def open_form(form: Form, spec: TaskSpec) -> Dataset:
    """Return the clips of a form as a task; raise InputError with the file and row.

    Clips without splits, or of one split only, are dealt into five folds, in which a group stays whole.
    """
    notes = list(form.notes)
    rows = list(form.rows(spec, notes))
    name = task_name(spec.name or manifest_name(form.root / "manifest", spec.label, alone=True), form.root)
    spec = _with_label(form, spec, [row for _, row in rows], notes)
    names = Names(columns_of(spec), form.audio)
    subsets = [_subset(form, names, table, row) for table, row in rows]
    placed, how = _placed(form, rows, subsets)
    reading = read_rows(placed, names, form.place, _audio_reader(form, names, spec))
    clips = reading.clips
    if form.by_folder:
        notes += _unlisted(form, clips)
    if how is None:
        clips = deal_clips(clips, columns_of(spec).kind)
        whole = ", groups whole" if any(clip.group for clip in clips) else ""
        how = f"no splits given: {HASH_FOLDS} folds by hash{whole}"
    return make_dataset(
        Reading(clips, (*notes, *reading.problems)),
        spec,
        name=name,
        where=form.place,
        source=f"{form.title} {form.place} ({how})",
    )


def _with_label(form: Form, spec: TaskSpec, rows: Sequence[Row], notes: list[str]) -> TaskSpec:
    """Return `spec` with the column of labels: the only one of classes, if none is named and none is called label."""
    columns = {name.lower() for row in rows[:1] for name in row.values if isinstance(name, str)}
    if spec.label is not None or "label" in columns or len(form.classes) != 1:
        return spec
    notes.append(f"the column {form.classes[0]!r} is taken as 'label'")
    return replace(spec, label=form.classes[0])


def _subset(form: Form, names: Names, table: Table, row: Row) -> Subset | None:
    """Return the split or fold of a row by its own columns, its table, or its clip's folder."""
    columns = names.of(row.values)
    use = next((use for use in ("split", "fold") if use in columns), None)
    if use is not None:
        _refuse_conflict(row, columns[use], use, table)
        return use, ""
    if table.subset is None and form.by_folder and isinstance(path := row.values.get(form.audio), str):
        return subset_of(Path(path).parts[:-1])
    return table.subset


def _refuse_conflict(row: Row, column: str, use: str, table: Table) -> None:
    """Raise InputError if a row's own split is not that of its table."""
    if use == "split" and table.subset is not None and table.subset[0] == "split":
        split = SPLIT_NAMES.get(row.required(column).lower(), row.cell(column))
        if split != table.subset[1]:
            raise row.error(column, f"is {row.cell(column)!r}, but the file's name says {table.subset[1]!r}")


def _placed(
    form: Form, rows: Sequence[tuple[Table, Row]], subsets: Sequence[Subset | None]
) -> tuple[Iterator[Row], str | None]:
    """Return the rows with a column for the split or fold, and what tells it; None if the folds are to be dealt."""
    kinds = Counter(subsets)
    if any(subset is not None and not subset[1] for subset in kinds):
        return iter(row for _, row in rows), "splits or folds by column"
    if None in kinds and len(kinds) > 1:
        row = next(row for (_, row), subset in zip(rows, subsets, strict=True) if subset is None)
        known = ", ".join(sorted(subset[1] for subset in kinds if subset is not None))
        what = f"{row.line}: belongs to no split, but others belong to {known}"
        raise InputError(what, where=row.where, remedy="name its file or folder after its split")
    if len({subset[0] for subset in kinds if subset is not None}) > 1:
        raise InputError("holds both splits and folds", where=form.place, remedy="move one of the two elsewhere")
    if len(kinds) < 2:
        return iter(_with(row, {"split": "train"}) for _, row in rows), None
    values = sorted(subset[1] for subset in kinds if subset is not None)
    if ("split", "train") in kinds and ("split", "test") not in kinds:
        what = f"holds the splits {', '.join(values)}, and none is called test"
        raise InputError(what, where=form.place, remedy="rename the part that scores are to be made on to test")
    pairs = [
        _with(row, {subset[0]: subset[1]}) for (_, row), subset in zip(rows, subsets, strict=True) if subset is not None
    ]
    return iter(pairs), f"{next(iter(pairs[0].values))}s {', '.join(values)} by name"


def _with(row: Row, values: Mapping[str, Any]) -> Row:
    return replace(row, values={**values, **row.values})


def _unlisted(form: Form, clips: Sequence[Clip]) -> Iterator[str]:
    """Yield a note on the audio files beside a form's tables that none of them lists."""
    listed = {os.path.realpath(str(clip.audio)) for clip in clips}
    files = (Path(folder, name) for folder, _, names in os.walk(form.root) for name in names)
    audio = (file for file in files if file.suffix.lower() in AUDIO_SUFFIXES and not file.name.startswith("."))
    unlisted = sorted(file for file in audio if os.path.realpath(file) not in listed)
    if unlisted:
        example = unlisted[0].relative_to(form.root)
        yield f"{len(unlisted)} audio files are not listed in the tables and are left out, first {example}"


def _audio_reader(form: Form, names: Names, spec: TaskSpec) -> Callable[[Row], tuple[str, Audio]]:
    """Return the function that finds a row's clip. Clips in a file are called by their path if no two share it."""
    seen: set[str] = set()

    def audio_of(row: Row) -> tuple[str, Audio]:
        column = names.of(row.values).get("path", form.audio)
        value = row.values.get(column)
        if not isinstance(value, AudioMember | AudioBytes):
            return audio_file(row, column, form.root, allow_outside=spec.allow_outside)
        name = value.name
        if name in seen:
            name = f"{Path(row.where).stem}-{row.line.partition(' ')[2]}/{name}"
        seen.add(name)
        return name, value

    return audio_of
