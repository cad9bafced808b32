"""Seconds and bytes of the page, and of `compare`, on made-up results: models x tasks, five probe seeds.

python benchmarks/page.py                   # 20 models x 20 tasks of 1,000 clips
python benchmarks/page.py --quick           # 6 models x 6 tasks
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import uwbench
from machine import print_machine, seconds

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from report.made_results import MadeTask, make_result

KINDS: tuple[dict[str, Any], ...] = (  # of every six tasks: four with one label, one with several, one by frames
    {},
    {"folds": ("1", "2", "3", "4", "5")},
    {"domain": "speech"},
    {"domain": "music"},
    {"kind": "multi-label", "metric": "map"},
    {"kind": "frame-multi-label", "metric": "segment-f1-macro"},
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=20)
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--clips", type=int, default=1000, help="tested clips of a task")
    parser.add_argument("--quick", action="store_true", help="6 models x 6 tasks")
    options = parser.parse_args()
    models, tasks = (6, 6) if options.quick else (options.models, options.tasks)
    print_machine("numpy", "pyarrow")
    with tempfile.TemporaryDirectory() as scratch:
        results = Path(scratch) / "results"
        make_results(results, models, tasks, options.clips)
        board = page = None

        def read() -> None:
            nonlocal board
            board = uwbench.leaderboard(results)

        def write() -> None:
            nonlocal page
            assert board is not None
            page = Path(scratch) / "board.html"
            board.to_html(page)

        size = f"{models} models x {tasks} tasks x {options.clips:,} clips"
        print(f"{size}: board {seconds(read):.2f} s, page {seconds(write):.2f} s more", end="")
        assert page is not None
        print(f", {page.stat().st_size / 1e6:.1f} MB")
        print(f"compare, from the files: {seconds(lambda: uwbench.compare('m0', 'm1', results=results)):.2f} s")


def make_results(results: Path, models: int, tasks: int, clips: int) -> None:
    """Write made-up results whose skills lie close together, so that ties and orders both occur."""
    for index in range(tasks):
        task = MadeTask(f"task{index:02d}", n=clips, groups=max(1, clips // 5), **KINDS[index % len(KINDS)])
        for model in range(models):
            make_result(results, f"m{model}", task, 0.5 + 0.4 * model / models, parameters=(model + 1) * 10_000_000)


if __name__ == "__main__":
    main()
