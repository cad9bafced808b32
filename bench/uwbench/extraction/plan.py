"""The plan of an extraction: which parts are not in the cache yet.

How a task is cut into parts depends on its clips alone: they are ordered by length and cut into numbered parts,
whatever is cached already. So an interrupted run, another process or another machine writes the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from uwbench.audio.corruption import Corruption
from uwbench.base.hashing import digest
from uwbench.cache.clip_table import write_table
from uwbench.cache.records import EncoderRecord
from uwbench.cache.segments import SEGMENTS
from uwbench.cache.store import EncoderStore, open_encoders
from uwbench.extraction.task import Task

# A crash loses at most one part, and machines share work by parts: about 64 per task, within bounds that keep small
# tasks from having one file per clip and large ones from having parts of many gigabytes.
_PARTS = 64
_FEWEST, _MOST = 32, 4096
_PART_BYTES = 128 << 20  # vectors of the part being filled are in memory; only many layers reach this


@dataclass(frozen=True, slots=True)
class PlannedPart:
    """One part to write: its name and the rows of the clip table that go into it, ordered by length."""

    name: str
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """The work that one task needs under one encoder."""

    task: Task
    table_name: str
    store: EncoderStore
    parts: tuple[PlannedPart, ...]
    needs_frames: bool
    cached: int  # clips that have an embedding
    reason: str  # why the others are encoded
    corrupted: tuple[Plan, ...] = ()  # of the same task's tested clips, one plan per corruption
    needs_segments: bool = False

    @property
    def to_encode(self) -> int:
        return sum(len(part.rows) for part in self.parts)

    @property
    def audio_s(self) -> float:
        durations = self.task.table.durations_s
        return sum(durations[row] for part in self.parts for row in part.rows)

    def forecast_bytes(self) -> int:
        """Return the size of the parts on disk, those of corrupted clips too, exact to a percent for pooled vectors."""
        record = self.store.record
        pooled = self.to_encode * (40 + 4 * len(record.layers) * record.dim * len(record.poolings))
        frames = self.audio_s / record.hop_s * record.dim * 2 if self.needs_frames and record.hop_s else 0
        segments = self.to_encode * (40 + 4 * record.width * SEGMENTS) if self.needs_segments else 0
        return int(pooled + frames + segments) + sum(plan.forecast_bytes() for plan in self.corrupted)


def make_plan(
    task: Task,
    record: EncoderRecord,
    cache: Path,
    *,
    corruptions: Sequence[Corruption] = (),
    segments: bool = False,
    force: bool = False,
) -> Plan:
    """Return the parts of `task` that the cache lacks under the encoder, after dropping damaged ones.

    `corruptions` add a plan each for the tested clips. With `segments`, a clip without its pyramid is lacking too. With
    `force`, re-encode everything.
    """
    plan = _plan_clips(task, record, cache, write_table(cache, task.table), segments=segments, force=force)
    corrupted = (task.corrupted(corruption) for corruption in corruptions)
    plans = tuple(_plan_clips(other, record, cache, plan.table_name, force=force) for other in corrupted)
    return replace(plan, corrupted=plans)


def _plan_clips(
    task: Task, record: EncoderRecord, cache: Path, table_name: str, *, segments: bool = False, force: bool
) -> Plan:
    store = EncoderStore(cache, record)
    name = task.card.name
    needs_frames = task.table.needs_frames
    reason = _why_new(cache, record) if not (store.folder / "encoder.json").is_file() else "new or changed clips"
    for part, damage in list(store.damaged(name)):
        reason = f"{damage.path.name} {damage.what}"
        store.drop_part(name, part)
    table = task.table
    # Read before the clips are looked up: a part that another process enters in between must not be mistaken for an
    # older one with other clips and written again under another name.
    manifest = store.manifest(name)
    taken = {part.name for part in manifest.parts} if manifest else set()
    if force:
        needed = set(range(len(table.keys)))
        reason = "--force"
    else:
        wanted = {"needs_frames": needs_frames, "needs_segments": segments, "corruption": task.corruption}
        vectors = store.open_task(name, table.keys, wider=False, **wanted)
        if len(vectors.missing):
            for wider in store.wider():
                for part, _ in list(wider.damaged(name)):
                    wider.drop_part(name, part)
            vectors = store.open_task(name, table.keys, **wanted)
        needed = set(vectors.missing.tolist())
        if segments and needed and not len(store.open_task(name, table.keys).missing):
            reason = "cached without segments"
    cached = len(table.keys) - len(needed)
    parts = _cut(task, needed, store, set() if force else taken, segments=segments)
    reason = reason if parts else ""
    return Plan(task, table_name, store, parts, needs_frames, cached, reason, needs_segments=segments)


def share_of(plan: Plan, index: int, count: int) -> Plan:
    """Return the share of machine `index` of `count` (`--part index/count`, from 1): every count-th part."""
    parts = tuple(part for part in plan.parts if int(part.name.split("-")[0]) % count == index - 1)
    return replace(plan, parts=parts, corrupted=tuple(share_of(part, index, count) for part in plan.corrupted))


def _cut(
    task: Task, needed: set[int], store: EncoderStore, taken: set[str], *, segments: bool
) -> tuple[PlannedPart, ...]:
    """Cut all clips, ordered by length, into numbered parts; keep the needed rows of each, one per key."""
    table = task.table
    order = sorted(range(len(table.keys)), key=lambda row: (table.durations_s[row], table.keys[row]))
    record = store.record
    row_bytes = 4 * record.width * (len(record.poolings) + segments * SEGMENTS)
    size = min(_MOST, max(_FEWEST, math.ceil(len(order) / _PARTS)), max(1, _PART_BYTES // row_bytes))
    parts, planned = [], set()
    for number, first in enumerate(range(0, len(order), size)):
        rows = []
        for row in order[first : first + size]:
            if row in needed and table.keys[row] not in planned:
                planned.add(table.keys[row])
                rows.append(row)
        if not rows:
            continue
        name = f"{number:05d}" if task.corruption is None else f"{number:05d}-{task.corruption.file_name}"
        if segments:  # a name of its own: the part without may be there, or be written by another process
            name += "-segmented"
        if f"pooled-{name}.arrow" in taken:
            # The part that is there stays valid for the clips that did not change.
            name += "-" + digest([table.keys[row].hex() for row in rows])[:8]
        parts.append(PlannedPart(name, tuple(rows)))
    return tuple(parts)


def _why_new(cache: Path, record: EncoderRecord) -> str:
    """Return how the encoder differs from one of the same name in the cache."""
    others = [store.record for store in open_encoders(cache)[0] if store.record.slug == record.slug]
    if not others:
        return "new encoder"
    changed = [_differences(asdict(other)["identity"], dict(record.identity)) for other in others]
    return f"changed since the last time: {', '.join(min(changed, key=len))}"


def _differences(old: dict, new: dict) -> list[str]:
    names = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        before, after = (list(v) if isinstance(v, tuple) else v for v in (before, after))
        if isinstance(before, dict) and isinstance(after, dict):
            names.extend(_differences(before, after))
        elif before != after:
            names.append(key)
    return names
