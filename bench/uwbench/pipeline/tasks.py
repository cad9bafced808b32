"""The tasks of a run: their data opened and their audio scanned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from uwbench.errors import DataError, UsageError
from uwbench.options import Folders, TaskSpec
from uwbench.progress import SCAN, Reporter

if TYPE_CHECKING:
    from uwbench.extraction.task import Task
    from uwbench.sources.dataset import Dataset


DEFAULT_SUITE = "uniwhisper-20"


def open_dataset(task: TaskSpec | Dataset, data: Path | None) -> Dataset:
    """Open a task's clips; what is open already is returned as it is."""
    from uwbench.sources.resolve import open_task, with_name

    return open_task(with_name(task), data) if isinstance(task, TaskSpec) else task


@dataclass(frozen=True, slots=True)
class Scan:
    """Tasks whose audio was scanned, those whose data is not at hand, and those that failed."""

    tasks: tuple[Task, ...] = ()
    missing: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()


def scan_tasks(
    tasks: Sequence[TaskSpec | Dataset], suite: str | None, folders: Folders, limit: int | None, reporter: Reporter
) -> Scan:
    """Open and hash the tasks; one that was named must be at hand, one of a suite may be missing."""
    from uwbench.cards.find import find_suite
    from uwbench.results.contamination import require_known

    chosen = tasks or [TaskSpec(name) for name in find_suite(suite or DEFAULT_SUITE).tasks]
    scanned: list[Task] = []
    missing, failures = [], []
    for task in chosen:
        try:
            dataset = open_dataset(task, folders.data)
        except DataError as error:
            line = f"{task.source}: {error}"
            missing.append(line)
            failures += [line] if tasks else []
            continue
        require_known(dataset.card.taken_from)
        reporter.started(SCAN, dataset.card.name, len(dataset.clips))
        try:
            scanned.append(_scan_one(dataset, folders.cache, limit, reporter))
        except DataError as error:
            failures.append(str(error))
        finally:
            reporter.finished()
    refuse_repeated([task.card.name for task in scanned])
    return Scan(tuple(scanned), tuple(missing), tuple(failures))


def _scan_one(dataset: Dataset, cache: Path, limit: int | None, reporter: Reporter) -> Task:
    from uwbench.extraction.task import scan_task

    clips, problems = dataset.clips, dataset.problems
    return scan_task(
        dataset.card, clips, dataset.source, problems, cache, limit, progress=lambda: reporter.advanced(1, 0.0)
    )


def refuse_repeated(names: Sequence[str]) -> None:
    """Raise UsageError if two tasks have one name: their results would go to one file."""
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        remedy = "give one of them another name, as in -t OTHER=PATH or load_task(..., name=OTHER)"
        raise UsageError(f"two tasks are called {repeated[0]!r}", remedy=remedy)
