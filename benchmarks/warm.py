"""What a user waits for once all is cached: a warm `uwbench run` against its probes alone, the page, a comparison.

    python benchmarks/warm.py                    about three minutes on two cores
    python benchmarks/warm.py --data DATA        the clips of DATA/esc10/manifest.csv instead of generated ones
    python benchmarks/warm.py --only page --method all          page, board and comparison with results by every method
    python benchmarks/warm.py --only page --against CHECKOUT    page, board and comparison against another version

The run and its probes take turns, three times each: 400 clips in five folds, 384 dimensions. The page has 20 models and
20 tasks, made up. CPU seconds of whole processes are compared; wall seconds stand beside them. With `--against`, the
commands of another checkout take turns with ours on the same results, three times each, and must print the same scores.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from machine import print_machine
from made import audio_files, random_whisper

ROOT = Path(__file__).resolve().parents[1]
CLASSES, FOLDS = 10, 5
COUNT, ITEMS = 20, 400  # models and tasks; tested items of each


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU and wall seconds."""

    cpu: float
    wall: float

    def __str__(self) -> str:
        return f"{self.cpu:.2f} s of CPU, {self.wall:.2f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with esc10/manifest.csv; default: clips are generated")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["run", "page"])
    parser.add_argument("--method", choices=["default", "all"], default="default", help="of the page's results")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="another checkout of this repository")
    parser.add_argument("--probes", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.probes is not None:
        probes_alone(json.loads(options.probes))
        return
    print_machine("torch", "numpy", "pyarrow", "pandas")
    with tempfile.TemporaryDirectory() as folder:
        if options.only != "page":
            warm_run(prepared(Path(folder, "run"), options.data), Path(folder, "results"), options.rounds)
        if options.only != "run":
            page(Path(folder, "page"), options.method, options.against, options.rounds)


def prepared(scratch: Path, data: Path | None) -> list[str]:
    """Write clips, a manifest and an encoder, fill the cache, and return the options of the commands on them."""
    scratch.mkdir()
    manifest = data / "esc10" / "manifest.csv" if data else scratch / "manifest.csv"
    if data is None:
        with manifest.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["path", "label", "fold"])
            for index, clip in enumerate(audio_files(None, scratch, 400, kind="wav")):
                rows.writerow([clip.relative_to(scratch), f"class {index % CLASSES}", 1 + index // CLASSES % FOLDS])
    options = ["-m", str(random_whisper(scratch / "whisper")), "--context", "trimmed"]
    options += ["-t", f"{manifest}[name=clips]", "--cache", str(scratch / "cache")]
    uwbench("extract", *options)
    return options


def warm_run(options: Sequence[str], results: Path, rounds: int) -> None:
    """Print the cost of a warm run and of its probes alone, which take turns."""
    runs, probes = [], []
    for _ in range(rounds):
        shutil.rmtree(results, ignore_errors=True)
        runs.append(uwbench("run", *options, "--results", str(results)))
        done = subprocess.run(
            [sys.executable, __file__, "--probes", json.dumps(options)], check=True, capture_output=True, text=True
        )
        probes.append(Cost(**json.loads(done.stdout)))
    run, alone = median(runs), median(probes)
    print(f"warm run of 400 clips: {run}; its probes alone: {alone}; ", end="")
    print(f"ratio {run.cpu / alone.cpu:.2f} of CPU, {run.wall / alone.wall:.2f} of wall time", flush=True)


def probes_alone(options: Sequence[str]) -> None:
    """Run the probes of the cached embeddings in this process and print their cost as JSON."""
    import numpy as np

    import uwbench as library
    from uwbench.api import ModelSpec
    from uwbench.cards.find import find_protocol
    from uwbench.probes.data import TaskData
    from uwbench.probes.run import run_probes

    _, model, _, context, _, task, _, cache = options
    dataset = library.load_task(task.removesuffix("[name=clips]"), name="clips")
    found = library.load_embeddings(ModelSpec(model, context="trimmed"), dataset, cache=cache)
    assert context == "trimmed"
    folds = [fold or "" for fold in found.folds]
    durations = np.full(len(found.ids), 5.0)
    data = TaskData(
        dataset.card, found.ids, found.labels, None, folds, found.groups, durations, found.layers, found.vectors
    )
    wall, cpu = time.perf_counter(), time.process_time()
    run_probes(data, find_protocol("uwbench-1"))
    print(json.dumps({"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}))


def page(results: Path, methods: str, against: Path | None, rounds: int) -> None:
    """Print the cost of the page of 20 models and 20 tasks, of the board on the terminal, and of a comparison.

    With another checkout, it and ours take turns.
    """
    sys.path.insert(0, str(ROOT / "tests"))
    from report.made_methods import make_every_method
    from report.made_results import TASKS, make_result

    make = make_every_method if methods == "all" else make_result
    kinds = [TASKS[index % len(TASKS)] for index in range(COUNT)]
    tasks = [replace(kind, name=f"{kind.name}{index}", n=ITEMS) for index, kind in enumerate(kinds)]
    for model in range(COUNT):
        for task in tasks:
            make(results, f"model{model:02d}", task, 0.4 + 0.025 * model)
    scored = len({method for path in results.glob("*/*/*/*.json") for method in json.loads(path.read_text())["scores"]})
    size = f"{COUNT} models x {COUNT} tasks of {ITEMS} items, {scored} methods"
    words = ("--results", str(results))
    print(size, flush=True)
    board = results / "board.html"
    for name, command in {
        "page": ("leaderboard", *words, "--output", str(board)),
        "board on the terminal": ("leaderboard", *words),
        "comparison": ("compare", "model18", "model19", *words),
    }.items():
        ours, theirs = [], []
        for _ in range(1 if against is None else rounds):
            ours.append(uwbench(*command))
            if against is not None:
                theirs.append(uwbench(*command, checkout=against))
        print(f"{name}: {median(ours)}, load {os.getloadavg()[0]:.1f}", end="" if theirs else "\n", flush=True)
        if theirs:
            after, before = median(ours), median(theirs)
            print(f"; the other checkout {before}; ratio {after.cpu / before.cpu:.2f} of CPU", flush=True)
    print(f"size of the page: {board.stat().st_size / 1e6:.1f} MB", flush=True)
    if against is not None:
        files = [results.with_name(name) for name in ("ours.json", "theirs.json")]
        for file, checkout in zip(files, (ROOT, against), strict=True):
            uwbench("leaderboard", *words, "--output", str(file), checkout=checkout)
        ours, theirs = (json.loads(file.read_text(encoding="utf-8")) for file in files)
        if any(ours[name] != theirs[name] for name in ("scores", "averages")):
            sys.exit("the two checkouts differ in scores, intervals or ranks")
        print("scores, intervals and ranks: the same")


def uwbench(*words: str, checkout: Path = ROOT) -> Cost:
    """Run a command in a process of its own and return its cost; stop with what it printed if it fails."""
    with tempfile.TemporaryFile("w+") as printed:
        started = time.perf_counter()
        command = [sys.executable, "-m", "uwbench", *words]
        environment = os.environ | {"PYTHONPATH": str(checkout.resolve() / "bench")}
        process = subprocess.Popen(
            command, stdout=printed, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            printed.seek(0)
            sys.exit(f"uwbench {' '.join(words)} failed:\n{printed.read()[-2000:]}")
    return Cost(usage.ru_utime + usage.ru_stime, wall)


def median(costs: Sequence[Cost]) -> Cost:
    return Cost(statistics.median(cost.cpu for cost in costs), statistics.median(cost.wall for cost in costs))


if __name__ == "__main__":
    main()
