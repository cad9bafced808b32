"""Fixtures for the tests of sources."""

from __future__ import annotations

from pathlib import Path

import pytest

from miniatures import CARDS, write_miniature


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """An empty folder, so that a test can check its whole content afterwards."""
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def miniatures(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Path:
    """Miniatures of all datasets in both forms, as <layout>/<card>."""
    root = tmp_path_factory.mktemp("miniatures")
    for layout in ("publisher", "xares"):
        for card in CARDS:
            write_miniature(card, layout, root / layout / card, shared_data)
    return root
