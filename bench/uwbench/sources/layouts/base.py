"""The layout type, and what layouts share: finding a dataset's root, reading its tables, dealing folds."""

from __future__ import annotations

import csv
import random
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from uwbench.cards.card import Card
from uwbench.errors import DataError
from uwbench.sources.dataset import Reading

_SEARCHED_FOLDERS = 2_000  # limit on the search for a root, which is above the many folders of a large dataset

GroupOf = Callable[[str, Any], str | None]


def no_group(_name: str, _record: Any) -> str | None:
    """Return None, for datasets whose files do not tell the group."""
    return None


def group_from(pattern: re.Pattern[str] | None = None, *indices: int, field: str | None = None) -> GroupOf:
    """Return a `group_of` that reads a record's `field`, or else the `indices` of `pattern` in the record's name.

    Several indices are joined by "/"; without any, the first group of the pattern is taken.
    """

    def group_of(name: str, record: Any) -> str | None:
        if field is not None and isinstance(record, dict) and record.get(field) not in (None, ""):
            return str(record[field])
        match = pattern.search(name) if pattern else None
        return "/".join(match[index] for index in indices or (1,)) if match else None

    return group_of


def same_label(label: str) -> str:
    """Return the label unchanged, for datasets whose shards and files have the same labels."""
    return label


@dataclass(frozen=True, slots=True)
class Layout:
    """How a publisher lays out a dataset.

    `is_root` recognises the dataset's root from folder listings alone. `read` returns the clips below that root; a file
    that a label table lists becomes a clip even if it is missing, so that it is reported. `group_of` and `label_of`
    work on X-ARES's shards: they return a group from a record's name and JSON, and our spelling of its label.
    """

    is_root: Callable[[Path], bool]
    read: Callable[[Path, Card], Reading]
    expects: str  # the files that are looked for, for messages
    folders: tuple[str, ...] = ()  # other names that the folder in --data may have
    group_of: GroupOf = no_group
    label_of: Callable[[str], str] = same_label


def has(*parts: str) -> Callable[[Path], bool]:
    """Return an `is_root` that is true for folders in which all `parts` (paths or patterns) exist."""

    def is_root(folder: Path) -> bool:
        return all(any(True for _ in folder.glob(part)) if "*" in part else (folder / part).exists() for part in parts)

    return is_root


def find_root(layout: Layout, folder: Path, *, depth: int = 3) -> Path | None:
    """Return the dataset's root, which is `folder` or at most `depth` levels below it: the nearest, then by name."""
    queue = deque([(folder, 0)])
    for _ in range(_SEARCHED_FOLDERS):
        if not queue:
            return None
        candidate, level = queue.popleft()
        if layout.is_root(candidate):
            return candidate
        if level < depth:
            queue += [(child, level + 1) for child in visible(candidate) if child.is_dir()]
    return None


def visible(folder: Path) -> list[Path]:
    """Return a folder's entries by name, without hidden files and macOS's additions to archives."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith((".", "__MACOSX")))


def audio_files(folder: Path, *suffixes: str) -> list[Path]:
    """Return a folder's files with one of the suffixes, ".wav" if none is given, in any case."""
    return [path for path in visible(folder) if path.suffix.lower() in (suffixes or (".wav",))]


def read_table(path: Path, columns: Sequence[str], *, delimiter: str = ",") -> Iterator[dict[str, str]]:
    """Yield the rows of a table with a header; raise DataError if it lacks one of `columns` or cannot be read."""
    rows = read_rows(path, delimiter=delimiter)
    _, header = next(rows, (0, []))
    missing = [name for name in columns if name not in header]
    if missing:
        raise DataError(f"the column {missing[0]!r} is missing", where=path)
    needed = max(header.index(name) for name in columns) + 1
    for number, row in rows:
        if len(row) < needed:
            raise DataError(f"line {number}: too few values", where=path)
        yield dict(zip(header, row, strict=False))


def read_rows(path: Path, *, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Yield (line, values) for the rows of a table that are not empty; raise DataError if it cannot be read.

    Space around values, which spreadsheets and editors leave, is removed.
    """
    # The tab-separated label files of these datasets do not use quoting: a quote in them is part of the value.
    quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    with open_text(path) as file:
        reader = csv.reader(file, delimiter=delimiter, quoting=quoting)
        try:
            for row in reader:
                values = [value.strip() for value in row]
                if any(values):
                    yield reader.line_num, values
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"line {reader.line_num + 1}: cannot be read ({error})", where=path) from error


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (number, stripped line) for the lines that are not empty; raise DataError if the file cannot be read."""
    with open_text(path) as file:
        try:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line.strip()
        except UnicodeDecodeError as error:
            raise DataError(f"is not UTF-8 text ({error.reason} at byte {error.start})", where=path) from error


def open_text(path: Path) -> TextIO:
    """Open a label file as UTF-8; raise DataError if that fails."""
    try:
        return path.open(encoding="utf-8-sig", newline="")
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=path) from error


def first_existing(folder: Path, *names: str) -> Path:
    """Return the path of the first of `names` that exists in `folder`, or of the first so that errors name it."""
    return next((folder / name for name in names if (folder / name).exists()), folder / names[0])


def shuffled_folds(labels: Mapping[str, str], folds: int) -> dict[str, str]:
    """Return the fold, "0", "1", ..., of each file stem by a seeded shuffle, repeated until every fold has every label.

    The rule is that of hear-preprocess (`new_split_kfold`): sort the stems, shuffle with `random.Random(seed)`, and cut
    into consecutive parts whose sizes differ by one at most. The seeds are `split_k_folds`, then
    `split_k_folds_retry_<i>`. X-ARES's folds of these datasets probably come from the same rule, which is unproven. If
    no seed gives every fold every label, the first seed is used.
    """
    stems = sorted(labels)
    classes = set(labels.values())
    first: dict[str, str] | None = None
    for seed in ("split_k_folds", *(f"split_k_folds_retry_{i}" for i in range(10))):
        order = list(stems)
        random.Random(seed).shuffle(order)
        dealt = dict(_parts(order, folds))
        first = first or dealt
        if len({(fold, labels[stem]) for stem, fold in dealt.items()}) == folds * len(classes):
            return dealt
    return first or {}


def _parts(items: Sequence[str], count: int) -> Iterable[tuple[str, str]]:
    """Yield (item, part) for `count` consecutive parts whose sizes differ by one at most."""
    size, larger = divmod(len(items), count)
    start = 0
    for part in range(count):
        stop = start + size + (part < larger)
        for item in items[start:stop]:
            yield item, str(part)
        start = stop
