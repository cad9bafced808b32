"""Files of ready vectors: a parquet table, an .npz archive or a folder of .npy files, read into one form.

Every error names the file and the row at fault. Pickled objects are never loaded.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from uwbench.base.hashing import digest, sha256_bytes
from uwbench.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".parquet", ".npz")
ID_COLUMNS = ("id", "path", "file", "filename")
VECTOR_COLUMNS = ("vector", "vectors", "embedding", "embeddings")
_LAYERS = b"uwbench.layers"  # key of the schema metadata that `write_parquet` keeps the layers' names under
_AS_NUMBERS = "save them as float32"
_FORM = "give one vector per clip, (dim), or one per layer, (layers, dim)"


@dataclass(frozen=True, slots=True)
class VectorFile:
    """`n` vectors, float32 `(n, layers, dim)`, the id or path of each, and the task of each if the file tells."""

    path: Path
    ids: tuple[str, ...]
    tasks: tuple[str, ...] | None
    vectors: np.ndarray
    layers: tuple[str, ...]

    def sha256(self) -> str:
        """Return the hash of the content: the same vectors in another form of file have the same."""
        head = digest([self.ids, self.tasks, self.layers, self.vectors.shape])
        return sha256_bytes(head.encode() + np.ascontiguousarray(self.vectors).data)

    def row(self, index: int) -> str:
        """Return a row's name for messages."""
        return _row(index, self.ids)


def is_vector_file(path: Path) -> bool:
    """Return True for a parquet or .npz file, and for a folder with .npy files that is no checkpoint."""
    if path.is_dir():
        return not (path / "config.json").exists() and next(path.rglob("*.npy"), None) is not None
    return path.suffix.lower() in SUFFIXES


def read_vectors(path: Path) -> VectorFile:
    """Read a file or folder of ready vectors; raise InputError naming the file and the row if it is malformed."""
    try:
        if path.is_dir():
            return _read_folder(path)
        return _read_npz(path) if path.suffix.lower() == ".npz" else _read_parquet(path)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", where=path) from error


