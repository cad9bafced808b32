"""Benchmark a trained encoder beside the original: export, extract, probe, compare."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from uniwhisper.export import export_encoder
from uniwhisper.training.checkpoint import checkpoints
from uwbench import api
from uwbench.api import Folders, ModelSpec, TaskSpec, UsageError, UwbenchError
from uwbench.base.hashing import sha256_file

Context = Literal["full", "trimmed"]
METHODS: tuple[Literal["mlp", "knn"], ...] = ("mlp", "knn")


@dataclass(frozen=True, slots=True)
class Difference:
    """A task's or an average's score for two encoders on the same clips, with an interval of `trained - original`."""

    name: str
    method: str
    original: float
    trained: float
    difference: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The folder of the trained encoder, the results, and the differences: one per task, then the average."""

    encoder: Path
    results: Path
    differences: tuple[Difference, ...]


def encoder_of(trained: Path, output: Path) -> Path:
    """Return the encoder folder of an export, a checkpoint, or a run (its last checkpoint).

    A checkpoint is exported to `output`, unless its export is there.
    """
    if (trained / "uniwhisper.json").is_file() and (trained / "config.json").is_file():
        return trained
    folder = checkpoint_of(trained)
    if folder is None:
        raise UsageError("is neither an export nor a checkpoint, nor a run that has one", where=trained)
    trained = folder
    description = output / "uniwhisper.json"
    if description.is_file():
        recorded = json.loads(description.read_text(encoding="utf-8"))
        if recorded.get("checkpoint") == [sha256_file(trained / "encoder" / "model.safetensors")]:
            return output
        raise UsageError("holds the export of another checkpoint", where=output, remedy="name another --output")
    return export_encoder(trained, output)


def checkpoint_of(trained: Path) -> Path | None:
    """Return a checkpoint, given it or its run (the last one), or None if the folder is neither."""
    if (trained / "encoder").is_dir():
        return trained
    return next(reversed(checkpoints(trained)), None)


def evaluate(
    trained: Path,
    original: Path,
    tasks: Sequence[str | TaskSpec],
    *,
    folders: Folders,
    suite: str | None = None,
    context: Context = "full",
    progress: bool | None = None,
) -> Evaluation:
    """Run the benchmark's tasks on two encoder folders with the same settings, and compare them by paired bootstrap.

    Cached embeddings are reused. Raises UwbenchError naming the tasks that failed.
    """
    specs = [ModelSpec(str(original), context=context), spec_of(trained, context)]
    results = api.evaluate(
        specs,
        tasks,
        suite=suite,
        cache=folders.cache,
        data=folders.data,
        results=folders.results,
        progress=progress,
    )
    if results.failures:
        raise UwbenchError("; ".join(results.failures), where="evaluate")
    fingerprints = list(dict.fromkeys(result.model.fingerprint for _, result in results.results))
    names = list(dict.fromkeys(result.task.name for _, result in results.results))
    if len(fingerprints) != 2:
        raise UsageError("has the weights of the original: there is nothing to compare", where=trained)
    compared = differences(folders.results, fingerprints[1], fingerprints[0], names)
    return Evaluation(trained, folders.results, compared)


def spec_of(encoder: Path, context: Context) -> ModelSpec:
    """Return the model specification by which uwbench opens an export."""
    return ModelSpec("uniwhisper", weights=str(encoder), context=context)


def differences(
    results: Path, trained: str, original: str, tasks: Sequence[str], *, average: str = "weighted"
) -> tuple[Difference, ...]:
    """Return the differences between two fingerprints: for each method, one per task and one of the average.

    The average's interval comes from resampling clips: it shows how certain the difference is on these tasks.
    """
    rows: list[Difference] = []
    for method in METHODS:
        compared = api.compare(trained, original, results=results, method=method, tasks=tasks)
        named: list[tuple[str, Any]] = [(row.task, row) for row in compared.tasks]
        named += [(f"average ({average})", row) for row in compared.overall if row.average == average]
        for name, row in named:
            rows.append(Difference(name, method, row.second, row.first, row.difference, row.low, row.high))
    return tuple(rows)


def interval(row: Difference) -> str:
    """Return a difference with its interval, in percentage points."""
    if row.low is None or row.high is None:
        return f"{100 * row.difference:+.1f}"
    return f"{100 * row.difference:+.1f} [{100 * row.low:+.1f}, {100 * row.high:+.1f}]"


def table(rows: Sequence[Difference]) -> list[str]:
    """Return a Markdown table of differences, with scores in percent."""
    lines = ["| task | method | original | trained | difference [95 %] |", "| --- | --- | ---: | ---: | ---: |"]
    for row in rows:
        scores = f"{100 * row.original:.1f} | {100 * row.trained:.1f}"
        lines.append(f"| {row.name} | {row.method} | {scores} | {interval(row)} |")
    return lines
