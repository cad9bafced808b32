"""Scores of real clips do not depend on batches, threads, parts or the order of the manifest."""

from __future__ import annotations

import csv
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import Command

CLIPS = {"train": 24, "valid": 12, "test": 24}


@pytest.fixture(scope="module")
def rows(shared_data: Path) -> list[dict[str, str]]:
    """Recordings of the digits 3 and 8, some of each split, with absolute paths."""
    with (shared_data / "fsdd" / "manifest.csv").open(encoding="utf-8", newline="") as file:
        listed = [row for row in csv.DictReader(file) if row["digit"] in "38"]
    chosen = []
    for split, count in CLIPS.items():
        of_split = [row for row in listed if row["split"] == split]
        chosen += of_split[:: max(1, len(of_split) // count)][:count]
    return [{**row, "path": str(shared_data / "fsdd" / row["path"])} for row in chosen]


def write(rows: list[dict[str, str]], folder: Path) -> Path:
    folder.mkdir()
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / "manifest.csv"


def scores(results: Path) -> dict[str, Any]:
    """Return the scores per method of a run's only result."""
    (path,) = results.rglob("*.json")
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result["status"] == "ok"
    return result["scores"]


def assert_same(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Assert that every score and choice is equal; the last digits of validation metrics may differ."""
    for method, score in first.items():
        assert second[method]["main_score"] == pytest.approx(score["main_score"], abs=1e-9)
        assert second[method]["per_seed"] == pytest.approx(score["per_seed"], abs=1e-9)
        assert choices(second[method]) == choices(score)


def choices(score: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return the point of the grid that was chosen in each fold."""
    return [(fold["width"], fold["learning_rate"], fold["epochs"]) for fold in score["chosen"].get("folds", ())]


@pytest.mark.slow
def test_order_batches_workers_and_parts_change_no_score(
    rows: list[dict[str, str]], whisper_tiny: Path, tmp_path: Path, uwbench: Command
) -> None:
    import torch

    shuffled = list(rows)
    random.Random(3).shuffle(shuffled)
    changes: dict[str, tuple[list[dict[str, str]], tuple[str, ...]]] = {
        "plain": (rows, ()),
        "order": (shuffled, ()),
        "batches": (rows, ("--batch-seconds", "2")),
        "workers": (rows, ("--workers", "1", "--batch-seconds", "7")),
        "parts": (rows, ()),
        "threads": (rows, ()),
    }
    scores_of = {}
    threads = torch.get_num_threads()

    def command(name: str, verb: str, manifest: Path) -> list[object]:
        task = ("-t", manifest, "--label", "digit", "--name", "digits", "--allow-outside")
        return [verb, "-m", whisper_tiny, "--context", "trimmed", *task, "--cache", tmp_path / f"{name}-cache"]

    for name, (clips, options) in changes.items():
        if name == "parts":  # a run on half of the clips comes first, so that the rest goes into other parts
            half = uwbench(*command(name, "extract", write(clips[::2], tmp_path / "half")))
            assert half.code == 0, half.err
        torch.set_num_threads(3 if name == "threads" else threads)
        manifest = write(clips, tmp_path / name)
        done = uwbench(*command(name, "run", manifest), "--results", tmp_path / f"{name}-results", *options)
        assert done.code == 0, done.err
        scores_of[name] = scores(tmp_path / f"{name}-results")
    torch.set_num_threads(threads)
    assert len(list((tmp_path / "parts-cache").rglob("pooled-*.arrow"))) > len(
        list((tmp_path / "plain-cache").rglob("pooled-*.arrow"))
    )
    assert 0.5 < scores_of["plain"]["knn"]["main_score"] <= 1
    for name in changes:
        assert_same(scores_of["plain"], scores_of[name])


def test_a_run_on_local_data_opens_no_connection(rows: list[dict[str, str]], tmp_path: Path) -> None:
    """Every connection and host lookup ends the program, and no setting turns the hub off."""
    manifest = write(rows, tmp_path / "digits")
    program = f"""
import os, socket, sys
for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
    os.environ.pop(name, None)
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        print("TRIED", event, arguments, file=sys.stderr)
        os._exit(70)
sys.addaudithook(refuse)
if sys.argv[1:] == ["try"]:
    socket.create_connection(("127.0.0.1", 9))
from uwbench.cli.main import main
for words in (["run", "-m", "logmel", "-t", {str(manifest)!r}, "--label", "digit", "--allow-outside"], ["leaderboard"],
              ["cache", "verify"], ["tasks"], ["models"], ["data", "check", {str(manifest)!r}, "--label", "digit",
              "--allow-outside"]):
    sys.argv = ["uwbench", *words]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
"""
    path = tmp_path / "program.py"
    path.write_text(program)
    env = {"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    env |= {f"UWBENCH_{name.upper()}": str(tmp_path / name) for name in ("cache", "results", "data")}
    done = subprocess.run([sys.executable, path], env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "digits" in done.stdout
    planted = subprocess.run(
        [sys.executable, path, "try"], env=env, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert planted.returncode == 70  # the guard sees a connection
