"""The table of predictions: one row per method, seed, fold and clip. Every main metric can be recomputed from it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from uwbench.probes.data import TaskData
from uwbench.probes.kinds.base import Predicted
from uwbench.probes.splits import Fold

if TYPE_CHECKING:
    import pyarrow as pa


def prediction_rows(
    data: TaskData, method: str, seed: int, fold: Fold, truths: Sequence[str], predicted: Predicted
) -> pa.Table:
    """Return the rows of one method under one seed on one fold's test clips."""
    import pyarrow as pa

    count = len(fold.test)

    def text(values: Sequence[str | None]) -> pa.Array:
        return pa.array(values, pa.string())

    return pa.table(
        {
            "method": text([method] * count),
            "seed": pa.array(np.full(count, seed, np.int32)),
            "fold": text([fold.name] * count),
            "id": text([str(data.ids[row]) for row in fold.test]),
            "group": text([data.groups[row] for row in fold.test]),
            "truth": text(truths),
            "prediction": text(predicted.texts),
            "scores": _lists(predicted.scores, count),
            "counts": _lists(predicted.counts, count),
        }
    )


def join_rows(tables: Sequence[pa.Table], classes: Sequence[str]) -> pa.Table:
    """Return all rows as one table, sorted by method, seed, fold and clip, with the class names in its metadata."""
    import pyarrow as pa

    keys = [(name, "ascending") for name in ("method", "seed", "fold", "id")]
    joined = pa.concat_tables(tables).sort_by(keys).combine_chunks()
    return joined.replace_schema_metadata({"classes": json.dumps(list(classes), ensure_ascii=False)})


def _lists(values: np.ndarray | None, count: int) -> pa.Array:
    import pyarrow as pa

    kind = pa.list_(pa.float32())
    if values is None:
        return pa.nulls(count, kind)
    flat = pa.array(np.ascontiguousarray(values, dtype=np.float32).ravel())
    offsets = pa.array(np.arange(0, values.size + 1, values.shape[1], dtype=np.int32))
    return pa.ListArray.from_arrays(offsets, flat)
