"""A model's errors on a task: confusions, worst classes and hardest clips, from its predictions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from uwbench.base.json_text import parse_json
from uwbench.errors import InputError
from uwbench.results.averages import Method
from uwbench.results.record import read_predictions

if TYPE_CHECKING:
    import pyarrow as pa

_CLASSES = 25  # a larger confusion matrix cannot be read; of more classes, the most confused are shown
_WORST = 12
_CLIPS = 15


@dataclass(frozen=True, slots=True)
class ClassScore:
    """One class with its recall (single labels) or F1 (otherwise), and its number of test items or segments."""

    name: str
    score: float
    n: int


@dataclass(frozen=True, slots=True)
class HardClip:
    """A clip that is often wrong: the share of seeds that miss it, its labels and the commonest prediction."""

    id: str
    wrong: float
    truth: str
    prediction: str


@dataclass(frozen=True, slots=True)
class Detail:
    """One model's errors on one task by one method.

    An entry of `confusion` is (true class, predicted class, share of the true class, count).
    """

    measure: str
    confusion: tuple[tuple[str, str, float, float], ...]
    worst: tuple[ClassScore, ...]
    hardest: tuple[HardClip, ...]
    classes: int


def read_detail(result: Path, method: Method, kind: str) -> Detail | None:
    """Return the errors in the predictions of a result file; None if they cannot be read."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        table = read_predictions(result, ["method", "seed", "id", "truth", "prediction", "counts"])
        table = table.filter(pc.field("method") == method)
        if table.num_rows == 0:
            return None
        if kind not in ("single-label", "multi-label"):
            return _from_counts(table, kind)
        ids, truths, predictions = (table.column(name).to_pylist() for name in ("id", "truth", "prediction"))
        values = {text: parse_json(text) for text in {*truths, *predictions}}
        rows = [
            {"id": clip, "truth": values[truth], "prediction": values[prediction]}
            for clip, truth, prediction in zip(ids, truths, predictions, strict=True)
        ]
        return _single_label(rows) if kind == "single-label" else _multi_label(rows)
    except (LookupError, ValueError, TypeError, pa.ArrowException, InputError):
        return None


def _single_label(rows: Sequence[Mapping[str, Any]]) -> Detail:
    names = sorted({row["truth"] for row in rows} | {row["prediction"] for row in rows}, key=str)
    position = {name: index for index, name in enumerate(names)}
    seeds = len(rows) / len({row["id"] for row in rows})
    cells = [position[row["truth"]] * len(names) + position[row["prediction"]] for row in rows]
    matrix = np.bincount(cells, minlength=len(names) ** 2).reshape(len(names), -1) / seeds
    total = matrix.sum(axis=1)
    recall = np.divide(np.diag(matrix), total, out=np.zeros(len(names)), where=total > 0)
    order = [i for i in np.argsort(recall, kind="stable") if total[i] > 0]
    worst = tuple(ClassScore(str(names[i]), float(recall[i]), round(float(total[i]))) for i in order[:_WORST])
    shown = sorted(order[:_CLASSES])
    confusion = tuple(
        (str(names[i]), str(names[j]), float(matrix[i, j] / total[i]), float(matrix[i, j]))
        for i in shown
        for j in shown
    )
    return Detail("recall", confusion, worst, _hardest(rows, _differs), len(names))


def _multi_label(rows: Sequence[Mapping[str, Any]]) -> Detail:
    names = sorted({label for row in rows for label in (*row["truth"], *row["prediction"])})
    counts = dict.fromkeys(names, 0)
    hits, guesses = dict(counts), dict(counts)
    for row in rows:
        predicted, truth = set(row["prediction"]), set(row["truth"])
        for label in truth:
            counts[label] += 1
        for label in predicted:
            guesses[label] += 1
        for label in predicted & truth:
            hits[label] += 1
    seeds = len(rows) / len({row["id"] for row in rows})
    f1 = {name: 2 * hits[name] / max(1, counts[name] + guesses[name]) for name in names}
    present = sorted((name for name in names if counts[name]), key=lambda name: f1[name])
    worst = tuple(ClassScore(name, f1[name], round(counts[name] / seeds)) for name in present[:_WORST])
    return Detail("F1", (), worst, _hardest(rows, _distance), len(names))


def _from_counts(table: pa.Table, kind: str) -> Detail | None:
    counts = table.column("counts").to_pylist()
    if any(value is None for value in counts):
        return None
    values = np.asarray(counts, dtype=np.float64)
    ids = np.asarray(table.column("id").to_pylist())
    names, of_clip = np.unique(ids, return_inverse=True)
    if kind == "transcription":
        wrong = np.bincount(of_clip, values[:, 0]) / np.maximum(np.bincount(of_clip, values[:, 1]), 1)
        worst: tuple[ClassScore, ...] = ()
    elif kind == "retrieval":
        hits, queries = (np.array([np.bincount(of_clip, values[:, c]) for c in pair]) for pair in ((0, 2), (1, 3)))
        wrong = 1 - (hits / np.maximum(queries, 1)).mean(axis=0)
        worst = ()
    else:
        hits, false, missed = np.split(values, 3, axis=1)
        errors = np.bincount(of_clip, (false + missed).sum(axis=1))
        wrong = errors / np.maximum(errors + np.bincount(of_clip, hits.sum(axis=1)), 1)
        f1 = 2 * hits.sum(axis=0) / np.maximum(2 * hits.sum(axis=0) + false.sum(axis=0) + missed.sum(axis=0), 1)
        occurs = (hits + missed).sum(axis=0) * len(names) / len(ids)
        classes = parse_json((table.schema.metadata or {}).get(b"classes", b"[]")) or [str(i) for i in range(len(f1))]
        order = [i for i in np.argsort(f1, kind="stable") if occurs[i] > 0][:_WORST]
        worst = tuple(ClassScore(str(classes[i]), float(f1[i]), round(float(occurs[i]))) for i in order)
    hardest = [
        HardClip(str(names[i]), float(min(1.0, wrong[i])), "", "") for i in np.argsort(-wrong, kind="stable")[:_CLIPS]
    ]
    return Detail("F1", (), worst, tuple(clip for clip in hardest if clip.wrong > 0), len(worst))


def _hardest(rows: Sequence[Mapping[str, Any]], wrong: Any) -> tuple[HardClip, ...]:
    wrongs, counts = dict.fromkeys((row["id"] for row in rows), 0.0), Counter(row["id"] for row in rows)
    for row in rows:
        wrongs[row["id"]] += wrong(row["truth"], row["prediction"])
    shares = {name: total / counts[name] for name, total in wrongs.items()}
    hardest = sorted((name for name in shares if shares[name] > 0), key=lambda name: (-shares[name], name))[:_CLIPS]
    by_id: dict[str, list[Mapping[str, Any]]] = {name: [] for name in hardest}
    for row in rows:
        if row["id"] in by_id:
            by_id[row["id"]].append(row)
    return tuple(
        HardClip(name, shares[name], _labels(by_id[name][0]["truth"]), _commonest(by_id[name])) for name in hardest
    )


def _differs(truth: object, prediction: object) -> float:
    return float(truth != prediction)


def _distance(truth: Sequence[str], prediction: Sequence[str]) -> float:
    """Return the share of all labels, true or predicted, that are not both (Jaccard distance)."""
    union = set(truth) | set(prediction)
    return 1 - len(set(truth) & set(prediction)) / len(union) if union else 0.0


def _commonest(rows: Sequence[Mapping[str, Any]]) -> str:
    predictions = [_labels(row["prediction"]) for row in rows]
    return max(sorted(set(predictions)), key=predictions.count)


def _labels(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
