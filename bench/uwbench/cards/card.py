"""Task cards, suites and protocols: closed YAML, validated, with errors that name the file and the field.

A card is data. It names kinds, metrics, layouts and label fields that the program knows; it never names code.
Built-in cards live in `tasks/` (shipped in the wheel as `uwbench/_tasks`); plug-ins add folders of cards through the
entry-point group `uwbench.cards`; a path to a card file works wherever a name does.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import importlib.resources
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from uwbench.base.hashing import digest
from uwbench.base.registry import suggestion
from uwbench.base.yaml_text import read_yaml_file
from uwbench.errors import InputError, UsageError

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


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Splits(_Closed):
    """The source's own names of the splits. `valid: null` means that validation is taken out of train, by group."""

    train: Text
    valid: Text | None = None
    test: Text


class Shards(_Closed):
    """X-ARES's WebDataset tars: a Zenodo record and the pattern of its tars, `{split}` or `{fold}` filled in."""

    zenodo: int
    pattern: Text
    folder: Name  # X-ARES's name of the task's folder
    field: Text  # the key of a record's JSON that holds the label; "." where the label is the whole JSON
    splits: Splits | None = None  # where the shards' names differ from the publisher's
    folds: dict[FoldName, str] | None = None  # our fold -> the text in a shard's name, where they differ


class Hub(_Closed):
    """A Hugging Face dataset with embedded audio: where its columns are."""

    id: Text
    revision: Text | None = None
    config: Text | None = None
    audio: Text = "audio"
    label: Text = "label"
    group: Text | None = None
    fold: Text | None = None  # the column that holds the fold
    splits: Splits | None = None


class Sources(_Closed):
    """Where a task's clips can come from; the first that is found on disk is used."""

    shards: Shards | None = None
    layout: Name | None = None  # the publisher's own layout, by name (uwbench.sources.layout)
    hub: Hub | None = None
    generated: Name | None = None  # clips computed on the spot (uwbench.sources.generated)


class Size(_Closed):
    """The publisher's counts, used by `data check` and by the forecasts before a start."""

    clips: int = Field(gt=0)
    hours: float | None = Field(default=None, gt=0)  # None: not known to us
    download_gb: float | None = Field(default=None, ge=0)
    splits: dict[str, int] | None = None  # clips in each split or fold, where the publisher states them


class Xares(_Closed):
    """X-ARES 0.1.3's settings of the task, for the protocol that reproduces them."""

    epochs: int = Field(default=10, gt=0)
    batch: int = Field(default=32, gt=0)
    selects_on_test: bool = False  # its checkpoint is chosen on the data that is then scored
    knn: bool = True  # whether X-ARES runs kNN on the task


class Card(_Closed):
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
    crop_s: float | None = Field(default=None, gt=0)
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


class Suite(_Closed):
    """An ordered list of tasks that an average is taken over."""

    name: Name
    version: int = Field(gt=0)
    title: Text
    tasks: tuple[Name, ...] = Field(min_length=1)
    note: str = ""


class MlpSettings(_Closed):
    """How the MLP probe is trained; every listed value of the grid is tried, the choice is made on `selection` data."""

    normalise: Literal["standard", "none"]  # inputs standardised with training statistics, or as they are
    widths: tuple[int, ...]  # hidden units; 0 is a linear probe
    learning_rates: tuple[float, ...]
    weight_decays: tuple[float, ...]
    dropout: float = Field(ge=0, lt=1)
    optimiser: Literal["adamw", "adam"]
    epochs: int | Literal["card"]  # "card": the card's X-ARES settings
    batch: int | Literal["card"]
    shown: int | None = None  # larger training sets train for fewer epochs, so that about this many items are shown
    least_epochs: int = 1  # but never for fewer than this
    epoch_steps: int | None = None  # an epoch has at most this many steps; larger sets get larger batches
    final_rate: float = Field(gt=0, le=1)  # the cosine schedule ends at this share of the learning rate
    schedule: Literal["step", "epoch"]  # when the schedule moves
    seeds: tuple[int, ...] = Field(min_length=1)
    validation_share: float = Field(gt=0, lt=1)  # of the training clips, by group, where no validation split exists
    selection: Literal["validation", "xares"]  # "xares": on test data where X-ARES does so, labelled as a leak
    grid_clips: int | None = None  # larger training sets search the grid on a subsample of this many clips
    grid_shown: int | None = None  # as `shown`, while the grid is searched; None: the same
    grid_frames: int | None = None  # frame tasks: frames that the grid is searched on, and measured on
    train_frames: int | None = None  # frame tasks: frames that the final seeds train on, evenly spaced
    test_frames: int | None = None  # frame tasks: about this many test frames, those of randomly drawn segments
    metric_of_folds: Literal["pooled", "mean"]


