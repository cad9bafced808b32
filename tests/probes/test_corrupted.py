"""Corrupted test clips are predicted by the very probes of the clean run, whose scores they do not change."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from conftest import Command
from probes.made_data import multi_label, single_label
from probes.test_run import FEW
from uwbench.api import ExtractOptions, ProbeOptions, evaluate, leaderboard, load_embeddings
from uwbench.probes.data import CorruptedVectors, TaskData
from uwbench.probes.run import run_probes


def exchanged(data: TaskData) -> tuple[TaskData, dict[str, str]]:
    """Return the task with each tested clip "corrupted" into the next tested one of its fold, and which that is."""
    parts = data.folds or data.splits or []
    tested = np.array([row for row in range(len(data.ids)) if data.folds or parts[row] == "test"])
    following = tested.copy()
    for part in set(parts):
        rows = np.flatnonzero([parts[row] == part for row in tested])
        following[rows] = tested[np.roll(rows, 1)]
    vectors = CorruptedVectors(tested, data.pooled[following, -1])
    next_of = {str(data.ids[row]): str(data.ids[next_row]) for row, next_row in zip(tested, following, strict=True)}
    return replace(data, corrupted={"exchanged": vectors}), next_of


def by_clip(table: pa.Table) -> dict[tuple[str, int, str], str]:
    columns = [table[name].to_pylist() for name in ("method", "seed", "id", "prediction")]
    return {(method, seed, clip): text for method, seed, clip, text in zip(*columns, strict=True)}


@pytest.mark.parametrize("make", [single_label, multi_label])
def test_a_clip_with_the_vector_of_another_gets_its_prediction(make: Callable[..., TaskData]) -> None:
    data, next_of = exchanged(make())
    outcome, plain = run_probes(data, FEW), run_probes(replace(data, corrupted={}), FEW)
    assert outcome.predictions.equals(plain.predictions)
    assert outcome.scores == plain.scores
    clean, corrupted = by_clip(outcome.predictions), by_clip(outcome.corrupted["exchanged"])
    assert corrupted == {(method, seed, clip): clean[method, seed, next_of[clip]] for method, seed, clip in clean}


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Two pitches in three splits, with speakers; a third of the clips in each."""
    import csv

    import soundfile

    folder = tmp_path / "pitches"  # a manifest alone in its folder is named after it
    folder.mkdir()
    rng, rows = np.random.default_rng(0), []
    for index in range(48):
        pitch = (300, 2000)[index % 2] * 2 ** (index // 2 / 24)
        tone = np.sin(2 * np.pi * pitch * np.arange(4000) / 16_000)
        soundfile.write(folder / f"{index:02d}.wav", 0.1 * tone + 0.005 * rng.standard_normal(4000), 16_000)
        rows.append((f"{index:02d}.wav", ("low", "high")[index % 2], ("train", "valid", "test")[index // 2 % 3]))
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    return folder / "manifest.csv"


def test_one_command_tests_on_corrupted_clips(manifest: Path, uwbench: Command) -> None:
    """Only tested clips are corrupted and encoded, each once; a second run encodes nothing and changes nothing."""
    words = (
        "run",
        "-m",
        "logmel",
        "-t",
        manifest,
        "--method",
        "knn",
        "--corrupt",
        "noise:20dB,noise:-10dB,reverb:small",
    )
    first = uwbench(*words)
    assert first.code == 0, first.err
    assert "3 corruptions with 48 clips to encode" in first.err
    assert "pitches, corrupted (kNN): " in first.out
    (path,) = Path("results").glob("*/*/*/pitches.json")
    result = json.loads(path.read_text())["robustness"]
    assert (result["clips"], list(result["corruptions"])) == (16, ["noise:-10dB", "noise:20dB", "reverb:small"])
    louder, quieter = (result["corruptions"][name] for name in ("noise:-10dB", "noise:20dB"))
    assert louder["cosine"] < quieter["cosine"] < 1
    assert louder["scores"]["knn"]["drop"] > quieter["scores"]["knn"]["drop"]
    again = uwbench(*words)
    assert "3 corruptions cached" in again.err
    assert json.loads(path.read_text())["robustness"] == result
    assert uwbench("reproduce", path).out.endswith("equal\n")
    assert "0.0 MB would be freed" in uwbench("cache", "prune", "--dry-run").out
    assert " 48 " in uwbench("cache", "ls").out


def test_a_later_run_adds_to_what_an_earlier_one_found(manifest: Path, uwbench: Command) -> None:
    for corruption in ("noise:0dB", "gain:-20dB", None):
        option = ("--corrupt", corruption) if corruption else ()
        assert uwbench("run", "-m", "logmel", "-t", manifest, "--method", "knn", *option).code == 0
    (path,) = Path("results").glob("*/*/*/pitches.json")
    assert list(json.loads(path.read_text())["robustness"]["corruptions"]) == ["gain:-20dB", "noise:0dB"]
    probed = uwbench("probe", "-t", "pitches", "--method", "knn", "--corrupt", "noise:0dB")  # without audio
    assert probed.code == 0, probed.err
    missing = uwbench("probe", "-t", "pitches", "--method", "knn", "--corrupt", "noise:3dB")
    assert missing.code == 1
    assert "run: uwbench extract --model logmel --task pitches --corrupt noise:3dB" in missing.err
    assert uwbench("run", "-m", "logmel", "-t", manifest, "--corrupt", "nose:3dB").code == 2


def test_the_python_functions_show_every_drop(manifest: Path, tmp_path: Path) -> None:
    names = ("noise:20dB", "noise:0dB")
    evaluate("logmel", manifest, methods="knn", probe=ProbeOptions(corruptions=names))
    board = leaderboard()
    frame = board.robustness_frame()
    assert frame.corruption.tolist() == sorted(names)
    assert ((frame.low <= frame["drop"]) & (frame["drop"] <= frame.high)).all()
    data = json.loads(board.to_json() or "")
    assert [row["corruption"] for row in data["robustness"]] == sorted(names)
    assert data["noise_limits"][0]["colour"] == "white"
    assert "corrupted" in (board.to_csv() or "")
    assert "| noise:0dB |" in (board.to_markdown() or "")
    # The clean vectors are those of a run without corruptions.
    clean = load_embeddings("logmel", "pitches").vectors
    evaluate("logmel", manifest, methods="knn", cache=tmp_path / "other", extract=ExtractOptions())
    np.testing.assert_array_equal(load_embeddings("logmel", "pitches", cache=tmp_path / "other").vectors, clean)


def test_a_corrupted_vector_depends_on_no_other_clip(manifest: Path, tmp_path: Path) -> None:
    from uwbench.audio.corruption import parse_corruptions
    from uwbench.cache.clip_table import read_table
    from uwbench.cache.store import open_encoders

    def vectors(cache: str, limit: int | None) -> dict[str, np.ndarray]:
        options = ExtractOptions(corruptions=("noise:0dB", "reverb:large"), limit=limit)
        evaluate("logmel", manifest, methods="knn", cache=tmp_path / cache, extract=options)
        (store,) = open_encoders(tmp_path / cache)[0]
        stored = store.manifest("pitches")
        assert stored is not None
        table = read_table(tmp_path / cache, stored.table)
        vector_of = {}
        for corruption in parse_corruptions(options.corruptions):
            corrupted = table.corrupted(corruption)
            pooled = store.open_task("pitches", corrupted.keys, corruption=corruption).pooled()
            vector_of |= {f"{clip} {corruption.name}": row for clip, row in zip(corrupted.ids, pooled, strict=True)}
        return vector_of

    few, every = vectors("few", 4), vectors("all", None)
    assert len(few) == 8
    assert len(every) == 32
    for name, vector in few.items():
        np.testing.assert_allclose(vector, every[name], rtol=1e-5, atol=1e-6)
