"""Start-up times: the interpreter alone, `import uwbench`, and light commands. Median of some runs of each.

python benchmarks/startup.py
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

from machine import print_machine, seconds

CASES = {
    "interpreter": ["-c", "pass"],
    "import uwbench": ["-c", "import uwbench"],
    "import uwbench.api": ["-c", "import uwbench.api"],
    "uwbench --help": ["-m", "uwbench", "--help"],
    "uwbench tasks": ["-m", "uwbench", "tasks"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="3 runs")
    options = parser.parse_args()
    runs = 3 if options.quick else options.runs
    print_machine("typer", "pydantic")
    times: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(runs + 1):  # in turn, so that a busy moment meets all of them
        for name, words in CASES.items():
            times[name].append(seconds(lambda words=words: start(words)))
    middle = {name: statistics.median(found[1:]) for name, found in times.items()}  # the first fills the disk's cache
    for name, value in middle.items():
        above = value - middle["interpreter"]
        print(f"{name}: {value:.3f} s" + (f", {above:.3f} s above the interpreter" if above else ""))


def start(words: list[str]) -> None:
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
