"""From ready vectors to parts in the cache: each clip of a task finds its row by id or path."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from uwbench.audio.clip import AudioFile, Clip
from uwbench.cache.parts import PooledRows
from uwbench.encoders.vector_files import VectorFile
from uwbench.encoders.vectors import ReadyVectors
from uwbench.errors import EncoderError
from uwbench.extraction.extract import Extraction
from uwbench.extraction.plan import Plan
from uwbench.extraction.task import Task
from uwbench.sources.dataset import AUDIO_SUFFIXES


@dataclass(frozen=True, slots=True)
class Match:
    """For each clip of a task, its row in the file, -1 without one; `by` says what the two have in common."""

    rows: np.ndarray
    by: str
    candidates: int  # rows that may belong to the task


def import_vectors(plan: Plan, model: ReadyVectors, note: Callable[[str], None]) -> Extraction:
    """Write the vectors that `plan` lacks into the cache, and note how many clips were matched and by what.

    Clips without a row stay missing. Raises EncoderError if no clip is matched, or if two rows fit one clip.
    """
    started = time.perf_counter()
    task, store, name = plan.task, plan.store, plan.task.card.name
    match = match_rows(task, model.file)
    note(_summary(match, model.info.name, name))
    store.create()
    layers = [model.info.layers.index(layer) for layer in store.record.layers]
    imported = 0
    for part in plan.parts:
        clips = [row for row in part.rows if match.rows[row] >= 0]
        if not clips:
            continue
        vectors = model.file.vectors[match.rows[clips]][:, layers]
        ones = np.ones(len(clips), np.int32)
        keys = [task.table.keys[row] for row in clips]
        rows = PooledRows(keys, dict.fromkeys(store.record.poolings, vectors), ones, ones)
        with store.claim(name, part.name, wait=True):
            store.enter(name, plan.table_name, [store.write_part(name, part.name, rows)])
        imported += len(clips)
    return Extraction(imported, 0.0, time.perf_counter() - started, 0, ())


def match_rows(task: Task, file: VectorFile) -> Match:
    """Match the rows of a file to the clips of a task by what matches the most clips.

    Tried in this order: ids, paths, ids without the ending of an audio file, and the last three, two or one parts of
    the path without it. One of them holds for all clips. Raises EncoderError if none matches, or if two rows or two
    clips cannot be told apart.
    """
    name = task.card.name
    candidates = range(len(file.ids))
    if file.tasks is not None:
        candidates = [row for row in candidates if file.tasks[row] == name]
        if not candidates:
            tasks = ", ".join(sorted(set(file.tasks))[:5])
            raise EncoderError(f"has no row for the task {name}, only for {tasks}", where=file.path)
    best: Match | None = None
    conflict: str | None = None
    for by, clip_keys, row_keys in _levels(task.clips, file, candidates):
        clash = _clash(clip_keys, row_keys, task.clips, file, candidates)
        if clash is not None:
            conflict = conflict or f"{clash}, by {by}"
            continue
        row_of = dict(zip(row_keys, candidates, strict=True))
        rows = np.array([row_of.get(key, -1) for key in clip_keys])
        if (rows >= 0).any() and (best is None or (rows >= 0).sum() > (best.rows >= 0).sum()):
            best = Match(rows, by, len(candidates))
        if (rows >= 0).all():
            break
    if best is not None:
        return best
    if conflict is not None:
        remedy = "give the clips' ids, each once; a column 'task' tells the tasks of one file apart"
        raise EncoderError(conflict, where=file.path, remedy=remedy)
    what = f"none of its {len(candidates):,} rows is for a clip of {name}"
    examples = f"a row is {file.ids[candidates[0]]!r}, a clip {task.clips[0].id!r}"
    raise EncoderError(f"{what} ({examples})", where=file.path, remedy="give the clips' ids or paths")


def _levels(
    clips: Sequence[Clip], file: VectorFile, candidates: Sequence[int]
) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield each way to match: its name, the key of each clip and that of each candidate row."""
    ids = [clip.id for clip in clips]
    row_ids = [file.ids[row] for row in candidates]
    paths = [str(clip.audio.path) if isinstance(clip.audio, AudioFile) else clip.id for clip in clips]
    yield "id", ids, row_ids
    absolute = [str(Path(path).resolve()) for path in paths]
    for by, folder in (("path", Path.cwd()), ("path from the file's folder", file.path.parent)):
        yield by, absolute, [str((folder / row_id).resolve()) for row_id in row_ids]
    yield "id without its ending", [_stem(clip_id) for clip_id in ids], [_stem(row_id) for row_id in row_ids]
    for count, by in ((3, "last three parts of the path"), (2, "last two parts of the path"), (1, "file name")):
        yield by, [_end(path, count) for path in paths], [_end(row_id, count) for row_id in row_ids]


def _stem(name: str) -> str:
    path = PurePosixPath(name.replace("\\", "/"))
    return str(path.with_suffix("")) if path.suffix.lower() in AUDIO_SUFFIXES else str(path)


def _end(name: str, count: int) -> str:
    return "/".join(_stem(name).split("/")[-count:])


def _clash(
    clip_keys: Sequence[str],
    row_keys: Sequence[str],
    clips: Sequence[Clip],
    file: VectorFile,
    candidates: Sequence[int],
) -> str | None:
    """Return a sentence on two rows of one clip or two clips of one row; None if there are none."""
    clip_counts, row_counts = Counter(clip_keys), Counter(row_keys)
    for key, count in row_counts.items():
        if key in clip_counts and (count > 1 or clip_counts[key] > 1):
            rows = [file.row(row) for row, row_key in zip(candidates, row_keys, strict=True) if row_key == key]
            ids = [clip.id for clip, clip_key in zip(clips, clip_keys, strict=True) if clip_key == key]
            if count > 1:
                return f"{rows[0]} and {rows[1]} are both for the clip {ids[0]!r}"
            return f"{rows[0]} fits the clips {ids[0]!r} and {ids[1]!r}"
    return None


def _summary(match: Match, model: str, task: str) -> str:
    matched = int((match.rows >= 0).sum())
    missing, spare = len(match.rows) - matched, match.candidates - matched
    text = f"{model}: {matched:,} of {len(match.rows):,} clips of {task} have a vector, matched by {match.by}"
    return (
        text + (f"; {missing:,} are missing" if missing else "") + (f"; {spare:,} rows are for none" if spare else "")
    )
