"""The records of the store, encoder.json and manifest.json: read strictly, as a cache may come from anywhere.

File names in them are plain names, never paths, and a record counts only in the folder that it describes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from uwbench.base.hashing import SHORT, digest
from uwbench.base.json_text import parse_json
from uwbench.base.schema import first_fault
from uwbench.cache.parts import Expected
from uwbench.errors import StoreError

SCHEMA = 1
POOLINGS = ("mean", "mean-all", "std", "max", "first")
_REMOVE = "remove the folder and extract again"

_PlainName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", max_length=200)]
_Pooling = Annotated[str, StringConstraints(pattern=f"^({'|'.join(POOLINGS)})$")]
_Count = Annotated[int, Field(strict=True, ge=0, lt=1 << 62)]
_Positive = Annotated[int, Field(strict=True, gt=0, lt=1 << 31)]
_Seconds = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
_CLOSED = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True)
class EncoderRecord:
    """encoder.json: the encoder that made a folder's vectors. `fingerprint` is its identity; the rest describes it."""

    __pydantic_config__: ClassVar = _CLOSED

    name: str
    slug: _PlainName
    fingerprint: _PlainName
    family: str
    layers: Annotated[tuple[str, ...], Field(min_length=1)]
    poolings: Annotated[tuple[_Pooling, ...], Field(min_length=1)]
    dim: _Positive
    sample_rate: _Count  # 0 for ready vectors
    hop_s: _Seconds
    dtype: str
    context: str | None
    revision: str | None
    parameters: _Count | None
    training_data: tuple[dict[str, Any], ...] | None
    identity: Mapping[str, Any]

    @property
    def folder(self) -> str:
        return f"{self.slug}-{self.fingerprint[:SHORT]}"

    @property
    def width(self) -> int:
        """The length of one clip's vectors under one pooling, all layers together."""
        return len(self.layers) * self.dim

    @property
    def model_fingerprint(self) -> str:
        """The fingerprint in results: that of the scored layer, the last one, however many layers are stored."""
        return self.fingerprint if len(self.layers) == 1 else digest({**self.identity, "layers": self.layers[-1:]})

    def covers(self, narrower: EncoderRecord) -> bool:
        """Return True if this is the same encoder with all layers and poolings of `narrower`, stored apart from it."""
        return (
            self.fingerprint != narrower.fingerprint
            and self.slug == narrower.slug
            and set(narrower.layers) <= set(self.layers)
            and set(narrower.poolings) <= set(self.poolings)
            and self.computation == narrower.computation
        )

    @property
    def computation(self) -> str:
        """The hash of the identity without what is stored of the computed vectors."""
        return digest({name: part for name, part in self.identity.items() if name not in ("layers", "poolings")})


@dataclass(frozen=True, slots=True)
class Part:
    """A manifest's entry for one part; `frames` and `segments` name its files of these, if it has them."""

    __pydantic_config__: ClassVar = _CLOSED

    name: _PlainName
    rows: _Count
    bytes: _Count
    xxh3_128: str
    frames: _PlainName | None = None
    frames_bytes: _Count = 0
    frames_xxh3_128: str | None = None
    segments: _PlainName | None = None
    segments_bytes: _Count = 0
    segments_xxh3_128: str | None = None

    def files(self) -> dict[str, Expected]:
        """Return the part's files by name."""
        files = {self.name: Expected(self.bytes, self.xxh3_128)}
        if self.frames is not None:
            files[self.frames] = Expected(self.frames_bytes, self.frames_xxh3_128 or "")
        if self.segments is not None:
            files[self.segments] = Expected(self.segments_bytes, self.segments_xxh3_128 or "")
        return files

    @property
    def all_bytes(self) -> int:
        """The bytes of the part's files together."""
        return sum(expected.bytes for expected in self.files().values())

    def entry(self) -> dict[str, Any]:
        """Return the entry as it stands in a manifest: one without segments is as before there were any."""
        without = () if self.segments is not None else ("segments", "segments_bytes", "segments_xxh3_128")
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in without}


@dataclass(frozen=True, slots=True)
class Manifest:
    """The parts of one task under one encoder, and the clip table they were last extracted for."""

    __pydantic_config__: ClassVar = _CLOSED

    task: _PlainName
    fingerprint: _PlainName
    table: _PlainName
    parts: tuple[Part, ...] = ()


def encoder_text(record: EncoderRecord) -> str:
    """Return encoder.json."""
    return json.dumps({"schema": SCHEMA, **asdict(record)}, indent=2, sort_keys=True) + "\n"


def manifest_text(manifest: Manifest) -> str:
    """Return a manifest as JSON, one line per part: json's own indenting takes five times as long for 24,000 parts."""
    encoder = json.JSONEncoder(sort_keys=True)
    parts = ",\n".join(encoder.encode(part.entry()) for part in manifest.parts)
    head = {"fingerprint": manifest.fingerprint, "schema": SCHEMA, "table": manifest.table, "task": manifest.task}
    return encoder.encode(head)[:-1] + f', "parts": [\n{parts}\n]}}\n'


def read_encoder(path: Path) -> EncoderRecord:
    """Read an encoder.json; raise StoreError if it is damaged, of another version or in a folder of another name."""
    record = _read(path, EncoderRecord, _REMOVE)
    if record.folder != path.parent.name:
        raise StoreError(f"describes the folder {record.folder}", where=path, remedy="rename the folder to that")
    return record


def read_manifest(path: Path) -> Manifest:
    """Read a manifest.json; raise StoreError if it is damaged, of another version or belongs to another task."""
    remedy = "remove it and extract again"
    manifest = _read(path, Manifest, remedy)
    if manifest.task != path.parent.name:
        raise StoreError(f"belongs to the task {manifest.task!r}", where=path, remedy=remedy)
    names = [name for part in manifest.parts for name in (part.name, part.frames, part.segments) if name is not None]
    if len(set(names)) < len(names):
        raise StoreError("is damaged (it names a file twice)", where=path, remedy=remedy)
    return manifest


def _read(path: Path, kind: Any, remedy: str) -> Any:
    try:
        data = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot be read ({error})", where=path, remedy=remedy) from error
    if not isinstance(data, dict):
        raise StoreError("is not a record", where=path, remedy=remedy)
    if "schema" not in data:
        raise StoreError("is damaged (it has no schema)", where=path, remedy=remedy)
    if data.pop("schema") != SCHEMA:
        raise StoreError("was written by another version of uwbench", where=path, remedy="use a new --cache")
    try:
        return _adapter(kind).validate_python(data)
    except ValidationError as error:
        field, what = first_fault(error)
        raise StoreError(f"is damaged ({field}: {what})", where=path, remedy=remedy) from error


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
