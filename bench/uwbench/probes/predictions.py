"""The table of predictions: one row per method, seed, fold and clip. Every main metric can be recomputed from it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from uwbench.probes.data import TaskData
from uwbench.probes.kinds.base import Predicted

if TYPE_CHECKING:
    import pyarrow as pa


def prediction_rows(
    data: TaskData,
    method: str,
    seed: int,
    fold: str | None,
    clips: np.ndarray,
    truths: Sequence[str],
    predicted: Predicted,
) -> pa.Table:
    """Return the rows of one method under one seed on test clips of one fold; `clips` are their rows in the data."""
    import pyarrow as pa

    count = len(clips)

    def text(values: Sequence[str | None]) -> pa.Array:
        return pa.array(values, pa.string())

    return pa.table(
        {
            "method": text([method] * count),
            "seed": pa.array(np.full(count, seed, np.int32)),
            "fold": text([fold] * count),
            "id": text([str(data.ids[row]) for row in clips]),
            "group": text([data.groups[row] for row in clips]),
            "truth": text(truths),
            "prediction": text(predicted.texts),
            "scores": _lists(predicted.scores, count),
            "counts": _lists(predicted.counts, count),
        }
    )


def pair_rows(
    data: TaskData,
    method: str,
    fold: str | None,
    first: np.ndarray,
    second: np.ndarray,
    target: np.ndarray,
    similarity: np.ndarray,
    threshold: float,
) -> pa.Table:
    """Return one row per pair of clips: ids and groups as JSON lists of two, truth and prediction as JSON booleans.

    `first` and `second` are rows in the data. `counts` holds the similarity, or several, `(pairs, K)`, of which the
    first decides. A clip without a group is its own.
    """
    import pyarrow as pa

    def text(values: Sequence[str | None]) -> pa.Array:
        return pa.array(values, pa.string())

    def both(names: Sequence[str]) -> list[str]:
        return [json.dumps([names[a], names[b]], ensure_ascii=False) for a, b in zip(first, second, strict=True)]

    ids = [str(name) for name in data.ids]
    groups = [
        f"group {group}" if group is not None else f"clip {name}" for group, name in zip(data.groups, ids, strict=True)
    ]
    count = len(first)
    similarities = similarity.reshape(count, -1)
    return pa.table(
        {
            "method": text([method] * count),
            "seed": pa.array(np.zeros(count, np.int32)),
            "fold": text([fold] * count),
            "id": text(both(ids)),
            "group": text(both(groups)),
            "truth": text([json.dumps(bool(value)) for value in target]),
            "prediction": text([json.dumps(bool(value)) for value in similarities[:, 0] >= threshold]),
            "scores": _lists(None, count),
            "counts": _lists(similarities, count),
        }
    )


def experiment_rows(method: str, values: Sequence[float]) -> pa.Table:
    """Return one row per experiment whose predictions are no clips': its value is the item, as one block is."""
    import pyarrow as pa

    count = len(values)
    figures = np.stack([values, np.ones(count), np.arange(count)], axis=1)
    return pa.table(
        {
            "method": pa.array([method] * count, pa.string()),
            "seed": pa.array(np.zeros(count, np.int32)),
            "fold": pa.nulls(count, pa.string()),
            "id": pa.array([f"experiment {index:02d}" for index in range(count)], pa.string()),
            "group": pa.nulls(count, pa.string()),
            "truth": pa.array([""] * count, pa.string()),
            "prediction": pa.array([""] * count, pa.string()),
            "scores": _lists(None, count),
            "counts": _lists(figures, count),
        }
    )


def join_rows(tables: Sequence[pa.Table], classes: Sequence[str]) -> pa.Table:
    """Return all rows as one table, sorted by method, seed, fold and clip, with the class names in its metadata."""
    import pyarrow as pa

    keys = [(name, "ascending") for name in ("method", "seed", "fold", "id")]
    joined = pa.concat_tables(tables).sort_by(keys).combine_chunks()
    return joined.replace_schema_metadata({"classes": json.dumps(list(classes), ensure_ascii=False)})


def prediction_differences(before: pa.Table, after: pa.Table) -> list[str]:
    """Return a line for each method and column in which two tables of predictions differ, with the first clip.

    Numbers may differ by 1e-6, which is what another order of summation in float32 does.
    """
    lines = []
    for method in sorted({*before["method"].to_pylist(), *after["method"].to_pylist()}):
        old, new = (_of_method(table, method) for table in (before, after))
        if not old.select(_ITEM).equals(new.select(_ITEM)):
            lines.append(f"{method}: the predictions on record are of other clips, folds or seeds")
            continue
        for column in ("group", "truth", "prediction", "scores", "counts"):
            if old[column].equals(new[column]):
                continue
            pairs = list(zip(old[column].to_pylist(), new[column].to_pylist(), strict=True))
            wrong = [row for row, (was, now) in enumerate(pairs) if not _agree(was, now)]
            if wrong:
                first = f"{old['id'][wrong[0]].as_py()}, seed {old['seed'][wrong[0]].as_py()}"
                was, now = pairs[wrong[0]]
                count = f"{len(wrong)} of {len(pairs)} predictions differ in their {column}"
                lines.append(f"{method}: {count}, first {first}: {was!r} was recorded, {now!r} came out")
    return lines


_ITEM = ["seed", "fold", "id"]  # what a method's rows are sorted and told apart by


def _of_method(table: pa.Table, method: str) -> pa.Table:
    import pyarrow.compute as pc

    return table.filter(pc.field("method") == method).sort_by([(name, "ascending") for name in _ITEM]).combine_chunks()


def _agree(was: object, now: object) -> bool:
    if isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        return bool(np.allclose(was, now, rtol=1e-6, atol=1e-6))
    return was == now


def _lists(values: np.ndarray | None, count: int) -> pa.Array:
    import pyarrow as pa

    kind = pa.list_(pa.float32())
    if values is None:
        return pa.nulls(count, kind)
    flat = pa.array(np.ascontiguousarray(values, dtype=np.float32).ravel())
    offsets = pa.array(np.arange(0, values.size + 1, values.shape[1], dtype=np.int32))
    return pa.ListArray.from_arrays(offsets, flat)
