"""How often the 95 % intervals of methods hold the expected score, in simulated worlds where it is known.

python benchmarks/coverage.py                  1,000 draws per method
python benchmarks/coverage.py --quick          100
python benchmarks/coverage.py --method clustering --group-spread 1.0
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from machine import print_machine
from uwbench.cards.find import find_protocol
from uwbench.cards.protocol import Protocol
from uwbench.methods import HEADLINE, METHODS
from worlds import World, coverage, crossings_without_difference, scores_and_intervals


def protocol_for(resamples: int) -> Protocol:
    """Return the default protocol with fewer resamples, for time; the standard error needs no more."""
    card = find_protocol("uwbench-1")
    return card.model_copy(update={"bootstrap": card.bootstrap.model_copy(update={"resamples": resamples})})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="100 draws")
    parser.add_argument("--draws", type=int, default=1000)
    # Worlds have no segments; the interval of what reads them is made as that of the MLP probe.
    of_vectors = [name for name, info in METHODS.items() if name not in HEADLINE and not info.segments]
    parser.add_argument("--method", action="append", choices=of_vectors)
    parser.add_argument("--group-spread", type=float, action="append")
    chosen = parser.parse_args()
    draws = 100 if chosen.quick else chosen.draws
    print_machine()
    for method in chosen.method or of_vectors:
        for spread in chosen.group_spread or (0.0, 0.5, 1.0):
            world = World(group_spread=spread)
            started = time.perf_counter()
            scores, bounds = scores_and_intervals(world, protocol_for(400), method, draws)
            taken = time.perf_counter() - started
            width = float((bounds[:, 1] - bounds[:, 0]).mean())
            print(
                f"{method}, group spread {spread}: score {scores.mean():.3f}, standard deviation {scores.std():.4f}, "
                f"interval {width:.3f} wide, holds the expected score in {coverage(scores, bounds):.1%} "
                f"of {draws} draws ({taken:.0f} s)"
            )
        if method == "few-shot":
            crossings = crossings_without_difference(World(), protocol_for(400), draws)
            share = sum(crossing.crosses for crossing in crossings) / draws
            print(
                f"{method}: curves of two models that do not differ are said to cross in {share:.1%} of {draws} draws"
            )


if __name__ == "__main__":
    main()