class KnnSettings(_Closed):
    """How neighbours are found and how they vote."""

    similarity: Literal["cosine", "xares"]
    k: int = Field(gt=0)
    ks: tuple[int, ...]  # further k whose scores are stored
    temperature: float = Field(gt=0)
    bank_frames: int | None = None  # frame tasks: training frames to search, evenly spaced
    query_frames: int | None = None  # frame tasks: about this many test frames, those of randomly drawn segments
    standardised_too: bool  # also score vectors standardised with training statistics
    metric_of_folds: Literal["pooled", "mean"]


class Bootstrap(_Closed):
    """The interval of a score: resamples over test items, clustered by group."""

    resamples: int = Field(gt=0)
    level: float = Field(gt=0, lt=1)
    seed: int


class Protocol(_Closed):
    """A versioned set of rules by which a number is made; a leaderboard never mixes two."""

    name: Name
    version: int = Field(gt=0)
    title: Text
    resampler: Literal["soxr_vhq", "soxr_hq"]
    pooling: Literal["mean", "mean-all"]  # over valid frames, or over every frame the encoder emits
    mlp: MlpSettings
    knn: KnnSettings
    bootstrap: Bootstrap
    notes: tuple[Text, ...] = ()  # what is not reproduced, and known leaks

    def sha256(self) -> str:
        """Return the identity of the protocol's content."""
        return digest(self.model_dump(mode="json"))

    def metric_of_folds(self) -> dict[Literal["mlp", "knn"], str]:
        """Return how each method puts its folds together: `pooled`, or the `mean` of their scores."""
        return {"mlp": self.mlp.metric_of_folds, "knn": self.knn.metric_of_folds}


Model = TypeVar("Model", bound=BaseModel)


def tasks_folder() -> Path:
    """Return the folder of built-in cards: the packaged one, else the checkout's `tasks/`."""
    packaged = Path(str(importlib.resources.files("uwbench"))) / "_tasks"
    checkout = Path(__file__).resolve().parents[3] / "tasks"
    for folder in (packaged, checkout):
        if (folder / "suites").is_dir():
            return folder
    raise InputError(f"the built-in task cards are neither in {packaged} nor in {checkout}", remedy="reinstall uwbench")


def load_card(path: Path) -> Card:
    """Read a task card; raise InputError naming the file and each field at fault."""
    return read_yaml(path, Card)


def load_suite(path: Path) -> Suite:
    """Read a suite; raise InputError naming the file and each field at fault."""
    return read_yaml(path, Suite)


def load_protocol(path: Path) -> Protocol:
    """Read a protocol; raise InputError naming the file and each field at fault."""
    return read_yaml(path, Protocol)


@lru_cache(maxsize=1)
def plugin_card_folders() -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Return the folders of plug-ins' cards (entry point `uwbench.cards` -> a package of cards) and error lines."""
    folders, problems = [], []
    for point in importlib.metadata.entry_points(group="uwbench.cards"):
        try:
            folders.append(Path(str(importlib.resources.files(point.value))))
        except (ImportError, TypeError) as error:
            problems.append(f"{point.name} ({point.value}): the plug-in's cards cannot be found: {error}")
    return tuple(folders), tuple(problems)


