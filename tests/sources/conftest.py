"""What tests of sources share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A folder in which nothing is, so that a test can say all that it holds afterwards."""
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder
