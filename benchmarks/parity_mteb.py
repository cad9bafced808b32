"""The protocol maeb-2, and our own methods, against mteb's own task classes on the same vectors.

    python benchmarks/parity_mteb.py --data DATA --model FOLDER [--scratch DIR] [--python PYTHON]

DATA holds `manifest.csv` of esc10, fsdd and philharmonia; FOLDER is a Whisper checkpoint. Clips are embedded by Whisper
(trimmed context), logmel and mfcc, and scored here. Then mteb 2.26.24 scores the cached vectors in an environment that
is made with pip, or by PYTHON, an interpreter that has mteb.

By maeb-2, both have the same seeds, so that the scores must be equal to float noise: exit code 1 if they are not.
Our own methods have rules of their own; they stand beside mteb's scores over several seeds, and those that use the
same pairs or rankings must be equal as well.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from machine import print_machine
from peers import PEERS, SCRIPTS, environment, versions
from uwbench import ModelSpec, Results, TaskSpec, evaluate, load_embeddings
from uwbench.base.json_text import parse_json
from uwbench.cards.find import find_protocol
from uwbench.results.record import Score, read_predictions

SEED = "42"  # of maeb-2
# Cosines of MFCCs are near 1, so that float32's last digits decide ranks; mteb has the cosine twice, by two formulas,
# and takes the better one. Our retrieval takes cosines that are equal to six decimals as tied; mteb's orders them.
NOISE, TIES = 1e-4, 5e-4
TASKS = {  # name: folder, column of the label
    "esc10": ("esc10", "label"),
    "fsdd_digit": ("fsdd", "digit"),
    "fsdd_speaker": ("fsdd", "speaker"),
    "philharmonia_instrument": ("philharmonia", "instrument"),
}
SEVERAL = "fsdd_digit_and_speaker"  # FSDD with two labels per clip
OWN = ("linear", "clustering", "verification", "clip-retrieval")


@dataclass(frozen=True, slots=True)
class Row:
    """One score of ours beside mteb's: of the same seed, and the lowest and highest over several."""

    method: str
    metric: str
    task: str
    model: str
    ours: float
    theirs: float
    low: float
    high: float
    exact: bool  # both do the same
    deviation: float  # the largest of an experiment, or of the score if there are none


def main() -> int:
    """Score by both and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--encoders", default="logmel,mfcc,whisper")
    parser.add_argument("--seeds", default="42,0,1,2,3", help="of mteb's draws; the first must be that of maeb-2, 42")
    parser.add_argument("--scratch", type=Path, default=Path("build/parity-mteb"))
    parser.add_argument("--python", type=Path, help="an interpreter with mteb; none: an environment is made")
    options = parser.parse_args()
    scratch = options.scratch.resolve()
    vectors = scratch / "vectors"
    vectors.mkdir(parents=True, exist_ok=True)
    python = options.python or environment(scratch / "mteb", PEERS["mteb"])
    print_machine("uwbench", "scikit-learn", "numpy")
    print(f"  mteb: {versions(python)}", flush=True)
    whisper = ModelSpec(str(options.model.resolve()), context="trimmed")
    models = [whisper if name == "whisper" else name for name in options.encoders.split(",")]
    tasks = list(task_specs(options.data.resolve(), scratch))
    cache, results = scratch / "cache", scratch / "results"
    runs = [
        evaluate(models, tasks, protocol="maeb-2", cache=cache, results=results),
        evaluate(models, tasks, methods=OWN, cache=cache, results=results),
    ]
    failures = [line for run in runs for line in run.failures]
    if failures:
        sys.exit("\n".join(failures))
    scored = collect(runs)
    for (model, task), scores in scored.items():
        write_vectors(vectors / f"{model}.{task}.npz", task, scores, cache)
    command = [python, SCRIPTS / "mteb_scores.py", vectors, options.seeds]
    subprocess.run(command, check=True)
    rows = [
        row
        for (model, task), scores in scored.items()
        for row in compare(model, task, scores, json.loads((vectors / f"{model}.{task}.json").read_text("utf-8")))
    ]
    report(rows)
    limits = {"clip-retrieval": TIES}
    return int(any(row.exact and row.deviation > limits.get(row.method, NOISE) for row in rows))


def task_specs(data: Path, scratch: Path) -> Iterator[TaskSpec]:
    """Yield the tasks; that of several labels is a manifest of its own."""
    for name, (folder, label) in TASKS.items():
        yield TaskSpec(data / folder / "manifest.csv", label=label, name=name)
    with (data / "fsdd" / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    manifest = scratch / f"{SEVERAL}.csv"
    with manifest.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        for row in rows:
            labels = json.dumps([f"digit {row['digit']}", row["speaker"]])
            writer.writerow([data / "fsdd" / row["path"], labels, row["split"]])
    yield TaskSpec(manifest, kind="multi-label", name=SEVERAL, allow_outside=True)


def collect(runs: list[Results]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return each model's scores of each task by method, with the paths of their predictions and the fingerprint."""
    scored: dict[tuple[str, str], dict[str, Any]] = {}
    for run in runs:
        for path, result in run.results:
            entry = scored.setdefault((result.model.slug, result.task.name), {"scores": {}, "paths": {}})
            entry["fingerprint"] = result.model.fingerprint
            entry["scores"] |= result.scores
            entry["paths"] |= dict.fromkeys(result.scores, path)
    return scored


