"""Give the readers a million damaged or made-up inputs and print a table: reader, inputs, refused, accepted, crashes.

    python tests/fuzz/run_fuzz.py                     every reader, a quarter of an hour of one core
    python tests/fuzz/run_fuzz.py --quick             a hundredth of the inputs
    python tests/fuzz/run_fuzz.py --only audio        the readers whose name contains a word
    python tests/fuzz/run_fuzz.py --inputs 5000000    this many in all, in the same shares
    python tests/fuzz/run_fuzz.py --replay FILE       one saved input, with its traceback

The inputs start from real files. Most come from atheris: libFuzzer changes bytes and keeps inputs that reach new code.
Hypothesis makes the rest: well-formed files with invalid content. A crash is anything but the readers' own error:
another exception, an error that names no file, a signal, more than 10 s, gigabytes of memory. Crashing inputs are
saved, and the exit code is then 1.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "tests")]

from fuzz.trial import Board, load_reader, save_crash  # noqa: E402

if TYPE_CHECKING:
    from fuzz.readers import Reader

LIMIT_S = 10.0  # an input that takes longer hangs
_BUSY_MACHINE = 30  # times as long by the clock, if the process had no core to run on
_START_S = 120.0  # until the first input, and between two: imports, with coverage
_RESTARTS = 5  # after an input that killed the process
_QUICK = 0.01


@dataclass(frozen=True, slots=True)
class Tally:
    """The outcome of the inputs that one engine gave one reader."""

    reader: str
    by: str
    inputs: int
    refused: int
    accepted: int
    crashes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Bench:
    """The folders and settings that all trials share."""

    world: Path
    work: Path
    crashes: Path
    module: str = "fuzz.readers"
    limit_s: float = LIMIT_S


def try_reader(bench: Bench, name: str, engine: str, count: int, seed: int) -> Tally:
    """Give one reader `count` inputs of an engine in a separate process; save and count inputs that kill it."""
    home = bench.work / f"{name.replace(' ', '_')}-{engine}"
    corpus = home / "corpus"
    shutil.copytree(bench.world / "seeds" / name, corpus)
    board = Board(home / "board")
    started = time.monotonic()
    for attempt in range(_RESTARTS):
        inputs, refused, accepted, crashes, _ = board.counts()
        if inputs >= count:
            break
        folder = home / f"files-{attempt}"
        folder.mkdir()
        task = {
            "world": str(bench.world),
            "folder": str(folder),
            "crashes": str(bench.crashes),
            "board": str(home / "board"),
            "corpus": str(corpus),
            "count": count - inputs,
            "seed": seed + attempt,
            "path": [path for path in sys.path if path],
        }
        failure = _watch([bench.module, name, engine, json.dumps(task)], home / "log", board, bench.limit_s)
        shutil.rmtree(folder, ignore_errors=True)
        inputs, refused, accepted, crashes, busy = board.counts()
        if failure is None:
            break
        if not busy:  # no input caused it
            raise RuntimeError(f"{name}, {engine}: {failure}\n{(home / 'log').read_text(errors='replace')[-3000:]}")
        save_crash(
            bench.crashes, name, board.input(), f"{failure}\n{(home / 'log').read_text(errors='replace')[-3000:]}"
        )
        for path in corpus.iterdir():  # an input that kills at once would kill again
            if path.read_bytes() == board.input():
                path.unlink()
        board.put(inputs + 1, refused, accepted, crashes + 1, None)
    inputs, refused, accepted, crashes, _ = board.counts()
    shutil.rmtree(home, ignore_errors=True)
    return Tally(name, engine, inputs, refused, accepted, crashes, time.monotonic() - started)


def _watch(words: list[str], log: Path, board: Board, limit_s: float) -> str | None:
    """Run a trial; return what ended it early, or None."""
    with log.open("ab") as sink:
        child = subprocess.Popen([sys.executable, str(HERE / "trial.py"), *words], stdout=sink, stderr=sink)
    last, since, ran = -1, time.monotonic(), 0.0
    try:
        while child.poll() is None:
            time.sleep(0.05)
            inputs, _, _, _, busy = board.counts()
            waited = time.monotonic() - since
            if inputs != last:
                last, since, ran = inputs, time.monotonic(), _seconds_run(child.pid)
                continue
            allowed = limit_s if busy else _START_S
            if waited > allowed and (_seconds_run(child.pid) - ran > allowed or waited > _BUSY_MACHINE * allowed):
                return f"took more than {waited:.0f} s"
    finally:
        child.kill()
        child.wait()
    if child.returncode == 0:
        return None
    if child.returncode < 0:
        return f"died of {signal.Signals(-child.returncode).name}"
    return f"left with {child.returncode}"


def _seconds_run(pid: int) -> float:
    """Return the CPU seconds of a process, or the time of the clock if the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return time.monotonic()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # in user mode and in the system's


