"""The files of a part: Arrow, one record batch each, written durably, checked and read in one pass.

A file's bytes are durable when it has its name; the name is once the caller has synced the folder.

pooled-00000.arrow      key, frames, chunks, and a list of float32 a pooling
frames-00000.arrow      key, and a list of frames in float16
"""

from __future__ import annotations

import errno
import io
import math
import mmap
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from uwbench.base.atomic import write_in_place
from uwbench.cache.frames import Spill
from uwbench.errors import StoreError

if TYPE_CHECKING:
    import pyarrow as pa

KEY_BYTES = 32
_CHECK = "run uwbench cache verify, then extract again"
_DAMAGED = "does not match its checksum"
_BLOCK = 4 << 20  # bytes read and hashed at a time by each of some readers: what the last cache holds for all of them
_CHECKED = 1 << 19  # and where a file is checked alone
_ENDS = 1 << 16  # bytes of a part's schema and footer, at most
_ON_ITS_WAY = 4 << 20  # bytes written before the disk is set to work on them
_POPULATE_READ = 22  # Linux's MADV_POPULATE_READ, which Python has no name for


@dataclass(frozen=True, slots=True)
class PooledRows:
    """Rows of one part: `vectors[pooling]` is float32 `(rows, layers, dim)`; `frames` counts the valid frames."""

    keys: Sequence[bytes]
    vectors: Mapping[str, np.ndarray]
    frames: np.ndarray
    chunks: np.ndarray


@dataclass(frozen=True, slots=True)
class Expected:
    """What a file must be: its size and checksum, as its manifest says."""

    bytes: int
    xxh3_128: str


def write_pooled(path: Path, rows: PooledRows) -> Expected:
    """Write one part's vectors; the caller holds the part's claim."""
    import pyarrow as pa

    columns: dict[str, pa.Array] = {
        "key": pa.array(rows.keys, pa.binary(KEY_BYTES)),
        "frames": pa.array(rows.frames, pa.int32()),
        "chunks": pa.array(rows.chunks, pa.int32()),
    }
    for pooling, vectors in rows.vectors.items():
        flat = np.ascontiguousarray(vectors, np.float32).reshape(len(vectors), -1)
        columns[pooling] = pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), flat.shape[1])
    return _write(path, pa.table(columns))


def write_frames(path: Path, keys: Sequence[bytes], frames: Sequence[np.ndarray] | Spill) -> Expected:
    """Write the frames of one part's clips, float16 `(frames, dim)` each; the caller holds the part's claim."""
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
    counted = pa.MockOutputStream()
    with pa.ipc.new_file(counted, table.schema) as writer:
        writer.write_table(table)
    with write_in_place(path) as temporary, temporary.open("wb", buffering=0) as file:
        _reserve(file.fileno(), counted.size())
        sink = _HashedFile(file)
        with pa.ipc.new_file(pa.PythonFile(sink, mode="w"), table.schema) as writer:
            writer.write_table(table)
        return Expected(sink.bytes, sink.hash.hexdigest())


class _HashedFile:
    """A file, as Arrow writes to it, that hashes what it is given a block at a time, and has the disk begin with it.

    Blocks are large, as a file that was written in small ones is held, and read, in small pages.
    """

    closed = False

    def __init__(self, file: io.RawIOBase | io.FileIO) -> None:
        import xxhash

        self._file, self.hash, self.bytes, self._begun = file, xxhash.xxh3_128(), 0, 0

    def write(self, data: Any) -> int:
        given = memoryview(data).cast("B")
        for start in range(0, len(given), _ON_ITS_WAY):
            block = given[start : start + _ON_ITS_WAY]
            self.hash.update(block)
            self.bytes += len(block)
            while block:
                block = block[self._file.write(block) or 0 :]
            if self.bytes - self._begun >= _ON_ITS_WAY:
                _begin(self._file.fileno(), self._begun, self.bytes)
                self._begun = self.bytes
        return len(given)

    def flush(self) -> None: ...

    def close(self) -> None: ...


def _begin(handle: int, start: int, stop: int) -> None:
    """Have the disk begin to write some bytes of a file, so that the sync at the end finds most of it done.

    Linux does so for pages that are said to be needed no more; as they are not written yet, they stay in memory.
    """
    if sys.platform == "linux":
        os.posix_fadvise(handle, start, stop - start, os.POSIX_FADV_DONTNEED)


