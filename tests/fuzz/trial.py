"""Run one reader on many inputs in this process, and count in memory that the parent can read even after a crash.

    python tests/fuzz/trial.py MODULE READER ENGINE SETTINGS     run_fuzz.py starts it

An input that ends in anything but a result or the reader's own error is saved with its traceback, and the trial goes
on. An input that kills or hangs the process stays in the shared memory, and the parent saves it.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import mmap
import os
import random
import resource
import struct
import sys
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from fuzz.readers import Reader

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LARGEST = 1 << 20  # bytes of an input
_COUNTS = struct.Struct("<6Q")  # inputs, refused, accepted, crashes, 1 if an input is being read, its length
_INSTRUMENTED = ("uwbench", "uniwhisper", "tarfile", "zipfile")  # packages whose coverage atheris sees
_ADDRESS_SPACE = 3 << 30  # bytes that an input may reserve beyond those of the process
_RESIDENT = 1 << 30  # bytes of memory that an input may use beyond those of the process


class Board:
    """The counts and the current input, in a file that two processes map."""

    def __init__(self, path: Path) -> None:
        size = _COUNTS.size + LARGEST
        if not path.exists():
            path.write_bytes(bytes(size))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), size)

    def counts(self) -> tuple[int, int, int, int, bool]:
        """Return the counts of inputs, refused, accepted and crashed ones, and whether one is being read."""
        inputs, refused, accepted, crashes, busy, _ = _COUNTS.unpack_from(self._map)
        return inputs, refused, accepted, crashes, bool(busy)

    def put(self, inputs: int, refused: int, accepted: int, crashes: int, data: bytes | None) -> None:
        """Set the counts and the current input, or None."""
        if data is not None:
            self._map[_COUNTS.size : _COUNTS.size + len(data)] = data
        _COUNTS.pack_into(self._map, 0, inputs, refused, accepted, crashes, data is not None, len(data or b""))

    def input(self) -> bytes:
        """Return the current input."""
        length = _COUNTS.unpack_from(self._map)[5]
        return self._map[_COUNTS.size : _COUNTS.size + length]


@dataclass(slots=True)
class Trial:
    """One reader under test: gives it inputs, tells its own errors from crashes, and saves inputs that crash."""

    reader: Reader
    folder: Path  # for the reader's files
    world: Path
    crashes: Path
    board: Board | None = None
    inputs: int = 0
    refused: int = 0
    accepted: int = 0
    crashed: int = 0
    seen: set[tuple[str, ...]] = field(default_factory=set)
    _resident: int = 0

    def __call__(self, data: bytes) -> None:
        """Give the reader one input."""
        data = bytes(data[:LARGEST])
        self._note(data)
        problem, details = self._read(data)
        self.inputs += 1
        if problem is not None:
            self.crashed += 1
            self._save(data, problem, details)
        self._note(None)

    def _read(self, data: bytes) -> tuple[tuple[str, ...] | None, str]:
        """Return a key for the problem, by which repeats are recognised, and its details; or None and an empty text."""
        from uwbench.errors import UwbenchError

        unraised: list[str] = []
        sys.unraisablehook = lambda args: unraised.append(f"{args.err_msg}: {args.exc_value!r}")
        try:
            self.reader.read(self.folder, self.world, data)
            self.accepted += 1
        except UwbenchError as error:
            self.refused += 1
            if error.where is None or not error.what:
                return ("nameless", *_place(error)), f"the error names no file: {error}\n{traceback.format_exc()}"
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            return (type(error).__name__, *_place(error)), traceback.format_exc()
        if unraised:
            return ("unraised", unraised[0][:40]), "an error was printed and not raised: " + unraised[0]
        return self._memory()

    def _memory(self) -> tuple[tuple[str, ...] | None, str]:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        grown = most - (self._resident or most)
        self._resident = self._resident or most
        if grown > _RESIDENT:
            self._resident = most
            return ("memory",), f"took {grown >> 20:,} MiB of memory"
        return None, ""

    def _note(self, data: bytes | None) -> None:
        if self.board is not None:
            self.board.put(self.inputs, self.refused, self.accepted, self.crashed, data)

    def _save(self, data: bytes, problem: tuple[str, ...], details: str) -> None:
        if problem not in self.seen:
            self.seen.add(problem)
            save_crash(self.crashes, self.reader.name, data, details)


def save_crash(folder: Path, reader: str, data: bytes, details: str) -> Path:
    """Save an input and the details of its crash as `<reader>-<hash>.bin` and `.txt`; return the first."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{reader.replace(' ', '_')}-{hashlib.sha256(data).hexdigest()[:10]}.bin"
    path.write_bytes(data)
    path.with_suffix(".txt").write_text(details, encoding="utf-8", errors="backslashreplace")
    return path


def _place(error: BaseException) -> tuple[str, ...]:
    """Return where an error came from: the innermost line of this project, and the innermost file of all."""
    frames = traceback.extract_tb(error.__traceback__)
    project = [frame for frame in frames if "/bench/" in frame.filename] or frames
    return f"{project[-1].filename}:{project[-1].lineno}", frames[-1].filename


