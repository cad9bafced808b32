"""Power cuts after each call to the disk in turn, with a disk that keeps no more than it promised.

The model of such a disk: it keeps a file's bytes as of the last sync; before the first sync they are missing or zero.
It keeps a name (of a file made or renamed, or of a folder) once the folder above was synced; until then it may or may
not. The calls of one undisturbed command give every state after a power cut, which is written as files and read.
"""

from __future__ import annotations

import atexit
import itertools
import pickle
import random
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from kills import only_task
from layer import watch
from world import Tally, Verdict, World, compare, contents, expect

ZEROS = bytes(4096)


@dataclass(frozen=True, slots=True)
class Call:
    """One call: `kind`, `path` and, for a rename, `to`, relative to the watched folder; a sync holds the file's bytes.

    The kind `promised` is no call: it marks the moment by which the program has reported `promise` as done.
    """

    kind: str
    path: str
    to: str = ""
    data: bytes | None = None
    promise: dict[str, str] = field(default_factory=dict)


def power_cut_extract(world: World, tries: int) -> Tally:
    """Cut the power after each call of an extraction (after `tries` of them, if that is not zero)."""
    tally = Tally("power cut after each call of extract")
    for make in (world.extract, world.extract_frames):
        place = world.new("cut")
        place.mkdir()
        calls = record(world, make(place / "cache"), place)
        expected = only_task(contents(world.cache), make(place))
        for state, promised in states(calls, world.random, tries // 2):
            folder = lay_out(world.new("state"), state)
            tally.add(_read_cache(folder / "cache", expected, promised))
            if tally.tried % 40 == 0:
                words = make(folder / "cache")
                tally.add(world.finish(words) + compare(expected, contents(folder / "cache")))
            shutil.rmtree(folder)
    return tally


def power_cut_probe(world: World, tries: int) -> Tally:
    """Cut the power after each call of a probe: a result exists with its predictions or not at all."""
    tally = Tally("power cut after each call of probe")
    expected = contents(world.results)
    place = world.new("cut")
    place.mkdir()
    calls = record(world, world.probe(world.cache, place / "results"), place)
    for state, promised in states(calls, world.random, tries):
        folder = lay_out(world.new("state"), state)
        tally.add(_read_results(folder / "results", expected, promised))
        shutil.rmtree(folder)
    return tally


def record(world: World, words: Sequence[str], place: Path) -> list[Call]:
    """Run a command and return its calls in `place`, and its promises: each part that was entered, each result."""
    calls: list[Call] = []
    log = world.new("calls")

    def relative(path: str) -> str:
        return str(PurePosixPath(path).relative_to(place)) if path else ""

    def after(kind: str, path: str, to: str) -> None:
        is_file = kind == "fsync" and Path(path).is_file()
        data = Path(path).read_bytes() if is_file else None
        calls.append(Call("sync" if kind == "fsync" and not is_file else kind, relative(path), relative(to), data))

    def promise() -> None:
        calls.append(Call("promised", "", promise=_promises(place)))

    def before() -> None:
        import uwbench.probes.score_task
        from uwbench.cache.store import EncoderStore

        enter, write = EncoderStore.enter, uwbench.probes.score_task.write_result

        def enter_and_promise(self: EncoderStore, *args, **named) -> None:
            enter(self, *args, **named)
            promise()

        def write_and_promise(*args, **named) -> Path:
            path = write(*args, **named)
            promise()
            return path

        EncoderStore.enter = enter_and_promise
        uwbench.probes.score_task.write_result = write_and_promise
        watch(place, lambda *_: None, after)
        atexit.register(lambda: log.write_bytes(pickle.dumps(calls)))

    ended = world.run(words, before=before)
    if ended.code != 0:
        raise RuntimeError(f"{words[0]} failed while its calls were recorded: {ended.err}")
    calls: list[Call] = pickle.loads(log.read_bytes())
    if not any(call.promise for call in calls):
        raise RuntimeError(f"{words[0]} promised nothing: the recording no longer sees where work is finished")
    return calls


def _promises(place: Path) -> dict[str, str]:
    """Return the files that a program that stops now has finished: named parts, results and predictions."""
    return {
        name: digest
        for name, digest in contents(place).items()
        if name.endswith((".arrow", "encoder.json", ".predictions.parquet"))
        or (name.startswith("results/") and name.endswith(".json"))
    }


State = dict[str, bytes | None]  # path -> bytes; None is a folder


def states(calls: Sequence[Call], chance: random.Random, tries: int) -> Iterable[tuple[State, dict[str, str]]]:
    """Yield three possible contents of the disk after each call, with what was promised by then.

    They are: only what was synced; all names; and a random choice of names, with zeros for bytes.
    """
    disk = Disk()
    step = max(1, len(calls) // tries) if tries else 1
    promised: dict[str, str] = {}
    for number, call in enumerate(calls):
        disk.apply(call)
        promised = call.promise if call.kind == "promised" else promised
        if number % step == 0 or number == len(calls) - 1:
            yield disk.after_a_cut(lambda count: 0, b""), promised
            yield disk.after_a_cut(lambda count: count, b""), promised
            yield disk.after_a_cut(lambda count: chance.randint(0, count), ZEROS), promised


class Disk:
    """The model: names and bytes that are certain, and those that wait for a sync."""

    def __init__(self) -> None:
        self._ids = itertools.count()
        self._now: dict[str, int] = {}  # path -> inode, as the program sees it
        self._kept: dict[str, int] = {}  # path -> inode, as the disk is certain to hold it
        self._waiting: dict[str, list[tuple[str, int | None]]] = {}  # folder -> names set or, with None, removed
        self._bytes: dict[int, bytes] = {}  # inode -> bytes at the last sync
        self._folders: set[int] = set()

    def apply(self, call: Call) -> None:
        """Apply one call."""
        match call.kind:
            case "mkdir" | "create":
                inode = self._now.get(call.path)
                if inode is None or call.kind == "mkdir":
                    inode = next(self._ids)
                    self._name(call.path, inode)
                else:
                    self._bytes.pop(inode, None)  # emptied
                if call.kind == "mkdir":
                    self._folders.add(inode)
            case "fsync":
                assert call.data is not None
                self._bytes[self._now[call.path]] = call.data
            case "sync":
                self._kept = self._with_names(self._kept, call.path, len(self._waiting.get(call.path, ())))
                self._waiting.pop(call.path, None)
            case "rename":
                self._name(call.to, self._now[call.path])
                self._name(call.path, None)
            case "unlink":
                self._name(call.path, None)

    def after_a_cut(self, how_many, unsynced: bytes) -> State:
        """Return the files left after a cut: of each folder's waiting names, the first `how_many(count)`."""
        names = self._kept
        for folder, waiting in self._waiting.items():
            names = self._with_names(names, folder, how_many(len(waiting)))
        state: State = {}
        for path, inode in sorted(names.items()):  # a folder before its contents
            parent = str(PurePosixPath(path).parent)
            if parent == "." or (parent in state and state[parent] is None):
                state[path] = None if inode in self._folders else self._bytes.get(inode, unsynced)
        return state

    def _name(self, path: str, inode: int | None) -> None:
        self._waiting.setdefault(str(PurePosixPath(path).parent), []).append((path, inode))
        if inode is None:
            self._now.pop(path, None)
        else:
            self._now[path] = inode

    def _with_names(self, names: dict[str, int], folder: str, count: int) -> dict[str, int]:
        result = dict(names)
        for path, inode in self._waiting.get(folder, [])[:count]:
            if inode is None:
                result.pop(path, None)
            else:
                result[path] = inode
        return result


def lay_out(folder: Path, state: State) -> Path:
    """Write a state of the disk as files."""
    folder.mkdir()
    for path, data in state.items():
        if data is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(data)
    return folder


def _read_cache(cache: Path, expected: dict[str, str], promised: dict[str, str]) -> Verdict:
    """Read a cache as the program does: nothing is damaged, all is as expected, everything promised is there."""
    from uwbench.cache.maintenance import verify
    from uwbench.cache.store import open_encoders
    from uwbench.errors import StoreError

    _, damaged, problems = verify(cache)
    wrong = [str(problem) for problem in problems] + [f"{damage.path.name} {damage.what}" for damage in damaged]
    seen = set()
    stores, _ = open_encoders(cache)
    try:
        for store in stores:
            for task in store.tasks():
                manifest = store.manifest(task)
                for part in manifest.parts if manifest else ():
                    seen |= {f"{store.folder.name}/{task}/{name}" for name in part.files()}
    except StoreError as error:
        wrong.append(str(error))
    found = contents(cache)
    wrong += [f"{name} is visible and differs" for name in seen if found.get(name) != expected[name]]
    done = {name.removeprefix("cache/") for name in promised if name.endswith(".arrow")}
    return Verdict(tuple(sorted(done - seen)), tuple(wrong))


def _read_results(results: Path, expected: dict[str, str], promised: dict[str, str]) -> Verdict:
    """Read results as the leaderboard does."""
    from uwbench.errors import InputError
    from uwbench.results.record import find_results, read_predictions

    found, problems = find_results(results)
    verdict = Verdict(wrong=tuple(problems))
    for path, result in found:
        try:
            read_predictions(path)
        except InputError as error:
            verdict += expect(False, f"{result.task.name}: {error}")
    there = contents(results)
    wrong = tuple(name for name, digest in there.items() if expected.get(name) != digest)
    lost = tuple(name for name in promised if name.removeprefix("results/") not in there)
    return verdict + Verdict(lost, wrong)
