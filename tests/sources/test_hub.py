"""Hugging Face datasets: local Parquet files as `datasets` writes them, and the same streamed; labels by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import soundfile

from uwbench.audio.clip import AudioMember, read_bytes
from uwbench.cards.card import Card
from uwbench.cards.find import find_card, load_card
from uwbench.errors import DataError, FetchError
from uwbench.sources.check import check_dataset
from uwbench.sources.fetch import fetch_task
from uwbench.sources.resolve import describe_source, open_card, open_task

CARD = """
name: voices
version: 1
title: Voices
domain: speech
kind: single-label
metric: accuracy
splits: {{train: train, valid: valid, test: test}}
chance: 0.2
sources:
  hub: {{id: {id}, label: speaker, group: take, splits: {{train: train, valid: validation, test: test}}}}
"""

# Class numbers in lexical order, as on the hub: 2 is "10", not "2".
NAMES = ["0", "1", "10", "2"]


def recordings(shared: Path, speaker: str, count: int, first: int = 0) -> list[Path]:
    return sorted((shared / "fsdd" / "recordings").glob(f"*_{speaker}_*.wav"))[first : first + count]


def make_dataset(shared: Path) -> datasets.DatasetDict:
    """Return a dataset with embedded wavs in the three usual splits; the label is a class number."""
    features = datasets.Features(
        {
            "audio": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")},
            "speaker": datasets.ClassLabel(names=NAMES),
            "take": datasets.Value("string"),
        }
    )
    made = {}
    for first, (split, count) in enumerate((("train", 4), ("validation", 2), ("test", 2))):
        rows = [
            {
                "audio": {"bytes": path.read_bytes(), "path": f"{split}/{path.name}"},
                "speaker": number,
                "take": f"{split}{i}",
            }
            for number, speaker in ((0, "george"), (2, "jackson"))
            for i, path in enumerate(recordings(shared, speaker, count, 4 * first))
        ]
        part = datasets.Dataset.from_list(rows, features=features)
        made[split] = part.cast_column("audio", datasets.Audio(decode=False))
    return datasets.DatasetDict(made)


@pytest.fixture
def snapshot(tmp_path: Path, shared_data: Path) -> Path:
    """A folder laid out like a snapshot of the hub: data/<split>-00000-of-00001.parquet."""
    folder = tmp_path / "snapshot"
    (folder / "data").mkdir(parents=True)
    for split, part in make_dataset(shared_data).items():
        part.to_parquet(str(folder / "data" / f"{split}-00000-of-00001.parquet"))
    return folder


def card(tmp_path: Path, place: Path) -> Card:
    path = tmp_path / "voices.yaml"
    path.write_text(CARD.format(id=place))
    return load_card(path)


def check_voices(voices: Card, data: Path, shared: Path) -> None:
    dataset = open_card(voices, data)
    assert (dataset.origin, describe_source(voices, data)) == ("hub", dataset.source)
    assert Counter((clip.split, clip.labels) for clip in dataset.clips) == {
        (split, label): count for split, count in (("train", 4), ("valid", 2), ("test", 2)) for label in ("0", "10")
    }
    first = next(clip for clip in dataset.clips if clip.split == "train")
    assert isinstance(first.audio, AudioMember)
    assert read_bytes(first.audio) == recordings(shared, "george", 1)[0].read_bytes()
    assert first.group == "train0"
    assert not [finding for finding in check_dataset(dataset).findings if finding.severity == "error"]


def test_local_parquet_is_read(tmp_path: Path, snapshot: Path, shared_data: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(exist_ok=True)
    snapshot.rename(data / "voices")
    voices = card(tmp_path, snapshot)
    check_voices(voices, data, shared_data)
    blob = data / "voices" / ".hub" / "audio.bin"
    before = blob.stat().st_mtime_ns
    check_voices(voices, data, shared_data)
    assert blob.stat().st_mtime_ns == before
    blob.write_bytes(blob.read_bytes()[:-1])  # a damaged copy is replaced
    check_voices(voices, data, shared_data)


def test_a_changed_parquet_file_is_read_again(tmp_path: Path, snapshot: Path, shared_data: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(exist_ok=True)
    snapshot.rename(data / "voices")
    voices = card(tmp_path, snapshot)
    open_card(voices, data)
    part = make_dataset(shared_data)["train"].select(range(6))
    part.to_parquet(str(data / "voices" / "data" / "train-00000-of-00001.parquet"))
    assert len(open_card(voices, data).clips) == 14


def test_a_hub_dataset_is_streamed(tmp_path: Path, snapshot: Path, shared_data: Path) -> None:
    voices = card(tmp_path, snapshot)
    data = tmp_path / "data"
    paths = fetch_task(voices, data)
    assert all(path.is_file() for path in paths)
    check_voices(voices, data, shared_data)
    stamp = paths[0].stat().st_mtime_ns
    assert fetch_task(voices, data) == paths
    assert paths[0].stat().st_mtime_ns == stamp


def test_the_source_to_fetch_from_can_be_named(
    tmp_path: Path, snapshot: Path, shared_data: Path, uwbench: Callable[..., Any]
) -> None:
    voices = card(tmp_path, snapshot)
    path = tmp_path / "voices.yaml"
    shards = "  shards: {zenodo: 1, pattern: '{split}*.tar', folder: voices, field: speaker}\n  hub:"
    path.write_text(CARD.format(id=snapshot).replace("  hub:", shards))
    data = ("--data", tmp_path / "data")
    result = uwbench("data", "fetch", path, "--source", "hub", *data)
    assert result.code == 0, result.err
    check_voices(voices, tmp_path / "data", shared_data)
    for words, message in (
        ((path, "--source", "disk"), "'disk' is not one of 'shards', 'hub'"),
        (("ravdess", "--source", "hub"), "ravdess: names no Hugging Face dataset"),
    ):
        result = uwbench("data", "fetch", *words, *data)
        assert (result.code, message in result.err) == (2, True), result.err


def test_an_unreachable_hub_is_reported(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"nothing: cannot be streamed.*Parquet files"):
        fetch_task(card(tmp_path, tmp_path / "nothing"), tmp_path / "data")


def test_folds_come_from_the_fold_column(tmp_path: Path, shared_data: Path) -> None:
    rows = []
    for fold in range(1, 6):
        for i, path in enumerate(sorted((shared_data / "esc10" / "audio").glob(f"{fold}-*.ogg"))[:4]):
            category = ("dog", "rain")[i % 2]
            audio = {"bytes": path.read_bytes(), "path": path.name}
            rows.append({"audio": audio, "fold": fold, "category": category, "src_file": path.name.split("-")[1]})
    made = datasets.Dataset.from_list(rows).cast_column("audio", datasets.Audio(decode=False))
    (tmp_path / "esc50").mkdir()
    made.to_parquet(str(tmp_path / "esc50" / "train.parquet"))
    dataset = open_task("esc50", data=tmp_path)
    assert Counter(clip.fold for clip in dataset.clips) == dict.fromkeys("12345", 4)
    assert all(clip.id.startswith(f"{clip.fold}-{clip.group}-") for clip in dataset.clips)
    assert {clip.labels for clip in dataset.clips} == {"dog", "rain"}


def test_a_missing_column_is_named(tmp_path: Path, shared_data: Path) -> None:
    (tmp_path / "esc50").mkdir()
    make_dataset(shared_data)["train"].to_parquet(str(tmp_path / "esc50" / "train.parquet"))
    with pytest.raises(DataError, match=r"train\.parquet: the column 'category' is missing"):
        open_task("esc50", data=tmp_path)


def test_audio_that_is_only_a_path_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(100), 8000)
    row = {"audio": {"bytes": None, "path": str(tmp_path / "a.wav")}, "fold": 1, "category": "dog", "src_file": "1"}
    features = datasets.Features(
        {
            "audio": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")},
            "fold": datasets.Value("int64"),
            "category": datasets.Value("string"),
            "src_file": datasets.Value("string"),
        }
    )
    (tmp_path / "esc50").mkdir()
    datasets.Dataset.from_list([row], features=features).to_parquet(str(tmp_path / "esc50" / "train.parquet"))
    with pytest.raises(DataError, match="contains no encoded audio"):
        open_task("esc50", data=tmp_path)


def test_shards_come_before_the_hub() -> None:
    assert find_card("esc50").sources.shards is not None
    assert find_card("esc50").sources.hub is not None
