"""Made-up results by every method of uwbench-1, for boards and pages that show them all.

Scores follow from the predictions; the intervals beside the scores of single tasks do not.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from report.made_results import MadeTask, make_result, predictions
from uwbench.cards.find import find_protocol
from uwbench.methods import METHODS
from uwbench.results.bootstrap import seed_scores
from uwbench.results.items import read_items
from uwbench.results.metrics import MEANS_OF_BLOCKS, PAIRED
from uwbench.results.record import Score, predictions_path, read_result, write_result

_BLOCKS = 20
_MOST_PAIRS = 50_000  # of one class, and of two, as on the protocol's card
_FIGURES: tuple[str, ...] = ("rankme", "isotropy", "uniformity", "hubness")


def make_every_method(results: Path, model: str, task: MadeTask, skill: float, **about: Any) -> Path:
    """Write a made-up result by every method of uwbench-1 that takes the task's labels, and return its path."""
    path = make_result(results, model, task, skill, further=True, **about)
    result, tables = read_result(path), [pq.read_table(predictions_path(path))]
    scores = dict(result.scores)
    protocol, rng = find_protocol("uwbench-1"), np.random.default_rng([1, *task.name.encode(), *model.encode()])
    for method, info in METHODS.items():
        if method in scores or task.kind not in info.kinds or not protocol.runs(method):
            continue
        metric = info.metric or task.metric
        made = max(0.05, skill - 0.02 * len(scores))
        tables.append(_rows(method, info.metric, task, made, rng))
        scores[method] = _score(tables[-1], method, metric, rng)
    path = write_result(results, result.model_copy(update={"scores": scores}))
    pq.write_table(pa.concat_tables(tables, promote_options="none"), predictions_path(path))
    return path


def _score(table: pa.Table, method: str, metric: str, rng: np.random.Generator) -> Score:
    per_seed = seed_scores(read_items(table, method, metric))
    score = float(per_seed.mean())
    chosen: dict[str, Any] = {"layer": "3"}
    if METHODS[method].describes:
        chosen["layers"] = {
            layer: dict(zip(_FIGURES, rng.random(4).tolist(), strict=True)) for layer in ("1", "2", "3")
        }
    return Score(
        metric=metric,
        main_score=score,
        ci95=(max(0.0, score - 0.02), min(1.0, score + 0.02)),
        per_seed=tuple(map(float, per_seed)),
        per_fold={},
        raw=chosen["layers"]["3"] if "layers" in chosen else {},
        chosen=chosen,
        settings={"version": 1},
        chance=0.5 if metric in PAIRED else None,
    )


def _rows(method: str, metric: str | None, task: MadeTask, skill: float, rng: np.random.Generator) -> pa.Table:
    """Return the rows of a method's predictions; `metric` None is the task's."""
    if metric in PAIRED:
        return _pair_rows(method, task, skill, rng)
    table = predictions(task, {method: skill}, rng)
    if metric is None:
        return table
    values = np.clip(rng.normal(skill, 0.2, len(table)), 0, 1)
    counts = np.stack([values, np.ones(len(table))], axis=1)
    if metric in MEANS_OF_BLOCKS:
        blocks = np.arange(len(table)) % _BLOCKS
        counts = np.stack([values[blocks], 1 / np.bincount(blocks)[blocks], blocks], axis=1)
    return _with(table, "counts", pa.array(counts.astype(np.float32).tolist(), pa.list_(pa.float32())))


def _pair_rows(method: str, task: MadeTask, skill: float, rng: np.random.Generator) -> pa.Table:
    """Return all pairs of the task's clips, at most as many as the protocol takes, with similarities that `skill` sets.

    Clips of one class are more similar.
    """
    ids, groups, target = _pairs(task.n, len(task.classes), task.groups)
    similarity = np.tanh(rng.normal(size=len(target)) + 2 * skill * target).astype(np.float32)
    answers = pa.array(np.where(target, "true", "false"))
    guesses = pa.array(np.where(similarity > 0.5, "true", "false"))
    nothing = pa.nulls(len(target))
    columns = {
        "method": pa.array([method] * len(target)),
        "seed": pa.array(np.zeros(len(target), np.int32)),
        "fold": nothing.cast(pa.string()),
        "id": ids,
        "group": groups,
        "truth": answers,
        "prediction": guesses,
        "scores": nothing.cast(pa.list_(pa.float32())),
        "counts": pa.array(similarity[:, None].tolist(), pa.list_(pa.float32())),
    }
    table = pa.table(columns)
    return table.replace_schema_metadata({"classes": json.dumps(list(task.classes))})


@cache
def _pairs(n: int, classes: int, groups: int) -> tuple[pa.Array, pa.Array, np.ndarray]:
    """Return the ids and groups of pairs of `n` clips, and whether both are of one class."""
    first, second = np.triu_indices(n, 1)
    apart = first % groups != second % groups
    first, second = first[apart], second[apart]
    target = first % classes == second % classes
    rng = np.random.default_rng(0)
    chosen = [rng.permutation(np.flatnonzero(which))[:_MOST_PAIRS] for which in (target, ~target)]
    rows = np.sort(np.concatenate(chosen))
    pairs = list(zip(first[rows].tolist(), second[rows].tolist(), strict=True))
    ids = pa.array([json.dumps([f"clips/{a:04d}.wav", f"clips/{b:04d}.wav"]) for a, b in pairs])
    names = pa.array([json.dumps([f"g{a % groups}", f"g{b % groups}"]) for a, b in pairs])
    return ids, names, target[rows]


def _with(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, column)
