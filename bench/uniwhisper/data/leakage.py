"""Find training rows that are test clips of the benchmark.

A row leaks if its clip has the same encoded bytes and time range as a test clip (key), the same samples at 16 kHz
(content), or the publisher's id of a test clip's recording (source). Ids of different publishers may coincide, so
sources are compared only between datasets that share one according to the mixture.
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
    decode,
    load_task,
    read_bytes,
)
from uwbench.base.hashing import clip_key, sha256_bytes

if TYPE_CHECKING:
    import pyarrow as pa

How = Literal["key", "content", "source"]
_THREADS = 2
_NAMED = 5


@dataclass(frozen=True)
class TestSet:
    """A task's test clips: clip ids by the benchmark's key, by content hash and by source id.

    `unread` clips could not be decoded: at most their key is known.
    """

    __test__ = False  # keeps pytest from collecting it

    task: str
    keys: dict[bytes, str] = field(default_factory=dict)
    contents: dict[bytes, str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    unread: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Leak:
    """A training row that is a test clip: the row's number, its dataset, the task, the test clip, the kind of match."""

    row: int
    dataset: str
    task: str
    clip: str
    how: How


def open_test_set(spec: str, *, data: Path | None = None, allow_outside: bool = False) -> TestSet:
    """Return the test clips named by `TASK`, `TASK:PARTS` or a cache's clip table (`clips/NAME.parquet`).

    TASK is a card's name, a manifest or a folder, as for `uwbench`. PARTS are comma-separated splits or folds; the
    default is the split `test`, or every fold. With `allow_outside`, a manifest's paths may leave its folder. Raises
    UsageError if the parts hold no clip.
    """
    if spec.endswith(".parquet") and Path(spec).is_file():
        return _of_table(Path(spec))
    task, parts = _task_and_parts(spec)
    dataset = load_task(task, data=data, allow_outside=allow_outside)
    if parts:
        clips = [clip for clip in dataset.clips if (clip.split or clip.fold) in parts]
    else:
        clips = [clip for clip in dataset.clips if clip.split in (None, "test")]
    if not clips:
        raise UsageError(f"has no clips in {', '.join(sorted(parts)) or 'test'}", where=task)
    with ThreadPoolExecutor(_THREADS) as pool:
        hashes = list(pool.map(_hashes, clips))
    unread = tuple(clip.id for clip, (_, content) in zip(clips, hashes, strict=True) if content is None)
    test = TestSet(dataset.card.name, unread=unread)
    for clip, (key, content) in zip(clips, hashes, strict=True):
        if key is not None:
            test.keys[key] = clip.id
        if content is not None:
            test.contents[content] = clip.id
        test.sources.update(dict.fromkeys(_source_names(clip.id, clip.group), clip.id))
    return test


def _task_and_parts(spec: str) -> tuple[str, set[str]]:
    """Return the task and the splits or folds of `TASK` or `TASK:PART,PART`; an existing path is a task as it is."""
    if Path(spec).exists() or ":" not in spec:
        return spec, set()
    task, _, parts = spec.rpartition(":")
    return task, {part.strip() for part in parts.split(",") if part.strip()}


def _hashes(clip: Clip) -> tuple[bytes | None, bytes | None]:
    """Return a clip's key and content hash, None for one that cannot be computed."""
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
    """Return a recording's possible names: the clip's file name with and without suffix, and its group."""
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
    """Return all leaks, each row once per task, with the strongest kind of match: key, then content, then source.

    Without a mixture, source ids are compared between all datasets and tasks.
    """
    dataset, names = table.codes("dataset")
    related = (
        {entry.name: {*entry.overlaps, *entry.shares_source, entry.name} for entry in mixture.datasets}
        if mixture
        else {}
    )
    leaks: dict[tuple[str, int], Leak] = {}
    for test in tests:
        # Each kind of match compares the column of its name.
        kinds: tuple[tuple[How, dict], ...] = (("key", test.keys), ("content", test.contents), ("source", test.sources))
        for how, known in kinds:
            for row, clip in _matches(table.column(how), known):
                name = names[dataset[row]]
                if how == "source" and mixture is not None and test.task not in related.get(name, {name}):
                    continue
                leaks.setdefault((test.task, row), Leak(row, name, test.task, clip, how))
    return sorted(leaks.values(), key=lambda leak: (leak.task, leak.row))


def _matches(column: pa.ChunkedArray, known: dict) -> Iterator[tuple[int, str]]:
    """Yield row and clip for each known value of a column, without turning the column into Python values."""
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
    """Print a table of leaks to stderr and return a mask `(rows,)` of the rows to leave out.

    Raises InputError if there are leaks, unless `drop` is set.
    """
    tests = [open_test_set(spec, data=data) for spec in specs]
    leaks = find_leaks(table, tests, mixture)
    for line in leak_table(leaks, tests):
        print(line, file=sys.stderr)
    if leaks and not drop:
        raise InputError(
            f"{len({leak.row for leak in leaks})} rows are test clips of the benchmark",
            where=", ".join(sorted({leak.dataset for leak in leaks})),
            remedy="convert the training split only, or drop these rows with --drop-leaks",
        )
    leaking = np.zeros(len(table), bool)
    leaking[[leak.row for leak in leaks]] = True
    return leaking


def leak_table(leaks: Sequence[Leak], tests: Sequence[TestSet]) -> list[str]:
    """Return lines for a terminal: one per task, and below it one per leaking dataset."""
    lines = []
    for test in tests:
        of_task = [leak for leak in leaks if leak.task == test.task]
        count = len(test.keys) or len(test.contents)
        unread = f", {len(test.unread)} compared by bytes and ids only" if test.unread else ""
        lines.append(f"{test.task:<20} {count} test clips{unread}: {len(of_task)} rows leak")
        for name in sorted({leak.dataset for leak in of_task}):
            rows = [leak for leak in of_task if leak.dataset == name]
            counts = {how: sum(leak.how == how for leak in rows) for how in ("key", "content", "source")}
            matches = ", ".join(f"{number} by {how}" for how, number in counts.items() if number)
            clips = sorted({leak.clip for leak in rows})
            more = "" if len(clips) <= _NAMED else f" and {len(clips) - _NAMED} more"
            lines.append(f"  {name:<18} {matches}: {', '.join(clips[:_NAMED])}{more}")
    return lines
