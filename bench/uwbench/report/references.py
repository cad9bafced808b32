"""Numbers published by others, each with its source, and the averages recomputed from them.

`results/reference/published_tasks.csv` has the task scores, `published_averages.csv` the averages that are printed.
"""

from __future__ import annotations

import csv
import importlib.resources
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from uwbench.errors import InputError
from uwbench.results.averages import Average, Entry, average_entries


@dataclass(frozen=True, slots=True)
class Published:
    """One row of a source: a model under a method with its task scores and averages.

    `printed` maps the source's own name for an average to its number. `averages` are recomputed from the source's task
    scores, except the one that corrects for chance, because sources print no chance levels.
    """

    source: str
    protocol: str
    method: str
    model: str
    entries: tuple[Entry, ...]
    printed: dict[str, float]
    averages: dict[str, Average]


def reference_folder() -> Path:
    """Return the folder of published numbers, in the package or else in the checkout."""
    packaged = Path(str(importlib.resources.files("uwbench"))) / "_reference"
    checkout = Path(__file__).resolve().parents[3] / "results" / "reference"
    for folder in (packaged, checkout):
        if (folder / "published_tasks.csv").is_file():
            return folder
    raise InputError(f"the published numbers are neither in {packaged} nor in {checkout}", remedy="reinstall uwbench")


def load_references(folder: Path | None = None) -> tuple[Published, ...]:
    """Read the published numbers, in the order of their files; raise InputError naming file and line of a bad row."""
    folder = folder or reference_folder()
    entries: dict[tuple[str, str, str, str], list[Entry]] = {}
    for where, row in _rows(folder / "published_tasks.csv"):
        key = (row["source"], row["protocol"], row["method"], row["model"])
        entry = Entry(row["task"], row["domain"], _number(row, "weight", where), 0.0, _number(row, "score", where))
        entries.setdefault(key, []).append(entry)
    printed: dict[tuple[str, str, str], dict[str, float]] = {}
    for where, row in _rows(folder / "published_averages.csv"):
        key = (row["source"], row["method"], row["model"])
        printed.setdefault(key, {})[row["average"]] = _number(row, "score", where)
    known = {(source, method, model) for source, _, method, model in entries}
    only_averages = [
        (source, "as published", method, model)
        for source, method, model in printed
        if (source, method, model) not in known
    ]
    return tuple(
        _published(key, entries.get(key, []), printed.get((key[0], key[2], key[3]), {}))
        for key in [*entries, *only_averages]
    )


def _published(key: tuple[str, str, str, str], entries: list[Entry], printed: dict[str, float]) -> Published:
    computed = {name: average for name, average in average_entries(entries).items() if name != "chance"}
    return Published(*key, tuple(entries), printed, computed)


def _rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for line, row in enumerate(csv.DictReader(file), start=2):
                yield f"{path}:{line}", row
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=path) from error


def _number(row: dict[str, str], field: str, where: str) -> float:
    try:
        return float(row[field])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{field}: {row.get(field)!r} is not a number", where=where) from error
