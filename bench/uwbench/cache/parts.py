"""Part files: Arrow files of one record batch, written durably and checked as they are read.

pooled-00000.arrow      key, frames, chunks, and one float32 list per pooling
frames-00000.arrow      key, and one list of float16 frames per clip
segments-00000-segmented.arrow  key, and one float32 list of a clip's segment pyramid, layer by layer

A file's bytes are durable once it has its name; the name is durable once the caller has synced the folder.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from uwbench.base.atomic import write_in_place
from uwbench.cache.frames import FileRows, Spill
from uwbench.errors import StoreError

if TYPE_CHECKING:
    import pyarrow as pa

KEY_BYTES = 32
INDEX = ("key", "frames", "chunks")  # the first columns of a file of vectors
_VERIFY = "run uwbench cache verify, then extract again"
_DAMAGED = "does not match its checksum"
_BLOCK = 1 << 20  # bytes read and hashed at a time


@dataclass(frozen=True, slots=True)
class PooledRows:
    """Vectors of some clips: `vectors[pooling]` is float32 `(rows, layers, dim)`; `n_frames` counts valid frames.

    `segments` are their pyramids, float32 `(rows, layers, SEGMENTS, dim)`, if they have any.
    """

    keys: Sequence[bytes]
    vectors: Mapping[str, np.ndarray]
    n_frames: np.ndarray
    n_chunks: np.ndarray
    segments: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Expected:
    """Size and checksum that a file must have, from its manifest."""

    bytes: int
    xxh3_128: str


def write_pooled(path: Path, rows: PooledRows) -> Expected:
    """Write one part's vectors; the caller holds the part's lock."""
    import pyarrow as pa

    columns: dict[str, pa.Array] = {
        "key": pa.array(rows.keys, pa.binary(KEY_BYTES)),
        "frames": pa.array(rows.n_frames, pa.int32()),
        "chunks": pa.array(rows.n_chunks, pa.int32()),
    }
    columns |= {pooling: _lists(vectors) for pooling, vectors in rows.vectors.items()}
    return _write(path, pa.table(columns))


def write_segments(path: Path, keys: Sequence[bytes], segments: np.ndarray) -> Expected:
    """Write the pyramids of one part's clips, `PooledRows.segments`; the caller holds the part's lock."""
    import pyarrow as pa

    return _write(path, pa.table({"key": pa.array(keys, pa.binary(KEY_BYTES)), "segments": _lists(segments)}))


def _lists(vectors: np.ndarray) -> pa.Array:
    """Return a column with one list per row of `(rows, ...)`, float32."""
    import pyarrow as pa

    flat = np.ascontiguousarray(vectors, np.float32).reshape(len(vectors), -1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), flat.shape[1])


def write_frames(path: Path, keys: Sequence[bytes], frames: Sequence[np.ndarray] | Spill) -> Expected:
    """Write the frames of one part's clips, float16 `(frames, dim)` each; the caller holds the part's lock."""
    import pyarrow as pa

    if isinstance(frames, Spill):
        counts, values = frames.counts, frames.values()
    else:
        counts = [len(clip) for clip in frames]
        values = np.ascontiguousarray(np.concatenate(list(frames)), np.float16)
    rows = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
    lists = pa.LargeListArray.from_arrays(pa.array(np.cumsum([0, *counts]), pa.int64()), rows)
    return _write(path, pa.table({"key": pa.array(keys, pa.binary(KEY_BYTES)), "frames": lists}))


def _write(path: Path, table: pa.Table) -> Expected:
    import pyarrow as pa

    table = table.combine_chunks()
    with write_in_place(path) as temporary, temporary.open("wb") as file:
        _reserve(file.fileno(), table.nbytes)
        sink = _HashedFile(file)
        with pa.ipc.new_file(pa.PythonFile(sink, mode="w"), table.schema) as writer:
            writer.write_table(table)
        file.truncate()
    return Expected(sink.bytes, sink.hash.hexdigest())


class _HashedFile:
    """A file for Arrow to write to that hashes what is written."""

    closed = False

    def __init__(self, file: Any) -> None:
        import xxhash

        self._file, self.hash, self.bytes = file, xxhash.xxh3_128(), 0

    def write(self, data: Any) -> int:
        self.hash.update(data)
        self.bytes += len(data)
        return self._file.write(data)

    def flush(self) -> None: ...

    def close(self) -> None: ...


def _reserve(handle: int, size: int) -> None:
    """Reserve disk space for a file, so that a full disk shows at once; do nothing if the file system cannot."""
    try:
        os.posix_fallocate(handle, 0, size)
    except AttributeError:  # not on this system
        return
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise


def read_index(path: Path, poolings: Sequence[str], width: int) -> pa.Table:
    """Return the columns `INDEX` of a part's vectors, unchecked; raise StoreError if the file is not such a part.

    `width` is the length of one clip's vector under each of `poolings`. Only these columns are read from the disk.
    """
    import pyarrow as pa

    columns = _pooled_columns(poolings, width)
    try:
        with path.open("rb") as file:
            return _read_table(pa.PythonFile(file, mode="r"), columns, path, INDEX)
    except OSError as error:
        raise StoreError(f"cannot be read ({_line(error)})", where=path, remedy=_VERIFY) from error


def open_frames(path: Path, dim: int) -> tuple[pa.Array, np.ndarray, FileRows]:
    """Return the keys of a part's frames, the bounds of each clip's rows, and the rows, which are read when indexed.

    Raises StoreError if the file is not such a part. It is memory-mapped only while it is opened.
    """
    import pyarrow as pa

    mapped, table = _map(path, "frames", pa.large_list(pa.list_(pa.float16(), dim)))
    if not table.num_rows:
        return pa.array([], pa.binary(KEY_BYTES)), np.zeros(1, np.int64), FileRows(path, 0, 0, dim)
    column = table.column("frames").chunk(0)
    values = column.values.flatten()
    at = values.buffers()[1].address + 2 * values.offset - mapped.address
    keys = pa.array(table.column("key").to_pylist(), pa.binary(KEY_BYTES))
    return keys, column.offsets.to_numpy().copy(), FileRows(path, at, len(values) // dim, dim)


def open_segments(path: Path, width: int) -> tuple[pa.Array, FileRows]:
    """Return the keys of a part's pyramids and the pyramids, one row of `width` each, which are read when indexed.

    Raises StoreError if the file is not such a part. It is memory-mapped only while it is opened.
    """
    import pyarrow as pa

    mapped, table = _map(path, "segments", pa.list_(pa.float32(), width))
    keys = pa.array(table.column("key").to_pylist(), pa.binary(KEY_BYTES))
    if not table.num_rows:
        return keys, FileRows(path, 0, 0, width, np.float32)
    values = table.column("segments").chunk(0).flatten()
    at = values.buffers()[1].address + 4 * values.offset - mapped.address
    return keys, FileRows(path, at, table.num_rows, width, np.float32)


def _map(path: Path, column: str, kind: pa.DataType) -> tuple[pa.Buffer, pa.Table]:
    """Return a file of keys and one other column, memory-mapped, and its table; raise StoreError if it is none."""
    import mmap

    import pyarrow as pa

    try:
        with path.open("rb") as file:  # Arrow's own mapping takes only file names in UTF-8
            mapped = pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot be read ({_line(error)})", where=path, remedy=_VERIFY) from error
    return mapped, _read_table(mapped, {"key": pa.binary(KEY_BYTES), column: kind}, path)


class PartReader:
    """Reads files of vectors whole, one after the other, into one buffer that grows to the largest of them.

    A file that is cut off meanwhile is an error; were it memory-mapped, touching its lost pages would end the process.
    """

    def __init__(self) -> None:
        self._buffer = np.empty(0, np.uint8)

    def read(self, path: Path, expected: Expected, *, verify: bool = True) -> memoryview:
        """Return a file's bytes, valid until the next call; raise StoreError if they are not those that were written.

        With `verify` off, the checksum is taken to be right.
        """
        import xxhash

        checksum = xxhash.xxh3_128()
        try:
            with path.open("rb", buffering=0) as file:
                wrong = _wrong_size(os.fstat(file.fileno()).st_size, expected)
                if wrong is not None:
                    raise damaged_part(path, wrong)
                if expected.bytes > len(self._buffer):
                    self._buffer = np.empty(expected.bytes, np.uint8)
                data = self._buffer.data[: expected.bytes]
                for start in range(0, expected.bytes, _BLOCK):
                    block = data[start : start + _BLOCK]
                    if not _fill(file, block):
                        raise damaged_part(path, _DAMAGED)
                    if verify:
                        checksum.update(block)
        except FileNotFoundError as error:
            raise damaged_part(path, "is missing") from error
        except OSError as error:
            raise damaged_part(path, f"cannot be read ({_line(error)})") from error
        if verify and checksum.hexdigest() != expected.xxh3_128:
            raise damaged_part(path, _DAMAGED)
        return data

    def table(
        self, path: Path, expected: Expected, poolings: Sequence[str], width: int, *, verify: bool = True
    ) -> pa.Table:
        """Return a part's vectors, valid until the next call; raise StoreError if the file is damaged."""
        import pyarrow as pa

        data = self.read(path, expected, verify=verify)
        return _read_table(pa.py_buffer(data), _pooled_columns(poolings, width), path)


