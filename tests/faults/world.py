"""The base of the fault tests: commands in forked children, an undisturbed run, and the comparison with it.

A child is a fork of a process that has imported everything. So a command takes a fraction of a second, and still is a
process of its own that can be killed at any moment and takes nothing along.
"""

from __future__ import annotations

import csv
import hashlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

_STOPS = (signal.SIGINT, signal.SIGTERM)
LIMIT_S = 600.0  # wall time: on a busy machine a command of some seconds has taken minutes
CLIPS_PER_DIGIT = {"train": 10, "valid": 4, "test": 4}


@dataclass(frozen=True, slots=True)
class Ended:
    """A finished command: its exit code (negative: the signal that ended it), its output, and the seconds it took."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def is_clear(self) -> bool:
        """True unless the command failed without a message for the user, or with a traceback."""
        return "Traceback" not in self.err and (self.code <= 0 or "uwbench: " in self.err or "failed: " in self.err)


@dataclass(frozen=True, slots=True)
class Child:
    """A running command."""

    pid: int
    log: Path
    started: float

    def wait(self) -> Ended:
        """Wait for the command to end and return its outcome; kill it if it hangs."""
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() - self.started > LIMIT_S:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.001)
        seconds = time.monotonic() - self.started
        out, err = (self.log.with_suffix(f".{name}").read_text(errors="replace") for name in ("out", "err"))
        return Ended(os.waitstatus_to_exitcode(status), out, err, seconds)

    def is_over(self) -> bool:
        """Tell whether the command has ended; call `wait` all the same."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


