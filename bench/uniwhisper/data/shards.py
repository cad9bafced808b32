"""Tar shards of training audio: `KEY.flac` (16 kHz, mono, 16 bit) and `KEY.json`, with an index of rows beside each.

The tars are plain, so that `tarfile`, webdataset and whatever else knows that form read them, and a row's audio is one
range of bytes. The same clips give the same bytes. A shard's tar appears first and its index after it, both whole or
not at all: packing that was stopped goes on after the last index, and ends with the bytes it would have had.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from uniwhisper.data.examples import SAMPLE_RATE
from uniwhisper.data.rows import SUFFIX, AudioRef, Row, encode_rows, read_notes
from uwbench.api import (
    Audio,
    AudioArray,
    AudioBytes,
    AudioError,
    AudioFile,
    AudioMember,
    StoreError,
    UsageError,
    decode,
    read_bytes,
)
from uwbench.base.atomic import write_atomically, write_in_place
from uwbench.base.hashing import clip_key, digest, sha256_bytes

SHARD_BYTES = 1_000_000_000
_AHEAD = 32  # clips per worker that are decoded ahead of writing
_HEADER = 512  # bytes of a tar header
_FULL_SCALE = 32_768.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A question about a clip; see `rows.Row` for the fields."""

    task: str
    answers: tuple[str, ...]
    instruction: str | None = None
    slots: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Item:
    """A clip to pack: `audio` from `start_s` to `end_s`, and its questions."""

    dataset: str
    split: str
    clip: str
    domain: str
    licence: str
    audio: Audio
    asked: tuple[Asked, ...]
    source: str | None = None
    start_s: float | None = None
    end_s: float | None = None


@dataclass(frozen=True, slots=True)
class Packed:
    """The result of packing; `refused` holds clips left out, each with its reason.

    `limited` counts samples that full scale cut off, as resampling can overshoot.
    """

    shards: tuple[Path, ...]
    clips: int
    rows: int
    seconds: float
    limited: int
    refused: tuple[tuple[str, str], ...]


def pcm16(samples: np.ndarray) -> np.ndarray:
    """Return float samples as int16, rounded and clipped to full scale."""
    return np.clip(np.rint(samples.astype(np.float64) * _FULL_SCALE), -32_768, 32_767).astype(np.int16)


def content_hash(samples: np.ndarray) -> str:
    """Return the hex sha256 of mono 16 kHz audio: of its 16-bit samples, little endian.

    `samples` is int16, or float32 as `uwbench.api.decode(audio, 16_000)` gives it. Two files of other formats whose
    samples agree to 16 bits have the same hash, which finds test clips among training clips.
    """
    return sha256_bytes((samples if samples.dtype == np.int16 else pcm16(samples)).astype("<i2").tobytes())


def read_audio(row: Row) -> np.ndarray:
    """Return a row's audio, float32 `(samples,)` at 16 kHz; raise AudioError naming the row if it is damaged."""
    where = f"{row.id} ({row.audio.shard}#{row.audio.member})"
    audio = AudioMember(Path(row.audio.shard), row.audio.offset, row.audio.size, row.audio.member)
    try:
        samples = decode(audio, SAMPLE_RATE)
    except AudioError as error:
        raise AudioError(error.what, where=where) from error
    if content_hash(samples) != row.audio.content:
        raise AudioError("the samples are not those that were packed", where=where, remedy="convert its clip again")
    return samples