def _fill(file: Any, block: memoryview) -> bool:
    """Read until `block` is full; return False if the file ends before."""
    while block:
        count = file.readinto(block)
        if not count:
            return False
        block = block[count:]
    return True


def _pooled_columns(poolings: Sequence[str], width: int) -> dict[str, pa.DataType]:
    import pyarrow as pa

    vector = pa.list_(pa.float32(), width)
    return {"key": pa.binary(KEY_BYTES), "frames": pa.int32(), "chunks": pa.int32()} | dict.fromkeys(poolings, vector)


def _read_table(
    source: Any, columns: Mapping[str, pa.DataType], path: Path, names: Sequence[str] | None = None
) -> pa.Table:
    """Return the columns `names`, or all, of an Arrow file that has exactly `columns`, in one batch without nulls.

    Arrow trusts what a file says of itself, and some of it ends the process: types are compared before anything is
    read, lengths and offsets are validated before they are followed.
    """
    import pyarrow as pa

    try:
        file = pa.ipc.open_file(source)
        schema = file.schema
        fields = list(zip(schema.names, schema.types, strict=True))
        wrong = [name for name, kind in columns.items() if (name, kind) not in fields]
        wrong += [name for name in schema.names if name not in columns]
        if wrong or len(fields) != len(columns) or file.num_record_batches > 1:
            what = f"the column {wrong[0]!r} is not as written" if wrong else "it is not one batch of its columns"
            raise StoreError(f"is no such part: {what}", where=path, remedy=_VERIFY)
        if names is not None:  # opened again, as reading some columns alone copies them
            indices = [schema.names.index(name) for name in names]
            file = pa.ipc.open_file(source, options=pa.ipc.IpcReadOptions(included_fields=indices))
        table = file.read_all().select(list(names or columns))
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise StoreError(f"cannot be read ({_line(error)})", where=path, remedy=_VERIFY) from error
    nulls = [name for name in table.column_names if table.column(name).null_count]
    if nulls:
        raise StoreError(f"is no such part: the column {nulls[0]!r} has nulls", where=path, remedy=_VERIFY)
    return table


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def damaged_part(path: Path, what: str) -> StoreError:
    """Return the error for a part's file that is damaged and about to be used."""
    remedy = f"run: uwbench extract --task {path.parent.name}; it re-encodes this part only"
    return StoreError(what, where=path, remedy=remedy)


def damage(path: Path, expected: Expected) -> str | None:
    """Return what is wrong with a file, or None if it is as it was written; it may be larger than the memory."""
    import xxhash

    if not path.is_file():
        return "is missing"
    wrong = _wrong_size(path.stat().st_size, expected)
    if wrong is not None:
        return wrong
    checksum, block = xxhash.xxh3_128(), bytearray(_BLOCK)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            checksum.update(memoryview(block)[:count])
    return None if checksum.hexdigest() == expected.xxh3_128 else _DAMAGED


def _wrong_size(size: int, expected: Expected) -> str | None:
    return None if size == expected.bytes else f"has {size:,} bytes where {expected.bytes:,} were written"