def replay(bench: Bench, path: Path) -> int:
    """Give a saved input to the reader in its name, in a separate process; return the exit code."""
    from fuzz.readers import READERS

    stem = path.name.rpartition("-")[0]
    name = next((reader.name for reader in READERS if reader.name.replace(" ", "_") == stem), None)
    if name is None:
        raise SystemExit(
            f"{path}: its name starts with no reader's name: {', '.join(reader.name for reader in READERS)}"
        )
    folder = bench.work / "replay"
    folder.mkdir()
    if os.fork() == 0:
        load_reader(bench.module, name).read(folder, bench.world, path.read_bytes())
        print("accepted")
        os._exit(0)
    return os.waitstatus_to_exitcode(os.wait()[1])


def table(tallies: list[Tally]) -> str:
    """Return the tallies as a Markdown table with a total."""
    head = ("reader", "by", "inputs", "refused", "accepted", "crashes")
    rows = [(t.reader, t.by, *(f"{n:,}" for n in (t.inputs, t.refused, t.accepted, t.crashes))) for t in tallies]
    sums = [sum(getattr(t, name) for t in tallies) for name in head[2:]]
    cells = [head, *rows, ("all", "", *(f"{n:,}" for n in sums))]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = [
        "| "
        + " | ".join(f"{c:<{w}}" if i < 2 else f"{c:>{w}}" for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        + " |"
        for row in cells
    ]
    rule = "| " + " | ".join("-" * w if i < 2 else "-" * (w - 1) + ":" for i, w in enumerate(widths)) + " |"
    return "\n".join([lines[0], rule, *lines[1:]])


def _shares(readers: list[Reader], asked: int | None, quick: bool) -> dict[str, tuple[int, int]]:
    """Return the number of inputs from atheris and from hypothesis for each reader."""
    whole = sum(reader.inputs + reader.made for reader in readers)
    scale = asked / whole if asked is not None else _QUICK if quick else 1.0
    return {
        reader.name: (max(1, round(scale * reader.inputs)), round(scale * reader.made) if reader.strategy else 0)
        for reader in readers
    }


def _arguments() -> argparse.Namespace:
    from fuzz.world import SHARED

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a hundredth of the inputs")
    parser.add_argument("--only", metavar="WORD", help="the readers whose name contains this word")
    parser.add_argument("--inputs", type=int, metavar="N", help="number of inputs in all, in the usual shares")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random changes")
    parser.add_argument("--engine", choices=("atheris", "hypothesis", "mutation"), help="use this engine only")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="give one saved input to its reader again")
    parser.add_argument("--crashes", type=Path, default=ROOT / "build" / "fuzz", help="where crashing inputs are saved")
    parser.add_argument("--json", action="store_true", help="the table as JSON")
    arguments = parser.parse_args()
    if arguments.engine in (None, "atheris") and find_spec("atheris") is None:
        parser.error("atheris is not installed (it is built for Linux on x86-64): --engine mutation needs none")
    if not (SHARED / "data" / "fsdd" / "manifest.csv").is_file():
        parser.error(f"{SHARED}/data/fsdd/manifest.csv is missing: name the folder of real data with UWBENCH_SHARED")
    return arguments


def main() -> None:
    """Run the trials and print the table."""
    os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
    from fuzz.readers import READERS
    from fuzz.world import fast_folder, make_world

    arguments = _arguments()
    work = fast_folder()
    tallies: list[Tally] = []
    try:
        bench = Bench(work / "world", work, arguments.crashes)
        make_world(bench.world)
        if arguments.replay is not None:
            raise SystemExit(replay(bench, arguments.replay))
        readers = [reader for reader in READERS if not arguments.only or arguments.only.lower() in reader.name.lower()]
        for name, (inputs, made) in _shares(readers, arguments.inputs, arguments.quick).items():
            engines = (
                [("mutation", inputs)]
                if arguments.engine == "mutation"
                else [("atheris", inputs), ("hypothesis", made)]
            )
            for engine, count in engines:
                if count and arguments.engine in (None, engine):
                    tallies.append(try_reader(bench, name, engine, count, arguments.seed))
                    _tell(tallies[-1])
    except KeyboardInterrupt:
        print("stopped: the table has what was finished", file=sys.stderr)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if arguments.json:
        print(json.dumps([{name: getattr(t, name) for name in Tally.__slots__} for t in tallies]))
    else:
        print(table(tallies))
    crashed = any(tally.crashes for tally in tallies)
    if crashed:
        print(f"crashing inputs: {arguments.crashes}; look at one with --replay FILE", file=sys.stderr)
    raise SystemExit(crashed)


def _tell(tally: Tally) -> None:
    speed = tally.inputs / max(tally.seconds, 1e-9)
    print(
        f"{tally.reader}, {tally.by}: {tally.inputs:,} inputs, {tally.crashes:,} crashes, {tally.seconds:.0f} s"
        f" ({speed:,.0f} inputs/s)",
        file=sys.stderr,
        flush=True,
    )


if __name__ == "__main__":
    main()
