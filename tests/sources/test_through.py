"""Every dataset goes from files, as published and as X-ARES packs them, to a score through the command line."""

from __future__ import annotations

import json
import re
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from miniatures import CARDS
from uwbench.cards.find import find_card

AUDIO = (".wav", ".flac", ".mp3")
# Audio files that are not clips of the task: a clip without an event, recorded noise, the imitated sounds.
NO_CLIPS = {"desed": 1, "speechcommands_v1": 1, "vocalimitation": 3}
# Patterns of the test clips' paths, if the publisher's names tell the split.
TESTED = {
    "asvspoof2015": r"/E\d+/",
    "clotho": "/clotho_audio_evaluation|/evaluation/",
    "librispeech_asr": "/test-clean/",
    "librispeech_mf": "/test-clean/",
    "fsd50k": "eval_audio/",
    "fsdkaggle2018": "audio_test/",
    "nsynth": "nsynth-test/",
    "voxlingua33": "/dev/",
}


def written(folder: Path, card: str, layout: str) -> tuple[int, int | None]:
    """Return how many clips were written, and how many test clips if names on disk tell the split."""
    if layout == "publisher":
        paths = [path.as_posix() for path in folder.rglob("*") if path.suffix in AUDIO]
        tested = sum(bool(re.search(TESTED[card], path)) for path in paths) if card in TESTED else None
        return len(paths) - NO_CLIPS.get(card, 0), tested
    shards: Counter[str] = Counter()
    for path in folder.rglob("*.tar"):
        with tarfile.open(path) as tar:
            shards[path.name] += sum(name.endswith(".json") for name in tar.getnames())
    card_ = find_card(card)
    shards_of = card_.sources.shards
    assert shards_of is not None
    names = shards_of.splits or card_.splits
    start = None if names is None else shards_of.pattern.replace("{split}", names.test).split("*")[0]
    tested = None if start is None else sum(count for name, count in shards.items() if name.startswith(start))
    return shards.total(), tested


def scores_of(folder: Path, card: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    (path,) = folder.rglob(f"{card}.json")
    return json.loads(path.read_text()), pq.read_table(path.with_name(f"{card}.predictions.parquet")).to_pylist()


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("layout", ["publisher", "xares"])
def test_a_dataset_goes_from_files_to_a_score(
    card: str,
    layout: str,
    miniatures: Path,
    quick: Path,
    uwbench: Callable[..., Any],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    kind, folds = find_card(card).kind, find_card(card).folds
    encoder = ("--text-encoder", request.getfixturevalue("minilm")) if kind == "retrieval" else ()
    data = ("--data", miniatures / layout)
    clips, tested = written(miniatures / layout / card, card, layout)

    outcome = uwbench("data", "check", card, "--json", *data)
    report = json.loads(outcome.out)
    assert report["clips"] == clips
    errors = {problem["code"] for problem in report["problems"] if problem["severity"] == "error"}
    # A publisher's layout must be complete, which a miniature is not; shards may be part of a dataset.
    assert (errors, outcome.code) == (({"count"}, 1) if layout == "publisher" else (set(), 0)), outcome.err

    outcome = uwbench("extract", "-m", "logmel", "-t", card, *data)
    assert outcome.code == 0, outcome.err
    assert f"{clips} clips" in outcome.out
    outcome = uwbench("probe", "-t", card, "--protocol", quick, *encoder)
    assert outcome.code == 0, outcome.err

    result, rows = scores_of(tmp_path / "results", card)
    assert result["status"] == "ok"
    assert result["counts"] == {"clips": clips, "missing": 0, "chunked": 0}
    assert set(result["scores"]) == ({"mlp"} if kind in ("retrieval", "transcription") else {"mlp", "knn"})
    scored = {row["id"] for row in rows}
    assert result["task"]["n"] == len(scored) == (clips if folds else report["counts"]["test"])
    if tested is not None and not folds:
        assert len(scored) == tested - (NO_CLIPS.get(card, 0) if layout == "publisher" else 0)
    for method, score in result["scores"].items():
        predictions = [row for row in rows if row["method"] == method]
        low, high = score["ci95"]
        assert 0 <= low <= score["main_score"] <= high <= 1
        if kind == "single-label":
            right = sum(row["truth"] == row["prediction"] for row in predictions)
            assert score["main_score"] == pytest.approx(right / len(predictions))
    assert_learnt(result, rows, kind)


def assert_learnt(result: dict[str, Any], rows: list[dict[str, Any]], kind: str) -> None:
    """A probe beats the most frequent class, since the classes of a miniature are different real sounds."""
    best = max(score["main_score"] for score in result["scores"].values())
    predictions = [row for row in rows if row["method"] == "mlp"]
    truths = [json.loads(row["truth"]) for row in predictions]
    if kind == "single-label":
        assert best > 1.2 * max(Counter(truths).values()) / len(truths)
    elif kind == "retrieval":
        assert [len(captions) for captions in truths] == [5] * 5
        assert best > 0.2  # by chance, of five clips
    elif kind == "transcription":
        assert all(text == text.lower() and text.strip() for text in truths)
        assert all(row["counts"][1] == len(text.split()) for row, text in zip(predictions, truths, strict=True))
    else:
        assert best > 0.25
