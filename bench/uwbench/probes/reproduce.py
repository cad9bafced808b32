"""Score a recorded result again and compare."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uwbench.audio.corruption import parse_corruptions
from uwbench.cache.clip_table import ClipTable, read_table
from uwbench.cache.store import EncoderStore, open_encoders
from uwbench.cards.find import find_protocol
from uwbench.cards.protocol import Protocol
from uwbench.errors import StoreError, UsageError
from uwbench.options import ProbeOptions
from uwbench.probes.predictions import prediction_differences
from uwbench.probes.score_task import probe_task
from uwbench.results.provenance import versions
from uwbench.results.record import Result, predictions_path, read_predictions, read_result


@dataclass(frozen=True, slots=True)
class Reproduction:
    """A result scored again: `equal` if every score is the same to the last digit, else `differences` lists them."""

    task: str
    model: str
    equal: bool
    differences: tuple[str, ...]
    context: tuple[str, ...]  # what differs around the number: versions, device


def reproduce(
    path: Path,
    cache: Path,
    *,
    protocol: Protocol | None = None,
    device: str = "cpu",
    text_encoder: str | None = None,
) -> Reproduction:
    """Score the result at `path` again from the cache, and compare every score and every recorded prediction.

    The embeddings are found by the encoder's fingerprint and the clips by the data's hash, so the same weights are
    compared on the same audio with the same labels. `protocol` is the result's if it is no built-in one. Raises
    StoreError, with the command to run, if the cache lacks them, and UsageError for a result that holds no score or
    was made under another version of its protocol.
    """
    before = read_result(path)
    if before.status == "failed":
        raise UsageError("records a failure, there is no score to reproduce", where=path)
    store = store_of(before, cache)
    table = table_of(before, cache)
    protocol = protocol or find_protocol(before.protocol.name)
    if protocol.sha256() != before.protocol.sha256:
        what = f"was made under another version of the protocol {protocol.name}"
        raise UsageError(what, where=path, remedy="install the version of uwbench that the result names")
    options = ProbeOptions(before.run.seed, before.counts.missing, text_encoder)
    with tempfile.TemporaryDirectory() as folder:
        path_after, after = probe_task(
            store,
            table,
            protocol,
            Path(folder),
            methods=tuple(before.scores),
            device=device,
            options=options,
            corruptions=parse_corruptions(before.robustness.corruptions if before.robustness else ()),
        )
        recorded = predictions_path(path).is_file()
        of_items = prediction_differences(read_predictions(path), read_predictions(path_after)) if recorded else []
    old, new = ({**_scores(result), **_facts(result)} for result in (before, after))
    if before.schema_ == 1:
        del old["leaked"], new["leaked"]  # results of that schema did not look for any
    of_values = [
        f"{name}: {old.get(name)} was recorded, {new.get(name)} came out"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]
    differences = (*of_values, *of_items)
    return Reproduction(before.task.name, before.model.name, not differences, differences, _context(before, after))


def store_of(result: Result, cache: Path) -> EncoderStore:
    """Return the encoder's vectors that a result was scored on; raise StoreError if the cache lacks them."""
    for store in open_encoders(cache)[0]:
        fingerprints = (store.record.model_fingerprint, store.record.fingerprint)  # the second in older results
        if result.model.fingerprint in fingerprints and store.record.layers == result.model.layers:
            return store
    what = f"holds no embeddings of {result.model.name} with fingerprint {result.model.fingerprint[:8]}"
    command = " ".join(result.run.argv) or f"uwbench extract --model {result.model.name} --task {result.task.name}"
    raise StoreError(what, where=cache, remedy=f"make them with the command of the result: {command}")


def table_of(result: Result, cache: Path) -> ClipTable:
    """Return the clips that a result was scored on; raise StoreError if the cache lacks their table."""
    for path in sorted((cache / "clips").glob(f"{result.task.name}-{(result.task.data_sha256 or '')[:8]}.parquet")):
        table = read_table(cache, path.stem)
        if table.sha256() == result.task.data_sha256:
            return table
    what = f"holds no clip table of {result.task.name} with the data of the result"
    remedy = f"extract it from {result.run.source}; if that was done, its clips, labels or splits have changed since"
    raise StoreError(what, where=cache, remedy=remedy)


def _scores(result: Result) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for method, score in result.scores.items():
        fields: Mapping[str, Any] = score.model_dump(mode="json")
        values |= {f"{method} {name}": value for name, value in fields.items()}
    for name, corrupted in (result.robustness.corruptions if result.robustness else {}).items():
        values |= {f"{method} under {name}": score.score for method, score in corrupted.scores.items()}
    return values


def _facts(result: Result) -> dict[str, Any]:
    """Return what a result says of its task, model and clips."""
    parts = {"task": result.task, "model": result.model, "counts": result.counts}
    facts = {f"{part} {name}": value for part, record in parts.items() for name, value in record.model_dump().items()}
    return {**facts, "status": result.status, "leaked": result.leaked}


def _context(before: Result, after: Result) -> tuple[str, ...]:
    installed = versions()
    lines = [
        f"{name} {version} was used, {installed.get(name, 'none')} is here"
        for name, version in before.run.versions.items()
        if installed.get(name) != version
    ]
    if before.run.device != after.run.device:
        lines.append(f"device {before.run.device} was used, {after.run.device} is here")
    return tuple(lines)
