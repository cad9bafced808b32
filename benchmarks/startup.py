"""Start-up times: the interpreter alone, `import uwbench`, and light commands. Median of several runs of each.

CPU seconds are printed beside them: on a busy machine they say more.

python benchmarks/startup.py
python benchmarks/startup.py --before OTHER_TREE/bench    # alternate with another tree and print the ratios
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from machine import print_machine

CASES = {
    "interpreter": ["-c", "pass"],
    "import uwbench": ["-c", "import uwbench"],
    "import uwbench.api": ["-c", "import uwbench.api"],
    "uwbench --help": ["-m", "uwbench", "--help"],
    "uwbench tasks": ["-m", "uwbench", "tasks"],
    "uwbench models": ["-m", "uwbench", "models"],
}
HERE = Path(__file__).resolve().parents[1] / "bench"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="3 runs")
    parser.add_argument("--before", type=Path, help="the folder `bench` of another tree")
    options = parser.parse_args()
    print_machine("typer", "pydantic")
    trees = [HERE] if options.before is None else [HERE, options.before]
    medians = measure(trees, runs=3 if options.quick else options.runs)
    for case in CASES:
        here, *before = [medians[tree][case] for tree in trees]
        above = [value - base for value, base in zip(here, medians[HERE]["interpreter"], strict=True)]
        print(f"{case}: {here[0]:.3f} s, {above[0]:.3f} s above the interpreter; CPU {here[1]:.3f} s, ", end="")
        print(f"{above[1]:.3f} s above", end="")
        print("".join(f"; {here[0] / wall:.2f} and {here[1] / cpu:.2f} x before" for wall, cpu in before))


def measure(trees: list[Path], *, runs: int) -> dict[Path, dict[str, tuple[float, float]]]:
    """Return the median wall and CPU seconds of each case in each tree.

    All take turns, so that a busy moment hits all of them.
    """
    times: dict[Path, dict[str, list[tuple[float, float]]]] = {tree: {case: [] for case in CASES} for tree in trees}
    for _ in range(runs + 1):
        for case, words in CASES.items():
            for tree in trees:
                times[tree][case].append(start(words, tree))
    # The first run fills the disk cache.
    return {tree: {case: middle(taken[1:]) for case, taken in times[tree].items()} for tree in trees}


def middle(taken: list[tuple[float, float]]) -> tuple[float, float]:
    walls, cpus = zip(*taken, strict=True)
    return statistics.median(walls), statistics.median(cpus)


def start(words: list[str], tree: Path) -> tuple[float, float]:
    """Run a command and return its wall and CPU seconds."""
    started = time.perf_counter()
    environ = {**os.environ, "PYTHONPATH": str(tree)}
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL, env=environ)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{' '.join(words)} failed with {process.returncode}")
    return wall, usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
