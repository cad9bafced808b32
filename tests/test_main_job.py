"""The main job with a real encoder on real audio: Whisper tiny.en on ESC-10, against figures computed independently.

The figures: X-ARES 0.1.3 itself, run on this audio packed in its layout at 16 kHz with these weights, gives kNN
0.4225 and MLP 0.6625; cosine kNN over the means of valid frames, computed outside this project, gives 0.847, and over
the means of all frames 0.702.

Scores are those of the golden cache, the embeddings of all 400 clips (golden/make_esc10.py made it). That extraction
still gives these embeddings is tested on 20 of the clips.
"""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from conftest import Command
from golden.make_esc10 import pack, read_rows
from uwbench import Embeddings, load_embeddings
from uwbench.cache.clip_table import read_table

pytestmark = pytest.mark.slow

GOLDEN = Path(__file__).parent / "golden" / "esc10-whisper-tiny.en"
CLASSES = ("dog_bark", "rain")


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose `cache` is a copy of the golden cache, and whose `data` is empty."""
    folder = tmp_path_factory.mktemp("golden")
    (folder / "data").mkdir()
    shutil.copytree(GOLDEN, folder / "cache")
    return folder


@pytest.fixture(scope="module")
def scores(golden: Path) -> dict[str, dict]:
    """The scores of ESC-10 under each protocol, as the command prints them."""
    scores_of = {}
    for protocol in ("xares-0.1.3", "uwbench-1"):
        command = [sys.executable, "-m", "uwbench", "probe", "-t", "esc50", "--protocol", protocol, "--json"]
        done = subprocess.run([*command, *folders(golden)], capture_output=True, text=True, check=True)
        (result,) = json.loads(done.stdout)
        assert result["task"]["n"] == 400
        scores_of[protocol] = result["scores"]
    return scores_of


def folders(root: Path) -> list[str]:
    return [word for name in ("cache", "results", "data") for word in (f"--{name}", str(root / name))]


def test_xares_protocol_gives_the_numbers_of_xares(scores: dict[str, dict]) -> None:
    assert scores["xares-0.1.3"]["knn"]["main_score"] == pytest.approx(0.4225, abs=0.003)
    assert scores["xares-0.1.3"]["mlp"]["main_score"] == pytest.approx(0.66, abs=0.03)


def test_valid_frames_and_cosine_double_the_knn_score(scores: dict[str, dict]) -> None:
    knn, mlp = scores["uwbench-1"]["knn"], scores["uwbench-1"]["mlp"]
    assert knn["main_score"] == pytest.approx(0.847, abs=0.01)
    low, high = knn["ci95"]
    assert low < knn["main_score"] < high
    assert mlp["main_score"] > 0.87
    assert len(mlp["per_seed"]) == 5


def test_the_probe_is_near_logistic_regression(scores: dict[str, dict], golden: Path) -> None:
    vectors, labels, folds = arrays(golden / "cache")
    hits = 0
    for fold in sorted(set(folds)):
        inside = folds != fold
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
        hits += (model.fit(vectors[inside], labels[inside]).predict(vectors[~inside]) == labels[~inside]).sum()
    assert scores["uwbench-1"]["mlp"]["main_score"] == pytest.approx(hits / 400, abs=0.03)


def test_knn_equals_plain_numpy(scores: dict[str, dict], golden: Path) -> None:
    assert scores["uwbench-1"]["knn"]["main_score"] == pytest.approx(knn_of(golden / "cache", "mean"), abs=1e-9)
    assert knn_of(golden / "cache", "mean-all") == pytest.approx(0.702, abs=0.01)


def knn_of(cache: Path, pooling: str) -> float:
    """Return the accuracy of cosine kNN over the folds, in plain numpy."""
    vectors, labels, folds = arrays(cache, pooling)
    units = vectors.astype(np.float64)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    hits = 0
    for row in range(len(units)):
        bank = np.flatnonzero(folds != folds[row])
        similarity = units[bank] @ units[row]
        nearest = np.argsort(-similarity, kind="stable")[:10]
        weights = np.exp(similarity[nearest] / 0.07)
        votes: dict[str, float] = defaultdict(float)
        for index, weight in zip(nearest, weights, strict=True):
            votes[str(labels[bank[index]])] += weight
        hits += max(votes, key=votes.__getitem__) == labels[row]
    return hits / len(units)


@pytest.fixture(scope="module")
def twenty(shared_data: Path) -> list[dict[str, str]]:
    """Twenty clips of ESC-10: two of each of two classes in each fold."""
    rows = read_rows(shared_data / "esc10")
    chosen = []
    for fold in "12345":
        for label in CLASSES:
            chosen += [row for row in rows if (row["fold"], row["label"]) == (fold, label)][:2]
    assert len(chosen) == 20
    return chosen


@pytest.fixture(scope="module")
def extracted(
    shared_data: Path, whisper_tiny: Path, twenty: list[dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with `data`, the twenty clips in X-ARES's layout, and `cache`, their embeddings at full context."""
    folder = tmp_path_factory.mktemp("extracted")
    pack(shared_data / "esc10", twenty, folder / "data" / "esc50")
    command = [sys.executable, "-m", "uwbench", "extract", "-m", whisper_tiny, "-t", "esc50"]
    subprocess.run([*command, *folders(folder)], capture_output=True, text=True, check=True)
    return folder


