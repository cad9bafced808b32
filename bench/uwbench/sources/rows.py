"""The rows of a manifest: CSV, TSV, JSON, JSONL or Parquet. CSV and TSV may be UTF-16, text files may end in .gz.

A CSV follows the rules of CSV, with `,`, `;`, `|` or a tab between its cells. A TSV is literal: a quote in it is part
of the cell. Errors name the file and the line.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

from uwbench.base.json_text import parse_json
from uwbench.errors import InputError

_TEXT_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson")
MANIFEST_SUFFIXES = (*_TEXT_SUFFIXES, *(f"{suffix}.gz" for suffix in _TEXT_SUFFIXES), ".parquet")
_SEPARATORS = ",\t;|"
_LONGEST_LINE = 1 << 26  # characters: a list of events may be long, a line of 64 million characters is no row
# A compressed table may have this many bytes, and this many times its size beyond that. Deflate packs tables 3 to 30
# times, and bytes that repeat up to 1,032 times (RFC 1951 allows 258 bytes for 2 bits).
_GZIP_FREE, _GZIP_RATIO = 1 << 24, 100
_Rows = Iterator[tuple[str, Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table; `where` names the table and `line` the row, e.g. "line 2"."""

    values: Mapping[str, Any]
    where: str | Path
    line: str

    def error(self, column: str, what: str, remedy: str | None = None) -> InputError:
        """Return an error that names this row and `column`."""
        return InputError(f"{self.line}, column {column!r}: {what}", where=self.where, remedy=remedy)

    def cell(self, column: str) -> str:
        """Return a cell as text; an absent or empty cell is the empty string."""
        try:
            return cell_text(self.values.get(column))
        except TypeError as error:
            raise self.error(column, str(error)) from error

    def required(self, column: str) -> str:
        """Return a cell that must not be empty."""
        text = self.cell(column)
        if not text:
            raise self.error(column, "is empty")
        return text

    def seconds(self, column: str) -> float | None:
        """Return a cell as seconds, or None if it is empty."""
        text = self.cell(column)
        if not text:
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= 0):
            raise self.error(column, f"{self.values[column]!r} is not a number of seconds")
        return value


def cell_text(value: Any) -> str:
    """Return a cell as text without surrounding space; missing values (None, NaN) become the empty string."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # an integer that became a float because its column has gaps
    if isinstance(value, (list, dict)):
        raise TypeError("is a list or an object, not a text")
    return str(value).strip()


def rows_of(path: Path, notes: list[str]) -> Iterator[Row]:
    """Yield the rows of a manifest; add a sentence to `notes` for what a reader of the result should know."""
    name = path.name.lower()
    suffix = Path(name.removesuffix(".gz")).suffix
    if not name.endswith(MANIFEST_SUFFIXES):
        raise InputError(f"a manifest's name must end in one of {', '.join(MANIFEST_SUFFIXES)}", where=path)
    try:
        if suffix == ".parquet":
            rows = _parquet_rows(path)
        elif suffix in (".csv", ".tsv"):
            rows = _table_rows(path, suffix, notes)
        else:
            rows = _json_rows(path, suffix)
        for line, values in rows:
            yield Row(values, path, line)
    except (OSError, EOFError, zlib.error) as error:
        what = f"cannot be read ({getattr(error, 'strerror', None) or error})"
        raise InputError(what, where=path) from error
    except UnicodeDecodeError as error:
        encoding = error.encoding.upper()[:6].rstrip("-")
        what = f"is not {encoding} text ({error.reason} at byte {error.start})"
        raise InputError(what, where=path, remedy="save it as UTF-8") from error


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """Open a text file for reading: UTF-8 or UTF-16, decompressed if its name ends in .gz.

    Raises InputError while it is read if a compressed file grows far beyond its size, as no list of clips does.
    """
    with path.open("rb") as raw, _decompressed(raw, path) as data:
        head = data.peek(2)[:2]
        with io.TextIOWrapper(data, encoding=_encoding(head), newline="") as file:
            yield file


def _decompressed(raw: io.BufferedReader, path: Path) -> io.BufferedReader:
    if path.suffix.lower() != ".gz":
        return raw
    limit = _GZIP_FREE + _GZIP_RATIO * path.stat().st_size
    return io.BufferedReader(_Bounded(gzip.GzipFile(fileobj=raw), limit, path))


class _Bounded(io.RawIOBase):
    """A decompressed file that raises InputError after `limit` bytes."""

    def __init__(self, data: gzip.GzipFile, limit: int, path: Path) -> None:
        self._data, self._left, self._path = data, limit, path

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._data.read1(len(buffer))
        self._left -= len(piece)
        if self._left < 0:
            raise InputError(
                f"decompresses to more than {_GZIP_RATIO} times its size",
                where=self._path,
                remedy="if that is meant, decompress it first: gzip -dk",
            )
        buffer[: len(piece)] = piece
        return len(piece)


def lines_of(file: TextIO, path: Path) -> Iterator[str]:
    """Yield a text's lines with their ends; raise InputError if a line is longer than any row of a table."""
    number = 0
    while line := file.readline(_LONGEST_LINE + 1):
        number += 1
        if len(line) > _LONGEST_LINE:
            raise InputError(f"line {number}: is longer than {_LONGEST_LINE:,} characters", where=path)
        yield line


