"""Manifests of Lhotse: cuts, or supervisions with their recordings, one JSON object per line.

A cut becomes a row with its recording's file, its stretch, what its supervision says (text, speaker, language, gender)
and the fields of both `custom` objects. https://lhotse.readthedocs.io/en/latest/cuts.html
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from uwbench.errors import InputError
from uwbench.options import TaskSpec
from uwbench.sources.rows import Row, rows_of

AUDIO = "audio"  # the column that holds a cut's file
_SAME_S = 1e-6  # a cut as long as its recording, but for rounding, is all of it
_OF_SUPERVISION = ("text", "speaker", "language", "gender")
_FLATTEN = "cut the recordings at their supervisions: cuts.trim_to_supervisions()"
_SAVE = "write the audio with cuts.save_audios() first"
Record = Mapping[str, Any]


def holds_cuts(first: Record) -> bool:
    """Return True if a manifest's first row is a cut."""
    return "supervisions" in first or str(first.get("type", "")).endswith("Cut")


def holds_supervisions(first: Record) -> bool:
    """Return True if a manifest's first row is a supervision, whose recording is in another file."""
    return {"id", "recording_id", "start", "duration"} <= first.keys()


def recordings_of(supervisions: Path) -> Path:
    """Return the manifest of recordings beside one of supervisions; raise InputError if there is none."""
    path = supervisions.with_name(supervisions.name.replace("supervisions", "recordings"))
    if path == supervisions or not path.is_file():
        remedy = f"put {path.name} beside it" if path != supervisions else "write cuts with lhotse cut simple"
        raise InputError("holds supervisions, and their recordings are missing", where=supervisions, remedy=remedy)
    return path


def cut_rows(path: Path, spec: TaskSpec, notes: list[str]) -> Iterator[Row]:
    """Yield one row per cut; raise InputError, with the line, for one that is not a stretch of one file."""
    yield from _with_all_columns([_cut_row(row, row.values, spec) for row in rows_of(path, notes)], notes, path)


def supervision_rows(path: Path, spec: TaskSpec, notes: list[str]) -> Iterator[Row]:
    """Yield one row per supervision, from its manifest and that of the recordings beside it."""
    recordings = recordings_of(path)
    recording_of = {row.required("id"): row.values for row in rows_of(recordings, notes)}
    rows = []
    for row in rows_of(path, notes):
        recording = recording_of.get(row.required("recording_id"))
        if recording is None:
            raise row.error("recording_id", f"{row.cell('recording_id')!r} is not in {recordings.name}")
        stretch = {name: row.values.get(name) for name in ("id", "start", "duration", "channel")}
        supervision = {**row.values, "start": 0}
        rows.append(_cut_row(row, {**stretch, "recording": recording, "supervisions": [supervision]}, spec))
    yield from _with_all_columns(rows, notes, path)


def _with_all_columns(rows: list[tuple[Row, bool]], notes: list[str], path: Path) -> Iterator[Row]:
    """Yield the rows with the columns of all of them, since the first may lack what others have."""
    columns = dict.fromkeys(name for row, _ in rows for name in row.values)
    resampled = sum(changed for _, changed in rows)
    if resampled:
        notes.append(f"{path.name}: {resampled} cuts are resampled by Lhotse; here the recordings are read as they are")
    for row, _ in rows:
        yield Row({**columns, **row.values}, row.where, row.line)


def _cut_row(row: Row, cut: Record, spec: TaskSpec) -> tuple[Row, bool]:
    """Return the row of a cut, and whether Lhotse would resample it."""

    def error(what: str, remedy: str | None = None) -> InputError:
        return InputError(f"{row.line}: {what}", where=row.where, remedy=remedy)

    if cut.get("type") not in (None, "MonoCut", "MultiCut"):
        raise error(f"is a {cut['type']}, not a stretch of one recording", _SAVE)
    recording = cut.get("recording")
    if not isinstance(recording, Mapping):
        raise error("has no recording", "make the cuts from recordings, not from features alone")
    source, resampled = _source(recording, cut, error)
    start, duration = (_seconds(cut.get(name), name, error) for name in ("start", "duration"))
    length = _number(recording.get("duration"))
    whole = length is not None and start < _SAME_S and abs(duration - length) < _SAME_S
    stretch = {"start": None, "duration": None} if whole else {"start": start, "duration": duration}
    supervisions = cut.get("supervisions") or []
    if not isinstance(supervisions, list) or not all(isinstance(item, Mapping) for item in supervisions):
        raise error("its supervisions are not a list of objects")
    return Row(
        {AUDIO: source, **stretch, **_labels(cut, supervisions, duration, spec, error)}, row.where, row.line
    ), resampled