def encode_flac(samples: np.ndarray) -> bytes:
    """Return int16 mono samples at 16 kHz as FLAC; lossless."""
    import soundfile

    sink = io.BytesIO()
    soundfile.write(sink, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return sink.getvalue()


def write_shards(
    folder: Path,
    items: Sequence[Item],
    *,
    shard_bytes: int = SHARD_BYTES,
    name: str = "data",
    workers: int = 2,
    progress: Callable[[int], None] | None = None,
) -> Packed:
    """Pack `items` into `<folder>/<name>-00000.tar`, ... of about `shard_bytes`, resuming an interrupted run.

    A shard ends with the clip that reaches `shard_bytes`. Clips that cannot be decoded are left out and named in what
    is returned. `progress` is told the number of clips done. Raises UsageError where the folder holds shards of other
    items or another process is packing into it; what is there already is not decoded again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder, name):
        _require_same(folder, items, shard_bytes, name)
        notes = _finished(folder, name)
        first = int(notes[-1]["next"]) if notes else 0
        shards = [folder / f"{name}-{number:05d}.tar" for number in range(len(notes))]
        with ThreadPoolExecutor(workers) as pool:
            clips = _encoded(items, first, pool, workers)
            while first < len(items):
                path = folder / f"{name}-{len(shards):05d}.tar"
                note = _write_shard(path, clips, shard_bytes, progress)
                notes.append(note)
                shards.append(path)
                first = int(note["next"])
    refused = [tuple(pair) for note in notes for pair in json.loads(note["refused"])]
    return Packed(
        tuple(shards),
        sum(int(note["clips"]) for note in notes),
        sum(int(note["rows"]) for note in notes),
        sum(float(note["seconds"]) for note in notes),
        sum(int(note["limited"]) for note in notes),
        tuple(refused),
    )


@dataclass(frozen=True, slots=True)
class _Clip:
    """An encoded item; if `flac` is None, `error` gives the reason."""

    index: int
    item: Item
    flac: bytes | None = None
    samples: int = 0
    limited: int = 0
    content: str = ""
    key: str = ""
    error: str = ""


def _encoded(items: Sequence[Item], first: int, pool: ThreadPoolExecutor, workers: int) -> Iterator[_Clip]:
    """Yield encoded items in order, starting at `first`, with a window of them in work."""
    window = _AHEAD * workers
    for start in range(first, len(items), window):
        numbers = range(start, min(start + window, len(items)))
        yield from pool.map(lambda index: _encode(index, items[index]), numbers)


def _encode(index: int, item: Item) -> _Clip:
    try:
        data = read_bytes(item.audio)
        audio = item.audio if isinstance(item.audio, AudioArray) else AudioBytes(data, str(item.audio))
        samples = decode(audio, SAMPLE_RATE, start_s=item.start_s, end_s=item.end_s)
    except AudioError as error:
        return _Clip(index, item, error=str(error))
    limited = int(np.count_nonzero(np.abs(samples) > 1.0))
    key = clip_key(sha256_bytes(data), item.start_s, item.end_s).hex()
    words = pcm16(samples)
    return _Clip(index, item, encode_flac(words), len(words), limited, content_hash(words), key)


def _write_shard(
    path: Path, clips: Iterator[_Clip], shard_bytes: int, progress: Callable[[int], None] | None
) -> dict[str, str]:
    """Write one tar and its index from the next clips; return the index's notes."""
    rows: list[Row] = []
    refused: list[tuple[str, str]] = []
    last, packed, samples, limited = 0, 0, 0, 0
    with write_in_place(path) as temporary, temporary.open("wb") as file, _tar(file) as tar:
        for clip in clips:
            last = clip.index + 1
            if clip.flac is None:
                refused.append((clip.item.clip, clip.error))
            else:
                rows += _add(tar, file, path.name, clip, clip.flac)
                packed, samples, limited = packed + 1, samples + clip.samples, limited + clip.limited
            if progress is not None:
                progress(last)
            if file.tell() >= shard_bytes:
                break
    notes = {
        "next": str(last),
        "clips": str(packed),
        "rows": str(len(rows)),
        "seconds": repr(samples / SAMPLE_RATE),
        "limited": str(limited),
        "refused": json.dumps(refused, ensure_ascii=False),
    }
    write_atomically(path.with_name(path.stem + SUFFIX), encode_rows(rows, notes))
    return notes


def _tar(file: Any) -> tarfile.TarFile:
    return tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT)


