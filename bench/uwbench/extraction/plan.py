"""What an extraction has to do: clips to table, table to keys, keys to the parts that are not in the cache yet.

The plan of a task is a pure function of its clips: they are ordered by length and cut into numbered parts, whatever
is cached already. So an interrupted run, another process or another machine makes the same parts with the same bytes.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from uwbench.audio.clip import Clip
from uwbench.audio.decode import PREPROCESSING_VERSION
from uwbench.audio.scan import Scanned, scan_clips
from uwbench.base.hashing import digest
from uwbench.base.registry import suggestion
from uwbench.cache.clip_table import ClipTable, write_table
from uwbench.cache.records import POOLINGS, EncoderRecord
from uwbench.cache.store import EncoderStore, slug_of
from uwbench.cards.card import Card
from uwbench.encoders.base import EncoderInfo
from uwbench.errors import AudioError, DataError, UsageError, printable

DEFAULT_POOLINGS = ("mean", "mean-all")
RESAMPLER = "soxr_vhq"

# A part is the unit of loss at a crash and of work between machines: about 64 a task, within bounds that keep tiny
# tasks from one file a clip and huge ones from parts of many gigabytes.
_PARTS = 64
_FEWEST, _MOST = 32, 4096
_PART_BYTES = 128 << 20  # of vectors, which a part under way holds in memory: reached with many layers only


@dataclass(frozen=True, slots=True)
class Task:
    """A task whose audio was looked at: `clips[i]` is row i of `table`, `hashes[i]` its audio's sha256."""

    table: ClipTable
    clips: tuple[Clip, ...]
    hashes: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def card(self) -> Card:
        return self.table.card


@dataclass(frozen=True, slots=True)
class PlannedPart:
    """One part to write: its name and the rows of the table that go into it, ordered by length."""

    name: str
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What one task needs under one encoder."""

    task: Task
    table_name: str
    store: EncoderStore
    parts: tuple[PlannedPart, ...]
    frames: bool  # whether the task needs frames
    cached: int  # clips whose embedding is there
    reason: str  # why the others are encoded

    @property
    def to_encode(self) -> int:
        return sum(len(part.rows) for part in self.parts)

    @property
    def audio_s(self) -> float:
        durations = self.task.table.durations_s
        return sum(durations[row] for part in self.parts for row in part.rows)

    def forecast_bytes(self) -> int:
        """Return the bytes that the parts will take on disk, within a percent for pooled vectors."""
        record = self.store.record
        pooled = self.to_encode * (40 + 4 * len(record.layers) * record.dim * len(record.poolings))
        frames = self.audio_s / record.hop_s * record.dim * 2 if self.frames else 0
        return int(pooled + frames)


def look_at(
    card: Card, clips: Sequence[Clip], source: str, problems: Sequence[str], cache: Path, limit: int | None
) -> Task:
    """Hash every clip and return the task; clips that cannot be read are listed, not dropped in silence."""
    chosen = list(clips) if limit is None else limit_clips(clips, limit)
    found = scan_clips(chosen, cache / "clips" / f"{card.name}.scan.parquet")
    readable = [(clip, seen) for clip, seen in zip(chosen, found, strict=True) if isinstance(seen, Scanned)]
    if not readable:
        first = next((str(error) for error in found if isinstance(error, AudioError)), "the source lists none")
        raise DataError(f"{card.name} has no clip that can be read ({first})", where=source)
    table = ClipTable(
        card,
        printable(source),  # it names folders, which need not be UTF-8
        ids=tuple(clip.id for clip, _ in readable),
        keys=tuple(seen.key for _, seen in readable),
        labels=tuple(clip.labels for clip, _ in readable),
        splits=tuple(clip.split for clip, _ in readable),
        folds=tuple(clip.fold for clip, _ in readable),
        groups=tuple(clip.group for clip, _ in readable),
        durations_s=tuple(seen.duration_s for _, seen in readable),
        limited=limit is not None,
        unreadable=tuple(str(error) for error in found if isinstance(error, AudioError)),
    )
    return Task(
        table,
        tuple(clip for clip, _ in readable),
        tuple(seen.sha256 for _, seen in readable),
        tuple(problems),
    )


def limit_clips(clips: Sequence[Clip], limit: int) -> list[Clip]:
    """Return at most `limit` clips of each split or fold, labels in turn, chosen by a hash of the clip's id."""
    parts: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    order = sorted(range(len(clips)), key=lambda i: hashlib.sha256(clips[i].id.encode()).digest())
    for i in order:
        parts[clips[i].split or clips[i].fold or ""][str(clips[i].labels)].append(i)
    kept: set[int] = set()
    for labels in parts.values():
        turns = [(turn, name, i) for name, rows in labels.items() for turn, i in enumerate(rows)]
        kept.update(i for _, _, i in sorted(turns)[:limit])
    return [clip for i, clip in enumerate(clips) if i in kept]


