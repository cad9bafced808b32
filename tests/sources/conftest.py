"""What tests of sources share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from miniatures import CARDS, write_miniature
from uwbench.cards.find import find_protocol


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


@pytest.fixture(scope="session")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default protocol with a single grid point and seed."""
    protocol = find_protocol("uwbench-1").model_dump(mode="json")
    protocol["name"] = "quick"
    protocol["mlp"] |= {"widths": [0], "learning_rates": [0.01], "weight_decays": [0.01], "seeds": [0]}
    protocol["bootstrap"]["resamples"] = 50
    path = tmp_path_factory.mktemp("protocols") / "quick.yaml"
    path.write_text(yaml.safe_dump(protocol))
    return path
