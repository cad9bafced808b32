"""A manifest reads files in its own folder only, links included, unless `--allow-outside` is given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from conftest import Command

ROWS = "path,label,split\n{0},a,train\nb.wav,b,train\nc.wav,a,test\nd.wav,b,test\n"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three clips below the manifest, and one beside its folder with links to it."""
    inside, outside = tmp_path / "set", tmp_path / "elsewhere"
    for folder in (inside, outside):
        folder.mkdir()
    rng = np.random.default_rng(0)
    for path in (inside / "b.wav", inside / "c.wav", inside / "d.wav", outside / "secret.wav"):
        soundfile.write(path, rng.uniform(-0.5, 0.5, 4000), 16_000)
    (inside / "folder").symlink_to(outside)
    (inside / "link.wav").symlink_to(outside / "secret.wav")
    (inside / "own.wav").symlink_to(inside / "b.wav")
    return inside


@pytest.mark.parametrize(
    "name", ["../elsewhere/secret.wav", "folder/secret.wav", "link.wav", "folder/../elsewhere/secret.wav"]
)
def test_a_path_that_leads_outside_needs_leave(name: str, data: Path, uwbench: Command) -> None:
    manifest = data / "manifest.csv"
    manifest.write_text(ROWS.format(name))
    refused = uwbench("extract", "-m", "logmel", "-t", manifest)
    assert refused.code == 2
    assert "outside" in refused.err
    assert "--allow-outside" in refused.err
    assert uwbench("extract", "-m", "logmel", "-t", manifest, "--allow-outside").code == 0


def test_an_absolute_path_needs_leave(data: Path, uwbench: Command) -> None:
    manifest = data / "manifest.csv"
    manifest.write_text(ROWS.format(data.parent / "elsewhere" / "secret.wav"))
    assert uwbench("extract", "-m", "logmel", "-t", manifest).code == 2


def test_a_link_within_the_folder_is_a_path_like_others(data: Path, uwbench: Command) -> None:
    (data / "manifest.csv").write_text(ROWS.format("own.wav"))
    assert uwbench("extract", "-m", "logmel", "-t", data / "manifest.csv").code == 0
