"""A model's errors on a task: confusions, worst classes and hardest clips, from its predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        answers = _Answers.read(table)
        return _single_label(answers) if kind == "single-label" else _multi_label(answers)
    except (LookupError, ValueError, TypeError, pa.ArrowException, InputError):
        return None


@dataclass(frozen=True, slots=True)
class _Answers:
    """Truths and predictions of the clips, a row for each clip and seed; `ids` and `values` are distinct and sorted.

    `clips`, `truths` and `predictions` `(rows,)` are indices into them.
    """

    ids: tuple[str, ...]
    values: tuple[Any, ...]
    clips: np.ndarray
    truths: np.ndarray
    predictions: np.ndarray

    @classmethod
    def read(cls, table: pa.Table) -> _Answers:
        """Read the columns of predictions; each distinct answer is parsed once."""
        ids, clips = _codes(table.column("id").to_pylist())
        texts, codes = _codes([*table.column("truth").to_pylist(), *table.column("prediction").to_pylist()])
        return cls(tuple(ids), tuple(map(parse_json, texts)), clips, *np.split(codes, 2))

    @property
    def seeds(self) -> float:
        return len(self.clips) / len(self.ids)


def _codes(values: Sequence[str]) -> tuple[list[str], np.ndarray]:
    names = sorted(set(values))
    position = {name: index for index, name in enumerate(names)}
    return names, np.array([position[value] for value in values], dtype=np.int64)


def _single_label(answers: _Answers) -> Detail:
    order = sorted(range(len(answers.values)), key=lambda code: str(answers.values[code]))
    names = [str(answers.values[code]) for code in order]
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    truths, predictions = rank[answers.truths], rank[answers.predictions]
    cells = np.bincount(truths * len(names) + predictions, minlength=len(names) ** 2)
    matrix = cells.reshape(len(names), len(names)) / answers.seeds
    total = matrix.sum(axis=1)
    recall = np.divide(np.diag(matrix), total, out=np.zeros(len(names)), where=total > 0)
    by_recall = [i for i in np.argsort(recall, kind="stable") if total[i] > 0]
    worst = tuple(ClassScore(names[i], float(recall[i]), round(float(total[i]))) for i in by_recall[:_WORST])
    shown = sorted(by_recall[:_CLASSES])
    confusion = tuple(
        (names[i], names[j], float(matrix[i, j] / total[i]), float(matrix[i, j])) for i in shown for j in shown
    )
    return Detail("recall", confusion, worst, _hardest(answers, lambda a, b: float(a != b)), len(names))


def _multi_label(answers: _Answers) -> Detail:
    names = sorted({label for value in answers.values for label in value})
    counts = dict.fromkeys(names, 0)
    hits, guesses = dict(counts), dict(counts)
    pairs, times = np.unique(np.stack([answers.truths, answers.predictions]), axis=1, return_counts=True)
    for truth_code, predicted_code, count in zip(*pairs, times, strict=True):
        predicted, truth = set(answers.values[predicted_code]), set(answers.values[truth_code])
        for label in truth:
            counts[label] += count
        for label in predicted:
            guesses[label] += count
        for label in predicted & truth:
            hits[label] += count
    f1 = {name: float(2 * hits[name] / max(1, counts[name] + guesses[name])) for name in names}
    present = sorted((name for name in names if counts[name]), key=lambda name: f1[name])
    worst = tuple(ClassScore(name, f1[name], round(float(counts[name] / answers.seeds))) for name in present[:_WORST])
    return Detail("F1", (), worst, _hardest(answers, _distance), len(names))


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


def _hardest(answers: _Answers, wrong: Callable[[Any, Any], float]) -> tuple[HardClip, ...]:
    """Return the clips that are wrong most, by the mean of `wrong(truth, prediction)` over seeds."""
    pairs, of_row = np.unique(np.stack([answers.truths, answers.predictions]), axis=1, return_inverse=True)
    of_pair = np.array([wrong(answers.values[truth], answers.values[guess]) for truth, guess in pairs.T])
    rows = np.bincount(answers.clips, minlength=len(answers.ids))
    shares = np.bincount(answers.clips, of_pair[of_row.ravel()], minlength=len(answers.ids)) / rows
    order = [clip for clip in np.argsort(-shares, kind="stable") if shares[clip] > 0][:_CLIPS]
    hardest = []
    for clip in order:
        rows_of_clip = np.flatnonzero(answers.clips == clip)
        truth = _labels(answers.values[answers.truths[rows_of_clip[0]]])
        guesses = [_labels(answers.values[code]) for code in answers.predictions[rows_of_clip]]
        commonest = max(sorted(set(guesses)), key=guesses.count)
        hardest.append(HardClip(answers.ids[clip], float(shares[clip]), truth, commonest))
    return tuple(hardest)


def _distance(truth: Sequence[str], prediction: Sequence[str]) -> float:
    """Return the share of all labels, true or predicted, that are not both (Jaccard distance)."""
    union = set(truth) | set(prediction)
    return 1 - len(set(truth) & set(prediction)) / len(union) if union else 0.0


def _labels(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