def _add(tar: tarfile.TarFile, file: Any, shard: str, clip: _Clip, flac: bytes) -> list[Row]:
    item, name = clip.item, f"{clip.index:09d}"
    ref = AudioRef(shard, f"{name}.flac", file.tell() + _HEADER, len(flac), clip.content)
    rows, counts = [], {}
    for asked in item.asked:
        form = asked.slots.get("form")
        task = asked.task if form is None else f"{asked.task}/{form}"
        counts[task] = count = counts.get(task, 0) + 1
        rows.append(
            Row(
                id=f"{item.dataset}/{item.clip}:{task}" + ("" if count == 1 else f"#{count}"),
                dataset=item.dataset,
                split=item.split,
                clip=item.clip,
                domain=item.domain,
                licence=item.licence,
                source=item.source,
                duration_s=clip.samples / SAMPLE_RATE,
                audio=ref,
                task=asked.task,
                instruction=asked.instruction,
                slots=asked.slots,
                answers=asked.answers,
                key=clip.key,
            )
        )
    about = {
        **{name: getattr(item, name) for name in ("dataset", "split", "clip", "domain", "licence", "source")},
        "duration": clip.samples / SAMPLE_RATE,
        "sampling_rate": SAMPLE_RATE,
        "content": clip.content,
        "key": clip.key,
        "rows": [
            {"id": row.id, "task": row.task, "instruction": row.instruction, "slots": row.slots, "answers": row.answers}
            for row in rows
        ],
    }
    text = json.dumps(about, ensure_ascii=False, sort_keys=True).encode()
    for suffix, data in (("flac", flac), ("json", text)):
        member = tarfile.TarInfo(f"{name}.{suffix}")
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    return rows


def _finished(folder: Path, name: str) -> list[dict[str, str]]:
    """Return the notes of the complete shards: those from the first on that have an index."""
    notes = []
    while (path := folder / f"{name}-{len(notes):05d}{SUFFIX}").is_file():
        if not (folder / f"{name}-{len(notes):05d}.tar").is_file():
            raise StoreError("has no tar beside it", where=path, remedy="remove the folder and convert again")
        notes.append(read_notes(path))
    return notes


def _require_same(folder: Path, items: Sequence[Item], shard_bytes: int, name: str) -> None:
    """Refuse to add shards of one set of items to those of another."""
    asked = digest([shard_bytes, [_identity(item) for item in items]])
    path = folder / f"{name}.json"
    if path.is_file():
        if json.loads(path.read_text(encoding="utf-8")).get("items") != asked:
            raise UsageError(
                "holds shards of other clips, questions or sizes", where=folder, remedy="name a new folder"
            )
        return
    if any(folder.glob(f"{name}-*.tar")):
        raise UsageError(f"holds shards that {path.name} does not describe", where=folder)
    about = {"items": asked, "clips": len(items), "shard_bytes": shard_bytes}
    write_atomically(path, (json.dumps(about, indent=2, sort_keys=True) + "\n").encode())


def _identity(item: Item) -> list[Any]:
    asked = [[q.task, list(q.answers), q.instruction, q.slots] for q in item.asked]
    place = [item.dataset, item.split, item.clip, item.domain, item.licence, item.source, item.start_s, item.end_s]
    return [*place, _size(item.audio), asked]


def _size(audio: Audio) -> int:
    """Return the size of encoded audio, as a stand-in for its content: reading every file again would be slow."""
    match audio:
        case AudioFile(path):
            try:
                return path.stat().st_size
            except OSError:
                return -1
        case AudioMember(_, _, size, _):
            return size
        case AudioBytes(data):
            return len(data)
    return len(audio.samples)


@contextmanager
def _locked(folder: Path, name: str) -> Iterator[None]:
    import filelock

    lock = filelock.FileLock(folder / f".{name}.lock")
    try:
        with lock.acquire(timeout=0):
            yield
    except filelock.Timeout as error:
        raise UsageError("another process is packing into it", where=folder) from error
