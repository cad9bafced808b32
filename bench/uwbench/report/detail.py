"""A model's errors on a task: confusions, worst classes and hardest clips, from its predictions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence, Set
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


def read_details(result: Path, methods: Iterable[Method], kind: str) -> dict[Method, Detail]:
    """Return the errors by each method in the predictions of a result file, if they can be read."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        table = read_predictions(result, ["method", "seed", "id", "truth", "prediction", "counts"])
    except InputError:
        return {}
    details = {}
    for method in methods:
        rows = table.filter(pc.call_function("equal", [table.column("method"), pa.scalar(method)]))
        with contextlib.suppress(LookupError, ValueError, TypeError, pa.ArrowException):
            if rows.num_rows and (detail := _detail(rows, kind)) is not None:
                details[method] = detail
    return details


def _detail(table: pa.Table, kind: str) -> Detail | None:
    if kind not in ("single-label", "multi-label"):
        return _from_counts(table, kind)
    guesses = Guesses(_coded(table, "id"), _coded(table, "truth").parsed(), _coded(table, "prediction").parsed())
    return _single_label(guesses) if kind == "single-label" else _multi_label(guesses)


@dataclass(frozen=True, slots=True)
class Coded:
    """A column as the distinct values in it and, for each row, the position of its value, int `(rows,)`."""

    values: Sequence[Any]
    codes: np.ndarray

    def parsed(self) -> Coded:
        """Return the column of the values that its JSON texts stand for."""
        return Coded([parse_json(text) for text in self.values], self.codes)


def _coded(table: pa.Table, name: str) -> Coded:
    encoded = table.column(name).combine_chunks().dictionary_encode()
    if encoded.null_count:
        raise ValueError(f"the predictions lack a value of {name}")
    return Coded(encoded.dictionary.to_pylist(), encoded.indices.to_numpy())


@dataclass(frozen=True, slots=True)
class Guesses:
    """Predictions of single or multiple labels: a row has a clip's id, its true labels and those predicted."""

    ids: Coded
    truths: Coded
    predictions: Coded

    @property
    def seeds(self) -> float:
        """How often a clip is predicted."""
        return len(self.ids.codes) / len(self.ids.values)


def _single_label(rows: Guesses) -> Detail:
    names = sorted({*rows.truths.values, *rows.predictions.values}, key=str)
    position = {name: index for index, name in enumerate(names)}
    truth, guess = (np.array([position[v] for v in of.values])[of.codes] for of in (rows.truths, rows.predictions))
    matrix = np.bincount(truth * len(names) + guess, minlength=len(names) ** 2).reshape(len(names), -1) / rows.seeds
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
    return Detail("recall", confusion, worst, _hardest(rows, (truth != guess).astype(float)), len(names))


def _multi_label(rows: Guesses) -> Detail:
    truths, guesses = ([set(labels) for labels in of.values] for of in (rows.truths, rows.predictions))
    names = sorted(set().union(*truths, *guesses))
    counts, hits, guessed = dict.fromkeys(names, 0), dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    pairs, pair, times = np.unique(
        rows.truths.codes * len(guesses) + rows.predictions.codes, return_inverse=True, return_counts=True
    )
    wrong = np.empty(len(pairs))
    for index, (code, number) in enumerate(zip(pairs.tolist(), times.tolist(), strict=True)):
        truth, predicted = truths[code // len(guesses)], guesses[code % len(guesses)]
        for labels, of_label in ((truth, counts), (predicted, guessed), (predicted & truth, hits)):
            for label in labels:
                of_label[label] += number
        wrong[index] = _distance(truth, predicted)
    f1 = {name: 2 * hits[name] / max(1, counts[name] + guessed[name]) for name in names}
    present = sorted((name for name in names if counts[name]), key=lambda name: f1[name])
    worst = tuple(ClassScore(name, f1[name], round(counts[name] / rows.seeds)) for name in present[:_WORST])
    return Detail("F1", (), worst, _hardest(rows, wrong[pair]), len(names))


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


def _hardest(rows: Guesses, wrong: np.ndarray) -> tuple[HardClip, ...]:
    """Return the clips that are most often wrong; `wrong` `(rows,)` says by how much each row is."""
    names, codes = rows.ids.values, rows.ids.codes
    shares = (np.bincount(codes, wrong, len(names)) / np.bincount(codes, minlength=len(names))).tolist()
    hardest = sorted(np.flatnonzero(shares).tolist(), key=lambda clip: (-shares[clip], names[clip]))[:_CLIPS]
    clips = []
    for clip in hardest:
        at = np.flatnonzero(codes == clip)
        truth = rows.truths.values[int(rows.truths.codes[at[0]])]
        guesses = [_labels(rows.predictions.values[code]) for code in rows.predictions.codes[at].tolist()]
        commonest = max(sorted(set(guesses)), key=guesses.count)
        clips.append(HardClip(names[clip], shares[clip], _labels(truth), commonest))
    return tuple(clips)


def _distance(truth: Set[str], prediction: Set[str]) -> float:
    """Return the share of all labels, true or predicted, that are not both (Jaccard distance)."""
    union = truth | prediction
    return 1 - len(truth & prediction) / len(union) if union else 0.0


def _labels(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
