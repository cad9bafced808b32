"""What tests of sources share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from miniatures import CARDS, write_miniature


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A folder in which nothing is, so that a test can say all that it holds afterwards."""
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def miniatures(once: Callable[[str, Callable[[Path], object]], Path], shared_data: Path) -> Path:
    """Every dataset in both forms, <layout>/<card>: made once per run, so only to read."""

    def make(folder: Path) -> None:
        for layout in ("publisher", "xares"):
            for card in CARDS:
                write_miniature(card, layout, folder / layout / card, shared_data)

    return once("miniatures", make)
