"""Inject the faults of a long unattended run into uwbench and print a table: fault, times tried, lost, wrong.

    python tests/faults/run_faults.py                    every fault, some minutes
    python tests/faults/run_faults.py --quick            a few tries each
    python tests/faults/run_faults.py --only disk        the faults whose name contains a word
    python tests/faults/run_faults.py --jobs 1           one at a time (default: one per core)

After each fault the same command runs again, and the outcome is compared with that of an undisturbed run. "Lost" is
finished work that is gone or had to be made again. "Wrong" is anything that differs, an error without a clear message,
or a score from damaged data. The exit code is 1 if either is not zero.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from world import Tally, World

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
Row = tuple[str, int, int, int]  # fault, times tried, lost, wrong
Fault = tuple[Callable[["World", int], "Tally"], int, int]  # the fault, its tries, its tries with --quick


def main() -> None:
    """Run the faults and print the table."""
    arguments = _arguments()
    rows = _side_by_side(arguments.jobs) if arguments.jobs > 1 else _one_by_one(arguments)
    if arguments.json:
        print(json.dumps([dict(zip(("fault", "tried", "lost", "wrong"), row, strict=True)) for row in rows]))
    else:
        print(table(rows))
    raise SystemExit(any(lost or wrong for _, _, lost, wrong in rows))


def _side_by_side(jobs: int) -> list[Row]:
    """Run shares of the faults in separate processes, each with its own clips and caches; return the rows in order."""
    words = [sys.executable, __file__, *sys.argv[1:], "--jobs", "1", "--json"]
    running = [
        subprocess.Popen([*words, "--share", f"{place}/{jobs}"], stdout=subprocess.PIPE, text=True)
        for place in range(jobs)
    ]
    shares = []
    for child in running:
        out, _ = child.communicate()
        if child.returncode not in (0, 1):
            raise SystemExit(f"a share of the faults ended with {child.returncode}")
        shares.append([(row["fault"], row["tried"], row["lost"], row["wrong"]) for row in json.loads(out)])
    longest = max(map(len, shares))
    return [share[place] for place in range(longest) for share in shares if place < len(share)]


def _one_by_one(arguments: argparse.Namespace) -> list[Row]:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: a forked child has one thread
    os.environ.update(HF_HUB_OFFLINE="1", COLUMNS="200")
    sys.path[:0] = [str(HERE), str(ROOT / "bench")]
    from world import World

    work = Path(tempfile.mkdtemp(prefix="uwbench-faults-"))
    try:
        world = World(work, arguments.data, arguments.seed)
        lines = []
        place, shares = arguments.share
        chosen = [fault for fault in faults() if not arguments.only or arguments.only in fault[0].__name__]
        for fault, tries, few in chosen[place::shares]:
            started = time.monotonic()
            tally = fault(world, few if arguments.quick else tries)
            lines.append(tally)
            seconds = time.monotonic() - started
            line = f"{tally.fault}: {tally.tried} tried, {tally.lost} lost, {tally.wrong} wrong, {seconds:.0f} s"
            print(line, *sorted(set(tally.notes))[:12], sep="\n  ", file=sys.stderr, flush=True)
            for folder in work.glob("*-[0-9]*"):
                shutil.rmtree(folder, ignore_errors=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return [(tally.fault, tally.tried, tally.lost, tally.wrong) for tally in lines]


def faults() -> list[Fault]:
    """Return every fault with its number of tries, and the number with --quick."""
    import crowd
    import damage
    import disk
    import kills
    import power

    return [
        (kills.kill_extract, 50, 2),
        (kills.kill_probe, 50, 2),
        (kills.kill_report, 50, 1),
        (kills.stop_extract, 20, 2),
        (kills.stop_probe, 10, 2),
        (power.power_cut_extract, 0, 40),
        (power.power_cut_probe, 0, 10),
        (disk.full_disk_extract, 0, 3),
        (disk.full_disk_probe, 0, 2),
        (disk.full_disk_leaderboard, 0, 2),
        (disk.full_small_disk, 24, 2),
        (disk.read_only_cache, 4, 1),
        (damage.part_truncated, 12, 1),
        (damage.part_flipped, 24, 1),
        (damage.part_of_another_version, 6, 1),
        (damage.clip_changed, 6, 2),
        (damage.clock_set_back, 4, 2),
        (damage.cache_moved, 4, 2),
        (crowd.same_task_by_two, 6, 1),
        (crowd.same_task_by_eight, 3, 1),
        (crowd.different_tasks_by_eight, 3, 1),
        (crowd.decoder_dies, 8, 1),
    ]


def table(rows: list[Row]) -> str:
    """Return the table as Markdown."""
    head = ("fault", "times tried", "lost", "wrong")
    cells = [head, *(tuple(str(cell) for cell in row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(4)]
    lines = [
        f"| {row[0]:<{widths[0]}} | " + " | ".join(f"{row[i]:>{widths[i]}}" for i in (1, 2, 3)) + " |" for row in cells
    ]
    rule = f"| {'-' * widths[0]} | " + " | ".join("-" * (widths[i] - 1) + ":" for i in (1, 2, 3)) + " |"
    return "\n".join([lines[0], rule, *lines[1:]])


def _share(text: str) -> tuple[int, int]:
    place, _, shares = text.partition("/")
    return int(place), int(shares)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few tries of each")
    parser.add_argument("--only", metavar="WORD", help="the faults whose function's name contains this word")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments and places")
    parser.add_argument(
        "--jobs", type=int, default=min(os.cpu_count() or 1, 8), help="number of faults to run at a time"
    )
    parser.add_argument("--share", type=_share, default=(0, 1), metavar="I/N", help="every N-th fault from the I-th on")
    parser.add_argument("--json", action="store_true", help="the table as JSON")
    shared = Path(os.environ.get("UWBENCH_SHARED", ROOT.parent / "shared"))
    parser.add_argument("--data", type=Path, default=shared / "data", help="the folder that holds fsdd")
    arguments = parser.parse_args()
    if not (arguments.data / "fsdd" / "manifest.csv").is_file():
        parser.error(f"{arguments.data}/fsdd/manifest.csv is missing: give the folder of real audio with --data")
    return arguments


if __name__ == "__main__":
    main()
