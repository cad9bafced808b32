"""The main job on real audio with real weights: Whisper tiny.en on ESC-10, against figures computed independently.

The figures: X-ARES 0.1.3 itself, run on this audio packed in its layout at 16 kHz with these weights, gives kNN
0.4225 and MLP 0.6625; cosine kNN over the means of valid frames, computed outside this project, gives 0.847.
"""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import tarfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from conftest import Command
from uwbench.cache.clip_table import read_table
from uwbench.cache.records import read_encoder
from uwbench.cache.store import EncoderStore

pytestmark = pytest.mark.slow

# ESC-10's names -> ESC-50's class numbers, which X-ARES's tars hold.
NUMBERS = {
    "dog_bark": 0,
    "rooster": 1,
    "rain": 10,
    "sea_waves": 11,
    "fire_crackling": 12,
    "baby_cry": 20,
    "person_sneeze": 21,
    "clock_tick": 38,
    "helicopter": 40,
    "chainsaw": 41,
}


def pack(esc10: Path, folder: Path) -> None:
    """Pack ESC-10 in X-ARES's layout of ESC-50: a tar a fold, each clip with a JSON that holds the class number."""
    folder.mkdir(parents=True)
    with (esc10 / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for fold in range(1, 6):
        with tarfile.open(folder / f"wds-audio-fold-{fold}-0000000.tar", "w") as tar:
            for row in rows:
                if row["fold"] == str(fold):
                    key = Path(row["path"]).stem
                    record = json.dumps({"label": NUMBERS[row["label"]]}).encode()
                    for name, data in ((f"{key}.ogg", (esc10 / row["path"]).read_bytes()), (f"{key}.json", record)):
                        member = tarfile.TarInfo(name)
                        member.size = len(data)
                        tar.addfile(member, io.BytesIO(data))


@pytest.fixture(scope="session")
def esc10_job(shared_data: Path, whisper_tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Extract ESC-10 with Whisper tiny.en at full context once: about two minutes on two cores."""
    from uwbench import api

    root = tmp_path_factory.mktemp("esc10")
    pack(shared_data / "esc10", root / "data" / "esc50")
    folders = api.folders(root / "cache", root / "data", root / "results")
    report = api.extract([api.ModelSpec(str(whisper_tiny))], ["esc50"], folders=folders)
    assert report.exit_code == 0, report.failures
    return {"cache": root / "cache", "data": root / "data", "results": root / "results", "model": whisper_tiny}


def options(job: dict[str, Path]) -> list[str]:
    return ["--cache", str(job["cache"]), "--results", str(job["results"]), "--data", str(job["data"])]


@pytest.fixture(scope="session")
def scores(esc10_job: dict[str, Path]) -> dict[str, dict]:
    """The scores of ESC-10 under each protocol, as the command prints them."""
    found = {}
    for protocol in ("xares-0.1.3", "uwbench-1"):
        command = [sys.executable, "-m", "uwbench", "probe", "-t", "esc50", "--protocol", protocol, "--json"]
        done = subprocess.run([*command, *options(esc10_job)], capture_output=True, text=True, check=True)
        (result,) = json.loads(done.stdout)
        assert result["task"]["n"] == 400
        found[protocol] = result["scores"]
    return found


def test_xares_protocol_gives_the_numbers_of_xares(scores: dict[str, dict]) -> None:
    found = scores["xares-0.1.3"]
    assert found["knn"]["main_score"] == pytest.approx(0.4225, abs=0.003)
    assert found["mlp"]["main_score"] == pytest.approx(0.66, abs=0.03)


def test_valid_frames_and_cosine_double_the_knn_score(scores: dict[str, dict]) -> None:
    found = scores["uwbench-1"]
    assert found["knn"]["main_score"] == pytest.approx(0.847, abs=0.01)
    low, high = found["knn"]["ci95"]
    assert low < found["knn"]["main_score"] < high
    assert found["mlp"]["main_score"] > 0.87
    assert len(found["mlp"]["per_seed"]) == 5


def test_the_probe_is_near_logistic_regression(scores: dict[str, dict], esc10_job: dict[str, Path]) -> None:
    vectors, labels, folds = embeddings(esc10_job)
    hits = 0
    for fold in sorted(set(folds)):
        inside = folds != fold
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
        hits += (model.fit(vectors[inside], labels[inside]).predict(vectors[~inside]) == labels[~inside]).sum()
    assert scores["uwbench-1"]["mlp"]["main_score"] == pytest.approx(hits / 400, abs=0.03)


def test_knn_equals_plain_numpy(scores: dict[str, dict], esc10_job: dict[str, Path]) -> None:
    vectors, labels, folds = embeddings(esc10_job)
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
    assert scores["uwbench-1"]["knn"]["main_score"] == pytest.approx(hits / 400, abs=1e-9)


def test_a_second_run_encodes_nothing(uwbench: Command, esc10_job: dict[str, Path]) -> None:
    done = uwbench("run", "-m", esc10_job["model"], "-t", "esc50", "--method", "knn", *options(esc10_job))
    assert done.code == 0, done.err
    assert "400 of 400 clips cached" in done.err
    assert "loading" not in done.err


def test_the_same_clips_as_a_manifest_are_not_encoded_again(
    uwbench: Command, esc10_job: dict[str, Path], shared_data: Path
) -> None:
    manifest = shared_data / "esc10" / "manifest.csv"
    done = uwbench("run", "-m", esc10_job["model"], "-t", manifest, "--method", "knn", "--json", *options(esc10_job))
    assert done.code == 0, done.err
    assert "400 of 400 clips cached" in done.err
    assert json.loads(done.out)[0]["scores"]["knn"]["main_score"] == pytest.approx(0.847, abs=0.01)


def test_one_weight_changed_is_another_encoder(uwbench: Command, esc10_job: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    folder = tmp_path / esc10_job["model"].name
    shutil.copytree(esc10_job["model"], folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.encoder.layers.0.fc1.bias"][0] += 1e-3
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    done = uwbench("extract", "-m", folder, "-t", "esc50", "--part", "13/13", *options(esc10_job))
    assert done.code == 0, done.err
    assert "0 of 400 clips cached" in done.err
    assert "changed since the last time: weights" in done.err


def test_real_labels_of_the_music_and_speech_sets(uwbench: Command, shared_data: Path) -> None:
    words = ["-t", shared_data / "fsdd" / "manifest.csv", "-t", shared_data / "philharmonia" / "manifest.csv"]
    done = uwbench("run", "-m", "logmel", *words, "--json")
    assert done.code == 0, done.err
    found = {result["task"]["name"]: result for result in json.loads(done.out)}
    assert found["fsdd"]["task"]["n"] == 300
    assert found["fsdd"]["scores"]["mlp"]["main_score"] > 0.7
    assert found["philharmonia"]["scores"]["mlp"]["main_score"] > 0.5
    other = uwbench(
        "run", "-m", "logmel", *words[:2], "--label", "speaker", "--name", "fsdd_speaker", "--method", "knn", "--json"
    )
    assert "3,000 of 3,000 clips cached" in other.err
    assert json.loads(other.out)[0]["scores"]["knn"]["main_score"] > 0.7


def embeddings(job: dict[str, Path]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    record = read_encoder(next(path for path in job["cache"].glob("*/encoder.json")))
    store = EncoderStore(job["cache"], record)
    manifest = store.manifest("esc50")
    assert manifest is not None
    table = read_table(job["cache"], manifest.table)
    vectors = store.open_task("esc50", table.keys).pooled()[:, 0]
    return vectors, np.array(table.labels), np.array(table.folds)
