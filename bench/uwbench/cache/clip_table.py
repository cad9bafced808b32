"""The clip table of a task: its clips with labels, splits and keys, on disk apart from any encoder.

`clips/<task>-<data8>.parquet` has one row per clip: id, key, labels (JSON), split, fold, group, duration_s; its
metadata hold the task's card and the source of the clips. Fixing a label or fold makes another table and re-encodes
nothing, as vectors are found by key.
"""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from uwbench.audio.clip import Event, Labels
from uwbench.audio.corruption import Corruption
from uwbench.base.atomic import write_atomically
from uwbench.base.hashing import SHORT, digest
from uwbench.base.json_text import parse_json
from uwbench.cards.card import Card
from uwbench.errors import StoreError

if TYPE_CHECKING:
    import pyarrow as pa

_META = b"uwbench"


@dataclass(frozen=True, slots=True)
class ClipTable:
    """`n` clips in the source's order; a key identifies the audio content and the stretch used (`hashing.clip_key`)."""

    card: Card
    source: str
    ids: tuple[str, ...]
    keys: tuple[bytes, ...]
    labels: tuple[Labels, ...]
    splits: tuple[str | None, ...]
    folds: tuple[str | None, ...]
    groups: tuple[str | None, ...]
    durations_s: tuple[float, ...]
    limited: bool = False  # made with --limit: its results stay off the leaderboard
    unreadable: tuple[str, ...] = ()  # one error per clip of the source that could not be read

    @property
    def needs_frames(self) -> bool:
        """True if the task is scored on frames and not on one vector per clip."""
        return self.card.kind in ("frame-multi-label", "transcription")

    def rows(self) -> list[list[str | None]]:
        """Return what identifies each clip of the data: id, key, labels, split, fold and group."""
        keys = (key.hex() for key in self.keys)
        labels = map(encode_labels, self.labels)
        rows = zip(self.ids, keys, labels, self.splits, self.folds, self.groups, strict=True)
        return [list(row) for row in rows]

    def sha256(self) -> str:
        """Return the identity of the data: that of its rows, but not the source."""
        return digest(self.rows())

    @property
    def tested(self) -> list[int]:
        """The rows of the clips that are tested: the test split, or all clips of a task with folds."""
        return [
            row
            for row, (split, fold) in enumerate(zip(self.splits, self.folds, strict=True))
            if fold or split == "test"
        ]

    def corrupted(self, corruption: Corruption) -> ClipTable:
        """Return the table of the tested clips as they are when corrupted, under keys of their own."""
        table = self.keep(self.tested)
        return replace(table, keys=tuple(map(corruption.key, table.keys)))

    def keep(self, rows: Sequence[int]) -> ClipTable:
        """Return the table of some rows."""

        def pick(values: tuple) -> tuple:
            return tuple(values[i] for i in rows)

        return ClipTable(
            self.card,
            self.source,
            pick(self.ids),
            pick(self.keys),
            pick(self.labels),
            pick(self.splits),
            pick(self.folds),
            pick(self.groups),
            pick(self.durations_s),
            self.limited,
            self.unreadable,
        )


def encode_labels(labels: Labels) -> str:
    """Return labels as JSON: a string, a list of strings, or a list of [onset, offset, label]."""
    if isinstance(labels, str):
        return json.dumps(labels, ensure_ascii=False)
    items = [[item.onset_s, item.offset_s, item.label] if isinstance(item, Event) else item for item in labels]
    return json.dumps(items, ensure_ascii=False)


def decode_labels(text: str, kind: str) -> Labels:
    """Return the labels that `encode_labels` wrote, for a task of this kind."""
    value = parse_json(text, constants=False)
    if isinstance(value, str):
        return value
    if kind == "frame-multi-label":
        labels = tuple(Event(float(onset), float(offset), label) for onset, offset, label in value)
        if not all(math.isfinite(event.onset_s) and math.isfinite(event.offset_s) for event in labels):
            raise ValueError("an event's times are not numbers")
        names = [event.label for event in labels]
    else:
        labels = names = tuple(value)
    if not all(isinstance(name, str) for name in names):
        raise ValueError("a label is not a string")
    return labels


def write_table(root: Path, table: ClipTable) -> str:
    """Write a clip table into the cache at `root` unless it is there; return its name, `<task>-<data8>`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = f"{table.card.name}-{table.sha256()[:SHORT]}"
    path = table_path(root, name)
    meta = {"card": table.card.model_dump(mode="json"), "source": table.source, "limited": table.limited}
    meta["unreadable"] = list(table.unreadable)
    values = {
        "id": table.ids,
        "key": table.keys,
        "labels": [encode_labels(labels) for labels in table.labels],
        "split": table.splits,
        "fold": table.folds,
        "group": table.groups,
        "duration_s": np.asarray(table.durations_s, np.float64),
    }
    sink = pa.BufferOutputStream()
    data = pa.table({name: pa.array(values[name], kind) for name, kind in _columns().items()}).replace_schema_metadata(
        {_META: json.dumps(meta, sort_keys=True)}
    )
    pq.write_table(data, sink, compression="zstd")
    content = sink.getvalue().to_pybytes()
    if not path.is_file() or path.read_bytes() != content:
        try:
            write_atomically(path, content)
        except OSError as error:
            # A read-only cache may hold the same clips from another source; scoring uses the table in memory.
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM) or not path.is_file():
                raise
    return name


def _columns() -> dict[str, pa.DataType]:
    import pyarrow as pa

    texts = {"labels": pa.string(), "split": pa.string(), "fold": pa.string(), "group": pa.string()}
    return {"id": pa.string(), "key": pa.binary(32), **texts, "duration_s": pa.float64()}


def read_table(root: Path, name: str) -> ClipTable:
    """Read a clip table of the cache; raise StoreError if it is missing or damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = table_path(root, name)
    remedy = f"run: uwbench extract --task {name.rpartition('-')[0]}"
    try:
        table = pq.read_table(pa.BufferReader(path.read_bytes()))
        table.validate(full=True)
        wrong = [name for name, kind in _columns().items() if table.schema.field(name).type != kind]
        wrong = wrong or [name for name in ("id", "key", "labels", "duration_s") if table.column(name).null_count]
        if wrong:
            raise ValueError(f"the column {wrong[0]!r} is not as written")
        meta = parse_json((table.schema.metadata or {})[_META])
        meta["card"].pop("crop_s", None)  # a field of older cards, which nothing read
        card = Card.model_validate(meta["card"])
        columns = {column: table.column(column).to_pylist() for column in table.column_names}
        return ClipTable(
            card,
            str(meta["source"]),
            tuple(columns["id"]),
            tuple(columns["key"]),
            tuple(decode_labels(text, card.kind) for text in columns["labels"]),
            tuple(columns["split"]),
            tuple(columns["fold"]),
            tuple(columns["group"]),
            tuple(columns["duration_s"]),
            bool(meta["limited"]),
            tuple(map(str, meta["unreadable"])),
        )
    except (OSError, AttributeError, KeyError, TypeError, ValueError, OverflowError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise StoreError(f"the clip table cannot be read ({reason})", where=path, remedy=remedy) from error


def table_path(root: Path, name: str) -> Path:
    """Return the path of the table `name` in the cache at `root`."""
    return root / "clips" / f"{name}.parquet"
