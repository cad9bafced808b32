"""Pack what one model's scores were made of into a bundle."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from uwbench.audio.corruption import Corruption, parse_corruptions
from uwbench.base.hashing import sha256_file
from uwbench.bundles.archive import write_archive
from uwbench.bundles.digests import CLEAN, hashes_of, pooled_blocks, write_digests
from uwbench.cache.clip_table import ClipTable, table_path, write_table
from uwbench.cache.records import Part
from uwbench.cache.store import EncoderStore
from uwbench.cards.find import find_protocol
from uwbench.cards.protocol import Protocol
from uwbench.errors import UsageError
from uwbench.methods import METHODS, in_order
from uwbench.probes.joint import texts_path
from uwbench.probes.reproduce import store_of, table_of
from uwbench.report.build import build_board
from uwbench.report.compare import find_model
from uwbench.results.record import (
    Result,
    predictions_bytes,
    predictions_path,
    read_predictions,
    read_result,
    result_bytes,
    result_path,
)

_FRAMES = "is scored on frames, which a bundle does not hold"
_SEGMENTS = "reads segments, which a bundle does not hold, so that nobody could verify its score"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that was written: its file, size and hash, the tasks in it, and why others were left out."""

    path: Path
    sha256: str
    bytes: int
    model: str
    tasks: tuple[str, ...]
    left_out: tuple[str, ...]


def pack_bundle(model: str, output: Path, results: Path, cache: Path, *, protocol: str = "uwbench-1") -> Bundle:
    """Write the scores of a model on the board of `protocol` with their predictions, labels and vectors to `output`.

    `model` is a label, name or fingerprint, `protocol` a name or a file. Tasks scored on frames are left out, and so
    are scores by methods that read segments. Raises UsageError for an unknown model or one without other scores,
    StoreError, with the command that makes them, if the cache lacks vectors.
    """
    rules = find_protocol(protocol)
    board = build_board(results, protocol=protocol, references=False, ties=False)
    key = find_model(board, model)
    label = board.label(key)
    paths = dict.fromkeys(cell.path for cell in board.cells if cell.model == key)
    left_out = [f"{off.task}: {off.reason}" for off in board.off if off.model == label]
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".bundle-", dir=output.parent) as scratch:
        folder, packed = Path(scratch), []
        for path in paths:
            result = read_result(path)
            table = table_of(result, cache)
            if table.needs_frames:
                left_out.append(f"{result.task.name}: {_FRAMES}")
                continue
            unverifiable = [method for method in result.scores if reads_segments(method)]
            left_out.extend(f"{result.task.name}: {method} {_SEGMENTS}" for method in unverifiable)
            if len(unverifiable) == len(result.scores):
                continue
            _copy_result(path, result, unverifiable, folder / "results")
            store = store_of(result, cache)
            _copy_vectors(result, store, table, folder)
            _copy_texts(result, store, folder / "cache")
            packed.append(result)
        if not packed:
            what = f"no score of {label} can be packed ({'; '.join(left_out) or 'there is none'})"
            raise UsageError(what, where=results)
        _write_protocol(folder / "protocols" / f"{rules.name}.yaml", rules)
        info = packed[0].model
        write_archive(output, folder, model=info.name, fingerprint=info.fingerprint, protocol=rules.name)
    tasks = tuple(result.task.name for result in packed)
    return Bundle(output, sha256_file(output), output.stat().st_size, info.name, tasks, tuple(left_out))


def corruptions_of(result: Result) -> tuple[Corruption, ...]:
    """Return the corruptions that a result has scores under."""
    return parse_corruptions(result.robustness.corruptions if result.robustness else ())


def reads_segments(method: str) -> bool:
    """Return True for a method whose score cannot be computed again from pooled vectors."""
    return method in METHODS and METHODS[method].segments


def _copy_result(path: Path, result: Result, without: Sequence[str], results: Path) -> None:
    """Copy a result with its predictions, but for the methods `without`."""
    target = result_path(results, result).with_name(path.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    if without:
        import pyarrow as pa

        predictions = read_predictions(path)
        others = [method not in without for method in predictions["method"].to_pylist()]
        content = predictions_bytes(predictions.filter(pa.array(others, pa.bool_())))
        scores = {method: score for method, score in result.scores.items() if method not in without}
        changed = {"scores": scores, "predictions_sha256": hashlib.sha256(content).hexdigest()}
        predictions_path(target).write_bytes(content)
        target.write_bytes(result_bytes(result.model_copy(update=changed)))
        return
    shutil.copyfile(path, target)
    if predictions_path(path).is_file():
        shutil.copyfile(predictions_path(path), predictions_path(target))


def _copy_vectors(result: Result, source: EncoderStore, table: ClipTable, folder: Path) -> None:
    """Copy a task's clip table and all its pooled vectors into the bundle's own cache, and hash each clip."""
    target = EncoderStore(folder / "cache", source.record)
    target.create()
    name = write_table(target.root, table)
    task = table.card.name
    parts: list[Part] = []
    hashes: dict[str, dict[int, bytes]] = {}
    for corruption in (None, *corruptions_of(result)):
        tested = table if corruption is None else table.corrupted(corruption)
        place = list(range(len(table.ids))) if corruption is None else table.tested
        of_clips = hashes.setdefault(CLEAN if corruption is None else corruption.name, {})
        for number, (rows, block) in enumerate(pooled_blocks(source, tested, corruption)):
            mark = "" if corruption is None else f"-{corruption.file_name}"
            parts.append(target.write_part(task, f"{number:05d}{mark}", block))
            of_clips.update(zip([place[row] for row in rows], hashes_of(block), strict=True))
    target.enter(task, name, parts)
    write_digests(folder / "digests" / source.record.folder / f"{table_path(target.root, name).name}", table, hashes)


def _copy_texts(result: Result, store: EncoderStore, cache: Path) -> None:
    """Copy what the cache holds of an encoder's texts if a score in the result was made with them."""
    if any(METHODS[name].needs_texts for name in in_order(result.scores)):
        path = texts_path(store)
        (cache / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, cache / path.parent.name / path.name)


def _write_protocol(path: Path, rules: Protocol) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps(rules.model_dump(mode="json", exclude_none=True), indent=2, ensure_ascii=False) + "\n",
        encoding="utf-8",
    )