@dataclass(slots=True)
class Tally:
    """One row of the table."""

    fault: str
    tried: int = 0
    lost: int = 0
    wrong: int = 0
    notes: list[str] = field(default_factory=list)

    def add(self, verdict: Verdict) -> None:
        """Count one try."""
        self.tried += 1
        self.lost += len(verdict.lost)
        self.wrong += len(verdict.wrong)
        self.notes.extend(f"lost {name}" for name in verdict.lost)
        self.notes.extend(f"wrong {name}" for name in verdict.wrong)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of one try: the files it lost, and what is wrong afterwards."""

    lost: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()

    def __add__(self, other: Verdict) -> Verdict:
        return Verdict(self.lost + other.lost, self.wrong + other.wrong)


def compare(undisturbed: Mapping[str, str], actual: Mapping[str, str]) -> Verdict:
    """Compare the `contents` of two folders: missing files are lost, changed and additional ones wrong."""
    lost = sorted(undisturbed.keys() - actual.keys())
    changed = sorted(name for name in undisturbed.keys() & actual.keys() if undisturbed[name] != actual[name])
    return Verdict(tuple(lost), (*changed, *sorted(actual.keys() - undisturbed.keys())))


def expect(condition: bool, problem: str) -> Verdict:
    """Return an empty verdict if `condition` holds, else one with the problem."""
    return Verdict() if condition else Verdict(wrong=(problem,))


def contents(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file in a folder that must be the same after the same work.

    Locks, half-written temporary files (nothing reads them) and the record of earlier scans are left out, and so is the
    `run` field of a result, which holds times.
    """
    digests = {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        hidden = ".locks" in parts or (path.name.startswith(".") and path.name.endswith(".tmp"))
        if hidden or not path.is_file() or path.name.endswith(".scan.parquet"):
            continue
        data = path.read_bytes()
        if path.suffix == ".json" and b'"predictions_sha256"' in data:
            record = json.loads(data)
            record.pop("run")
            data = json.dumps(record, sort_keys=True).encode()
        digests["/".join(parts)] = hashlib.sha256(data).hexdigest()
    return digests


def entered(cache: Path) -> dict[Path, tuple[int, int]]:
    """Return every file that a manifest names, with its inode and time, which change if it is written again."""
    files = {}
    for manifest in cache.glob("*/*/manifest.json"):
        for part in json.loads(manifest.read_bytes())["parts"]:
            for name in filter(None, (part["name"], part["frames"])):
                path = manifest.parent / name
                if path.is_file():
                    status = path.stat()
                    files[path] = (status.st_ino, status.st_mtime_ns)
                else:
                    files[path] = (-1, -1)
    return files


def finished_work_is_kept(before: Mapping[Path, tuple[int, int]], cache: Path) -> Verdict:
    """Report the files of earlier manifests that are gone or were written again."""
    after = entered(cache)
    return Verdict(lost=tuple(f"{path.name} (made again)" for path, mark in before.items() if after.get(path) != mark))


class World:
    """A working folder with clips of real speech and the outcome of an undisturbed run on them."""

    def __init__(self, folder: Path, data: Path, seed: int) -> None:
        self.folder = folder.resolve()
        self.random = random.Random(seed)
        self._number = 0
        self.digits = self._copy(data / "fsdd", "digits", range(10), skip=0)
        self.spoken = self._copy(data / "fsdd", "spoken", range(4), skip=1)
        self.seconds: dict[str, float] = {}
        self._warm()
        self.cache, self.results, self.boards = (self.folder / name for name in ("cache", "results", "boards"))
        for words in (self.extract(self.cache), self.extract_frames(self.cache)):
            self._undisturbed(words[0], words)
        self._undisturbed("probe", self.probe(self.cache, self.results))
        for kind in ("csv", "md", "html"):
            self._undisturbed("leaderboard", self.leaderboard(self.results, self.boards, kind))

    def extract(self, cache: Path, model: str = "logmel") -> list[str]:
        """Return the command that extracts the digits."""
        return ["extract", "-m", model, "-t", str(self.digits), "--cache", str(cache), "--batch-seconds", "2"]

    def extract_frames(self, cache: Path) -> list[str]:
        """Return the command that extracts words to transcribe, with their frames."""
        words = ["-t", str(self.spoken), "--kind", "transcription", "--domain", "speech", "--batch-seconds", "2"]
        return ["extract", "-m", "logmel", *words, "--cache", str(cache)]

    def probe(self, cache: Path, results: Path) -> list[str]:
        """Return the command that scores the digits from the cache."""
        return ["probe", "-t", "digits", "-m", "logmel", "--cache", str(cache), "--results", str(results), "--quiet"]

    def leaderboard(self, results: Path, boards: Path, kind: str = "html") -> list[str]:
        """Return the command that writes a leaderboard."""
        output = str(boards / f"board.{kind}")
        return ["leaderboard", "--results", str(results), "--format", kind, "--output", output]

    def new(self, name: str) -> Path:
        """Return the path of a new folder, not yet made."""
        self._number += 1
        return self.folder / f"{name}-{self._number:05d}"

    def copy_of(self, folder: Path) -> Path:
        """Return a copy of a folder."""
        return Path(shutil.copytree(folder, self.new(folder.name)))

    def start(self, words: Sequence[str], before: Callable[[], None] | None = None, cwd: Path | None = None) -> Child:
        """Start a command in a forked child, which calls `before` first."""
        self._number += 1
        log = self.folder / "logs" / f"{self._number:05d}"
        log.parent.mkdir(exist_ok=True)
        for name in ("out", "err"):
            log.with_suffix(f".{name}").touch()  # so that they exist even if the child is killed at once
        started = time.monotonic()
        # Fork handlers of libraries swallow an interruption; a program that was not forked has no such moment.
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
        pid = os.fork()
        if pid == 0:
            _be_the_command(words, log, before, cwd or self.folder)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
        return Child(pid, log, started)

    def run(self, words: Sequence[str], before: Callable[[], None] | None = None, cwd: Path | None = None) -> Ended:
        """Run a command and return its outcome."""
        return self.start(words, before, cwd).wait()

    def finish(self, words: Sequence[str], before: Callable[[], None] | None = None) -> Verdict:
        """Run a command that must succeed; a failure is wrong."""
        ended = self.run(words, before)
        return expect(ended.code == 0, f"{words[0]} afterwards: exit {ended.code}, {_last(ended.err)}")

    def moments(self, command: str, count: int) -> list[float]:
        """Return one random moment in each of `count` equal stretches of a command's run time."""
        return [(i + self.random.random()) / count * self.seconds[command] for i in range(count)]

    def _undisturbed(self, name: str, words: Sequence[str]) -> None:
        ended = self.run(words)
        if ended.code != 0:
            raise RuntimeError(f"the undisturbed {words[0]} failed: {ended.err}")
        self.seconds[name] = max(ended.seconds, self.seconds.get(name, 0.0))

    def _copy(self, source: Path, name: str, digits: Sequence[int], *, skip: int) -> Path:
        """Copy some clips with a manifest and return it; skip `skip` times as many clips first.

        Tasks that share clips share vectors, so the order of the runs would decide where a vector is stored.
        """
        folder = self.folder / name
        (folder / "recordings").mkdir(parents=True)
        taken: dict[tuple[str, str], int] = {}
        with (source / "manifest.csv").open(newline="") as file, (folder / "manifest.csv").open("w", newline="") as to:
            reader = csv.DictReader(file)
            writer = csv.DictWriter(to, reader.fieldnames or ())
            writer.writeheader()
            for row in reader:
                which = (row["split"], row["digit"])
                if int(row["digit"]) not in digits:
                    continue
                taken[which] = taken.get(which, 0) + 1
                if skip < taken[which] / CLIPS_PER_DIGIT[row["split"]] <= skip + 1:
                    shutil.copy(source / row["path"], folder / row["path"])
                    writer.writerow(row)
        return folder / "manifest.csv"

    def _warm(self) -> None:
        """Import everything that the commands import, as listed by children that ran them."""
        cache, results, boards = (self.new(name) for name in ("warm-cache", "warm-results", "warm-boards"))
        listed = self.new("modules")

        def list_modules() -> None:
            import atexit

            atexit.register(lambda: _append(listed, sys.modules))

        commands = (self.extract(cache), self.probe(cache, results), self.leaderboard(results, boards))
        for words in commands:
            ended = self.run(words, before=list_modules)
            if ended.code != 0:
                raise RuntimeError(f"{words[0]} failed: {ended.err}")
        for name in dict.fromkeys(listed.read_text().split()):
            if name != "__main__" and name not in sys.modules:
                try:
                    importlib.import_module(name)
                except (ImportError, AttributeError, TypeError, ValueError):
                    continue  # not a module, although a library lists it as one


def _append(listed: Path, names: Mapping[str, object]) -> None:
    with listed.open("a") as file:
        file.write("\n".join(names) + "\n")


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "without a message"


def _be_the_command(words: Sequence[str], log: Path, before: Callable[[], None] | None, cwd: Path) -> NoReturn:
    """Run the command in this child: print into files, exit with its code, and never return."""
    import atexit

    code = 99
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
        for number, name in ((1, "out"), (2, "err")):
            handle = os.open(log.with_suffix(f".{name}"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(handle, number)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        os.chdir(cwd)
        sys.argv = ["uwbench", *words]
        if before is not None:
            before()
        from uwbench.cli.main import main

        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        atexit._run_exitfuncs()
        os._exit(code)
