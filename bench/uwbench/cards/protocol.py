"""Protocols: the versioned rules by which scores are computed."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializationInfo, field_serializer, model_validator

from uwbench.base.hashing import digest
from uwbench.base.schema import Closed
from uwbench.cards.card import Name, Text
from uwbench.methods import HEADLINE, METHODS


class MlpSettings(Closed):
    """How the MLP probe is trained. Every point of the grid is tried, and the best on `selection` data is chosen."""

    normalise: Literal["standard", "none"]  # standardise inputs with training statistics, or leave them as they are
    widths: tuple[int, ...]  # hidden units; 0 is a linear probe
    learning_rates: tuple[float, ...]
    weight_decays: tuple[float, ...]
    dropout: float = Field(ge=0, lt=1)
    optimiser: Literal["adamw", "adam"]  # AdamW is trained; without weight decay the two are the same
    epochs: int | Literal["card"]  # "card": the card's X-ARES settings
    batch: int | Literal["card"]
    shown: int | None = None  # larger training sets train for fewer epochs, so that about this many items are shown
    least_epochs: int = 1  # but for no fewer epochs than this
    epoch_steps: int | None = None  # the most steps per epoch; larger training sets get larger batches
    final_rate: float = Field(gt=0, le=1)  # the cosine schedule ends at this share of the learning rate
    schedule: Literal["step", "epoch"]  # the learning rate changes at every step, or at every epoch
    seeds: tuple[int, ...] = Field(min_length=1)
    validation_share: float = Field(gt=0, lt=1)  # of the training clips, by group, if there is no validation split
    selection: Literal["validation", "xares"]  # "xares": on test data for the tasks where X-ARES does so, and flagged
    grid_clips: int | None = None  # larger training sets search the grid on a subsample of this many clips
    grid_shown: int | None = None  # `shown` during the grid search; None: the same
    grid_frames: int | None = None  # frame tasks: frames that the grid search trains on, and is measured on
    train_frames: int | None = None  # frame tasks: frames that the final seeds train on, evenly spaced
    test_frames: int | None = None  # frame tasks: about this many test frames, from randomly drawn segments
    metric_of_folds: Literal["pooled", "mean"]

    @model_validator(mode="after")
    def _adam_has_no_decay(self) -> MlpSettings:
        if self.optimiser == "adam" and any(self.weight_decays):
            raise ValueError("optimiser: adam is for weight_decays of 0 only; use adamw")
        return self


class KnnSettings(Closed):
    """How nearest neighbours are found and how they vote."""

    similarity: Literal["cosine", "xares"]
    k: int = Field(gt=0)
    ks: tuple[int, ...]  # values of k whose scores are stored as well
    temperature: float = Field(gt=0)
    bank_frames: int | None = None  # frame tasks: training frames to search, evenly spaced
    query_frames: int | None = None  # frame tasks: about this many test frames, from randomly drawn segments
    standardised_too: bool  # also score vectors standardised with training statistics
    metric_of_folds: Literal["pooled", "mean"]


class Bootstrap(Closed):
    """Settings of the bootstrap interval, which resamples test items by group."""

    resamples: int = Field(gt=0)
    level: float = Field(gt=0, lt=1)
    seed: int


def _not_run() -> Any:
    """Return the settings of a method that a protocol does not run. `Protocol.runs` is asked before they are read."""
    return None


class Protocol(Closed):
    """A versioned set of rules for computing scores. A leaderboard shows one protocol only."""

    name: Name
    version: int = Field(gt=0)
    title: Text
    resampler: Literal["soxr_vhq"]  # the one that every embedding is made with
    pooling: Literal["mean", "mean-all"]  # over valid frames, or over all frames that the encoder returns
    mlp: MlpSettings = Field(default_factory=_not_run)
    knn: KnnSettings = Field(default_factory=_not_run)
    bootstrap: Bootstrap
    methods: dict[Name, dict[str, Any]] = Field(default_factory=dict)  # settings of the further methods that it runs
    headline: tuple[Name, ...] = Field(default=HEADLINE, min_length=1)  # methods that run if none are named
    caveats: tuple[Text, ...] = ()  # shown wherever its scores are
    notes: tuple[Text, ...] = ()  # details, known leaks, and differences from what is reproduced

    @model_validator(mode="after")
    def _runs_its_headline(self) -> Protocol:
        missing = [method for method in self.headline if not self.runs(method)]
        if missing:
            raise ValueError(f"headline: {missing[0]} has no settings here")
        return self

    @field_serializer("mlp", "knn")
    def _settings(self, settings: Closed | None, info: SerializationInfo) -> dict[str, Any] | None:
        return None if settings is None else settings.model_dump(mode=info.mode)

    def sha256(self) -> str:
        """Return the hash of the rules. Methods are outside: adding one changes no score that is there.

        A score by one of `methods` records its settings. What is shown first and said beside a score is no rule either.
        """
        return digest(self.model_dump(mode="json", exclude={"methods", "headline", "caveats"}))

    def runs(self, method: str) -> bool:
        """Return True if the protocol has settings of a known method, or takes a plug-in with its own."""
        if method in HEADLINE:
            return {"mlp": self.mlp, "knn": self.knn}[method] is not None
        if method in self.methods or not self._takes_plugins:
            return method in self.methods
        info = METHODS.get(method)
        return info is not None and bool(info.settings)

    @property
    def _takes_plugins(self) -> bool:
        """True if methods with settings of their own find what they are made for: folds with validation clips."""
        return bool(self.methods) and self.runs("mlp")

    def in_group(self, name: str) -> tuple[str, ...]:
        """Return the methods that `default` or `all` stands for, or the one of this name."""
        if name == "default":
            return self.headline
        return tuple(method for method in METHODS if self.runs(method)) if name == "all" else (name,)

    def metric_of_folds(self, method: str) -> str:
        """Return how a method combines folds: `pooled` predictions, or the `mean` of the folds' scores."""
        if method in HEADLINE and self.runs(method):
            return {"mlp": self.mlp, "knn": self.knn}[method].metric_of_folds
        return self.methods.get(method, {}).get("metric_of_folds", "pooled")
