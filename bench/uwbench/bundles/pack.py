"""Pack what one model's scores were made of into a bundle."""

from __future__ import annotations

import json
import shutil
import tempfile
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
from uwbench.report.board import build_board
from uwbench.report.compare import find_model
from uwbench.results.record import Result, predictions_path, read_result, result_path

_FRAMES = "is scored on frames, which a bundle does not hold"


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

    `model` is a label, name or fingerprint, `protocol` a name or a file. Tasks scored on frames are left out. Raises
    UsageError for an unknown model or one without such scores, StoreError, with the command that makes them, if the
    cache lacks vectors.
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
            _copy_result(path, result, folder / "results")
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


def _copy_result(path: Path, result: Result, results: Path) -> None:
    target = result_path(results, result).with_name(path.name)
    target.parent.mkdir(parents=True, exist_ok=True)
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
