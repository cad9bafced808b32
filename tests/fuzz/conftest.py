"""The fixture of the fuzz tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz.world import make_world


@pytest.fixture(scope="session")
def world(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real files that fuzzing starts from, as `world.make_world` lays them out."""
    folder = tmp_path_factory.mktemp("fuzz") / "world"
    make_world(folder, shared_data.parent)
    return folder
