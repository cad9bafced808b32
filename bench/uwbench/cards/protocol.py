"""Protocols: the versioned rules by which a number is made."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from uwbench.base.hashing import digest
from uwbench.base.schema import Closed
from uwbench.cards.card import Name, Text


class MlpSettings(Closed):
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


class KnnSettings(Closed):
    """How neighbours are found and how they vote."""

    similarity: Literal["cosine", "xares"]
    k: int = Field(gt=0)
    ks: tuple[int, ...]  # further k whose scores are stored
    temperature: float = Field(gt=0)
    bank_frames: int | None = None  # frame tasks: training frames to search, evenly spaced
    query_frames: int | None = None  # frame tasks: about this many test frames, those of randomly drawn segments
    standardised_too: bool  # also score vectors standardised with training statistics
    metric_of_folds: Literal["pooled", "mean"]


class Bootstrap(Closed):
    """The interval of a score: resamples over test items, clustered by group."""

    resamples: int = Field(gt=0)
    level: float = Field(gt=0, lt=1)
    seed: int


class Protocol(Closed):
    """A versioned set of rules by which a number is made; a leaderboard never mixes two."""

    name: Name
    version: int = Field(gt=0)
    title: Text
    resampler: Literal["soxr_vhq"]  # the one that every embedding is made with
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
