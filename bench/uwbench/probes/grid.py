"""The grid of the MLP probe, the length of its schedule, and the choice that validation makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from uwbench.cards.card import Xares
from uwbench.cards.protocol import MlpSettings


@dataclass(frozen=True, slots=True)
class Point:
    """One point of the grid."""

    width: int
    learning_rate: float
    weight_decay: float


@dataclass(frozen=True, slots=True)
class Choice:
    """A grid point, the share of the schedule to train, and its metric and loss on validation data."""

    point: Point
    share: float
    metric: float
    loss: float

    @property
    def rank(self) -> tuple[float, float]:
        """Lower is better: the higher metric first, then the lower loss."""
        return -self.metric, self.loss

    def better_than(self, other: Choice | None) -> bool:
        """Compare by metric, then loss. On a full tie the earlier choice stays (grid order, then epoch)."""
        return other is None or self.rank < other.rank


def grid_points(settings: MlpSettings) -> list[Point]:
    """Return the grid in its fixed order: narrow before wide, then rates and decays as the card lists them."""
    return [Point(*values) for values in product(settings.widths, settings.learning_rates, settings.weight_decays)]


def best_choice(choices: Sequence[Choice], settings: MlpSettings) -> Choice:
    """Return the best of the choices, which come in grid order.

    A full tie goes to the width that the card lists first, then to the earlier epoch, then to the earlier point, so the
    result does not depend on which points trained side by side.
    """
    return min(choices, key=lambda choice: (choice.rank, settings.widths.index(choice.point.width), choice.share))


def epochs_for(settings: MlpSettings, xares: Xares, items: int, shown: int | None = None) -> int:
    """Return the number of epochs for a training set of `items`, so that about `shown` items are seen in all.

    `shown` defaults to the protocol's. `xares` holds the card's settings, used by protocols that take epochs from it.
    """
    epochs = xares.epochs if settings.epochs == "card" else settings.epochs
    shown = settings.shown if shown is None else shown
    if shown is None:
        return epochs
    return max(min(epochs, round(shown / max(items, 1))), min(settings.least_epochs, epochs))
