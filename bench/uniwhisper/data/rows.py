"""The row format of training data: a question about a clip, its answers, and the location of its audio.

A folder of training data holds tar shards and beside them index files, `*.rows.arrow`: Arrow IPC, uncompressed, so
that opening maps them into memory and reading a row touches only that row. The audio of a row is a range of bytes in
a shard of the same folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from uwbench.api import InputError, UsageError
from uwbench.base.atomic import write_atomically
from uwbench.base.hashing import digest, sha256_file

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIX = ".rows.arrow"
ROWS_PER_FILE = 250_000
FORMAT = b"uniwhisper rows 1"

_AT_ONCE = 4096  # rows turned into objects at a time
_META = b"format"
_GAPS = ("source", "instruction", "key")  # columns that may be empty in a row
# Columns of few distinct values, stored as codes into a dictionary.
_NAMES = ("dataset", "split", "domain", "licence", "task", "slots", "shard")


@dataclass(frozen=True, slots=True)
class AudioRef:
    """The location of encoded audio: bytes `[offset, offset + size)` of the plain tar `shard`, its member `member`.

    In a row that was read, `shard` is a path; in a row to be written, the shard's name in the folder. `content` is
    the hex sha256 of the samples that these bytes decode to (`shards.content_hash`): equal for equal sound, whatever
    file it came from.
    """

    shard: str
    member: str
    offset: int
    size: int
    content: str


@dataclass(frozen=True, slots=True)
class Row:
    """One question about one clip.

    `id` is `dataset/clip:task`, or `dataset/clip:task/form` where the task is asked in one of its template's forms
    (slot `form`), with `#2`, `#3`, ... added to what would repeat; unique. `source` is the publisher's id of the
    recording (a Freesound number, say) and `key` the benchmark's key of the clip that the audio was made from (hex; the
    hash of its encoded bytes and of the stretch used, as in the benchmark's clip tables); both None where not known.
    `task` names a template; `instruction` is None unless the data bring the question, and is then drawn from the
    template, whose blanks `slots` fill. Of several `answers` one is drawn.
    `duration_s` is the length of the audio in the shard in seconds.
    """

    id: str
    dataset: str
    split: str
    clip: str
    domain: str
    licence: str
    source: str | None
    duration_s: float
    audio: AudioRef
    task: str
    instruction: str | None
    slots: dict[str, str]
    answers: tuple[str, ...]
    key: str | None = None

    @property
    def question(self) -> str:
        """The question's name: the task, or `task/form` for one of its forms."""
        form = self.slots.get("form")
        return self.task if form is None else f"{self.task}/{form}"


