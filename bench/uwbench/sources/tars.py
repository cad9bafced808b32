"""Rows of a user's own WebDataset tars: audio in place, with labels in JSON, or in `.cls` and `.txt` beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from uwbench.errors import InputError
from uwbench.sources.dataset import AUDIO_SUFFIXES
from uwbench.sources.rows import Row
from uwbench.sources.shards import SHARD_AUDIO, Index, index_tar

AUDIO = "audio"  # the column that holds a record's audio
_TEXTS = {".cls": "cls", ".txt": "text"}  # members in plain text, and the columns that they become


def tar_rows(path: Path, notes: list[str]) -> Iterator[Row]:
    """Yield one row per record that has audio and a label; what is left out is counted in `notes`.

    The fields of a record's JSON are its columns; JSON that is no object is the column `label`, and so is `.cls` if
    there is no such field. Raises InputError if no record has a label, and DataError for a damaged archive.
    """
    index = index_tar(path, SHARD_AUDIO | AUDIO_SUFFIXES, tuple(_TEXTS))
    labelled = index.records.keys() | {name for texts in index.texts.values() for name in texts}
    for what, names in (("audio", labelled - index.audio.keys()), ("label", index.audio.keys() - labelled)):
        if names:
            notes.append(f"{path.name}: {len(names)} records have no {what} and are left out, first {min(names)}")
    if index.others:
        kinds = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in sorted(index.others.items()))
        notes.append(f"{path.name}: members that are neither audio nor labels are not read ({kinds})")
    names = [name for name in index.audio if name in labelled]
    if not names:
        remedy = "put NAME.json, NAME.cls or NAME.txt beside each NAME.wav"
        raise InputError("holds no audio with a label", where=path, remedy=remedy)
    rows = [_values(index, name) for name in names]
    columns = dict.fromkeys(column for values in rows for column in values)
    for name, values in zip(names, rows, strict=True):
        yield Row({**dict.fromkeys(columns), **values, AUDIO: index.audio[name]}, path, f"record {name}")


def _values(index: Index, name: str) -> dict[str, Any]:
    record = index.records.get(name, {})
    values = dict(record) if isinstance(record, dict) else {"label": record}
    for suffix, column in _TEXTS.items():
        if name in index.texts[suffix]:
            values.setdefault(column, index.texts[suffix][name])
    if "cls" in values:
        values.setdefault("label", values["cls"])
    return values