def write_vectors(path: Path, task: str, scored: dict[str, Any], cache: Path) -> None:
    """Write what mteb's script needs of a task: vectors by clip id, labels, parts, pairs, the strength of `linear`."""
    embedded = load_embeddings(scored["fingerprint"], task, cache=cache)
    order = sorted(range(len(embedded.ids)), key=lambda row: embedded.ids[row])
    arrays: dict[str, np.ndarray] = {"vectors": embedded.vectors[order, -1]}
    if embedded.folds[0] is not None:
        arrays["folds"] = np.array([embedded.folds[row] for row in order], dtype=str)
    else:
        arrays["splits"] = np.array([embedded.splits[row] for row in order], dtype=str)
    labels = [embedded.labels[row] for row in order]
    names = sorted({str(name) for of_clip in labels for name in ([of_clip] if isinstance(of_clip, str) else of_clip)})
    if isinstance(labels[0], str):
        arrays["labels"] = np.array([names.index(str(of_clip)) for of_clip in labels])
        place = {embedded.ids[row]: index for index, row in enumerate(order)}
        for name, method in (("pairs", "mteb-pairs"), ("own_pairs", "verification")):
            arrays[name] = pairs_of(scored["paths"][method], method, place)
        strengths = [fold["strength"] for fold in scored["scores"]["linear"].chosen["folds"]]
        arrays["strength"] = np.array(np.median(strengths))
    else:
        arrays["labels"] = np.array([[name in of_clip for name in names] for of_clip in labels])
    np.savez(path, **arrays)  # pyright: ignore[reportArgumentType]: the names of the arrays are not those of options
    path.with_suffix(".json").unlink(missing_ok=True)


def pairs_of(result: Path, method: str, place: dict[str, int]) -> np.ndarray:
    """Return the places of both clips of each scored pair, and 1 if they are of one class, `(pairs, 3)`."""
    table = read_predictions(result, ["method", "id", "truth"]).to_pylist()
    rows = [row for row in table if row["method"] == method]
    both = [[place[name] for name in parse_json(row["id"])] for row in rows]
    return np.column_stack([both, [row["truth"] == "true" for row in rows]]).astype(np.int64)


def compare(model: str, task: str, scored: dict[str, Any], theirs: dict[str, Any]) -> Iterator[Row]:
    """Yield a row per method that both have scores of."""
    for method, by_seed in theirs.items():
        score: Score = scored["scores"][method]
        first = by_seed[SEED]
        ours, their = score.main_score, first["score"]
        deviation, metric = abs(ours - their), score.metric
        every = [value for of_seed in by_seed.values() for value in of_seed.get("experiments", [of_seed["score"]])]
        if method == "verification":
            ours, their, metric = score.raw["ap"], first["cosine"], "AP by cosine"
            deviation, every = abs(ours - their), [their]
        elif method == "mteb-pairs":
            deviation = max(deviation, abs(score.raw["max accuracy"] - first["accuracy"]))
        elif method.startswith("mteb-"):
            experiments = list(score.per_fold.values()) or list(score.per_seed)
            deviation = float(np.abs(np.subtract(experiments, first["experiments"])).max())
        exact = method not in ("linear", "clustering")
        yield Row(method, metric, task, model, ours, their, min(every), max(every), exact, deviation)


def report(rows: list[Row]) -> None:
    """Print the tables: what must be equal, and what has rules of its own."""
    methods = list(find_protocol("maeb-2").methods)
    print("\n| method | task | model | ours | mteb | largest difference |\n| --- | --- | --- | ---: | ---: | ---: |")
    for row in sorted((row for row in rows if row.exact), key=lambda row: (row.method not in methods, row.method)):
        name = f"{row.method}, {row.metric}"
        print(f"| {name} | {row.task} | {row.model} | {row.ours:.4f} | {row.theirs:.4f} | {row.deviation:.1e} |")
    print("\n| method | task | model | ours | mteb | lowest and highest experiment of mteb | difference |")
    print("| --- | --- | --- | ---: | ---: | --- | ---: |")
    for row in sorted((row for row in rows if not row.exact), key=lambda row: row.method):
        spread = (
            f"{row.low:.4f} to {row.high:.4f}{'' if row.low - NOISE <= row.ours <= row.high + NOISE else ', outside'}"
        )
        print(
            f"| {row.method}, {row.metric} | {row.task} | {row.model} | {row.ours:.4f} | {row.theirs:.4f} | {spread} |"
            f" {row.ours - row.theirs:+.4f} |"
        )


if __name__ == "__main__":
    sys.exit(main())