def describe_encoder(
    info: EncoderInfo, *, layers: str = "last", poolings: Sequence[str] = DEFAULT_POOLINGS, dtype: str = "fp32"
) -> EncoderRecord:
    """Return the record, with its fingerprint, of an encoder used with these layers, poolings and precision."""
    unknown = [name for name in poolings if name not in POOLINGS]
    if unknown:
        raise UsageError(f"unknown pooling {unknown[0]!r}", where="--pooling", remedy=suggestion(unknown[0], POOLINGS))
    if "first" in poolings and not info.first_token:
        raise UsageError(f"{info.name} has no first token", where="--pooling first", remedy="use mean")
    chosen = tuple(info.layers[i] for i in layer_indices(info, layers))
    kept = tuple(name for name in POOLINGS if name in poolings)
    identity = {
        "encoder": dict(info.identity),
        "dtype": dtype,
        "layers": chosen,
        "poolings": kept,
        "preprocessing": PREPROCESSING_VERSION,
        "resampler": RESAMPLER,
        "sample_rate": info.sample_rate,
        "context_s": info.context_s,
        "min_s": info.min_s,
    }
    return EncoderRecord(
        name=info.name,
        slug=slug_of(info.name if info.context in (None, "full") else f"{info.name}-{info.context}"),
        fingerprint=digest(identity),
        family=info.family,
        layers=chosen,
        poolings=kept,
        dim=info.dim,
        sample_rate=info.sample_rate,
        hop_s=info.hop_s,
        dtype=dtype,
        context=info.context,
        revision=info.revision,
        parameters=info.parameters,
        training_data=info.training_data,
        identity=identity,
    )


def layer_indices(info: EncoderInfo, layers: str) -> list[int]:
    """Return the indices that `last`, `all` or a list of names or numbers stands for, in the encoder's order."""
    count = len(info.layers)
    if layers == "last":
        return [count - 1]
    if layers == "all":
        return list(range(count))
    found = set()
    for item in filter(None, (part.strip() for part in layers.split(","))):
        if item in info.layers:
            found.add(info.layers.index(item))
        elif item.lstrip("-").isdigit() and -count <= int(item) < count:
            found.add(int(item) % count)
        else:
            remedy = f"use last, all, or some of {', '.join(info.layers)}"
            raise UsageError(f"{info.name} has no layer {item!r}", where="--layers", remedy=remedy)
    if not found:
        raise UsageError("names no layer", where="--layers", remedy="use last, all or a list")
    return sorted(found)


def make_plan(task: Task, record: EncoderRecord, cache: Path, *, force: bool = False) -> Plan:
    """Return what the cache lacks of `task` under the encoder, after checking and dropping damaged parts.

    With `force`, everything is encoded again.
    """
    store = EncoderStore(cache, record)
    name = task.card.name
    frames = task.card.kind in ("frame-multi-label", "transcription")
    reason = _why_new(cache, record) if not (store.folder / "encoder.json").is_file() else "new or changed clips"
    damaged = list(store.damaged(name))
    for part, damage in damaged:
        reason = f"{damage.path.name} {damage.what}"
        store.drop_part(name, part)
    table = task.table
    # Read before the clips are looked up: a part that another process enters in between must not be taken for an older
    # one of other clips, and made again under another name.
    manifest = store.manifest(name)
    taken = {part.name for part in manifest.parts} if manifest else set()
    if force:
        needed = set(range(len(table.keys)))
        reason = "--force"
    else:
        located = store.locate(table.keys, first=name, frames=frames)
        needed = {row for row, part in enumerate(located.part) if part < 0}
    cached = len(table.keys) - len(needed)
    parts = _cut(table, needed, store, set() if force else taken)
    return Plan(task, write_table(cache, table), store, parts, frames, cached, reason if parts else "")


def share_of(plan: Plan, index: int, count: int) -> Plan:
    """Return the plan of one of `count` machines (`--part index/count`, from 1): every count-th part."""
    kept = tuple(part for part in plan.parts if int(part.name.split("-")[0]) % count == index - 1)
    return replace(plan, parts=kept)


def _cut(table: ClipTable, needed: set[int], store: EncoderStore, taken: set[str]) -> tuple[PlannedPart, ...]:
    """Order all clips by length, number them in parts, and keep what is needed of each, a key once."""
    order = sorted(range(len(table.keys)), key=lambda row: (table.durations_s[row], table.keys[row]))
    record = store.record
    row_bytes = 4 * len(record.layers) * record.dim * len(record.poolings)
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
        name = f"{number:05d}"
        if f"pooled-{name}.arrow" in taken:
            # The part's first generation stays valid for the clips that did not change.
            name += "-" + digest([table.keys[row].hex() for row in rows])[:8]
        parts.append(PlannedPart(name, tuple(rows)))
    return tuple(parts)


def _why_new(cache: Path, record: EncoderRecord) -> str:
    """Say what differs from an encoder of the same name that is in the cache."""
    from uwbench.cache.store import open_encoders

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