def mutate(data: bytes, seeds: Sequence[bytes], rng: random.Random) -> bytes:
    """Return `data` with a few bytes changed, removed, repeated or taken from another seed."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        at = rng.randrange(len(changed) + 1)
        length = min(len(changed) - at, rng.choice((1, 1, 2, 4, 8, 64)))
        match rng.randrange(7):
            case 0 if length:
                changed[at] ^= 1 << rng.randrange(8)
            case 1 if length:
                changed[at] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
            case 2:
                changed[at : at + length] = rng.choice((b"\xff", b"\0", b"\x7f")) * length
            case 3:
                del changed[at : at + length]
            case 4:
                changed[at:at] = changed[at : at + length]
            case 5:
                other = rng.choice(seeds)
                start = rng.randrange(len(other) + 1)
                changed[at : at + length] = other[start : start + length]
            case _:
                del changed[at if rng.random() < 0.1 else len(changed) :]
    return bytes(changed)


def by_mutation(trial: Trial, seeds: Sequence[bytes], count: int, seed: int) -> None:
    """Give the seeds, and `count` random changes of them, without coverage."""
    rng = random.Random(seed)
    for data in seeds:
        trial(data)
    for _ in range(count):
        trial(mutate(rng.choice(seeds), seeds, rng))


def by_hypothesis(trial: Trial, seeds: Sequence[bytes], count: int, seed: int) -> None:
    """Give `count` inputs of the reader's strategy: well-formed, with odd content."""
    import hypothesis
    from hypothesis import HealthCheck, Phase, given, settings

    assert trial.reader.strategy is not None

    @hypothesis.seed(seed)
    @settings(
        max_examples=count,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        derandomize=False,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )
    @given(trial.reader.strategy(seeds))
    def give(data: bytes) -> None:
        trial(data)

    target = trial.inputs + count
    while trial.inputs < target:  # a strategy that is exhausted ends early
        before = trial.inputs
        give()
        if trial.inputs == before:
            return


def by_atheris(trial: Trial, corpus: Path, count: int, seed: int) -> NoReturn:
    """Give `count` inputs that libFuzzer makes from the corpus, keep those that reach new code, and never return."""
    atheris = importlib.import_module("atheris")
    longest = max(path.stat().st_size for path in corpus.iterdir())
    options = {
        "runs": count,
        "seed": seed + 1,
        "max_len": min(LARGEST, longest + 256),
        "len_control": 0,
        "timeout": 100_000,  # the parent enforces the limit
        "rss_limit_mb": 0,
        "malloc_limit_mb": 0,
        "reload": 0,
        "artifact_prefix": f"{corpus.parent}/",  # else slow inputs are left in the working folder
        "verbosity": 0,
        **dict.fromkeys(("handle_abrt", "handle_bus", "handle_fpe", "handle_ill", "handle_segv"), 0),
    }
    target = trial.inputs + count

    def give(data: bytes) -> None:
        trial(data)
        if trial.inputs >= target:
            # libFuzzer would leave by exit(), in which an Arrow thread may wait for Python's lock for ever.
            os._exit(0)

    atheris.Setup([sys.argv[0], *(f"-{name}={value}" for name, value in options.items()), str(corpus)], give)
    atheris.Fuzz()
    sys.exit(0)


def load_reader(module: str, name: str) -> Reader:
    """Return one of the `READERS` of a module."""
    return next(reader for reader in importlib.import_module(module).READERS if reader.name == name)


def _bound_memory() -> None:
    """Make an allocation of gigabytes fail at once, so that it is noticed."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        size = int(statm.read_text().split()[0]) * resource.getpagesize()
        limit = size + _ADDRESS_SPACE
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _imported(module: str, name: str, engine: str) -> Reader:
    if engine != "atheris":
        return load_reader(module, name)
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=_INSTRUMENTED, enable_loader_override=False):
        return load_reader(module, name)


def main() -> None:
    """Run the trial that the arguments describe."""
    module, name, engine, text = sys.argv[1:]
    task: dict[str, Any] = json.loads(text)
    sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "tests"), *task["path"]]
    os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1")
    warnings.simplefilter("ignore")
    import pyarrow as pa

    reader = _imported(module, name, engine)
    world = Path(task["world"])
    trial = Trial(reader, Path(task["folder"]), world, Path(task["crashes"]), Board(Path(task["board"])))
    trial.inputs, trial.refused, trial.accepted, trial.crashed, _ = trial.board.counts() if trial.board else (0,) * 5
    corpus = Path(task["corpus"])
    seeds = [path.read_bytes() for path in sorted(corpus.iterdir())]
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    reader.read_safely(trial.folder, world, seeds[0])
    _bound_memory()
    match engine:
        case "atheris":
            by_atheris(trial, corpus, task["count"], task["seed"])
        case "hypothesis":
            by_hypothesis(trial, seeds, task["count"], task["seed"])
        case _:
            by_mutation(trial, seeds, task["count"], task["seed"])


if __name__ == "__main__":
    main()
