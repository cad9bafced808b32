"""How often what a board says of ranks is right, on simulated boards whose true ranks are known.

python benchmarks/ranks.py
python benchmarks/ranks.py --quick

Two methods score models on three tasks with 25 to 120 clusters of clips. Equal models have several true ranks, which
must all be in the interval. The intervals hold for all models at once, so that each alone covers more than 95 %.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from report.simulated_ranks import SCENARIOS, averaged, equality_errors

_NAMES = (
    "all ranks in theirs",
    "rank in its interval",
    "width",
    "wrong order claimed under every method",
    "tau in its bounds",
)
_HEADS = ("all ranks", "one rank", "width", "wrong order", "tau")
_COLUMNS = "{:<36}" + "{:>12}" * len(_HEADS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000, help="boards per scenario")
    parser.add_argument("--quick", action="store_true", help="200 boards per scenario")
    options = parser.parse_args()
    runs = 200 if options.quick else options.runs
    print(f"{runs} boards each; shares of them, and the mean width of the intervals")
    print(_COLUMNS.format("", *_HEADS))
    for seed, scenario in enumerate(SCENARIOS):
        means = averaged(scenario, runs, seed)
        print(_COLUMNS.format(scenario.name, *(f"{means[name]:.3f}" if name in means else "-" for name in _NAMES)))
    errors = equality_errors(runs, np.random.default_rng(99))
    print(f"called practically equal at a true difference of exactly the margin: {errors:.3f}")


if __name__ == "__main__":
    main()
