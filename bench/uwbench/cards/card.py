"""Task cards: everything known about a task before its audio is read.

A card is closed, validated YAML. It names kinds, metrics, layouts and label fields that the program knows, never code.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from uwbench.base.hashing import digest
from uwbench.base.schema import Closed

Domain = Literal["speech", "sound", "music"]
Kind = Literal["single-label", "multi-label", "frame-multi-label", "retrieval", "transcription"]
Metric = Literal["accuracy", "macro-f1", "map", "segment-f1-macro", "segment-f1-micro", "recall-at-1", "one-minus-wer"]


# Metrics that make sense for each kind; the first is what own data gets.
METRICS_OF_KIND: dict[str, tuple[str, ...]] = {
    "single-label": ("accuracy", "macro-f1"),
    "multi-label": ("map",),
    "frame-multi-label": ("segment-f1-macro", "segment-f1-micro"),
    "retrieval": ("recall-at-1",),
    "transcription": ("one-minus-wer",),
}


# Findings of `data check` that a card may tolerate: they lie in the dataset or its official split, not in a copy of it.
Tolerated = Literal["duplicates", "groups-cross"]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]*$", max_length=64)]
Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
FoldName = Annotated[str, Field(coerce_numbers_to_str=True)]


class Splits(Closed):
    """The source's own names of the splits. `valid: null` means that validation is taken out of train, by group."""

    train: Text
    valid: Text | None = None
    test: Text


class Shards(Closed):
    """X-ARES's WebDataset tars: a Zenodo record and the pattern of its tars, `{split}` or `{fold}` filled in."""

    zenodo: int
    pattern: Text
    folder: Name  # X-ARES's name of the task's folder
    field: Text  # the key of a record's JSON that holds the label; "." where the label is the whole JSON
    splits: Splits | None = None  # where the shards' names differ from the publisher's
    folds: dict[FoldName, str] | None = None  # our fold -> the text in a shard's name, where they differ


class Hub(Closed):
    """A Hugging Face dataset with embedded audio: where its columns are."""

    id: Text
    revision: Text | None = None
    config: Text | None = None
    audio: Text = "audio"
    label: Text = "label"
    group: Text | None = None
    fold: Text | None = None  # the column that holds the fold
    splits: Splits | None = None


class Sources(Closed):
    """Where a task's clips can come from; the first that is found on disk is used."""

    shards: Shards | None = None
    layout: Name | None = None  # the publisher's own layout, by name (uwbench.sources.layout)
    hub: Hub | None = None
    generated: Name | None = None  # clips computed on the spot (uwbench.sources.generated)


class Size(Closed):
    """The publisher's counts, used by `data check` and by the forecasts before a start."""

    clips: int = Field(gt=0)
    hours: float | None = Field(default=None, gt=0)  # None: not known to us
    download_gb: float | None = Field(default=None, ge=0)
    splits: dict[str, int] | None = None  # clips in each split or fold, where the publisher states them


class Xares(Closed):
    """X-ARES 0.1.3's settings of the task, for the protocol that reproduces them."""

    epochs: int = Field(default=10, gt=0)
    batch: int = Field(default=32, gt=0)
    selects_on_test: bool = False  # its checkpoint is chosen on the data that is then scored
    knn: bool = True  # whether X-ARES runs kNN on the task


class Card(Closed):
    """Everything uwbench knows about a task before it sees the audio."""

    name: Name
    version: int = Field(gt=0)
    title: Text
    domain: Domain
    kind: Kind
    metric: Metric
    labels: Text = "label"  # the source's field that holds the label
    vocabulary: Name | None = None  # tasks/labels/<vocabulary>.txt; otherwise classes = sorted training labels
    folds: tuple[FoldName, ...] | None = None
    splits: Splits | None = None
    group: Text | None = None
    weight: float = Field(default=1.0, gt=0)
    chance: float = Field(ge=0, lt=1)
    segment_s: float | None = Field(default=None, gt=0)  # window of segment-F1
    sources: Sources = Sources()
    licence: Text = "unknown"
    size: Size | None = None
    cite: Text = "unknown"
    xares: Xares = Xares()
    faults: tuple[Text, ...] = ()
    tolerated: tuple[Tolerated, ...] = ()
    changes: tuple[Text, ...] = ()  # one line a version after the first

    @model_validator(mode="after")
    def _consistent(self) -> Card:
        if (self.folds is None) == (self.splits is None):
            raise ValueError("folds: give either folds or splits, not both and not neither")
        if self.folds is not None and (len(self.folds) < 2 or len(set(self.folds)) < len(self.folds)):
            raise ValueError("folds: at least two folds, each named once")
        if self.metric not in METRICS_OF_KIND[self.kind]:
            allowed = ", ".join(METRICS_OF_KIND[self.kind])
            raise ValueError(f"metric: {self.metric!r} does not score a {self.kind} task; allowed: {allowed}")
        if (self.kind == "frame-multi-label") != (self.segment_s is not None):
            raise ValueError("segment_s: needed for frame-multi-label tasks, and only there")
        for pattern in self.shard_patterns().values():
            if re.fullmatch(r"[\w.*?+=,@ -]{1,200}", pattern) is None or "**" in pattern or ".." in pattern:
                raise ValueError(f"sources.shards.pattern: {pattern!r} is no pattern of a file's name")
        if len(self.changes) != self.version - 1:
            raise ValueError(f"changes: version {self.version} needs {self.version - 1} lines of changes")
        return self

    def shard_patterns(self) -> dict[str, str]:
        """Return the pattern of the shards' names of each fold, or of each split as it is called here."""
        shards = self.sources.shards
        if shards is None:
            return {}
        if self.folds is not None:
            told = shards.folds or {}
            return {fold: shards.pattern.replace("{fold}", told.get(fold, fold)) for fold in self.folds}
        names = shards.splits or self.splits
        parts = {} if names is None else {"train": names.train, "valid": names.valid, "test": names.test}
        return {part: shards.pattern.replace("{split}", name) for part, name in parts.items() if name is not None}

    def sha256(self) -> str:
        """Return the identity of the card's content."""
        return digest(self.model_dump(mode="json"))