def _reserve(handle: int, size: int) -> None:
    """Claim the disk space of a file, where the file system can: a third of the time, and a full disk shows at once."""
    try:
        os.posix_fallocate(handle, 0, size)
    except AttributeError:  # not on this system
        return
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise


def fetch_keys(path: Path, rows: int) -> None:
    """Have the disk begin to read the keys of a part, at its start, and its footer, where the system can.

    Said of many parts before the first is opened, so that they do not wait for the disk one after the other.
    """
    if sys.platform != "linux":
        return
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:  # opening it will say why
        return
    try:
        os.posix_fadvise(handle, 0, _ENDS + KEY_BYTES * rows, os.POSIX_FADV_WILLNEED)
        os.posix_fadvise(handle, max(0, os.fstat(handle).st_size - _ENDS), _ENDS, os.POSIX_FADV_WILLNEED)
    finally:
        os.close(handle)


def open_pooled(path: Path, poolings: Sequence[str], width: int, *, whole: bool = False) -> pa.Table:
    """Return a part's table of vectors, memory-mapped; raise StoreError where it holds anything else.

    `width` is the count of numbers in one clip's vectors under each of `poolings`; `whole` says that all of the
    part is read next.
    """
    import pyarrow as pa

    wanted = {"key": pa.binary(KEY_BYTES), "frames": pa.int32(), "chunks": pa.int32()}
    return _open_part(path, wanted | dict.fromkeys(poolings, pa.list_(pa.float32(), width)), whole=whole)


def open_frames(path: Path, dim: int) -> pa.Table:
    """Return a part's table of frames, memory-mapped; raise StoreError where it holds anything else."""
    import pyarrow as pa

    frames = pa.large_list(pa.list_(pa.float16(), dim))
    return _open_part(path, {"key": pa.binary(KEY_BYTES), "frames": frames})


def _map(file: io.FileIO, *, whole: bool) -> mmap.mmap:
    """Return a file's bytes, memory-mapped; raise OSError, or ValueError where it is empty.

    With `whole`, all of it is about to be read: Linux then holds it in its largest pages. Without, it begins each file
    with small ones, of which a disk is asked for few at a time. Arrow's own way of mapping takes names of UTF-8 alone.
    """
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if whole and sys.platform == "linux":
        with suppress(OSError):  # a system without large pages
            mapped.madvise(mmap.MADV_HUGEPAGE)
    return mapped


def _fetch(mapped: mmap.mmap, at: int) -> None:
    """Have the disk read on from a byte of a mapped file, in the pages that were asked for, where the system can.

    Said by way of the mapping, as reading knows no pages but its own; and unlike a look at the byte it is no death
    where the file was cut off meanwhile.
    """
    if sys.platform == "linux":
        with suppress(OSError, ValueError):
            mapped.madvise(_POPULATE_READ, at - at % mmap.PAGESIZE, 1)


def _open_part(path: Path, wanted: Mapping[str, pa.DataType], *, whole: bool = False) -> pa.Table:
    """Return a file's table if it has the columns `wanted` and no other, in one batch, without gaps.

    Arrow takes what a file says of itself on trust, and ends the process for some of what it finds: its columns are
    looked at before they are read, and lengths and offsets are checked before they are followed.
    """
    import pyarrow as pa

    try:
        with path.open("rb", buffering=0) as opened:
            file = pa.ipc.open_file(pa.py_buffer(_map(opened, whole=whole)))
        held = list(zip(file.schema.names, file.schema.types, strict=True))
        wrong = [name for name, kind in wanted.items() if (name, kind) not in held]
        wrong += [name for name, _ in held if name not in wanted]
        if wrong or len(held) != len(wanted) or file.num_record_batches > 1:
            what = f"the column {wrong[0]!r} is not as written" if wrong else "it is not one batch of its columns"
            raise StoreError(f"is no such part: {what}", where=path, remedy=_CHECK)
        table = file.read_all()
        table.validate(full=True)
        gaps = [name for name in table.column_names if table.column(name).null_count]
        if gaps:
            raise StoreError(f"is no such part: the column {gaps[0]!r} has gaps", where=path, remedy=_CHECK)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise StoreError(f"cannot be read ({_line(error)})", where=path, remedy=_CHECK) from error
    return table


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def damage(path: Path, expected: Expected) -> str | None:
    """Return what is wrong with a file, None where it is as it was written."""
    wrong = _wrong_size(path, expected)
    if wrong is None and _checksum(path) != expected.xxh3_128:
        return _DAMAGED
    return wrong


