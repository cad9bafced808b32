"""The parity table: every family's small random model against a direct call of transformers, and its own claims.

python benchmarks/parity_families.py
python benchmarks/parity_families.py whisper canary    # these cases alone
python benchmarks/parity_families.py --task esc10/manifest.csv --task fsdd/manifest.csv    # on real audio as well

`deviation` is the largest relative distance of a layer's frames from transformers' own, `batch` that of a clip's mean
vector among batch mates, `hop` what was measured and, in brackets, what the encoder says, `audio` the deviation on the
clips of `--task` and whether everything held there too. Exit code 1 if any is wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ |= {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import uwbench
from encoders.parity import CASES, Parity, lacks, measure

_TOLERANCE = 1e-5  # of a layer, relative
# On real audio, which has digital silence: there a norm over channels magnifies the rounding of a clip's mean.
_REAL_TOLERANCE = 1e-4
_COLUMNS = "{:<32}{:<31}{:>6}{:>6}{:>11}{:>10}{:>20}{:>9}  {:<9}{}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(case.name for case in CASES))
    parser.add_argument("--layers", action="store_true", help="print the deviation of every layer")
    parser.add_argument("--task", action="append", default=[], help="a task or manifest with real audio; repeat it")
    options = parser.parse_args()
    unknown = set(options.cases) - {case.name for case in CASES}
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    print(
        _COLUMNS.format("case", "family", "layers", "dim", "deviation", "batch", "hop", "context", "silence", "audio")
    )
    datasets = [uwbench.load_task(task) for task in options.task]
    audio = {dataset.card.name: dataset for dataset in datasets}
    failed = 0
    for case in CASES:
        if options.cases and case.name not in options.cases:
            continue
        if package := lacks(case):
            print(f"{case.name:<32}not run: its extractor needs {package}")
            continue
        with tempfile.TemporaryDirectory() as place:
            row = measure(case, Path(place, case.name), audio)
        print_row(row, per_layer=options.layers)
        failed += not _passed(row)
    return 1 if failed else 0


def _passed(row: Parity) -> bool:
    within = max(row.deviations) < _TOLERANCE and row.real_deviation < _REAL_TOLERANCE
    return within and row.silence and not row.problems


def print_row(row: Parity, *, per_layer: bool) -> None:
    hop = f"{1000 * row.hop_s:.4g} ({1000 * row.declared_hop_s:.4g}) ms"
    context = f"{row.context_s:g} s" if row.context_s else "any"
    deviation, batch = f"{max(row.deviations):.1e}", f"{row.batch_deviation:.1e}"
    silence = "finite" if row.silence else "NaN"
    sizes = len(row.deviations), row.dim
    audio = f"{row.real_deviation:.1e} {'passed' if _passed(row) else 'FAILED'}: {', '.join(row.checked)}"
    audio = audio if row.checked else "none"
    print(_COLUMNS.format(row.case, row.family, *sizes, deviation, batch, hop, context, silence, audio), flush=True)
    if per_layer:
        print("    per layer:", ", ".join(f"{value:.1e}" for value in row.deviations))
    for problem in row.problems:
        print("    problem:", problem)


if __name__ == "__main__":
    sys.exit(main())
