"""Miniatures of the 22 public datasets, made of real audio with the published names and tables.

`write_miniature` writes what a user would have on disk, as the publisher ships it or as X-ARES packs it; it knows
nothing of the readers under test.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from miniatures import publishers, xares
from miniatures.bank import Bank

CARDS = tuple(sorted(publishers.WRITERS))


def write_miniature(card: str, layout: Literal["publisher", "xares"], folder: Path, shared: Path) -> None:
    """Write a miniature of `card`'s dataset into `folder`, from the real audio in `shared`."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = publishers.WRITERS[card] if layout == "publisher" else xares.WRITERS[card]
    writer(folder, Bank(shared))