@pytest.mark.parametrize("pooling", ["mean", "mean-all"])
def test_the_encoder_gives_the_golden_embeddings(extracted: Path, golden: Path, pooling: str) -> None:
    keys, golden_keys = keys_of(extracted / "cache"), keys_of(golden / "cache")
    assert len(keys) == 20
    assert keys.items() <= golden_keys.items(), "a clip's key changed: its bytes and how it is cut make it"
    embeddings = read_embeddings(extracted / "cache", pooling)
    golden_embeddings = read_embeddings(golden / "cache", pooling)
    rows = [golden_embeddings.ids.index(clip) for clip in embeddings.ids]
    vectors, expected = embeddings.vectors, golden_embeddings.vectors[rows]
    np.testing.assert_allclose(vectors, expected, rtol=1e-4, atol=1e-4)


def test_a_second_run_encodes_nothing(uwbench: Command, extracted: Path, whisper_tiny: Path) -> None:
    done = uwbench("run", "-m", whisper_tiny, "-t", "esc50", "--method", "knn", *folders(extracted))
    assert done.code == 0, done.err
    assert "20 of 20 clips cached" in done.err
    assert "loading" not in done.err


def test_the_same_clips_as_a_manifest_are_not_encoded_again(
    uwbench: Command,
    extracted: Path,
    whisper_tiny: Path,
    shared_data: Path,
    twenty: list[dict[str, str]],
    tmp_path: Path,
) -> None:
    def knn_score(task: str | Path) -> float:
        words = ("run", "-m", whisper_tiny, "-t", task, "--method", "knn", "--allow-outside", "--json")
        done = uwbench(*words, *folders(extracted))
        assert done.code == 0, done.err
        assert "20 of 20 clips cached" in done.err
        return json.loads(done.out)[0]["scores"]["knn"]["main_score"]

    manifest = tmp_path / "twenty" / "manifest.csv"
    manifest.parent.mkdir()
    with manifest.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "fold"))
        for row in twenty:
            writer.writerow((shared_data / "esc10" / row["path"], row["label"], row["fold"]))
    assert knn_score(manifest) == pytest.approx(knn_score("esc50"), abs=1e-9)


def test_one_weight_changed_is_another_encoder(
    uwbench: Command, extracted: Path, small_whisper: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "model"
    shutil.copytree(small_whisper, folder)
    words = ("extract", "-m", folder, "-t", "esc50", "--limit", "1", "--data", extracted / "data")
    assert uwbench(*words).code == 0
    weights = load_file(folder / "model.safetensors")
    weights["model.encoder.layers.0.fc1.bias"][0] += 1e-3
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    done = uwbench(*words)
    assert done.code == 0, done.err
    assert "0 of 5 clips cached" in done.err
    assert "changed since the last time: weights" in done.err


def test_real_labels_of_the_music_and_speech_sets(uwbench: Command, shared_data: Path) -> None:
    words = ["-t", shared_data / "fsdd" / "manifest.csv", "-t", shared_data / "philharmonia" / "manifest.csv"]
    done = uwbench("run", "-m", "logmel", *words, "--seed", "0", "--json")
    assert done.code == 0, done.err
    results = {result["task"]["name"]: result for result in json.loads(done.out)}
    assert results["fsdd"]["task"]["n"] == 300
    assert results["fsdd"]["scores"]["mlp"]["main_score"] > 0.7
    assert results["philharmonia"]["scores"]["mlp"]["main_score"] > 0.5
    speaker = ("--label", "speaker", "--name", "fsdd_speaker", "--method", "knn")
    other = uwbench("run", "-m", "logmel", *words[:2], *speaker, "--json")
    assert "3,000 of 3,000 clips cached" in other.err
    assert json.loads(other.out)[0]["scores"]["knn"]["main_score"] > 0.7


def read_embeddings(cache: Path, pooling: str = "mean") -> Embeddings:
    return load_embeddings("whisper-tiny.en", "esc50", pooling=pooling, cache=cache)


def arrays(cache: Path, pooling: str = "mean") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the vectors of the only layer, the labels and the folds."""
    embeddings = read_embeddings(cache, pooling)
    return embeddings.vectors[:, 0], np.array(embeddings.labels), np.array(embeddings.folds)


def keys_of(cache: Path) -> dict[str, bytes]:
    """Return the key of each clip of a cache, by id."""
    (path,) = (path for path in (cache / "clips").glob("esc50-*.parquet") if "scan" not in path.name)
    table = read_table(cache, path.stem)
    return dict(zip(table.ids, table.keys, strict=True))