def read_vectors(
    path: Path, expected: Expected, pooling: str, rows: np.ndarray, out: np.ndarray, places: np.ndarray
) -> str | None:
    """Copy `rows` of a pooling to `out[places]`, float32 `(n, ...)`, checking the whole file in the same pass.

    Returns what is wrong with the file, None where nothing is; where it is damaged, `out` holds nothing to rely on.
    """
    import xxhash

    wrong = _wrong_size(path, expected)
    if wrong is not None:
        return wrong
    flat = out.reshape(len(out), math.prod(out.shape[1:]))
    width = 4 * flat.shape[1]
    try:
        file = path.open("rb", buffering=0)
    except OSError as error:
        return f"cannot be read ({_line(error)})"
    with file:
        layout = _layout(file, pooling, flat.shape[1])
        if layout is None:
            return _DAMAGED
        mapped, held, first = layout
        if not 0 <= first <= first + held * width <= expected.bytes or int(rows.max(initial=-1)) >= held:
            return _DAMAGED
        order = np.argsort(rows, kind="stable")
        rows, places = rows[order], places[order]
        every = len(rows) == held and _consecutive(rows)
        in_order = _consecutive(places)
        total, at_once = xxhash.xxh3_128(), max(1, _BLOCK // width)
        block = np.empty(max(at_once * width, _BLOCK), np.uint8)
        _pass(file, total, block, first)
        for start in range(0, held, at_once):
            count = min(at_once, held - start)
            _fetch(mapped, first + start * width)
            if every and in_order:  # straight to where it belongs
                at = places[0] + start
                _pass(file, total, flat[at : at + count].reshape(-1).view(np.uint8), count * width)
                continue
            _pass(file, total, block, count * width)
            values = block[: count * width].view(np.float32).reshape(count, -1)
            if every:
                flat[places[start : start + count]] = values
            else:
                low, high = np.searchsorted(rows, [start, start + count])
                flat[places[low:high]] = values[rows[low:high] - start]
        _pass(file, total, block, expected.bytes - first - held * width)
    return None if total.hexdigest() == expected.xxh3_128 else _DAMAGED


def _layout(file: io.FileIO, pooling: str, width: int) -> tuple[mmap.mmap, int, int] | None:
    """Return a file mapped, its number of rows, and the byte where a pooling's vectors start; None if it is damaged.

    The file was not checked yet. A file whose vectors are compressed has them outside the mapping.
    """
    import pyarrow as pa

    try:
        mapped = _map(file, whole=True)
        whole = pa.py_buffer(mapped)
        part = pa.ipc.open_file(whole)
        if part.schema.field(pooling).type != pa.list_(pa.float32(), width):
            return None
        column = part.read_all().column(pooling).chunk(0)
        column.validate()
        values = column.flatten()
    except (pa.ArrowException, OSError, LookupError, AttributeError, ValueError):
        return None
    return mapped, len(column), values.buffers()[1].address + 4 * values.offset - whole.address


def _pass(file: Any, total: Any, block: np.ndarray, size: int) -> None:
    """Read and hash the next `size` bytes; the last that fit into `block` are in it."""
    while size > 0:
        part = block.data[: min(size, len(block))]
        filled = 0
        while filled < len(part):
            count = file.readinto(part[filled:])
            if not count:  # the file was cut off meanwhile: its hash will differ
                return
            filled += count
        total.update(part)
        size -= len(part)


def _consecutive(numbers: np.ndarray) -> bool:
    return bool((np.diff(numbers) == 1).all())


def _wrong_size(path: Path, expected: Expected) -> str | None:
    if not path.is_file():
        return "is missing"
    size = path.stat().st_size
    return None if size == expected.bytes else f"has {size:,} bytes where {expected.bytes:,} were written"


def _checksum(path: Path) -> str:
    """Return a file's checksum, read a block at a time: a part may be larger than the memory."""
    import xxhash

    total, block = xxhash.xxh3_128(), bytearray(_CHECKED)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            total.update(memoryview(block)[:count])
    return total.hexdigest()
