"""A hash per clip, of its row in the clip table and of its vectors, so that a check can name the clip that changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from uwbench.audio.corruption import Corruption
from uwbench.base.hashing import digest
from uwbench.cache.clip_table import ClipTable
from uwbench.cache.parts import PooledRows
from uwbench.cache.store import EncoderStore
from uwbench.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

_AT_ONCE = 4096  # clips whose vectors are in memory at once
CLEAN = "vectors"  # the column of the clean clips' vectors; other columns have a corruption's name


def pooled_blocks(
    store: EncoderStore, table: ClipTable, corruption: Corruption | None = None
) -> Iterator[tuple[list[int], PooledRows]]:
    """Yield the table's rows that have a vector, block by block, with all poolings of the vectors.

    Under a corruption, the table is that of the corrupted clips.
    """
    vectors = store.open_task(table.card.name, table.keys, corruption=corruption)
    present = np.flatnonzero(vectors.rows >= 0).tolist()
    for start in range(0, len(present), _AT_ONCE):
        rows = present[start : start + _AT_ONCE]
        block = vectors.keep(rows)
        n_frames, n_chunks = block.counts()
        pooled = {pooling: block.pooled(pooling) for pooling in store.record.poolings}
        yield rows, PooledRows([table.keys[row] for row in rows], pooled, n_frames, n_chunks)


def hashes_of(block: PooledRows) -> list[bytes]:
    """Return the sha256 of each clip's vectors: float32, little-endian, one pooling after the other."""
    flat = [values.reshape(len(values), -1).astype("<f4", copy=False) for values in block.vectors.values()]
    return [hashlib.sha256(b"".join(values[row].tobytes() for values in flat)).digest() for row in range(len(flat[0]))]


def write_digests(path: Path, table: ClipTable, vectors: Mapping[str, Mapping[int, bytes]]) -> None:
    """Write the hashes of a table's clips; `vectors` is column -> row of the table -> hash, for rows that have one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"id": pa.array(table.ids, pa.string()), "clip": pa.array(_rows(table), pa.binary(32))}
    for name, hashes in vectors.items():
        columns[name] = pa.array([hashes.get(row) for row in range(len(table.ids))], pa.binary(32))
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, compression="zstd")


def changed_clips(path: Path, table: ClipTable) -> list[str]:
    """Return the ids of the clips whose row in the table is not the one that was hashed."""
    return _changed(path, table, "clip", dict(enumerate(_rows(table))))


def changed_vectors(path: Path, table: ClipTable, column: str, hashes: Mapping[int, bytes]) -> list[str]:
    """Return the ids of the clips whose vectors are not those that were hashed; `hashes` is as for `write_digests`."""
    return _changed(path, table, column, hashes)


def _rows(table: ClipTable) -> list[bytes]:
    return [bytes.fromhex(digest(row)) for row in table.rows()]


def _changed(path: Path, table: ClipTable, column: str, hashes: Mapping[int, bytes]) -> list[str]:
    written = _read(path, column)
    ids, values = written["id"].to_pylist(), written[column].to_pylist()
    if len(ids) != len(table.ids):
        raise InputError(f"has {len(ids)} clips, the clip table {len(table.ids)}", where=path)
    return [clip for row, clip in enumerate(table.ids) if values[row] != hashes.get(row)]


def _read(path: Path, column: str) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"id": pa.string(), column: pa.binary(32)}
    try:
        table = pq.read_table(pa.BufferReader(path.read_bytes()), columns=list(kinds))
        table.validate(full=True)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise InputError(f"cannot be read ({' '.join(str(error).split())})", where=path) from error
    for name, kind in kinds.items():
        if table.column_names.count(name) != 1 or table.schema.field(name).type != kind:
            raise InputError(f"the column {name!r} is missing, double or not of type {kind}", where=path)
    return table
