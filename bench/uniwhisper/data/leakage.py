"""The gate between training rows and the benchmark's test clips.

A row is a leak where its clip was made from the same encoded bytes and stretch as a test clip (the benchmark's key),
where its samples at 16 kHz are a test clip's (content), or where its publisher's id is that of a test clip's recording
(source; only between datasets that the mixture says share a source, as ids of different publishers may coincide).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

import numpy as np

from uniwhisper.data.examples import SAMPLE_RATE
from uniwhisper.data.mixture import Mixture
from uniwhisper.data.rows import RowTable
from uniwhisper.data.shards import content_hash
from uwbench.api import (
    AudioBytes,
    AudioError,
    AudioFile,
    AudioMember,
    Clip,
    InputError,
    UsageError,
    clip_key,
    decode,
    load_task,
    read_bytes,
    sha256_bytes,
)

if TYPE_CHECKING:
    import pyarrow as pa

How = Literal["key", "content", "source"]
_THREADS = 2
_NAMED = 5


@dataclass(frozen=True)
class TestSet:
    """The clips a task is scored on: maps from the benchmark's key, the content's hash and a source id to a clip's id.

    `unread` clips could not be decoded: of these only the key is known, or nothing.
    """

    __test__ = False  # no test case, whatever pytest thinks of the name

    task: str
    keys: dict[bytes, str] = field(default_factory=dict)
    contents: dict[bytes, str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    unread: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Leak:
    """A training row that a test set holds: the row's number, its dataset, the task, the test clip, how it was told."""

    row: int
    dataset: str
    task: str
    clip: str
    how: How


def open_test_set(spec: str, *, data: Path | None = None) -> TestSet:
    """Return the test clips that `TASK`, `TASK:PARTS` or a clip table of a cache (`clips/NAME.parquet`) names.

    A task is what `uwbench` takes: a card's name, a manifest or a folder. PARTS are splits or folds, with commas; by
    default the split `test`, or every fold. Raises UsageError where a part holds no clip.
    """
    if spec.endswith(".parquet") and Path(spec).is_file():
        return _of_table(Path(spec))
    task, _, parts = (spec, "", "") if Path(spec).exists() else spec.rpartition(":") if ":" in spec else (spec, "", "")
    dataset = load_task(task, data=data)
    wanted = {part.strip() for part in parts.split(",") if part.strip()}
    clips = [clip for clip in dataset.clips if (_place(clip) in wanted if wanted else clip.split in (None, "test"))]
    if not clips:
        raise UsageError(f"has no clips in {parts or 'test'}", where=task)
    with ThreadPoolExecutor(_THREADS) as pool:
        hashes = list(pool.map(_hashes, clips))
    named = list(zip(clips, hashes, strict=True))
    return TestSet(
        task=dataset.card.name,
        keys={key: clip.id for clip, (key, _) in named if key is not None},
        contents={content: clip.id for clip, (_, content) in named if content is not None},
        sources={name: clip.id for clip in clips for name in _source_names(clip.id, clip.group)},
        unread=tuple(clip.id for clip, (_, content) in named if content is None),
    )


def _place(clip: Clip) -> str:
    return clip.split or clip.fold or ""


def _hashes(clip: Clip) -> tuple[bytes | None, bytes | None]:
    """Return a clip's key and content hash; None for what cannot be computed."""
    try:
        data = read_bytes(clip.audio)
    except AudioError:
        return None, None
    key = clip_key(sha256_bytes(data), clip.start_s, clip.end_s)
    encoded = isinstance(clip.audio, AudioFile | AudioMember | AudioBytes)
    audio = AudioBytes(data, str(clip.audio)) if encoded else clip.audio
    try:
        samples = decode(audio, SAMPLE_RATE, start_s=clip.start_s, end_s=clip.end_s)
    except AudioError:
        return key, None
    return key, bytes.fromhex(content_hash(samples))


def _source_names(clip: str, group: str | None) -> set[str]:
    """Return what a publisher may call a recording: the clip's file name without folder and suffix, and its group."""
    name = PurePosixPath(clip).name
    return {name, PurePosixPath(name).stem} | ({group} if group else set())


