"""Score a bundle again from its own vectors, and record that it came out equal."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from uwbench.base.hashing import SHORT, sha256_file
from uwbench.bundles.archive import Contents, read_archive
from uwbench.bundles.digests import CLEAN, changed_clips, changed_vectors, hashes_of, pooled_blocks
from uwbench.bundles.pack import corruptions_of, reads_segments
from uwbench.cache.clip_table import ClipTable, read_table, table_path
from uwbench.cache.store import EncoderStore
from uwbench.cache.verified import file_state
from uwbench.cards.find import find_protocol, names_of
from uwbench.cards.protocol import Protocol
from uwbench.errors import UwbenchError
from uwbench.probes.reproduce import reproduce, store_of
from uwbench.results.provenance import versions
from uwbench.results.record import (
    Result,
    find_results,
    predictions_path,
    result_path,
    utc_now,
)
from uwbench.results.verified import Verified, read_verified, verified_folder, write_verified

_SHOWN = 3  # clips that a difference names


@dataclass(frozen=True, slots=True)
class Verification:
    """A bundle scored again: `equal` if everything came out as recorded, else `differences` names what did not.

    `context` has what differs around the numbers, such as versions. `verified_before` is True if the bundle was not
    scored now, as it had come out equal on this machine before.
    """

    path: Path
    sha256: str
    model: str
    tasks: tuple[str, ...]
    equal: bool
    differences: tuple[str, ...]
    context: tuple[str, ...]
    verified_before: bool = False


def verify_bundle(
    bundle: Path,
    results: Path,
    *,
    device: str = "cpu",
    text_encoder: str | None = None,
    watch: Callable[[str, Result], AbstractContextManager[None]] | None = None,
) -> Verification:
    """Check every byte, label, vector, prediction and score of a bundle; neither audio nor encoder is needed.

    Every score is computed again by the rules of its protocol from the vectors in the bundle. If all of it is equal,
    the results are copied below the folder `results`, with a record by the bundle's hash, and are not scored a second
    time. `text_encoder` embeds the captions of retrieval tasks. Each task is scored inside `watch(model, result)`, if
    it is given. Raises InputError or FetchError if the file is no bundle.
    """
    sha256 = sha256_file(bundle) if bundle.is_file() else ""
    before = read_verified(verified_folder(results, sha256)) if sha256 else None
    if before is not None:
        return Verification(bundle, sha256, before.model, before.tasks, True, (), (), verified_before=True)
    with tempfile.TemporaryDirectory(prefix="uwbench-bundle-") as scratch:
        folder = Path(scratch)
        contents, changed = read_archive(bundle, folder)
        differences = [f"{name}: is not the file that the bundle was made with" for name in changed]
        readable, problems = find_results(folder / "results")
        differences += [_inside(problem, folder) for problem in problems]
        context: dict[str, None] = {}
        for path, result in readable:
            try:
                with nullcontext() if watch is None else watch(contents.model, result):
                    lines, around = _check(path, result, contents, folder, device=device, text_encoder=text_encoder)
            except UwbenchError as error:
                lines, around = [f"cannot be scored again: {_inside(str(error), folder)}"], ()
            differences += [f"{result.task.name}: {line}" for line in lines]
            context |= dict.fromkeys(around)
        if not readable and not differences:
            differences = ["it holds no result"]
        tasks = tuple(result.task.name for _, result in readable)
        if not differences:
            _record(bundle, sha256, contents, readable, results)
    return Verification(bundle, sha256, contents.model, tasks, not differences, tuple(differences), tuple(context))


def _check(
    path: Path, result: Result, contents: Contents, folder: Path, *, device: str, text_encoder: str | None
) -> tuple[list[str], Sequence[str]]:
    """Return what differs in one result of an unpacked bundle, and what differs around it.

    It is scored again only if its labels and vectors are those that it names.
    """
    if result.status not in ("ok", "partial") or not result.scores:
        return [f"is {result.status} and has no place in a bundle"], ()
    if (result.model.fingerprint, result.protocol.name) != (contents.fingerprint, contents.protocol):
        return ["is a result of another model or protocol than the bundle"], ()
    if path.parent != result_path(folder / "results", result).parent:
        return ["does not lie where its model and protocol put it"], ()
    unverifiable = [method for method in result.scores if reads_segments(method)]
    if unverifiable or not predictions_path(path).is_file():
        what = f"{', '.join(unverifiable)} cannot be verified, as a bundle holds no segments"
        return [what if unverifiable else "its predictions are missing"], ()
    cache = folder / "cache"
    table_name = f"{result.task.name}-{(result.task.data_sha256 or '')[:SHORT]}"
    table, store = read_table(cache, table_name), store_of(result, cache)
    digests = folder / "digests" / store.record.folder / table_path(cache, table_name).name
    lines = []
    if clips := changed_clips(digests, table):
        lines.append(f"the label, split, fold, group or key changed of {_named(clips)}")
    elif table.sha256() != result.task.data_sha256:
        lines.append("the clips, labels, splits or groups are not those that were scored")
    lines += _changed_vectors(result, store, table, digests)
    if lines:
        return lines, ()
    again = reproduce(path, cache, protocol=_rules(contents, folder), device=device, text_encoder=text_encoder)
    return list(again.differences), again.context


def _changed_vectors(result: Result, store: EncoderStore, table: ClipTable, digests: Path) -> list[str]:
    """Return a line for the clean clips and for each corruption if vectors are not those that were packed."""
    manifest = store.manifest(table.card.name)
    for part in manifest.parts if manifest else ():  # read even if its checksum is wrong: to name the clip
        file = store.folder / table.card.name / part.name
        store.verified.add(file, file_state(file))
    lines = []
    for corruption in (None, *corruptions_of(result)):
        clips = table if corruption is None else table.corrupted(corruption)
        place = list(range(len(table.ids))) if corruption is None else table.tested
        hashes: dict[int, bytes] = {}
        for rows, block in pooled_blocks(store, clips, corruption):
            hashes.update(zip([place[row] for row in rows], hashes_of(block), strict=True))
        name = CLEAN if corruption is None else corruption.name
        if changed := changed_vectors(digests, table, name, hashes):
            under = "" if corruption is None else f" under {corruption.name}"
            lines.append(f"the vectors{under} changed of {_named(changed)}")
    return lines


def _rules(contents: Contents, folder: Path) -> Protocol:
    """Return the protocol's card: the built-in one of that name, else the one in the bundle."""
    if contents.protocol in names_of("protocol"):
        return find_protocol(contents.protocol)
    return find_protocol(str(folder / "protocols" / f"{contents.protocol}.yaml"))


def _named(clips: Sequence[str]) -> str:
    more = f" and {len(clips) - _SHOWN} more" if len(clips) > _SHOWN else ""
    return ", ".join(clips[:_SHOWN]) + more


def _inside(problem: str, folder: Path) -> str:
    """Return an error's text with paths as they are in the bundle."""
    return problem.replace(f"{folder}/", "")


def _record(
    bundle: Path, sha256: str, contents: Contents, readable: Sequence[tuple[Path, Result]], results: Path
) -> None:
    target = verified_folder(results, sha256)
    for path, result in readable:
        place = result_path(target, result).with_name(path.name)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(predictions_path(path), predictions_path(place))
        shutil.copyfile(path, place)
    tasks = tuple(result.task.name for _, result in readable)
    about = {"name": bundle.name, "sha256": sha256, "model": contents.model, "tasks": tasks}
    write_verified(results, Verified(**about, verified=utc_now(), versions=versions()))