def _source(recording: Record, cut: Record, error: Callable[..., InputError]) -> tuple[str, bool]:
    """Return the file of a recording, and whether Lhotse would resample it; raise if it is not one plain file."""
    sources = recording.get("sources")
    sources = sources if isinstance(sources, list) else []
    kinds = {str(source.get("type")) if isinstance(source, Mapping) else "nothing" for source in sources}
    if len(sources) != 1 or kinds != {"file"} or not isinstance(sources[0].get("source"), str):
        what = " and ".join(sorted(kinds)) if kinds - {"file"} else f"{len(sources)} files"
        raise error(f"its recording is not one file ({what})", _SAVE)
    transforms = recording.get("transforms") or []
    transforms = transforms if isinstance(transforms, list) else [transforms]
    names = [item.get("name") if isinstance(item, Mapping) else None for item in transforms if item]
    if any(name != "Resample" for name in names):
        raise error(f"its recording is changed by Lhotse ({', '.join(map(str, names))})", _SAVE)
    channels = recording.get("channel_ids") or sources[0].get("channels") or [0]
    chosen = cut.get("channel", channels)
    chosen = chosen if isinstance(chosen, list) else [chosen]
    if not isinstance(channels, list) or sorted(map(str, chosen)) != sorted(map(str, channels)):
        what = f"uses channel {', '.join(map(str, chosen))} of {len(channels) if isinstance(channels, list) else '?'}"
        raise error(f"{what}, and channels are averaged here", _SAVE)
    return sources[0]["source"], bool(names)


def _seconds(value: Any, name: str, error: Callable[..., InputError]) -> float:
    number = _number(value)
    if number is None or number < 0:
        raise error(f"its {name}, {value!r}, is not a number of seconds")
    return number


def _number(value: Any) -> float | None:
    """Return a finite number, or None for anything else."""
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
    except OverflowError:  # an integer of hundreds of digits
        return None
    return number if math.isfinite(number) else None


def _labels(
    cut: Record, supervisions: list[Record], duration: float, spec: TaskSpec, error: Callable[..., InputError]
) -> dict[str, Any]:
    """Return what a cut's supervisions and custom fields say, by column."""
    fields = [_fields(supervision) for supervision in supervisions]
    labels: dict[str, Any] = {}
    for name in dict.fromkeys(name for values in fields for name in values):
        values = [values.get(name) for values in fields]
        distinct = [value for number, value in enumerate(values) if value not in values[:number]]
        if name == spec.label and spec.kind == "frame-multi-label":
            labels[name] = list(_events(supervisions, values, duration, error))
        elif name == spec.label and spec.kind == "multi-label":
            labels[name] = [item for value in distinct for item in (value if isinstance(value, list) else [value])]
        elif len(distinct) == 1:
            labels[name] = distinct[0]
        elif name in (spec.label, spec.group) or (name == "text" and spec.kind == "transcription"):
            raise error(f"its {len(values)} supervisions differ in {name!r}", _FLATTEN)
    custom = cut.get("custom")
    labels |= {name: value for name, value in _items(custom) if name not in labels}
    return labels


def _fields(supervision: Record) -> dict[str, Any]:
    fields = {name: supervision[name] for name in _OF_SUPERVISION if supervision.get(name) is not None}
    return {**dict(_items(supervision.get("custom"))), **fields}


def _items(custom: Any) -> Iterator[tuple[str, Any]]:
    """Yield the custom fields that do not hide what a row must say of its audio."""
    for name, value in custom.items() if isinstance(custom, Mapping) else ():
        if name not in (AUDIO, "start", "end", "duration", "offset"):
            yield name, value


def _events(
    supervisions: list[Record], values: list[Any], duration: float, error: Callable[..., InputError]
) -> Iterator[dict[str, Any]]:
    """Yield the supervisions that have a label as events within the cut, in seconds from its start."""
    for supervision, value in zip(supervisions, values, strict=True):
        start = _number(supervision.get("start"))
        if start is None:
            raise error(f"the start of a supervision, {supervision.get('start')!r}, is not a number of seconds")
        end = min(start + _seconds(supervision.get("duration"), "supervision's duration", error), duration)
        if value is not None and end > max(0.0, start):
            yield {"onset": max(0.0, start), "offset": end, "label": value}