def _of_table(path: Path) -> TestSet:
    import pyarrow.parquet

    try:
        columns = pyarrow.parquet.read_table(
            pyarrow.BufferReader(path.read_bytes()), columns=["id", "key", "split", "group"]
        ).to_pydict()
    except (OSError, pyarrow.ArrowException, KeyError) as error:
        raise InputError(f"is no clip table ({' '.join(str(error).split())})", where=path) from error
    rows = zip(columns["id"], columns["key"], columns["split"], columns["group"], strict=True)
    tested = [(clip, key, group) for clip, key, split, group in rows if split in (None, "test")]
    return TestSet(
        task=path.stem.rpartition("-")[0] or path.stem,
        keys={key: clip for clip, key, _ in tested},
        sources={name: clip for clip, _, group in tested for name in _source_names(clip, group)},
        unread=tuple(clip for clip, _, _ in tested),
    )


def find_leaks(table: RowTable, tests: Iterable[TestSet], mixture: Mixture | None = None) -> list[Leak]:
    """Return every leak, each row once for each task, by the surest sign: key, then content, then source.

    Without a mixture, source ids are compared between all datasets and tasks.
    """
    dataset, names = table.codes("dataset")
    related = (
        {entry.name: {*entry.overlaps, *entry.shares_source, entry.name} for entry in mixture.datasets}
        if mixture
        else {}
    )
    found: dict[tuple[str, int], Leak] = {}
    for test in tests:
        signs: tuple[tuple[How, str, dict], ...] = (
            ("key", "key", test.keys),
            ("content", "content", test.contents),
            ("source", "source", test.sources),
        )
        for how, column, known in signs:
            for row, clip in _matches(table.column(column), known):
                name = names[dataset[row]]
                if how == "source" and mixture is not None and test.task not in related.get(name, {name}):
                    continue
                found.setdefault((test.task, row), Leak(row, name, test.task, clip, how))
    return sorted(found.values(), key=lambda leak: (leak.task, leak.row))


def _matches(column: pa.ChunkedArray, known: dict) -> Iterator[tuple[int, str]]:
    """Yield the row and the clip where a column's value is known; the column is never held as Python values."""
    import pyarrow as pa
    import pyarrow.compute

    if not known:
        return
    values = pa.array(list(known), type=column.type)
    options = pyarrow.compute.SetLookupOptions(values, skip_nulls=True)
    places = pyarrow.compute.call_function("index_in", [column], options)
    clips = list(known.values())
    for row in np.flatnonzero(places.is_valid().to_numpy()).tolist():
        yield row, clips[places[row].as_py()]


def check_leaks(
    table: RowTable, specs: Sequence[str], mixture: Mixture | None, *, data: Path | None = None, drop: bool = False
) -> np.ndarray:
    """Return which rows `(rows,)` not to use, after a table of the leaks on stderr.

    Raises InputError where there are leaks and they are not to be dropped.
    """
    tests = [open_test_set(spec, data=data) for spec in specs]
    leaks = find_leaks(table, tests, mixture)
    for line in leak_table(leaks, tests):
        print(line, file=sys.stderr)
    if leaks and not drop:
        raise InputError(
            f"{len({leak.row for leak in leaks})} rows are of the benchmark's test clips",
            where=", ".join(sorted({leak.dataset for leak in leaks})),
            remedy="convert the training split only, or leave them out with --drop-leaks",
        )
    without = np.zeros(len(table), bool)
    without[[leak.row for leak in leaks]] = True
    return without


def leak_table(leaks: Sequence[Leak], tests: Sequence[TestSet]) -> list[str]:
    """Return lines for a terminal: a task each, and a line for each dataset that leaks into it."""
    lines = []
    for test in tests:
        own = [leak for leak in leaks if leak.task == test.task]
        known = len(test.keys) or len(test.contents)
        unread = f", {len(test.unread)} compared by bytes and ids only" if test.unread else ""
        lines.append(f"{test.task:<20} {known} test clips{unread}: {len(own)} rows leak")
        for name in sorted({leak.dataset for leak in own}):
            rows = [leak for leak in own if leak.dataset == name]
            counts = {how: sum(leak.how == how for leak in rows) for how in ("key", "content", "source")}
            told = ", ".join(f"{count} by {how}" for how, count in counts.items() if count)
            clips = sorted({leak.clip for leak in rows})
            more = "" if len(clips) <= _NAMED else f" and {len(clips) - _NAMED} more"
            lines.append(f"  {name:<18} {told}: {', '.join(clips[:_NAMED])}{more}")
    return lines
