"""What layouts share: finding a dataset's root, reading its tables, dealing folds."""

from __future__ import annotations

import csv
import random
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from uwbench.audio.clip import AudioFile, Clip
from uwbench.cards.card import Card
from uwbench.errors import DataError
from uwbench.sources.dataset import Reading

_FOLDERS_LOOKED_AT = 2_000  # a bound on the search for a root; a dataset with more folders has its root above them


def no_group(_name: str, _record: Any) -> str | None:
    """The group of datasets that know none."""
    return None


def same_label(label: str) -> str:
    """The label of datasets whose shards and files spell labels alike."""
    return label


@dataclass(frozen=True, slots=True)
class Layout:
    """How a publisher lays a dataset out.

    `is_root` recognises the dataset's root from listings alone. `read` returns the clips below that root; a file that a
    label table lists and that is missing becomes a clip all the same, so that it is reported. `group_of` and `label_of`
    make a group and a label of what X-ARES's shards keep: a record's name and JSON, and its label.
    """

    is_root: Callable[[Path], bool]
    read: Callable[[Path, Card], Reading]
    expects: str  # what is looked for, for messages
    folders: tuple[str, ...] = ()  # further names that the folder under --data may have
    group_of: Callable[[str, Any], str | None] = no_group
    label_of: Callable[[str], str] = same_label


def has(*parts: str) -> Callable[[Path], bool]:
    """Return the test of a folder in which every one of `parts` (paths, or patterns) exists."""

    def holds(folder: Path) -> bool:
        return all(any(True for _ in folder.glob(part)) if "*" in part else (folder / part).exists() for part in parts)

    return holds


def find_root(layout: Layout, folder: Path, *, depth: int = 3) -> Path | None:
    """Return the dataset's root: the first folder, nearest first and then by name, in or below `folder`, or None."""
    queue = deque([(folder, 0)])
    for _ in range(_FOLDERS_LOOKED_AT):
        if not queue:
            return None
        here, level = queue.popleft()
        if layout.is_root(here):
            return here
        if level < depth:
            queue += [(child, level + 1) for child in visible(here) if child.is_dir()]
    return None


def visible(folder: Path) -> list[Path]:
    """Return what a folder holds, by name, without hidden files and what macOS leaves in archives."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith((".", "__MACOSX")))


def read_table(path: Path, columns: Sequence[str], *, delimiter: str = ",") -> Iterator[dict[str, str]]:
    """Yield the rows of a table with a header; raise DataError where it lacks one of `columns` or cannot be read."""
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
    """Yield (line, values) for the rows of a table that are not empty; raise DataError where it cannot be read.

    Space around values, which spreadsheets and editors leave, is no part of them.
    """
    # Tab-separated label files of these datasets do not quote; a quote sign in them is a sign like any other.
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
    """Yield (number, line without surrounding space) for the lines that are not empty; raise DataError as above."""
    with open_text(path) as file:
        try:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line.strip()
        except UnicodeDecodeError as error:
            raise DataError(f"is not UTF-8 text ({error.reason} at byte {error.start})", where=path) from error


def open_text(path: Path) -> Any:
    """Open a label file as UTF-8; raise DataError where it is not there."""
    try:
        return path.open(encoding="utf-8-sig", newline="")
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=path) from error


def with_real_names(clips: Iterable[Clip]) -> tuple[tuple[Clip, ...], int]:
    """Return the clips with files found that are there under another case or with space around their name; how many.

    `.WAV` for `.wav` is the common one. A file is looked for in its own folder, whose listing is read once.
    """
    names: dict[Path, tuple[set[str], dict[str, str]]] = {}
    found, mended = [], 0
    for clip in clips:
        audio = clip.audio
        if isinstance(audio, AudioFile):
            folder, name = audio.path.parent, audio.path.name
            if folder not in names:
                names[folder] = _listing(folder)
            exact, loose = names[folder]
            real = loose.get(_loose(name))
            if name not in exact and real is not None:
                mended += 1
                found.append(replace(clip, audio=AudioFile(folder / real)))
                continue
        found.append(clip)
    return tuple(found), mended


def _listing(folder: Path) -> tuple[set[str], dict[str, str]]:
    """Return the names in a folder, and those that stay apart once case and space are ignored."""
    try:
        exact = {path.name for path in folder.iterdir()}
    except OSError:
        return set(), {}
    loose = Counter(map(_loose, exact))
    return exact, {_loose(name): name for name in exact if loose[_loose(name)] == 1}


def _loose(name: str) -> str:
    stem, dot, suffix = name.strip().casefold().rpartition(".")
    return f"{stem.strip()}{dot}{suffix}"


def first_existing(folder: Path, *names: str) -> Path:
    """Return the first of `names` that exists in `folder`, else the first, so that errors name it."""
    return next((folder / name for name in names if (folder / name).exists()), folder / names[0])


def shuffled_folds(labels: Mapping[str, str], folds: int) -> dict[str, str]:
    """Deal file stems into folds "0", "1", ... by a seeded shuffle, redone while a fold lacks a label that others have.

    The rule is that of hear-preprocess (`new_split_kfold`): sorted stems, `random.Random("split_k_folds")`, consecutive
    parts whose sizes differ by one at most; seeds `split_k_folds_retry_<i>` after that. X-ARES's folds of the same
    datasets probably come from it, which is not proven. Where no try gives every fold every label, the first stands.
    """
    stems = sorted(labels)
    wanted = set(labels.values())
    first: dict[str, str] | None = None
    for seed in ("split_k_folds", *(f"split_k_folds_retry_{i}" for i in range(10))):
        order = list(stems)
        random.Random(seed).shuffle(order)
        dealt = dict(_parts(order, folds))
        first = first or dealt
        found = {(fold, labels[stem]) for stem, fold in dealt.items()}
        if len(found) == folds * len(wanted):
            return dealt
    return first or {}


def _parts(items: Sequence[str], count: int) -> Iterable[tuple[str, str]]:
    size, larger = divmod(len(items), count)
    start = 0
    for part in range(count):
        stop = start + size + (part < larger)
        for item in items[start:stop]:
            yield item, str(part)
        start = stop
