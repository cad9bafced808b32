"""Read WebDataset tars, X-ARES's and others, in place: index where each record's audio is, and its label.

A record is `<key>.<audio extension>` and `<key>.json`; others may have `<key>.cls` or `<key>.txt`. The key is the name
without its last extension, so that names with dots (`blues.00000.wav`) stay whole. Names inside an archive only label
clips and are never used as paths on disk.
"""

from __future__ import annotations

import io
import math
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from uwbench.audio.clip import AudioMember, Clip, Event, Labels
from uwbench.base.json_text import parse_json
from uwbench.cards.card import Card
from uwbench.cards.find import load_vocabulary
from uwbench.errors import DataError
from uwbench.sources.dataset import Reading, require_utf8, with_unique_ids
from uwbench.sources.layouts import load_layout
from uwbench.sources.layouts.base import Layout, visible

# The suffixes that X-ARES reads as audio.
SHARD_AUDIO = frozenset({".flac", ".mp3", ".sox", ".wav", ".m4a", ".ogg", ".wma"})
_JSON_LIMIT = 16 << 20  # bytes; a record's labels take a few kilobytes
_BLOCK = 512  # bytes of a tar header
_OTHER_FOLDERS = frozenset({"embeddings", "checkpoints"})  # X-ARES's own output


@dataclass(frozen=True, slots=True)
class Part:
    """The shards of one split or fold."""

    split: str | None
    fold: str | None
    pattern: str
    files: tuple[Path, ...]

    @property
    def name(self) -> str:
        return f"fold {self.fold}" if self.split is None else f"split {self.split}"


def find_shards(card: Card, folder: Path) -> tuple[Part, ...] | None:
    """Return the shards of `card` in `folder` or in a folder in it, or None if there are none; no file is read.

    Parts without a file are returned too, so that `read_shards` can name them.
    """
    if card.sources.shards is None or not folder.is_dir():
        return None
    subfolders = [path for path in visible(folder) if path.is_dir() and path.name not in _OTHER_FOLDERS]
    for place in (folder, *subfolders):
        parts = tuple(_parts(card, place))
        if any(part.files for part in parts):
            return parts
    return None


def _parts(card: Card, folder: Path) -> Iterator[Part]:
    for name, pattern in card.shard_patterns().items():
        split, fold = (None, name) if card.folds is not None else (name, None)
        tars = sorted(path for path in folder.glob(pattern) if path.is_file() and not path.name.startswith("."))
        yield Part(split, fold, pattern, tuple(tars or sorted(folder.glob(f"{pattern}.gz"))))


def read_shards(card: Card, parts: tuple[Part, ...]) -> Reading:
    """Return the clips of the shards; raise DataError, naming shard and record, if one is missing or damaged."""
    missing = [part for part in parts if not part.files]
    if missing:
        raise DataError(
            f"no shard for {', '.join(part.name for part in missing)} ({missing[0].pattern})",
            where=next(part.files[0].parent for part in parts if part.files),
            remedy=f"run: uwbench data fetch {card.name}",
        )
    layout = load_layout(card.sources.layout) if card.sources.layout else None
    vocabulary = load_vocabulary(card.vocabulary) if card.vocabulary else ()
    clips: list[Clip] = []
    problems: list[str] = []
    for part in parts:
        for file in part.files:
            audio, records = read_index(file)
            for name in sorted(set(audio) ^ set(records)):
                lacks = "no label" if name in audio else "no audio"
                problems.append(f"{file.name}: {name} has {lacks} and is left out")
            for name in (name for name in audio if name in records):
                try:
                    labels = _labels(records[name], card, vocabulary, layout)
                except (KeyError, ValueError, TypeError) as error:
                    what = f"the record's label cannot be read ({error!r})"
                    raise DataError(what, where=f"{file}#{name}") from error
                group = layout.group_of(name, records[name]) if layout else None
                clips.append(Clip(name, audio[name], labels, part.split, part.fold, group))
    unique, repeated = with_unique_ids(clips)
    if repeated:
        problems.append(f"{len(repeated)} names occur in more than one shard, first {repeated[0]!r}")
    return Reading(unique, tuple(problems))


@dataclass(frozen=True, slots=True)
class Index:
    """The members of a tar by their names without the last extension; `others` counts the rest by extension.

    `texts` has the content of members in plain text, by extension.
    """

    audio: dict[str, AudioMember]
    records: dict[str, Any]
    texts: dict[str, dict[str, str]]
    others: Counter[str]


def read_index(path: Path) -> tuple[dict[str, AudioMember], dict[str, Any]]:
    """Return the audio members and the JSON records of X-ARES's tar, by name without the last extension."""
    index = index_tar(path, SHARD_AUDIO)
    return index.audio, index.records