def write_parquet(path: Path, ids: Sequence[str], vectors: np.ndarray, layers: Sequence[str]) -> None:
    """Write vectors `(n, layers, dim)` as a table with the columns `id` and `vector`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    flat = pa.array(np.ascontiguousarray(vectors, np.float32).reshape(-1))
    rows = pa.ListArray.from_arrays(
        np.arange(len(flat) // vectors.shape[2] + 1, dtype=np.int32) * vectors.shape[2], flat
    )
    column = pa.ListArray.from_arrays(np.arange(len(vectors) + 1, dtype=np.int32) * vectors.shape[1], rows)
    table = pa.table({"id": pa.array(ids, pa.string()), "vector": column})
    pq.write_table(table.replace_schema_metadata({_LAYERS: json.dumps(list(layers)).encode()}), path)


def _read_parquet(path: Path) -> VectorFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"is no parquet file that can be read ({_line(error)})", where=path) from error
    ids = _texts(table, _column(table, path, "ids", ID_COLUMNS, _is_text), path)
    name = _column(table, path, "vectors", VECTOR_COLUMNS, _is_list)
    tasks = _texts(table, "task", path) if "task" in table.column_names else None
    vectors = _checked(_unnested(table.column(name), path, ids), path, ids)
    return VectorFile(path, ids, tasks, vectors, _layer_names(table.schema.metadata, vectors, path))


def _read_npz(path: Path) -> VectorFile:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:  # zip, zlib and numpy raise different ones for a damaged or pickled archive
        raise InputError(f"is no .npz of plain arrays ({_line(error)})", where=path) from error
    key = next((name for name in VECTOR_COLUMNS if name in arrays), None)
    if key is None:
        return _from_arrays(path, arrays)
    id_key = next((name for name in ("ids", "paths", *ID_COLUMNS) if name in arrays), None)
    if id_key is None:
        raise InputError(f"has {key!r} but no array 'ids'", where=path, remedy="save it with np.savez(..., ids=...)")
    ids, vectors = tuple(map(str, arrays[id_key].reshape(-1).tolist())), arrays[key]
    tasks = tuple(map(str, arrays["task"].reshape(-1).tolist())) if "task" in arrays else None
    for name, length in (("ids", len(ids)), ("task", len(ids) if tasks is None else len(tasks))):
        if vectors.ndim == 0 or length != len(vectors):
            raise InputError(f"has {length} {name} for vectors of shape {vectors.shape}", where=path)
    return VectorFile(path, ids, tasks, *_with_layers(_checked(vectors, path, ids)))


def _read_folder(path: Path) -> VectorFile:
    arrays = {}
    for file in sorted(path.rglob("*.npy")):
        try:
            arrays[file.relative_to(path).with_suffix("").as_posix()] = np.load(file, allow_pickle=False)
        except OSError:
            raise
        except Exception as error:  # a damaged header is Python source to numpy, which raises as its parser does
            raise InputError(f"is no .npy of a plain array ({_line(error)})", where=file) from error
    return _from_arrays(path, arrays)


def _from_arrays(path: Path, arrays: dict[str, np.ndarray]) -> VectorFile:
    """Return the vectors of arrays that are named after their clips."""
    ids = tuple(arrays)
    if not ids:
        raise InputError("holds no vector", where=path)
    shape = arrays[ids[0]].shape
    for index, array in enumerate(arrays.values()):
        if array.shape != shape:
            what = f"{_row(index, ids)} has the shape {array.shape}, the first row {shape}"
            raise InputError(what, where=path, remedy=_FORM)
        _require_numbers(array.dtype, path, _row(index, ids))
    return VectorFile(path, ids, None, *_with_layers(_checked(np.stack(list(arrays.values())), path, ids)))


def _column(table: pa.Table, path: Path, what: str, names: Sequence[str], fits: Any) -> str:
    """Return the name of the column that holds `what`: one of `names`, else the only one of its type."""
    fitting = [field.name for field in table.schema if fits(field.type) and not _is_integer(field.type)]
    fitting = [name for name in fitting if name != "task"]
    named = [name for name in names if name in table.column_names]
    if not named and len(fitting) == 1:
        return fitting[0]
    if not named or table.column_names.count(named[0]) != 1:
        what = f"has no column of {what} that can be told (its columns: {', '.join(table.column_names)})"
        raise InputError(what, where=path, remedy=f"name it {names[0]!r}")
    if not fits(table.schema.field(named[0]).type):
        what = f"the column {named[0]!r} of {what} has the type {table.schema.field(named[0]).type}"
        raise InputError(what, where=path, remedy=_FORM if names is VECTOR_COLUMNS else "give it as text")
    return named[0]


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)


def _is_integer(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return pa.types.is_integer(kind)


def _is_list(kind: pa.DataType) -> bool:
    import pyarrow as pa

    kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _texts(table: pa.Table, name: str, path: Path) -> tuple[str, ...]:
    values = table.column(name).to_pylist()
    empty = next((index for index, value in enumerate(values) if value is None or value == ""), None)
    if empty is not None:
        raise InputError(f"row {empty + 1} has no {name}", where=path)
    return tuple(map(str, values))


def _unnested(column: pa.ChunkedArray, path: Path, ids: Sequence[str]) -> np.ndarray:
    """Return a column of lists, or of lists of lists, as `(n, ...)`; raise InputError for the row that differs."""
    import pyarrow as pa
    import pyarrow.compute as pc

    array = column.combine_chunks()
    shape: list[int] = []
    tensor = getattr(array.type, "shape", None)  # of a fixed-shape tensor, whose storage is flat
    array = array.storage if isinstance(array, pa.ExtensionArray) else array
    while True:
        if array.null_count:
            at = int(np.argmax(np.asarray(pc.call_function("is_null", [array])))) * len(ids) // len(array)
            raise InputError(f"{_row(at, ids)} has no vector, or a gap in it", where=path)
        if not _is_list(array.type):
            break
        lengths = np.asarray(pc.call_function("list_value_length", [array]))
        odd = np.flatnonzero(lengths != lengths[0])
        if len(odd):
            at = int(odd[0]) * len(ids) // len(array)
            what = f"{_row(at, ids)} has {lengths[odd[0]]} values where the first row has {lengths[0]}"
            raise InputError(what, where=path, remedy=_FORM)
        shape.append(int(lengths[0]) if len(lengths) else 0)
        array = array.flatten()
    shape = shape if tensor is None else list(tensor)
    if not len(array):
        raise InputError("holds no vector, or empty ones", where=path)
    if not (pa.types.is_floating(array.type) or pa.types.is_integer(array.type)):
        raise InputError(f"its vectors are of type {array.type}, not numbers", where=path, remedy=_AS_NUMBERS)
    return array.to_numpy(zero_copy_only=False).reshape(len(ids), *shape)


def _checked(values: np.ndarray, path: Path, ids: Sequence[str]) -> np.ndarray:
    """Return vectors as float32 `(n, layers, dim)`; raise InputError for a wrong shape or value."""
    _require_numbers(values.dtype, path, "its vectors")
    if not len(ids):
        raise InputError("holds no vector", where=path)
    if values.ndim not in (2, 3) or 0 in values.shape:
        raise InputError(f"{_row(0, ids)} has the shape {values.shape[1:]}", where=path, remedy=_FORM)
    with np.errstate(over="ignore"):
        vectors = np.ascontiguousarray(values, np.float32).reshape(len(ids), -1, values.shape[-1])
    wrong = np.flatnonzero(~np.isfinite(vectors).all(axis=(1, 2)))
    if len(wrong):
        large = bool(np.isfinite(values[wrong[0]]).all())
        what = "a value too large for float32" if large else "NaN or an infinite value"
        raise InputError(f"{_row(int(wrong[0]), ids)} holds {what} ({len(wrong)} rows do)", where=path)
    return vectors


def _with_layers(vectors: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    count = vectors.shape[1]
    return vectors, ("last",) if count == 1 else tuple(map(str, range(count)))


def _layer_names(metadata: dict[bytes, bytes] | None, vectors: np.ndarray, path: Path) -> tuple[str, ...]:
    if not metadata or _LAYERS not in metadata:
        return _with_layers(vectors)[1]
    try:
        names = json.loads(metadata[_LAYERS])
    except ValueError:
        names = None
    if not isinstance(names, list) or len(set(map(str, names))) != vectors.shape[1]:
        raise InputError(f"names other layers than it has, {vectors.shape[1]}, in its metadata", where=path)
    return tuple(map(str, names))


def _require_numbers(dtype: np.dtype, path: Path, what: str) -> None:
    if dtype.kind not in "fiu":
        raise InputError(f"{what} are of type {dtype}, not numbers", where=path, remedy=_AS_NUMBERS)


def _row(index: int, ids: Sequence[str]) -> str:
    return f"row {index + 1} ({ids[index]!r})"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
