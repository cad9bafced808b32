"""The benchmark on what training made, with the original encoder beside it: export, extract, probe, compare."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from uniwhisper.export import export_encoder
from uniwhisper.training.checkpoint import checkpoints
from uwbench import api
from uwbench.api import Folders, ModelSpec, Reporter, TaskSpec, UsageError, UwbenchError

Context = Literal["full", "trimmed"]
METHODS: tuple[Literal["mlp", "knn"], ...] = ("mlp", "knn")


@dataclass(frozen=True, slots=True)
class Difference:
    """An average or a task under two encoders on the same clips; the interval is of `trained - original`."""

    name: str
    method: str
    original: float
    trained: float
    difference: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Where the trained encoder lies, and how far it is above the original: a line a task, then the average."""

    encoder: Path
    results: Path
    differences: tuple[Difference, ...]


def encoder_of(trained: Path, output: Path) -> Path:
    """Return the encoder folder of an export, a checkpoint or a run's folder (its last checkpoint).

    What is no export yet is exported to `output`, once: an export of the same checkpoint there is taken as it is.
    """
    if (trained / "uniwhisper.json").is_file() and (trained / "config.json").is_file():
        return trained
    if not (trained / "encoder").is_dir():
        found = checkpoints(trained) if trained.is_dir() else []
        if not found:
            raise UsageError("is neither an export nor a checkpoint, nor a run that has one", where=trained)
        trained = found[-1]
    mark = output / "uniwhisper.json"
    if mark.is_file():
        recorded = json.loads(mark.read_text(encoding="utf-8"))
        if recorded.get("checkpoint") == [api.sha256_file(trained / "encoder" / "model.safetensors")]:
            return output
        raise UsageError("holds the export of another checkpoint", where=output, remedy="name another --output")
    return export_encoder(trained, output)


def evaluate(
    trained: Path,
    original: Path,
    tasks: Sequence[str | TaskSpec],
    *,
    folders: Folders,
    suite: str | None = None,
    context: Context = "full",
    reporter: Reporter | None = None,
) -> Evaluation:
    """Run the benchmark's tasks on two encoder folders, treated alike, and compare them by paired bootstrap.

    Embeddings that the cache holds are not computed again. Raises UwbenchError naming the tasks that failed.
    """
    specs = [ModelSpec(str(original), context=context), spec_of(trained, context)]
    scored = api.evaluate(
        specs,
        tasks,
        suite=suite,
        cache=folders.cache,
        data=folders.data,
        results=folders.results,
        reporter=reporter,
    )
    if scored.failures:
        raise UwbenchError("; ".join(scored.failures), where="evaluate")
    prints = list(dict.fromkeys(result.model.fingerprint for _, result in scored.results))
    names = list(dict.fromkeys(result.task.name for _, result in scored.results))
    if len(prints) != 2:
        raise UsageError("has the weights of the original: there is nothing to compare", where=trained)
    return Evaluation(trained, folders.results, differences(folders.results, prints[1], prints[0], names))


def spec_of(encoder: Path, context: Context) -> ModelSpec:
    """Return how uwbench opens an export."""
    return ModelSpec("uniwhisper", weights=str(encoder), context=context)


def differences(
    results: Path, trained: str, original: str, tasks: Sequence[str], *, average: str = "weighted"
) -> tuple[Difference, ...]:
    """Return the difference a task and in the average over `tasks`, for each method, of two fingerprints.

    The average's interval is over draws of the clips; it says how sure the difference is on these tasks.
    """
    found: list[Difference] = []
    for method in METHODS:
        compared = api.compare(trained, original, results=results, method=method, tasks=tasks)
        rows: list[tuple[str, Any]] = [(row.task, row) for row in compared.tasks]
        rows += [(f"average ({average})", row) for row in compared.overall if row.average == average]
        for name, row in rows:
            found.append(Difference(name, method, row.second, row.first, row.difference, row.low, row.high))
    return tuple(found)


def interval(found: Difference) -> str:
    """Return a difference with its interval, in points of a hundred."""
    if found.low is None or found.high is None:
        return f"{100 * found.difference:+.1f}"
    return f"{100 * found.difference:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def table(found: Sequence[Difference]) -> list[str]:
    """Return a Markdown table of differences, scores in points of a hundred."""
    lines = ["| task | method | original | trained | difference [95 %] |", "| --- | --- | ---: | ---: | ---: |"]
    for row in found:
        scores = f"{100 * row.original:.1f} | {100 * row.trained:.1f}"
        lines.append(f"| {row.name} | {row.method} | {scores} | {interval(row)} |")
    return lines