def index_tar(path: Path, audio_suffixes: frozenset[str], text_suffixes: tuple[str, ...] = ()) -> Index:
    """Return where a tar's members are.

    Raises DataError if the archive is compressed, damaged or cut short, or has a member that is not a plain file.
    """
    index = Index({}, {}, {suffix: {} for suffix in text_suffixes}, Counter())
    end = 0
    try:
        with path.open("rb") as raw:
            if raw.read(2) == b"\x1f\x8b":
                what = "is compressed, but audio is read in place"
                raise DataError(what, where=path, remedy=f"run: gunzip {path}")
        with path.open("rb") as raw, tarfile.open(fileobj=_Bounded(path), mode="r:") as tar:
            for member in tar:
                if member.size < 0:  # the next member would lie before this one, in an endless loop
                    raise DataError(f"{member.name!r} has a negative size", where=path, remedy="do not use this file")
                end = member.offset_data + math.ceil(member.size / _BLOCK) * _BLOCK if member.isreg() else tar.offset
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    raise DataError(f"{member.name!r} is not a plain file", where=path)
                _index_member(member, path, raw, index, audio_suffixes)
            raw.seek(min(end, path.stat().st_size))
            if raw.read(_BLOCK).strip(b"\0") or raw.tell() < end + _BLOCK:
                raise DataError("is damaged or cut short: its end mark is missing", where=path, remedy="fetch it again")
    except (OSError, tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        raise DataError(f"cannot be read as a tar ({error})", where=path, remedy="fetch it again") from error
    return index


class _Bounded(io.FileIO):
    """A file that never reads past its end, whatever a damaged header claims is there."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._size = path.stat().st_size

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._size - self.tell())
        return super().read(left if size is None or not 0 <= size <= left else size) or b""


def _index_member(
    member: tarfile.TarInfo, path: Path, raw: BinaryIO, index: Index, audio_suffixes: frozenset[str]
) -> None:
    stem, dot, extension = member.name.removeprefix("./").rpartition(".")
    suffix = (dot + extension).lower()
    base = stem.rpartition("/")[2]
    if base.startswith("._"):
        return
    require_utf8(member.name, path)
    if suffix in audio_suffixes:
        members: dict[str, Any] = index.audio
    elif suffix in index.texts or suffix == ".json":
        members = index.records if suffix == ".json" else index.texts[suffix]
    else:
        index.others[suffix if dot else ""] += 1
        return
    if stem in members:
        raise DataError(f"contains {member.name!r} twice", where=path)
    if members is index.audio:
        members[stem] = AudioMember(path, member.offset_data, member.size, member.name)
        return
    data = _content(member, path, raw)
    try:
        members[stem] = parse_json(data) if suffix == ".json" else data.decode().strip()
    except UnicodeDecodeError as error:
        raise DataError(f"{member.name!r} is not UTF-8", where=path) from error
    except ValueError as error:
        raise DataError(f"{member.name!r} is not valid JSON ({error})", where=path) from error


def _content(member: tarfile.TarInfo, path: Path, raw: BinaryIO) -> bytes:
    """Return the content of a member that is a label."""
    if member.size > _JSON_LIMIT:
        raise DataError(f"{member.name!r} is too large to be a record's label", where=path)
    raw.seek(member.offset_data)
    data = raw.read(member.size)
    if len(data) < member.size:
        raise DataError(f"is cut short inside {member.name!r}", where=path, remedy="fetch it again")
    return data


def _labels(record: Any, card: Card, vocabulary: tuple[str, ...], layout: Layout | None) -> Labels:
    assert card.sources.shards is not None
    field = card.sources.shards.field
    value = record if field == "." else record[field]
    match card.kind:
        case "frame-multi-label":
            return tuple(sorted(_events(value)))
        case "retrieval":
            texts = list(value.values()) if isinstance(value, dict) else list(value)
            if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
                raise ValueError("captions must be texts")
            return tuple(texts)
        case "multi-label":
            names = value.split(";") if isinstance(value, str) else value
            return tuple(dict.fromkeys(str(name).strip() for name in names))
        case "transcription":
            return str(value).strip()
    if value is None or isinstance(value, (bool, list, dict, float)):
        raise TypeError(f"{field} is {value!r}")
    label = str(value).strip()
    if vocabulary and label not in vocabulary and label.isdecimal() and int(label) < len(vocabulary):
        return vocabulary[int(label)]  # X-ARES stores the class's index in its own table
    return layout.label_of(label) if layout else label


def _events(items: Any) -> Iterator[Event]:
    """Yield the events of a record: `{onset, offset, label}` with comma-separated labels, or `{start, end, note}`."""
    for item in items:
        if "note" in item:
            onset, offset, names = float(item["start"]), float(item["end"]), [str(int(item["note"]))]
        else:
            onset, offset = float(item["onset"]), float(item["offset"])
            names = [name.strip() for name in str(item["label"]).split(",") if name.strip()]
        if not (math.isfinite(onset) and math.isfinite(offset)):
            raise ValueError("an event's times are not numbers")
        if offset > onset:
            yield from (Event(onset, offset, name) for name in names)
