"""Well-formed inputs with odd content: JSON, YAML, tables and archives that parse but hold invalid values.

Each strategy is made from a reader's seeds and gives the bytes of a file.
"""

from __future__ import annotations

import copy
import io
import json
import tarfile
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from hypothesis import strategies as st

odd_texts = st.sampled_from(
    ["", " ", "a\0b", "\ud800", "../x", "/x", "x" * 300, "1", "-1", "1e999", "nan", "{", "{x}", "{fold.a}", "[1]"]
) | st.sampled_from(["{}", "[" * 3000, "**/x", "train", "test", "null", "é\u202e"])
odd_texts |= st.text(max_size=8)
odd_numbers = st.sampled_from(
    [0, -1, 2**31, 2**63, -(2**63), 10**30, 1e308, -1e308, float("nan"), float("inf"), float("-inf"), 0.5, 10**400]
) | st.integers(-3, 300)
odd_values = st.recursive(
    st.none() | st.booleans() | odd_numbers | odd_texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(odd_texts, inner, max_size=3),
    max_leaves=4,
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each value within nested lists and objects, starting with the whole."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _places(inner, (*path, key))


@st.composite
def _changed(draw: st.DrawFn, values: Sequence[Any]) -> Any:
    """Draw one of `values` with one to three entries replaced, removed, doubled or added."""
    value = copy.deepcopy(draw(st.sampled_from(values)))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(list(_places(value))))
        if not place:
            if draw(st.integers(0, 19)) == 0:
                return draw(odd_values)
            continue
        inner = value
        for key in place[:-1]:
            inner = inner[key]
        match draw(st.integers(0, 5)):
            case 0 if isinstance(inner, dict):
                del inner[place[-1]]
            case 1 if isinstance(inner, dict):
                inner[draw(odd_texts)] = draw(odd_values)
            case 2:
                inner[place[-1]] = [inner[place[-1]]] * 2
            case _:
                inner[place[-1]] = draw(odd_values)
    return value


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def json_like(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """JSON files like the seeds."""
    return _changed([json.loads(seed) for seed in seeds]).map(_json)


def yaml_like(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """YAML files like the seeds, written as JSON, which is YAML too, or as YAML."""
    values = _changed([yaml.safe_load(seed) for seed in seeds])
    as_yaml = values.map(lambda value: yaml.safe_dump(value, allow_unicode=False).encode())
    return values.map(_json) | as_yaml


def json_rows(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Files with one JSON object per line, like the seeds."""
    tables = _changed([[json.loads(line) for line in seed.splitlines()] for seed in seeds])
    return tables.map(lambda rows: b"\n".join(map(_json, rows if isinstance(rows, list) else [rows])))


def csv_rows(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """CSV files like the seeds, with any text in their cells."""
    tables = [[line.split(",") for line in seed.decode().splitlines()] for seed in seeds]

    def text(rows: Any) -> bytes:
        lines = [",".join(map(_cell, row if isinstance(row, list) else [row])) for row in rows if row is not None]
        return "\n".join(lines).encode("utf-8", "surrogatepass")

    return _changed(tables).filter(lambda rows: isinstance(rows, list)).map(text)


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value) if isinstance(value, (dict, list)) else str(value)


_TYPES = [
    pa.string(), pa.large_string(), pa.binary(), pa.binary(32), pa.binary(5), pa.int8(), pa.int32(), pa.int64(),
    pa.uint64(), pa.float16(), pa.float32(), pa.float64(), pa.bool_(), pa.null(), pa.timestamp("s"), pa.date32(),
    pa.decimal128(20, 3), pa.list_(pa.float32()), pa.list_(pa.float32(), 4), pa.large_list(pa.list_(pa.float16(), 4)),
    pa.list_(pa.string()), pa.dictionary(pa.int32(), pa.string()), pa.duration("ns"), pa.time64("us"),
    pa.struct([("onset", pa.int8()), ("label", pa.string())]),
]  # fmt: skip


@st.composite
def _tables(draw: st.DrawFn, tables: Sequence[pa.Table]) -> pa.Table:
    """Draw a table like one of `tables` with columns removed or of other types, values, names or lengths."""
    table = draw(st.sampled_from(tables))
    for _ in range(draw(st.integers(1, 3))):
        count = table.num_columns
        if count == 0:
            break
        at = draw(st.integers(0, count - 1))
        name = table.column_names[at]
        match draw(st.integers(0, 6)):
            case 0:
                table = table.remove_column(at)
            case 1:
                table = table.append_column(name, table.column(at))
            case 2:
                table = table.slice(0, draw(st.integers(0, table.num_rows)))
            case 3:
                meta = {key: draw(odd_values.map(_json)) for key in (table.schema.metadata or {b"x": b""})}
                table = table.replace_schema_metadata(meta)
            case 4:
                values = _same_kind(draw, table.column(at).type, table.num_rows)
                table = table.set_column(at, name, [values])
            case _:
                kind = draw(st.sampled_from(_TYPES))
                table = table.set_column(at, name, [_same_kind(draw, kind, table.num_rows)])
    return table


def _same_kind(draw: st.DrawFn, kind: pa.DataType, count: int) -> pa.Array:
    """Draw an array of a type: of odd values if the type takes them, else of nulls."""
    few = draw(st.lists(odd_values, min_size=1, max_size=3))
    values = [few[row % len(few)] for row in range(count)]
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_duration(kind) or pa.types.is_time(kind):
        whole = pa.array([draw(st.integers(-(2**31), 2**31 - 1))] * count, pa.int64())
        wide = whole.cast(pa.int32() if kind.bit_width == 32 else pa.int64())
        return wide.view(kind)
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        pass
    try:
        return pa.array([draw(odd_texts.map(lambda text: text.encode("utf-8", "replace").decode()))] * count, kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return pa.nulls(count, kind)


def parquet_like(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Parquet files like the seeds."""
    return _tables([pq.read_table(pa.BufferReader(seed)) for seed in seeds]).map(_parquet)


manifest_tables = parquet_like


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    try:
        pq.write_table(table, sink)
    except pa.ArrowException:  # Parquet lacks the type
        return b"PAR1"
    return sink.getvalue().to_pybytes()


def arrow_like(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Arrow files like the seeds, some compressed, some with several batches."""
    tables = _tables([pa.ipc.open_file(pa.py_buffer(seed)).read_all() for seed in seeds])
    return st.builds(_arrow, tables, st.sampled_from([None, None, "lz4", "zstd"]), st.sampled_from([None, 1]))


row_tables = arrow_like


def arrow_streams(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Streams of Arrow like the seeds, some compressed, some with several batches."""
    tables = _tables([pa.ipc.open_stream(pa.py_buffer(seed)).read_all() for seed in seeds])
    return st.builds(_stream, tables, st.sampled_from([None, None, "lz4", "zstd"]), st.sampled_from([None, 1]))


def _stream(table: pa.Table, compression: str | None, rows: int | None) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression, allow_64bit=True)
    with pa.ipc.new_stream(sink, table.schema, options=options) as file:
        file.write_table(table, max_chunksize=rows)
    return sink.getvalue().to_pybytes()


def _arrow(table: pa.Table, compression: str | None, rows: int | None) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression, allow_64bit=True)
    with pa.ipc.new_file(sink, table.schema, options=options) as file:
        file.write_table(table.unify_dictionaries(), max_chunksize=rows)
    return sink.getvalue().to_pybytes()


_member_names = st.sampled_from(
    [
        "a.wav",
        "a.json",
        "b.json",
        "b.wav",
        "./a.wav",
        "../a.wav",
        "/a.json",
        ".json",
        "a/b.wav",
        "a",
        "._a.wav",
        "x" * 200 + ".json",
    ]
) | odd_texts.map(lambda text: text + ".json")


@st.composite
def _tar(draw: st.DrawFn) -> bytes:
    sink = io.BytesIO()
    form = draw(st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
    with tarfile.open(fileobj=sink, mode="w", format=form) as tar:
        for _ in range(draw(st.integers(0, 4))):
            name = draw(_member_names)
            value = draw(odd_values | odd_values.map(lambda value: {"label": value}))
            data = _json(value) if draw(st.booleans()) else draw(st.binary(max_size=20))
            member = tarfile.TarInfo(name)
            member.size = len(data)
            member.type = draw(
                st.sampled_from([tarfile.REGTYPE] * 6 + [tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.GNUTYPE_SPARSE])
            )
            member.pax_headers = draw(
                st.dictionaries(
                    st.sampled_from(
                        [
                            "size",
                            "path",
                            "mtime",
                            "GNU.sparse.map",
                            "GNU.sparse.size",
                            "GNU.sparse.major",
                            "hdrcharset",
                            "a",
                        ]
                    ),
                    st.sampled_from(["", "-1", "9" * 30, "x", "1,2,3", "BINARY", "nan"]),
                    max_size=2,
                )
            )
            try:
                tar.addfile(member, io.BytesIO(data))
            except (ValueError, UnicodeError):  # the format cannot hold the name
                continue
    return sink.getvalue()


def tars(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Tars whose members have odd names, kinds and labels."""
    return _tar()


@st.composite
def _zip(draw: st.DrawFn) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as file:
        for _ in range(draw(st.integers(0, 4))):
            info = zipfile.ZipInfo(draw(_member_names).encode("utf-8", "replace").decode())
            if info.filename in file.namelist() and draw(st.booleans()):
                continue
            info.compress_type = draw(st.sampled_from([0, 0, 8, 12, 14]))
            info.external_attr = draw(st.sampled_from([0, 0, 0o100644 << 16, 0o120777 << 16, 0o040755 << 16, 0x10]))
            info.extra = draw(st.sampled_from([b"", b"\1\0\0\0", b"\1\0\4\0aaaa", b"up\5\0\1aaaa"]))
            with warnings.catch_warnings():  # about duplicate names, which are intended
                warnings.simplefilter("ignore")
                file.writestr(info, draw(st.binary(max_size=40)))
    return sink.getvalue()


def zips(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Zips whose members have odd names, kinds and methods."""
    return _zip()
