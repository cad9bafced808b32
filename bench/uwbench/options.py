"""Run options: how a task is read, how embeddings are made and scored, and the folders of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from uwbench.base.registry import close_names
from uwbench.errors import UsageError
from uwbench.methods import GROUPS, METHODS, in_group

Choice = TypeVar("Choice", bound=StrEnum)


class Context(StrEnum):
    """The positions that an encoder with a fixed context sees: all of them, or those of the clip alone."""

    FULL = "full"
    TRIMMED = "trimmed"


class Dtype(StrEnum):
    """The precision in which an encoder runs."""

    FP32 = "fp32"
    BF16 = "bf16"


class Engine(StrEnum):
    """Where clips are encoded: in this process, or by the workers of a Ray cluster."""

    LOCAL = "local"
    RAY = "ray"


class Kind(StrEnum):
    """The kind of a task: what its labels are."""

    SINGLE_LABEL = "single-label"
    MULTI_LABEL = "multi-label"
    FRAMES = "frame-multi-label"
    RETRIEVAL = "retrieval"
    TRANSCRIPTION = "transcription"


class Domain(StrEnum):
    """The domain of a task, over which one of the averages is taken."""

    SPEECH = "speech"
    SOUND = "sound"
    MUSIC = "music"


class FetchSource(StrEnum):
    """Where a task's audio is downloaded from: X-ARES's shards on Zenodo, or a Hugging Face dataset."""

    SHARDS = "shards"
    HUB = "hub"


class Contaminated(StrEnum):
    """What a leaderboard does with scores of tasks that a model was trained on: mark them, or leave them out."""

    KEEP = "keep"
    DROP = "drop"


class CardFormat(StrEnum):
    """A format for a model's scores: a Hugging Face model-index, its .eval_results, or MTEB's JSON."""

    HF = "hf"
    EVAL = "eval"
    MTEB = "mteb"


def choice(choices: type[Choice], value: str, option: str) -> Choice:
    """Return the member of `choices` that `value` names; raise UsageError, naming `option`, if there is none."""
    return choices(_listed(value, list(choices), option))


def _listed(value: str, listed: Iterable[str], option: str) -> str:
    names = list(map(str, listed))
    if value in names:
        return value
    close = close_names(value, names)
    hint = f"did you mean {close[0]}?" if close else None
    raise UsageError(f"{value!r} is not one of {', '.join(names)}", where=option, remedy=hint)


@dataclass(frozen=True, slots=True)
class Folders:
    """The folders of a run: the embeddings cache, the datasets (None: there are none) and the results."""

    cache: Path
    data: Path | None
    results: Path


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """A task and, if it is the user's own data, how to read it.

    `source` is a card's name, a card file, a manifest, or a folder with one sub-folder per class. The other fields
    apply to manifests and folders alone; a card that is given one is refused.
    """

    source: str | Path
    label: str | None = None  # the manifest's column that holds the label; None: the column "label"
    group: str | None = None  # the column that holds the speaker, recording or song
    path: str | None = None  # the columns for the audio file, the split or the fold, and the stretch in seconds;
    split: str | None = None  # None: the columns of these names, or of other common names
    fold: str | None = None
    start: str | None = None
    end: str | None = None
    duration: str | None = None
    name: str | None = None  # what results call the task; None: after the folder or file, and the label column
    kind: Kind | str | None = None  # None: single-label
    domain: Domain | str = Domain.SOUND
    allow_outside: bool = False  # a manifest's paths may leave its folder
    taken_from: tuple[str, ...] = ()  # published datasets or collections that the recordings are from, or "own"

    def __post_init__(self) -> None:
        if self.kind is not None:
            choice(Kind, self.kind, "--kind")
        choice(Domain, self.domain, "--domain")

    def changes(self) -> dict[str, object]:
        """Return the fields other than `source` that are not at their defaults."""
        rest = fields(self)[1:]
        return {field.name: getattr(self, field.name) for field in rest if getattr(self, field.name) != field.default}


@dataclass(frozen=True, slots=True)
class ExtractOptions:
    """How embeddings are made.

    `layers`, `poolings` and `dtype` are part of an encoder's fingerprint; the others change no embedding.
    """

    layers: str = "last"  # last, all, or a comma-separated list of names or numbers
    poolings: tuple[str, ...] = ("mean", "mean-all")
    segments: bool = False  # also the means of 1, 2, 4 and 8 parts of each clip: 15 vectors per layer
    dtype: Dtype | str = Dtype.FP32
    batch_seconds: float | None = None  # seconds of audio per forward pass, with padding; None: chosen for the device
    workers: int | None = None  # decoding threads; None: chosen for the machine
    limit: int | None = None  # clips per split or fold; results are marked as limited
    force: bool = False  # re-encode even if cached
    engine: Engine | str = Engine.LOCAL
    part: tuple[int, int] | None = None  # this machine's share of the work: (index from 1, number of machines)
    corruptions: tuple[str, ...] = ()  # of the tested clips, which are encoded corrupted too: "noise:10dB", "standard"

    def __post_init__(self) -> None:
        choice(Dtype, self.dtype, "--dtype")
        choice(Engine, self.engine, "--engine")
        if self.part is not None and not 1 <= self.part[0] <= self.part[1]:
            raise UsageError(f"{self.part[0]}/{self.part[1]} is not I/N with 1 <= I <= N", where="--part")


@dataclass(frozen=True, slots=True)
class ProbeOptions:
    """How embeddings are scored, beyond the protocol and its methods."""

    seed: int = 0
    allow_missing: int = 0  # score even if up to this many clips cannot be read
    text_encoder: str | None = None  # retrieval: the sentence encoder that embeds captions
    argv: tuple[str, ...] = ()  # the command line, for the record
    corruptions: tuple[str, ...] = ()  # as in ExtractOptions: probes of clean clips are tested on corrupted ones


def method_of(name: str) -> str:
    """Return the name of a method if there is one; else raise UsageError."""
    return _listed(name, METHODS, "--method")


def methods_of(methods: str | Iterable[str], group: Callable[[str], tuple[str, ...]] = in_group) -> tuple[str, ...]:
    """Return the methods named, each once; `group` says what `default` and `all` stand for under a protocol.

    Raises UsageError for an unknown name or if there are none.
    """
    names = (methods,) if isinstance(methods, str) else tuple(methods)
    if not names:
        raise UsageError("names no method", where="--method", remedy=f"use {', '.join((*METHODS, *GROUPS))}")
    named = [_listed(name, (*METHODS, *GROUPS), "--method") for name in names]
    return tuple(dict.fromkeys(method for name in named for method in group(name)))


def named_alone(methods: str | Iterable[str]) -> frozenset[str]:
    """Return the methods that are named themselves, not by a group."""
    return frozenset({methods} if isinstance(methods, str) else methods).difference(GROUPS)
