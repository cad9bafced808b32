"""Own data in a pandas DataFrame: one row per clip, with the columns of a manifest and audio in any form.

The column `audio`, or else `path`, has file names, the bytes of encoded files, or arrays `(samples,)`, floats from -1
to 1 or int16, whose rate in Hz is in the column `rate`. Paths may lead anywhere; relative ones start at the current
folder. The other columns, their checks and their errors are those of a manifest (see `uwbench.sources.table`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from uwbench.audio.clip import Audio, AudioArray, AudioBytes, AudioFile
from uwbench.errors import InputError
from uwbench.options import TaskSpec
from uwbench.sources.dataset import Dataset
from uwbench.sources.own_card import task_name
from uwbench.sources.rows import Row
from uwbench.sources.table import Names, columns_of, make_dataset, read_rows

if TYPE_CHECKING:
    import pandas as pd

WHERE = "DataFrame"


def open_frame(frame: pd.DataFrame, spec: TaskSpec, *, rate: int | None = None) -> Dataset:
    """Read a DataFrame as a task, which is called own-data unless `spec` names it.

    `rate`, in Hz, is for arrays without a column `rate`. A clip's id is its path; clips in memory have that in the
    column `id`, or else their place in the frame's index. Raises InputError with the row and the column.
    """
    if not frame.columns.is_unique:
        raise InputError(f"has two columns {frame.columns[frame.columns.duplicated()][0]!r}", where=WHERE)
    audio_column = spec.path or ("audio" if "audio" in frame.columns else "path")
    names = Names(columns_of(spec), audio_column)

    def audio_of(row: Row) -> tuple[str, Audio]:
        return _audio(row, names.of(row.values)["path"], rate)

    reading = read_rows(_rows(frame, audio_column), names, WHERE, audio_of)
    name = task_name(spec.name or "own-data", Path())
    return make_dataset(reading, spec, name=name, where=WHERE, source=f"{WHERE} of {len(frame)} rows")


def _rows(frame: pd.DataFrame, audio_column: str) -> Iterator[Row]:
    """Yield the rows; each is called by its label in the index, as pandas shows it."""
    ids = frame.index if frame.index.is_unique else range(len(frame))
    cells = frame.astype(object).where(frame.notna(), None)  # every missing value becomes None
    for label, number, values in zip(frame.index.tolist(), ids, cells.to_dict("records"), strict=True):
        row: dict[str, Any] = {"id": str(number)}
        for key, value in values.items():  # an array of labels becomes the list that a manifest has
            is_labels = isinstance(value, np.ndarray) and key not in (audio_column, "audio", "path")
            row[str(key)] = value.tolist() if is_labels else value
        yield Row(row, WHERE, f"row {label!r}")


def _audio(row: Row, column: str, rate: int | None) -> tuple[str, Audio]:
    """Return the id and the audio of a row."""
    value = row.values[column]
    if isinstance(value, str | Path):
        if "\0" in str(value):
            raise row.error(column, "contains a null byte")
        return row.required(column), AudioFile(Path(value).expanduser())
    name = row.required("id")
    if isinstance(value, bytes) and value:
        return name, AudioBytes(value, f"{WHERE} {row.line}")
    if not isinstance(value, np.ndarray):
        raise row.error(column, "is empty" if value in (None, b"") else f"is a {type(value).__name__}, not {_FORMS}")
    return name, AudioArray(_samples(row, column, value), _rate(row, rate), f"{WHERE} {row.line}")


_FORMS = "a path, bytes or a numpy array"


def _samples(row: Row, column: str, array: np.ndarray) -> np.ndarray:
    """Return an array as float32 samples."""
    if array.ndim != 1 or not array.size:
        remedy = "give one channel, for example the mean of the channels"
        raise row.error(column, f"has the shape {array.shape}, not (samples,)", remedy)
    if array.dtype == np.int16:
        return array.astype(np.float32) / 32768
    if not np.issubdtype(array.dtype, np.floating):
        raise row.error(column, f"has the type {array.dtype}, not float or int16", "scale it to floats from -1 to 1")
    if not np.isfinite(array).all():
        raise row.error(column, "holds values that are not finite")
    return array.astype(np.float32)


def _rate(row: Row, rate: int | None) -> int:
    """Return the sample rate of a row's array: its own, else `rate`."""
    value = row.seconds("rate") if row.values.get("rate") is not None else rate
    if value is None:
        raise row.error("rate", "is missing, and an array has no rate of its own", "add the column, or give rate=")
    if value < 1 or value != int(value):
        raise row.error("rate", f"{value!r} is not a sample rate in Hz")
    return int(value)
