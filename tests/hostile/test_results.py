"""Texts in results from other machines are plain text: they control no terminal, and no spreadsheet runs them."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import Command
from hostile.test_names import ENCODER, write_task

# ESC and its one-character form in C1 (a title, a cleared screen), a bell, a backspace, a right-to-left override.
RAW = "\x1b]0;owned\x07\x1b[2J\x9b31m\b\u202e"
HOSTILE = f"=1+1|[/bold][link=file:///]{RAW}<script>alert(1)</script>\n# x"
# Closed vocabularies, file names and hashes stay; every other text becomes hostile.
KEPT = {"status", "flag", "domain", "kind", "metric", "slug", "fingerprint", "pooling", "started", "predictions_sha256"}
KEPT_NAMES = {"task", "protocol"}  # whose `name` is part of the path


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)


def poisoned(value: Any, path: tuple[str, ...] = ()) -> Any:
    """Return a result with every free text in it replaced."""
    if isinstance(value, dict):
        return {key: poisoned(inner, (*path, key)) for key, inner in value.items()}
    if isinstance(value, list):
        return [poisoned(inner, path) for inner in value]
    last = path[-1] if path else ""
    fixed = last in KEPT or "sha256" in last or (last == "name" and path[-2] in KEPT_NAMES)
    return HOSTILE if isinstance(value, str) and not fixed else value


def is_clean(*printed: str) -> bool:
    """Tell whether the texts hold no control character except line ends, and no right-to-left override."""
    return not any(
        (ord(sign) < 32 and sign not in "\n\t") or 127 <= ord(sign) < 160 or sign == "\u202e"
        for text in printed
        for sign in text
    )


@pytest.fixture
def merged(tmp_path: Path, uwbench: Command) -> Path:
    """Own results of two models, a poisoned copy of one from elsewhere, and a failure."""
    manifest = write_task(tmp_path / "set", "other")
    model = tmp_path / "bands.py"
    model.write_text(ENCODER.format(name="bands"))
    done = uwbench("run", "-m", "logmel", "-m", f"{model}:Bands", "-t", manifest)
    assert done.code == 0, done.err
    source = next((tmp_path / "results").glob("logmel/*/uwbench-1/set.json"))
    result = json.loads(source.read_text())
    result["contamination"] = {"flag": "trained on test", "because": ["told so"]}
    result["scores"]["mlp"]["layers"] = {HOSTILE: 0.5, "last": 0.5}
    result["scores"]["mlp"]["chosen"]["new"] = "told so"
    other = tmp_path / "others"
    for status, fingerprint in (("ok", "f" * 64), ("failed", "e" * 64)):
        bad = poisoned(result)
        bad["status"], bad["model"]["fingerprint"], bad["model"]["slug"] = status, fingerprint, f"{status}-model"
        if status == "failed":
            bad |= {"scores": {}, "error": {"type": "StoreError", "message": HOSTILE}, "predictions_sha256": None}
        place = other / bad["model"]["slug"] / fingerprint[:8] / "uwbench-1" / "set.json"
        place.parent.mkdir(parents=True)
        place.write_text(json.dumps(bad))
        if status == "ok":
            beside = source.with_name("set.predictions.parquet")
            place.with_name(beside.name).write_bytes(beside.read_bytes())
    return other


def test_every_view_of_the_results_of_others_is_text(merged: Path, tmp_path: Path, uwbench: Command) -> None:
    assert sum(RAW in text for path in merged.rglob("*.json") for text in texts(json.loads(path.read_text()))) > 15
    commands: list[tuple[object, ...]] = [
        ("leaderboard",),
        *(("leaderboard", "--format", form) for form in ("csv", "md", "html", "json")),
        ("compare", "logmel", "ffffffff"),
        ("sensitivity",),
        *(("card", "ffffffff", "--format", form) for form in ("hf", "eval", "mteb")),
    ]
    for words in commands:
        done = uwbench(*words, "--merge", merged)
        assert done.code == 0, (words, done.err)
        assert is_clean(done.out, done.err), words
        assert "script" in done.out or words[0] == "sensitivity", words  # it is shown
    board = tmp_path / "board.csv"
    assert uwbench("leaderboard", "--merge", merged, "--output", board).code == 0
    cells = [cell for row in csv.reader(io.StringIO(board.read_text())) for cell in row]
    assert any(cell.startswith("'=1+1") for cell in cells)
    for cell in cells:
        if re.fullmatch(r"-\d\.\d{6}", cell):
            continue  # a number
        assert cell[:1] not in ("=", "+", "-", "@", "\t", "\r"), cell
    page = uwbench("leaderboard", "--merge", merged, "--format", "html").out
    assert "<script>alert" not in page
    assert "<script>alert" not in uwbench("leaderboard", "--merge", merged, "--format", "md").out


def test_a_result_that_is_made_again_and_a_cache_of_others_are_text(tmp_path: Path, uwbench: Command) -> None:
    manifest = write_task(tmp_path / "set", "other")
    assert uwbench("run", "-m", "logmel", "-t", manifest, "--method", "knn").code == 0
    path = next((tmp_path / "results").rglob("set.json"))
    result = json.loads(path.read_text())
    result["run"]["versions"]["numpy"] = result["run"]["device"] = result["model"]["name"] = HOSTILE
    result["scores"]["knn"]["chosen"]["k"] = HOSTILE
    path.write_text(json.dumps(result))
    record = next((tmp_path / "cache").glob("*/encoder.json"))
    encoder = json.loads(record.read_text())
    encoder |= {"name": HOSTILE, "family": HOSTILE, "revision": HOSTILE, "layers": [HOSTILE]}
    record.write_text(json.dumps(encoder))
    commands: list[tuple[object, ...]] = [
        ("reproduce", path),
        ("cache", "ls"),
        ("cache", "ls", "--json"),
        ("probe", "-t", "set", "--method", "knn", "--json"),
        ("probe", "-t", "set", "--method", "knn"),
    ]
    shown = 0
    for words in commands:
        done = uwbench(*words)
        assert "Traceback" not in done.err
        assert is_clean(done.out, done.err), words
        shown += "script" in done.out + done.err
    assert shown == len(commands)
