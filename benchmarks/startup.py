"""Start-up times: the interpreter alone, `import uwbench`, and light commands. Median of several runs of each.

python benchmarks/startup.py
python benchmarks/startup.py --before OTHER_TREE/bench    # alternate with another tree and print the ratios
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

from machine import print_machine, seconds

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
        above = here - medians[HERE]["interpreter"]
        ratio = "".join(f", {here / other:.2f} x before" for other in before)
        print(f"{case}: {here:.3f} s, {above:.3f} s above the interpreter{ratio}")


def measure(trees: list[Path], *, runs: int) -> dict[Path, dict[str, float]]:
    """Return the median seconds of each case in each tree; all take turns, so that a busy moment hits all of them."""
    times: dict[Path, dict[str, list[float]]] = {tree: {case: [] for case in CASES} for tree in trees}
    for _ in range(runs + 1):
        for case, words in CASES.items():
            for tree in trees:
                times[tree][case].append(seconds(lambda words=words, tree=tree: start(words, tree)))
    # The first run fills the disk cache.
    return {tree: {case: statistics.median(values[1:]) for case, values in times[tree].items()} for tree in trees}


def start(words: list[str], tree: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(tree)}
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL, env=env)


if __name__ == "__main__":
    main()
