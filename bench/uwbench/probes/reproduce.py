"""Run a result again and say whether it comes out the same, or what differs."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uwbench.cache.clip_table import ClipTable, read_table
from uwbench.cache.store import EncoderStore, open_encoders
from uwbench.cards.find import find_protocol
from uwbench.errors import StoreError, UsageError
from uwbench.probes.score_task import probe_task
from uwbench.results.provenance import versions
from uwbench.results.record import Result, read_result

if TYPE_CHECKING:
    from uwbench.options import Folders, Options


@dataclass(frozen=True, slots=True)
class Reproduction:
    """What came of it: `equal` where every score is the same to the last digit, `differences` otherwise."""

    task: str
    model: str
    equal: bool
    differences: tuple[str, ...]
    context: tuple[str, ...]  # what differs around the number: versions, device


def reproduce(path: Path, folders: Folders, options: Options) -> Reproduction:
    """Score the result at `path` again from the cache; raise StoreError, with the command to run, where it lacks the
    clips.

    The embeddings are found by the encoder's fingerprint and the clips by the data's hash, so what is compared is the
    same weights on the same audio with the same labels.
    """
    result = read_result(path)
    if result.status == "failed":
        raise UsageError("records a failure, there is no score to reproduce", where=path)
    store = _find_store(result, folders.cache)
    table = _find_table(result, folders.cache)
    protocol = find_protocol(result.protocol.name)
    if protocol.sha256() != result.protocol.sha256:
        what = f"was made under another version of the protocol {protocol.name}"
        raise UsageError(what, where=path, remedy="install the version of uwbench that the result names")
    again_options = replace(
        options, methods=tuple(result.scores), seed=result.run.seed, allow_missing=result.counts.missing
    )
    with tempfile.TemporaryDirectory() as folder:
        _, again = probe_task(store, table, protocol, Path(folder), again_options)
    before, after = _scores(result), _scores(again)
    differences = tuple(
        f"{name}: {before.get(name)} was recorded, {after.get(name)} came out"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    )
    return Reproduction(result.task.name, result.model.name, not differences, differences, _context(result, again))


def _find_store(result: Result, cache: Path) -> EncoderStore:
    for store in open_encoders(cache)[0]:
        if store.record.fingerprint == result.model.fingerprint:
            return store
    what = f"holds no embeddings of {result.model.name} with fingerprint {result.model.fingerprint[:8]}"
    command = " ".join(result.run.argv) or f"uwbench extract --model {result.model.name} --task {result.task.name}"
    raise StoreError(what, where=cache, remedy=f"make them with the command of the result: {command}")


def _find_table(result: Result, cache: Path) -> ClipTable:
    for path in sorted((cache / "clips").glob(f"{result.task.name}-{(result.task.data_sha256 or '')[:8]}.parquet")):
        table = read_table(cache, path.stem)
        if table.sha256() == result.task.data_sha256:
            return table
    what = f"holds no clip table of {result.task.name} with the data of the result"
    remedy = f"extract it from {result.run.source}; if that was done, its clips, labels or splits have changed since"
    raise StoreError(what, where=cache, remedy=remedy)


def _scores(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for method, score in result.scores.items():
        values: Mapping[str, Any] = score.model_dump(mode="json")
        for name, value in values.items():
            found[f"{method} {name}"] = value
    return found


def _context(before: Result, after: Result) -> tuple[str, ...]:
    now = versions()
    lines = [
        f"{name} {old} was used, {now.get(name, 'none')} is here"
        for name, old in before.run.versions.items()
        if now.get(name) != old
    ]
    if before.run.device != after.run.device:
        lines.append(f"device {before.run.device} was used, {after.run.device} is here")
    return tuple(lines)