class RowTable:
    """The rows of one or more folders, memory-mapped, ordered by folder and file name.

    `durations` is float64 seconds, `(rows,)`. `codes(name)` gives what a named column holds as numbers, `column(name)`
    any column as Arrow has it.
    """

    def __init__(self, files: Sequence[tuple[Path, pa.Table]]) -> None:
        self._files = tuple(files)
        counts = [table.num_rows for _, table in files]
        self._starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
        self._sound: set[int] = set()  # the files whose columns of names were checked
        self.durations: np.ndarray = self._numbers("duration_s", np.float64)

    def __reduce__(self) -> tuple[object, ...]:
        # Workers map the files themselves; the rows are never sent to them.
        return _reopen, (self.files,)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Row:
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        which = int(np.searchsorted(self._starts, index, side="right")) - 1
        self._check_names(which)
        path, table = self._files[which]
        (row,) = _rows(path, table.slice(index - int(self._starts[which]), 1))
        return row

    def __iter__(self) -> Iterator[Row]:
        for which, (path, table) in enumerate(self._files):
            self._check_names(which)
            for start in range(0, table.num_rows, _AT_ONCE):
                yield from _rows(path, table.slice(start, _AT_ONCE))

    def _check_names(self, which: int) -> None:
        """Check a file's codes and names once, instead of once per row."""
        if which not in self._sound:
            path, table = self._files[which]
            _require_sound(path, table.select(_NAMES))
            self._sound.add(which)

    @property
    def files(self) -> tuple[Path, ...]:
        """The index files of the rows."""
        return tuple(path for path, _ in self._files)

    def codes(self, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
        """Return a column as int32 codes `(rows,)`, and its sorted names.

        `name` is dataset, split, domain, licence, task or slots (as JSON); names of all folders are numbered together.
        """
        import pyarrow as pa

        if name not in _NAMES or name == "shard":
            raise UsageError(f"the rows have no column {name!r} of names")
        chunks: list[tuple[np.ndarray, list[str]]] = []
        for which, (_, table) in enumerate(self._files):
            self._check_names(which)
            for chunk in table.column(name).chunks:
                assert isinstance(chunk, pa.DictionaryArray)
                chunks.append((chunk.indices.to_numpy(zero_copy_only=False), chunk.dictionary.to_pylist()))
        names = sorted({name for _, values in chunks for name in values})
        number = {name: code for code, name in enumerate(names)}
        parts = [np.asarray([number[v] for v in values], np.int32)[local] for local, values in chunks]
        return (np.concatenate(parts) if parts else np.zeros(0, np.int32)), tuple(names)

    @property
    def clip_index(self) -> np.ndarray:
        """Int64 `(rows,)`: the number of each row's clip; rows about the same audio share one."""
        parts, total = [], 0
        for first, last in zip(self._starts[:-1], self._starts[1:], strict=True):
            shards = self._shards[first:last]
            pairs = shards.astype(np.int64) << 48 | self._offsets[first:last]
            unique, inverse = np.unique(pairs, return_inverse=True)
            parts.append(inverse.astype(np.int64) + total)
            total += len(unique)
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    @property
    def _shards(self) -> np.ndarray:
        chunks = [chunk for _, table in self._files for chunk in table.column("shard").chunks]
        parts = [chunk.indices.to_numpy(zero_copy_only=False) for chunk in chunks]
        return np.concatenate(parts) if parts else np.zeros(0, np.int32)

    @property
    def _offsets(self) -> np.ndarray:
        return self._numbers("offset", np.int64)

    def _numbers(self, name: str, dtype: Any) -> np.ndarray:
        parts = [table.column(name).to_numpy() for _, table in self._files]
        return np.concatenate(parts).astype(dtype, copy=False) if parts else np.zeros(0, dtype)

    def column(self, name: str) -> pa.ChunkedArray:
        """Return a column: id, clip, source, key, content (both as 32 bytes), answers, ... ; see `Row`."""
        import pyarrow as pa

        for path, table in self._files:
            _require_sound(path, table.select([name]))
        chunks = [chunk for _, table in self._files for chunk in table.column(name).chunks]
        return pa.chunked_array(chunks, type=None if chunks else _schema().field(name).type)

    def require_shards(self) -> None:
        """Raise InputError naming a shard that is missing or shorter than its index lists."""
        import pyarrow.compute as pc

        for which, (path, table) in enumerate(self._files):
            self._check_names(which)
            ends = pc.call_function("add", [table.column("offset"), table.column("size")])
            shards = table.column("shard").cast("string")
            for name in pc.call_function("unique", [shards]).to_pylist():
                shard_ends = ends.filter(pc.call_function("equal", [shards, name]))
                needed = pc.call_function("max", [shard_ends]).as_py()
                shard = _shard(path.parent, name)
                there = shard.stat().st_size if shard.is_file() else None
                if there is None or there < needed:
                    what = "is missing" if there is None else f"has {there} bytes, its index lists {needed}"
                    raise InputError(
                        what, where=shard, remedy="copy it again, or convert its dataset into a new folder"
                    )

    def sha256(self) -> str:
        """Return the hash of the index files' content, in order, whatever their location."""
        return digest([sha256_file(path) for path, _ in self._files])


def _reopen(paths: Sequence[Path]) -> RowTable:
    return RowTable([_open(path) for path in paths])


def open_rows(folders: Sequence[Path]) -> RowTable:
    """Map the rows of training folders; raise InputError naming a folder without rows or a damaged file."""
    files: list[tuple[Path, pa.Table]] = []
    for folder in folders:
        paths = sorted(folder.glob(f"*{SUFFIX}"))
        if not paths:
            raise InputError(f"holds no rows (*{SUFFIX})", where=folder, remedy="make them: uniwhisper convert")
        files += map(_open, paths)
    return RowTable(files)


def write_rows(folder: Path, rows: Iterable[Row], *, name: str = "data") -> list[Path]:
    """Write rows as `<folder>/<name>-00000.rows.arrow`, ... of at most 250,000 rows; return the files.

    The same rows give the same bytes. Files are written atomically; one file's rows are in memory at a time.
    """
    written = []
    left = iter(rows)
    for number in count():
        part = list(islice(left, ROWS_PER_FILE))
        if not part:
            break
        path = folder / f"{name}-{number:05d}{SUFFIX}"
        write_atomically(path, encode_rows(part))
        written.append(path)
    return written


def encode_rows(rows: Sequence[Row], notes: dict[str, str] | None = None) -> bytes:
    """Return the bytes of an index file that holds `rows`, with `notes` in its metadata."""
    import pyarrow as pa

    schema = _schema()
    schema = schema.with_metadata({**(schema.metadata or {}), **(notes or {})})
    columns = {name: pa.array([_value(row, name) for row in rows], _plain(schema, name)) for name in schema.names}
    arrays = [columns[name].dictionary_encode() if name in _NAMES else columns[name] for name in schema.names]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as file:
        file.write_table(pa.table(arrays, schema=schema))
    return sink.getvalue().to_pybytes()


def read_notes(path: Path) -> dict[str, str]:
    """Return the notes of an index file; raise InputError if it cannot be read."""
    _, table = _open(path)
    notes = {name: text for name, text in (table.schema.metadata or {}).items() if name != _META}
    try:
        return {name.decode(): text.decode() for name, text in notes.items()}
    except UnicodeDecodeError as error:
        raise InputError(f"is damaged ({error})", where=path, remedy="convert again") from error


def _open(path: Path) -> tuple[Path, pa.Table]:
    import pyarrow as pa

    try:
        file = pa.ipc.open_file(pa.py_buffer(np.memmap(path, np.uint8, "r").data))
        same = file.schema.equals(_schema()) and (file.schema.metadata or {}).get(_META) == FORMAT
        if not same:
            raise InputError("is not an index of rows of this version", where=path, remedy="convert again")
        table = file.read_all()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(f"cannot be read ({' '.join(str(error).split())})", where=path) from error
    _require_sound(path, table.select(["duration_s", "offset", "size", "content", "key"]))
    missing = [name for name in table.column_names if name not in _GAPS and table.column(name).null_count]
    if missing:
        raise InputError(f"is damaged (rows without {missing[0]})", where=path, remedy="convert again")
    return path, table


def _require_sound(path: Path, table: pa.Table) -> None:
    """Raise InputError for invalid lengths, offsets, codes or texts, which Arrow does not check."""
    import pyarrow as pa

    try:
        table.validate(full=True)
        for column in table.columns:
            if pa.types.is_dictionary(column.type) and any(chunk.dictionary.null_count for chunk in column.chunks):
                raise ValueError("a name is missing")
    except (pa.ArrowException, ValueError) as error:
        what = " ".join(str(error).split())
        raise InputError(f"is damaged ({what})", where=path, remedy="convert again") from error


def _schema() -> pa.Schema:
    import pyarrow as pa

    name = pa.dictionary(pa.int32(), pa.string())
    fields = [
        pa.field("id", pa.string(), nullable=False),
        pa.field("dataset", name),
        pa.field("split", name),
        pa.field("clip", pa.string()),
        pa.field("domain", name),
        pa.field("licence", name),
        pa.field("source", pa.string()),
        pa.field("duration_s", pa.float64()),
        pa.field("shard", name),
        pa.field("member", pa.string()),
        pa.field("offset", pa.int64()),
        pa.field("size", pa.int64()),
        pa.field("content", pa.binary(32)),
        pa.field("task", name),
        pa.field("instruction", pa.string()),
        pa.field("slots", name),
        pa.field("answers", pa.list_(pa.string())),
        pa.field("key", pa.binary(32)),
    ]
    return pa.schema(fields, metadata={_META: FORMAT})


def _plain(schema: pa.Schema, name: str) -> pa.DataType:
    import pyarrow as pa

    return pa.string() if name in _NAMES else schema.field(name).type


def _value(row: Row, name: str) -> Any:
    match name:
        case "shard" | "member" | "offset" | "size":
            return getattr(row.audio, name)
        case "content":
            return bytes.fromhex(row.audio.content)
        case "key":
            return None if row.key is None else bytes.fromhex(row.key)
        case "slots":
            return json.dumps(row.slots, sort_keys=True, ensure_ascii=False)
        case "answers":
            return list(row.answers)
    return getattr(row, name)


def _rows(path: Path, table: pa.Table) -> Iterator[Row]:
    """Yield rows of a file; raise InputError naming the file if they are damaged.

    The columns of names were checked before.
    """
    _require_sound(path, table.select([name for name in table.column_names if name not in _NAMES]))
    for columns in table.to_pylist():
        try:
            yield _from_columns(path.parent, columns)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            what = f"the row {columns.get('id')!r} is damaged ({error})"
            raise InputError(what, where=path, remedy="convert again") from error


def _from_columns(folder: Path, columns: dict[str, Any]) -> Row:
    shard, member, offset, size, content = (
        columns.pop(name) for name in ("shard", "member", "offset", "size", "content")
    )
    audio = AudioRef(str(_shard(folder, shard)), member, offset, size, content.hex())
    slots, answers, key = json.loads(columns.pop("slots")), tuple(columns.pop("answers")), columns.pop("key")
    if not all(isinstance(text, str) for text in (*answers, *slots.values())):
        raise TypeError("an answer or a slot is not text")
    return Row(**columns, audio=audio, slots=slots, answers=answers, key=None if key is None else key.hex())


def _shard(folder: Path, name: str) -> Path:
    """Return the path of a shard beside its index."""
    if Path(name).name != name or "\0" in name:
        raise InputError(f"the shard {name!r} is not a file name", where=folder, remedy="convert again")
    return folder / name
