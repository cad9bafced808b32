"""The real files that fuzzing starts from, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import missing
from fuzz.world import SHARED, make_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `world.make_world` lays it out."""
    if not (SHARED / "data" / "fsdd" / "manifest.csv").is_file():
        missing(f"the real audio in {SHARED / 'data'}")
    folder = tmp_path_factory.mktemp("fuzz") / "world"
    make_world(folder, SHARED)
    return folder