def _encoding(head: bytes) -> str:
    """Return the encoding of a text from its first two bytes: UTF-16 with or without a mark, or UTF-8."""
    if head in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    if len(head) == 2 and (head[0] == 0) != (head[1] == 0):
        return "utf-16-be" if head[0] == 0 else "utf-16-le"
    return "utf-8-sig"


def _table_rows(path: Path, suffix: str, notes: list[str]) -> _Rows:
    lines: list[str] = []  # of the row that is being read

    with open_text(path) as file:
        text_lines = lines_of(file, path)
        first = next(text_lines, "")
        default = "\t" if suffix == ".tsv" else ","
        separator = max(_SEPARATORS, key=lambda mark: (first.count(mark), mark == default))
        literal = suffix == ".tsv" and separator == "\t"

        def read_lines() -> Iterator[str]:
            for line in chain([first], text_lines):
                lines.append(line)
                yield line

        quoting = csv.QUOTE_NONE if literal else csv.QUOTE_MINIMAL
        reader = csv.reader(read_lines(), delimiter=separator, quoting=quoting, strict=not literal)
        spanning: list[str] = []
        try:
            header = [name.strip() for name in next(reader, [])]
            repeated = sorted({name for name in header if name and header.count(name) > 1})
            if repeated:
                raise InputError(f"line 1: there are two columns {repeated[0]!r}", where=path)
            lines.clear()
            for values in reader:
                place = f"line {reader.line_num - len(lines) + 1}"
                if len(lines) > 1:
                    _refuse_swallowed(lines, separator, len(header), place, path)
                    spanning.append(place)
                lines.clear()
                if not any(map(str.strip, values)):
                    continue
                if len(values) < len(header) or any(values[len(header) :]):
                    raise InputError(f"{place}: {len(values)} values for {len(header)} columns", where=path)
                yield place, {name: value for name, value in zip(header, values, strict=False) if name}
        except csv.Error as error:
            place = f"line {max(1, reader.line_num - len(lines) + 1)}"
            raise InputError(f"{place}: is not valid CSV ({error})", where=path) from error
        if spanning:
            notes.append(f"{path.name}: {len(spanning)} rows have a cell that spans lines, the first at {spanning[0]}")


def _refuse_swallowed(lines: list[str], separator: str, columns: int, place: str, path: Path) -> None:
    """Raise InputError if a quoted cell spans lines that are rows themselves, since a quote is then left open."""
    rows = [line.count(separator) >= columns - 1 > 0 for line in lines]
    if all(rows) or any(rows[1:-1]):
        what = f"{place}: a quote opens a cell that takes in the next {len(lines) - 1} lines, which look like rows"
        remedy = "close or double the quote; a cell that is meant to span lines must have one line"
        raise InputError(what, where=path, remedy=remedy)


def _json_rows(path: Path, suffix: str) -> _Rows:
    with open_text(path) as file:
        if suffix == ".json":
            text = file.read()
            first = text.lstrip()[:1]
            lines = text.splitlines()
            if first == "[" or (first == "{" and not _is_json(next(filter(str.strip, lines)))):
                yield from _json_list(text, path)
                return
        else:
            lines = lines_of(file, path)
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield f"line {number}", _json_object(_json(line, f"line {number}", path), f"line {number}", path)


def _json_list(text: str, path: Path) -> _Rows:
    rows = _json(text, "", path)
    if not isinstance(rows, list):
        remedy = "write a list of objects, as pandas does with orient='records'"
        raise InputError("is one JSON object, not a list of rows", where=path, remedy=remedy)
    for number, row in enumerate(rows, start=1):
        yield f"row {number}", _json_object(row, f"row {number}", path)


def _json(text: str, place: str, path: Path) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        raise InputError(f"{place}{': ' if place else ''}is not valid JSON ({error})", where=path) from error


def _is_json(text: str) -> bool:
    try:
        parse_json(text)
    except ValueError:
        return False
    return True


def _json_object(row: Any, place: str, path: Path) -> Mapping[str, Any]:
    if not isinstance(row, dict):
        raise InputError(f"{place}: is not a JSON object", where=path)
    return row


def _parquet_rows(path: Path) -> _Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as data, pq.ParquetFile(data) as file:
            number = 0
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", row
    except (pa.ArrowException, ValueError, OverflowError) as error:  # the last two: an impossible date
        raise InputError(f"is not a valid Parquet file ({' '.join(str(error).split())})", where=path) from error