def find_cards() -> tuple[dict[str, Card], list[str]]:
    """Return all cards by name, and an error line for each plug-in card that was skipped.

    A broken built-in card raises: it would otherwise vanish from suites without a word.
    """
    cards = {card.name: card for card in (load_card(path) for path in sorted(tasks_folder().glob("*.yaml")))}
    folders, problems = plugin_card_folders()
    skipped = list(problems)
    for folder in folders:
        for path in sorted(folder.glob("*.yaml")):
            try:
                card = load_card(path)
                if card.name in cards:
                    raise InputError(f"the name {card.name!r} is taken by another card", where=path)
                cards[card.name] = card
            except InputError as error:
                skipped.append(str(error))
    return cards, skipped


def find_card(name: str) -> Card:
    """Return the card called `name`; raise UsageError with suggestions where there is none."""
    built_in = tasks_folder() / f"{name}.yaml"
    if re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", name) and built_in.is_file():
        return load_card(built_in)
    cards, _ = find_cards()
    if name not in cards:
        raise UsageError(f"unknown task {name!r}", remedy=suggestion(name, cards))
    return cards[name]


def find_suite(name: str) -> Suite:
    """Return a suite by name or by the path of its file."""
    return _find(name, "suite", load_suite)


def find_protocol(name: str) -> Protocol:
    """Return a protocol by name or by the path of its file."""
    return _find(name, "protocol", load_protocol)


def names_of(what: Literal["suite", "protocol"]) -> list[str]:
    """Return the names of the built-in suites or protocols."""
    return sorted(path.stem for path in (tasks_folder() / f"{what}s").glob("*.yaml"))


def load_vocabulary(name: str) -> tuple[str, ...]:
    """Return the classes listed, one a line and in order, in `tasks/labels/<name>.txt`."""
    path = tasks_folder() / "labels" / f"{name}.txt"
    try:
        labels = tuple(line for line in path.read_text(encoding="utf-8").splitlines() if line)
    except OSError as error:
        raise InputError(f"the label list cannot be read ({error.strerror})", where=path) from error
    if len(set(labels)) < len(labels):
        raise InputError("a label is listed twice", where=path)
    return labels


def _find(name: str, what: Literal["suite", "protocol"], load: Callable[[Path], Model]) -> Model:
    if name.endswith((".yaml", ".yml")):
        return load(Path(name))
    path = tasks_folder() / f"{what}s" / f"{name}.yaml"
    if name not in names_of(what):
        raise UsageError(f"unknown {what} {name!r}", remedy=suggestion(name, names_of(what)))
    return load(path)


def read_yaml(path: Path, model: type[Model]) -> Model:
    """Read a YAML file as `model`; raise InputError naming the file and each field at fault."""
    data = read_yaml_file(path)
    if not isinstance(data, dict):
        raise InputError("holds no fields", where=path)
    try:
        loaded = model.model_validate(data)
    except ValidationError as error:
        raise InputError("; ".join(_explain(error)), where=path) from error
    if getattr(loaded, "name", path.stem) != path.stem:
        raise InputError(f"name: must equal the file's name, {path.stem!r}", where=path)
    return loaded


def _explain(error: ValidationError) -> Iterator[str]:
    """Turn pydantic's findings into one readable phrase each."""
    for item in error.errors(include_url=False):
        field = ".".join(str(part) for part in item["loc"])
        value = item["input"]
        if item["type"] == "literal_error":
            allowed = re.findall(r"'([^']*)'", item.get("ctx", {}).get("expected", ""))
            close = difflib.get_close_matches(str(value), allowed, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            yield f"{field}: {value!r} is not one of {', '.join(allowed)}{hint}"
        elif item["type"] == "extra_forbidden":
            yield f"{field}: unknown field"
        elif item["type"] == "missing":
            yield f"{field}: missing"
        elif item["type"] == "value_error":
            yield str(item.get("ctx", {}).get("error", item["msg"]))
        else:
            yield f"{field}: {item['msg'][0].lower()}{item['msg'][1:]}, got {value!r}"
