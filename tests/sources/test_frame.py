"""A DataFrame as a task: paths, arrays and bytes give the clips of a manifest, and bad rows are named."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

from uwbench import api

RATE = 8000
INDEX = pd.RangeIndex(10, 18)


def tone(number: int) -> np.ndarray:
    times = np.arange(RATE // 4) / RATE
    return (0.1 * np.sin(2e3 * (1 + number % 2) * times + number)).astype(np.float32)


def encoded(number: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, tone(number), RATE, format="WAV", subtype="FLOAT")
    return file.getvalue()


def column(values: list[Any]) -> pd.Series:
    return pd.Series(values, INDEX, dtype=object)


@pytest.fixture
def table() -> pd.DataFrame:
    """Eight clips of two classes by four speakers, without audio; the index starts at 10."""
    rows = range(8)
    columns = {
        "label": [("low", "high")[row % 2] for row in rows],
        "split": [("train", "train", "dev", "test")[row // 2] for row in rows],
        "group": [f"speaker{row // 2}" for row in rows],
    }
    return pd.DataFrame(columns, index=INDEX)


def with_audio(table: pd.DataFrame, form: str, folder: Path) -> pd.DataFrame:
    if form == "paths":
        for row in range(8):
            (folder / f"{row}.wav").write_bytes(encoded(row))
        return table.assign(path=column([folder / f"{row}.wav" for row in range(8)]))
    if form == "bytes":
        return table.assign(audio=[encoded(row) for row in range(8)])
    frame = table.assign(audio=column([tone(row) for row in range(8)]))
    return frame.assign(rate=RATE) if form == "rates" else frame


@pytest.mark.parametrize("form", ["paths", "bytes", "arrays", "rates"])
def test_audio_of_every_form_gives_the_same_clips(form: str, table: pd.DataFrame, tmp_path: Path) -> None:
    frame = with_audio(table, form, tmp_path)
    dataset = api.load_task(frame, rate=RATE if form == "arrays" else None, name="tones", domain="speech")
    assert dataset.card.name == "tones"
    assert dataset.card.domain == "speech"
    assert dataset.card.group == "group"
    assert [clip.split for clip in dataset.clips] == ["train"] * 4 + ["valid"] * 2 + ["test"] * 2
    assert [clip.labels for clip in dataset.clips] == list(table["label"])
    assert [clip.group for clip in dataset.clips] == list(table["group"])
    expected = [str(path) for path in frame["path"]] if form == "paths" else [str(10 + row) for row in range(8)]
    assert [clip.id for clip in dataset.clips] == expected
    for row, clip in enumerate(dataset.clips):
        np.testing.assert_array_equal(api.decode(clip.audio, RATE), tone(row))


def test_a_frame_is_scored_as_the_manifest_is(table: pd.DataFrame, tmp_path: Path) -> None:
    frame = with_audio(table, "paths", tmp_path)
    frame.assign(path=[path.name for path in frame["path"]]).to_csv(tmp_path / "manifest.csv", index=False)
    tasks = [frame, api.TaskSpec(tmp_path / "manifest.csv", name="manifest")]
    scores = api.evaluate("mfcc", tasks).to_frame().set_index(["task", "method"])
    assert list(scores["status"]) == ["ok"] * 4
    values = scores["score"].tolist()
    assert values[:2] == values[2:]
    assert set(api.load_embeddings("mfcc", frame).labels) == {"low", "high"}
    assert api.probe("mfcc", frame, methods="knn").failures == []
    with pytest.raises(api.StoreError, match=r"holds no embeddings of new under mfcc; run: uwbench.extract\(encoder"):
        api.load_embeddings("mfcc", api.load_task(frame, name="new"))
    with pytest.raises(api.UsageError, match=r"two tasks are called 'own-data'.*load_task\(..., name=OTHER\)"):
        api.extract("mfcc", [frame, frame])
    assert api.check_data(frame).ok


def test_folds_kinds_and_other_columns(table: pd.DataFrame, tmp_path: Path) -> None:
    frame = with_audio(table, "rates", tmp_path).drop(columns="split")
    frame["fold"] = np.arange(8) % 2 + 1.0
    frame["tags"] = column([np.array(["a", "b"]) if row % 2 else ["a"] for row in range(8)])
    frame["id"] = [f"clip{row}" for row in range(8)]
    dataset = api.load_task(frame, label="tags", kind="multi-label")
    assert dataset.card.folds == ("1", "2")
    assert [clip.labels for clip in dataset.clips[:2]] == [("a",), ("a", "b")]
    assert dataset.clips[3].id == "clip3"


def test_an_index_with_repetitions_is_no_name(table: pd.DataFrame, tmp_path: Path) -> None:
    half = with_audio(table, "rates", tmp_path)
    frame = pd.concat([half, half.assign(label=half["label"].replace({"low": "deep"}))])
    assert [clip.id for clip in api.load_task(frame).clips] == [str(row) for row in range(16)]


def test_int16_is_scaled(table: pd.DataFrame, tmp_path: Path) -> None:
    frame = with_audio(table, "rates", tmp_path)
    frame["audio"] = column([np.full(100, -16384, np.int16)] * 8)
    assert (api.decode(api.load_task(frame).clips[0].audio, RATE) == -0.5).all()


BAD: dict[str, tuple[str, Any, str]] = {
    "no label": ("label", None, "row 13, column 'label': is empty"),
    "pandas' missing value": ("label", pd.NA, "row 13, column 'label': is empty"),
    "unknown split": ("split", "other", "row 13, column 'split': 'other' is not one of train"),
    "no audio": ("audio", None, "row 13, column 'audio': is empty"),
    "nan for audio": ("audio", np.nan, "row 13, column 'audio': is empty"),
    "no bytes": ("audio", b"", "row 13, column 'audio': is empty"),
    "empty path": ("audio", " ", "row 13, column 'audio': is empty"),
    "null byte": ("audio", "a\0.wav", "row 13, column 'audio': contains a null byte"),
    "a list": ("audio", [0.0, 0.1], "row 13, column 'audio': is a list, not a path, bytes or a numpy array"),
    "two channels": (
        "audio",
        np.zeros((2, 100)),
        r"row 13, column 'audio': has the shape \(2, 100\), not",
    ),
    "no samples": ("audio", np.zeros(0), r"row 13, column 'audio': has the shape \(0,\)"),
    "integers": ("audio", np.zeros(9, np.int64), "row 13, column 'audio': has the type int64"),
    "not finite": ("audio", np.array([0.0, np.nan]), "row 13, column 'audio': holds values that are not finite"),
    "no rate": ("rate", None, "row 13, column 'rate': is missing"),
    "rate of zero": ("rate", 0, "row 13, column 'rate': 0.0 is not a sample rate"),
    "rate in words": ("rate", "fast", "row 13, column 'rate': 'fast' is not a number"),
    "end before start": ("end", 0, "row 13, column 'end'"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_cell_is_named(case: str, table: pd.DataFrame, tmp_path: Path) -> None:
    column, value, message = BAD[case]
    frame = with_audio(table, "rates", tmp_path).astype(object)
    frame[column] = [
        value if label == 13 else old for label, old in frame.get(column, pd.Series(1, frame.index)).items()
    ]
    with pytest.raises(api.InputError, match="DataFrame: " + message):
        api.load_task(frame)


def test_bad_frames_are_refused(table: pd.DataFrame, tmp_path: Path) -> None:
    frame = with_audio(table, "arrays", tmp_path)
    for bad, message in [
        (table, "the column 'path' is missing"),
        (frame.drop(columns="label"), "the column 'label' is missing"),
        (frame.drop(columns="split"), "neither a column `split`"),
        (frame[frame["split"] != "test"], "no clip is in 'test'"),
        (frame.iloc[:0], "contains no rows"),
        (pd.concat([frame, frame["label"]], axis=1), "has two columns 'label'"),
    ]:
        with pytest.raises(api.InputError, match=message):
            api.load_task(bad, rate=RATE)
    with pytest.raises(api.InputError, match="may contain only"):
        api.load_task(frame, rate=RATE, name="My data")
    with pytest.raises(api.UsageError, match="rate: is for a DataFrame"):
        api.load_task("mini_music", rate=RATE)
