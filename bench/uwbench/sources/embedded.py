"""Audio embedded in rows: Parquet files as the hub has them, and the Arrow files that `datasets` saves to disk.

An Arrow file holds encoded audio as it is, so that clips are read in place. The pages of a Parquet file are compressed:
its audio is copied out once, end to end, into one file (`audio.bin`), and a dataset never has to fit in memory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uwbench.audio.clip import AudioBytes, AudioMember
from uwbench.base.atomic import make_folder, write_atomically
from uwbench.base.hashing import digest
from uwbench.base.json_text import parse_json
from uwbench.base.sharing import follow_folder
from uwbench.errors import DataError, InputError
from uwbench.sources.rows import Row

if TYPE_CHECKING:
    import pyarrow as pa

HOME = ".hub"  # the folder beside the data that copies are written to
_BATCH = 64  # rows of audio in memory at a time


def class_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, tuple[str, ...]]:
    """Return the class names of each column of class numbers, or of lists of them, from a schema's metadata.

    `datasets` stores its features there.
    """
    try:
        return names_in(parse_json((metadata or {})[b"huggingface"])["info"]["features"])
    except (KeyError, ValueError, TypeError):
        return {}


def names_in(features: Any) -> dict[str, tuple[str, ...]]:
    """Return the class names of each column, by the features of a dataset as `datasets` writes them."""
    names = {}
    for column, feature in features.items() if isinstance(features, dict) else ():
        inner = feature[0] if isinstance(feature, list) and feature else feature
        inner = inner.get("feature", inner) if isinstance(inner, dict) else inner
        listed = inner.get("names") if isinstance(inner, dict) else None
        if isinstance(listed, list) and listed and all(isinstance(name, str) for name in listed):
            names[column] = tuple(listed)
    return names


def audio_columns(schema: pa.Schema) -> list[str]:
    """Return the columns that may hold encoded audio: structs of `bytes` and `path`, or plain bytes called audio."""
    plain = {field.name for field in schema if field.name == "audio" and _is_binary(field.type)}
    return [field.name for field in schema if field.name in plain or _bytes_field(field.type) is not None]


def _is_binary(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _bytes_field(kind: pa.DataType) -> pa.Field | None:
    import pyarrow as pa

    index = kind.get_field_index("bytes") if pa.types.is_struct(kind) else -1
    return kind.field(index) if index >= 0 and _is_binary(kind.field(index).type) else None


def choose_audio(schema: pa.Schema, where: Path) -> str | None:
    """Return the column of a table that holds its clips' audio, or None; raise InputError if there are several."""
    columns = audio_columns(schema)
    twice = next((name for name in schema.names if schema.names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"has two columns {twice!r}", where=where)
    if "audio" in columns or len(columns) < 2:
        return "audio" if "audio" in columns else next(iter(columns), None)
    raise InputError(
        f"has several columns that may be the audio: {', '.join(columns)}", where=where, remedy="call one of them audio"
    )


@contextmanager
def readable(path: Path, what: str) -> Iterator[None]:
    """Turn what pyarrow and the system raise while a file is read into an InputError that names the file."""
    import pyarrow as pa

    try:
        yield
    except OSError as error:  # which pyarrow raises for damaged files too
        text = error.strerror or " ".join(str(error).split())
        raise InputError(f"is not a readable {what} file ({text})", where=path) from error
    except (pa.ArrowException, ValueError, OverflowError) as error:  # the last two: an impossible date
        raise InputError(f"is not a valid {what} file ({' '.join(str(error).split())})", where=path) from error


def parquet_schema(path: Path) -> pa.Schema:
    """Return the schema of a Parquet file; raise InputError, naming it, if it is none."""
    import pyarrow.parquet as pq

    with readable(path, "Parquet"), path.open("rb") as data, pq.ParquetFile(data) as file:
        return _with_names(file.schema_arrow)


def _with_names(schema: pa.Schema) -> pa.Schema:
    """Return the schema; raise ValueError if a column's name is not UTF-8, which pyarrow says only when it is asked."""
    _ = schema.names
    return schema


def parquet_rows(files: Sequence[Path], column: str, home: Path) -> Iterator[tuple[Path, Row]]:
    """Yield each file's rows, with clips read in place, or the path of a file, in the audio column.

    The audio is copied to the folder `home` on the first call, and again if a file has changed.
    """
    import pyarrow.parquet as pq

    stamps = [[str(path.name), path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    source = digest([stamps, column])
    if source_of(home) != source:
        try:
            lay_out(home, source, ((data, {}) for path in files for data in _parquet_audio(path, column)))
        except OSError as error:
            what = f"cannot copy the audio for reading in place ({error.strerror or error})"
            remedy = "move the Parquet files to a disk with free space that can be written"
            raise DataError(what, where=home, remedy=remedy) from error
    places = laid_out(home)
    for path in files:
        with readable(path, "Parquet"), path.open("rb") as data, pq.ParquetFile(data) as file:
            schema = file.schema_arrow
            others = [name for name in schema.names if name not in audio_columns(schema)]
            kind = schema.field(column).type
            path_columns = [f"{column}.path"] if _bytes_field(kind) and kind.get_field_index("path") >= 0 else []
            number = 0
            for batch in file.iter_batches(columns=[*others, *path_columns]):
                for values in _named(batch, class_names(schema.metadata), path, number):
                    number += 1
                    place = next(places, None)
                    if place is None:
                        raise DataError(
                            "holds fewer clips than the data", where=home / "rows.jsonl", remedy="remove it"
                        )
                    inner = values.get(column)
                    name = inner.get("path") if isinstance(inner, dict) else None
                    audio = AudioMember(home / "audio.bin", place["offset"], place["size"], _label(path, name, number))
                    yield path, _row(values, column, audio if place["size"] else None, name, path, number)


def _parquet_audio(path: Path, column: str) -> Iterator[bytes]:
    import pyarrow.parquet as pq

    with readable(path, "Parquet"), path.open("rb") as data, pq.ParquetFile(data) as file:
        kind = file.schema_arrow.field(column).type
        inner = column if _is_binary(kind) else f"{column}.bytes"
        for batch in file.iter_batches(batch_size=_BATCH, columns=[inner]):
            for value in batch.column(column).to_pylist():
                yield (value.get("bytes") if isinstance(value, dict) else value) or b""


def arrow_rows(path: Path, column: str, names: Mapping[str, tuple[str, ...]]) -> Iterator[Row]:
    """Yield the rows of an Arrow file, with clips read in place, or the path of a file, in the audio column.

    `names` has the class names of columns whose names the file does not hold itself.
    """
    import pyarrow as pa

    with readable(path, "Arrow"), pa.memory_map(str(path)) as mapped:
        content = mapped.read_buffer()
        reader = pa.ipc.open_stream(content)
        number = 0
        for batch in reader:
            batch.validate(full=True)
            index = _column_index(batch.schema, column, path)
            others = [i for i, field in enumerate(batch.schema) if field.name not in audio_columns(batch.schema)]
            rows = _named(batch.select(others), {**names, **class_names(batch.schema.metadata)}, path, number)
            paths = _paths_in(batch.column(index))
            places = _places(batch.column(index), content, path)
            for values, name, (offset, size) in zip(rows, paths, places, strict=True):
                number += 1
                audio = AudioMember(path, offset, size, _label(path, name, number))
                yield _row(values, column, audio if size else None, name, path, number)


def arrow_schema(path: Path) -> pa.Schema:
    """Return the schema of an Arrow file; raise InputError, naming it, if it is none."""
    import pyarrow as pa

    with readable(path, "Arrow"), pa.memory_map(str(path)) as mapped, pa.ipc.open_stream(mapped) as reader:
        return _with_names(reader.schema)


def _column_index(schema: pa.Schema, column: str, path: Path) -> int:
    index = schema.get_field_index(column)
    if index < 0 or column not in audio_columns(schema):
        raise InputError(f"has no column {column!r} of audio ({', '.join(schema.names)})", where=path)
    return index


def _paths_in(audio: pa.Array) -> list[Any]:
    import pyarrow as pa

    if not isinstance(audio, pa.StructArray) or audio.type.get_field_index("path") < 0:
        return [None] * len(audio)
    return audio.field("path").to_pylist()


def _places(audio: pa.Array, content: pa.Buffer, path: Path) -> Iterator[tuple[int, int]]:
    """Yield where each row's audio is in the file, and its size, which is 0 if there is none."""
    import numpy as np
    import pyarrow as pa

    data = audio.field("bytes") if isinstance(audio, pa.StructArray) else audio
    present = np.array(audio.is_valid()) & np.array(data.is_valid())
    _, offsets, values = data.buffers()
    if offsets is None or values is None or not len(data):
        yield from [(0, 0)] * len(data)
        return
    wide = np.int64 if pa.types.is_large_binary(data.type) else np.int32
    ends = np.frombuffer(offsets, wide, len(data) + 1, data.offset * np.dtype(wide).itemsize).astype(np.int64)
    base = values.address - content.address
    if not 0 <= base <= content.size - int(ends[-1]):
        raise InputError("is compressed, and audio is read in place", where=path, remedy="save it with save_to_disk")
    for i in range(len(data)):
        yield base + int(ends[i]), int(ends[i + 1] - ends[i]) if present[i] else 0


def _named(
    batch: pa.RecordBatch, names_of: Mapping[str, tuple[str, ...]], path: Path, before: int
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a batch, which `before` rows precede, with class numbers replaced by the classes' names."""
    for number, row in enumerate(batch.to_pylist(), start=before + 1):
        for column, classes in names_of.items():
            if column in row:
                try:
                    row[column] = _class_of(row[column], classes)
                except LookupError as error:
                    raise InputError(f"row {number}, column {column!r}: {error.args[0]}", where=path) from error
        yield row


def _class_of(value: Any, classes: tuple[str, ...]) -> Any:
    if isinstance(value, list):
        return [_class_of(item, classes) for item in value]
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    if not 0 <= value < len(classes):
        why = ", which `datasets` writes for clips without a label" if value == -1 else ""
        raise LookupError(f"{value} is none of the {len(classes)} class numbers{why}")
    return classes[value]


def _label(path: Path, name: Any, number: int) -> str:
    """Return what messages call a row's audio."""
    return name if isinstance(name, str) and name else f"{path.stem}-{number:06d}"


def _row(values: dict[str, Any], column: str, audio: AudioMember | None, name: Any, path: Path, number: int) -> Row:
    """Return a row whose audio column holds a clip, or else a path; without either it holds no bytes."""
    cell = audio or (name if isinstance(name, str) and name else AudioBytes(b"", _label(path, None, number)))
    return Row({**values, column: cell}, path, f"row {number}")


def home_beside(folder: Path, name: str) -> Path:
    """Return the folder for copies of audio: beside the data, or in the user's cache if that cannot be written."""
    beside = folder / HOME / name
    if os.access(folder, os.W_OK) or beside.is_dir():
        return beside
    import platformdirs

    return Path(platformdirs.user_cache_dir("uwbench")) / "audio" / digest([str(folder.resolve()), name])[:16]


def lay_out(
    home: Path,
    source: str,
    rows: Iterable[tuple[bytes, Mapping[str, Any]]],
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Write the audio end to end and one line per row; `source.json`, written last, makes them valid.

    `progress` is called with the number of rows so far.
    """
    make_folder(home)
    (home / "source.json").unlink(missing_ok=True)
    lines = []
    offset = 0
    unfinished = home / f"audio.{os.getpid()}.tmp"  # another process may read, or make, the same copy
    try:
        with unfinished.open("wb") as file:
            for number, (audio, record) in enumerate(rows, start=1):
                file.write(audio)
                lines.append(json.dumps({**record, "offset": offset, "size": len(audio)}))
                offset += len(audio)
                progress(number)
        follow_folder(unfinished)
        unfinished.replace(home / "audio.bin")
    finally:
        unfinished.unlink(missing_ok=True)
    write_atomically(home / "rows.jsonl", "".join(f"{line}\n" for line in lines).encode())
    write_atomically(home / "source.json", json.dumps({"source": source, "bytes": offset}).encode())


def source_of(home: Path) -> str | None:
    """Return the hash of the source that the copied audio was made from, or None if it is missing or incomplete."""
    try:
        record = parse_json((home / "source.json").read_text(encoding="utf-8"))
        complete = (home / "audio.bin").stat().st_size == record["bytes"]
        return record["source"] if complete else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def laid_out(home: Path) -> Iterator[Any]:
    """Yield the records of the copied audio, with `offset` and `size`; raise DataError if they are damaged."""
    path = home / "rows.jsonl"
    with path.open(encoding="utf-8") as file:
        for line in file:
            try:
                yield parse_json(line)
            except ValueError as error:
                raise DataError(f"is damaged ({error})", where=path) from error
