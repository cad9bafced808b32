"""Task cards: what is known about a task before its audio is read.

A card is a closed, validated YAML file. It names kinds, metrics, layouts and label fields, and never contains code.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from itertools import combinations
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from uwbench.base.hashing import digest
from uwbench.base.schema import Closed

Domain = Literal["speech", "sound", "music"]
Kind = Literal["single-label", "multi-label", "frame-multi-label", "retrieval", "transcription"]
Metric = Literal["accuracy", "macro-f1", "map", "segment-f1-macro", "segment-f1-micro", "recall-at-1", "one-minus-wer"]


# The metrics that fit each kind; own data is scored by the first.
METRICS_OF_KIND: dict[str, tuple[str, ...]] = {
    "single-label": ("accuracy", "macro-f1"),
    "multi-label": ("map",),
    "frame-multi-label": ("segment-f1-macro", "segment-f1-micro"),
    "retrieval": ("recall-at-1",),
    "transcription": ("one-minus-wer",),
}

# Findings of `data check` that a card may tolerate, because they are in the dataset or its official split itself.
Tolerated = Literal["duplicates", "groups-cross"]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]*$", max_length=64)]
Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
FoldName = Annotated[str, Field(coerce_numbers_to_str=True)]


class Splits(Closed):
    """The source's names for the splits. Without `valid`, validation clips are taken from train, by group."""

    train: Text
    valid: Text | None = None
    test: Text

    def names(self) -> dict[str, str]:
        """Return the source's name for each of train, valid and test that exists."""
        names = {"train": self.train, "valid": self.valid, "test": self.test}
        return {split: name for split, name in names.items() if name is not None}


class Shards(Closed):
    """X-ARES's WebDataset tars: a Zenodo record, and the pattern of their names with `{split}` or `{fold}` in it."""

    zenodo: int
    pattern: Text
    folder: Name  # X-ARES's name for the task's folder
    field: Text  # the key of a record's JSON that holds the label; "." if the whole JSON is the label
    splits: Splits | None = None  # if the shards use other names than the publisher
    folds: dict[FoldName, str] | None = None  # fold -> its name in the shards' file names, if they differ


class Hub(Closed):
    """A Hugging Face dataset with embedded audio, and the names of its columns."""

    id: Text
    revision: Text | None = None
    config: Text | None = None
    audio: Text = "audio"
    label: Text = "label"
    group: Text | None = None
    fold: Text | None = None
    splits: Splits | None = None


class Sources(Closed):
    """Where a task's clips can come from. The first source found on disk is used."""

    shards: Shards | None = None
    layout: Name | None = None  # name of the publisher's layout (uwbench.sources.layouts)
    hub: Hub | None = None
    generated: Name | None = None  # name of a computed set of clips (uwbench.sources.generated)


class Size(Closed):
    """The publisher's counts, which `data check` compares with the data on disk."""

    clips: int = Field(gt=0)
    hours: float | None = Field(default=None, gt=0)  # None: unknown
    download_gb: float | None = Field(default=None, ge=0)
    splits: dict[str, int] | None = None  # clips per split or fold, if the publisher states them


class Xares(Closed):
    """X-ARES 0.1.3's settings for the task, for the protocol that reproduces its numbers."""

    epochs: int = Field(default=10, gt=0)
    batch: int = Field(default=32, gt=0)
    selects_on_test: bool = False  # X-ARES chooses its checkpoint on the test data
    knn: bool = True  # X-ARES runs kNN on the task


class Card(Closed):
    """A task: its source, its splits or folds, its labels, and how it is scored."""

    name: Name
    version: int = Field(gt=0)
    title: Text
    domain: Domain
    kind: Kind
    metric: Metric
    labels: Text = "label"  # the source's field that holds the label
    vocabulary: Name | None = None  # tasks/labels/<vocabulary>.txt; None: the classes are the sorted training labels
    folds: tuple[FoldName, ...] | None = None
    splits: Splits | None = None
    group: Text | None = None
    weight: float = Field(default=1.0, gt=0)
    chance: float = Field(ge=0, lt=1)
    segment_s: float | None = Field(default=None, gt=0)  # window of segment-based F1
    sources: Sources = Sources()
    taken_from: tuple[Text, ...] = ()  # own data: datasets or collections that the recordings are from, or "own"
    licence: Text = "unknown"
    size: Size | None = None
    cite: Text = "unknown"
    xares: Xares = Xares()
    faults: tuple[Text, ...] = ()
    tolerated: tuple[Tolerated, ...] = ()
    changes: tuple[Text, ...] = ()  # one line for each version after the first

    @model_validator(mode="after")
    def _consistent(self) -> Card:
        if (self.folds is None) == (self.splits is None):
            raise ValueError("folds: give either folds or splits, and not both")
        if self.folds is not None and (len(self.folds) < 2 or len(set(self.folds)) < len(self.folds)):
            raise ValueError("folds: give at least two, each one once")
        if self.metric not in METRICS_OF_KIND[self.kind]:
            allowed = ", ".join(METRICS_OF_KIND[self.kind])
            raise ValueError(f"metric: {self.metric!r} cannot score a {self.kind} task; allowed: {allowed}")
        if (self.kind == "frame-multi-label") != (self.segment_s is not None):
            raise ValueError("segment_s: required for frame-multi-label tasks and allowed for no others")
        for pattern in self.shard_patterns().values():
            if re.fullmatch(r"[\w.*?+=,@ -]{1,200}", pattern) is None or "**" in pattern or ".." in pattern:
                raise ValueError(f"sources.shards.pattern: {pattern!r} is not a pattern for file names")
        if len(self.changes) != self.version - 1:
            raise ValueError(f"changes: version {self.version} needs {self.version - 1} lines, one per later version")
        return self

    @model_validator(mode="after")
    def _parts_stay_apart(self) -> Card:
        """Refuse a card in which training, validation and test data could be the same files."""
        shards, hub = self.sources.shards, self.sources.hub
        for field, splits in (
            ("splits", self.splits),
            ("sources.shards.splits", shards.splits if shards else None),
            # A hub dataset with a fold column keeps all folds in one split.
            ("sources.hub.splits", hub.splits if hub and hub.fold is None else None),
        ):
            names = splits.names() if splits else {}
            for first, second in combinations(names, 2):
                if names[first] == names[second]:
                    raise ValueError(f"{field}: {first} and {second} are both {names[first]!r}")
        for first, second in combinations(self.shard_patterns().values(), 2):
            # Replacing the wildcard by a character gives a name that the pattern matches.
            if fnmatchcase(second.replace("*", "0"), first) or fnmatchcase(first.replace("*", "0"), second):
                raise ValueError(f"sources.shards: {first} and {second} match the same files")
        return self

    def shard_patterns(self) -> dict[str, str]:
        """Return the pattern of the shards' file names for each fold, or for each of train, valid and test."""
        shards = self.sources.shards
        if shards is None:
            return {}
        if self.folds is not None:
            names = {fold: (shards.folds or {}).get(fold, fold) for fold in self.folds}
            return {fold: shards.pattern.replace("{fold}", name) for fold, name in names.items()}
        splits = shards.splits or self.splits
        names = splits.names() if splits else {}
        return {split: shards.pattern.replace("{split}", name) for split, name in names.items()}

    def sha256(self) -> str:
        """Return the hash of the card's content."""
        unset = set() if self.taken_from else {"taken_from"}  # cards from before the field keep their hash
        return digest(self.model_dump(mode="json", exclude=unset))
