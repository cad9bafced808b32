"""All layers in one pass: the curve over layers on real audio is what a probe of each layer alone gives."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]


@pytest.fixture
def manifest(shared_data: Path, tmp_path: Path) -> Path:
    """Four classes of ESC-10, three clips of each in each of three folds."""
    with (shared_data / "esc10" / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    kinds = sorted({row["label"] for row in rows})[:4]
    chosen = []
    for fold in "123":
        for kind in kinds:
            chosen += [row for row in rows if (row["fold"], row["label"]) == (fold, kind)][:3]
    assert len(chosen) == 36
    path = tmp_path / "few" / "manifest.csv"
    path.parent.mkdir()
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["path", "label", "fold"])
        writer.writeheader()
        for row in chosen:
            audio = shared_data / "esc10" / row["path"]
            writer.writerow({"path": str(audio), "label": row["label"], "fold": row["fold"]})
    return path


@pytest.fixture
def model(small_whisper: Path, tmp_path: Path) -> Path:
    """The small Whisper with larger weights: with the random ones, its last layer is nearly its first."""
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(small_whisper, tmp_path / "whisper"))
    weights = load_file(folder / "model.safetensors")
    larger = {name: value * 15 if value.dim() > 1 else value for name, value in weights.items()}
    save_file(larger, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_the_curve_is_what_a_probe_of_each_layer_alone_gives(
    uwbench: Command, model: Path, manifest: Path, tmp_path: Path
) -> None:
    def run(layers: str, *words: object) -> Any:
        common = ["-m", model, "--context", "trimmed", "-t", manifest, "--allow-outside", "--layers", layers]
        done = uwbench("run", *common, "--results", tmp_path / layers, *words)
        assert done.code == 0, done.err
        return done

    (swept,) = json.loads(run("all", "--json").out)
    curve = swept["scores"]["mlp"]["layers"]
    assert list(curve) == ["0", "1", "2"]
    assert swept["scores"]["mlp"]["chosen"]["layer"] == "2"
    assert swept["contamination"]["flag"] == "unknown"  # Whisper's web audio is not public
    assert curve["2"] == swept["scores"]["mlp"]["per_seed"][0]
    for layer in ("0", "1", "2"):
        (alone,) = json.loads(run(layer, "--json").out)
        assert alone["model"]["layers"] == [layer]
        assert alone["scores"]["mlp"]["layers"] is None
        assert curve[layer] == pytest.approx(alone["scores"]["mlp"]["per_seed"][0], abs=1e-12)
    assert alone["scores"]["knn"]["main_score"] == swept["scores"]["knn"]["main_score"]
    assert len(set(curve.values())) > 1

    printed = uwbench("probe", "-t", "few", "-m", swept["model"]["fingerprint"]).out
    lines = [line.split() for line in printed.splitlines()]
    for layer, score in curve.items():
        assert [layer, f"{score:.3f}"] in lines
    best = swept["scores"]["mlp"]
    assert f"{best['raw']['best layer']:.3f} ({best['chosen']['best_layer']})" in printed
    assert f"{best['raw']['weighted layers']:.3f}" in printed
    assert "layers_on_validation" not in printed
