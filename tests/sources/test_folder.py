"""Folders as people have them: the shapes that are read, those that are refused, and what is counted instead."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from uwbench.errors import InputError, UwbenchError
from uwbench.sources.check import check_dataset
from uwbench.sources.resolve import open_task


def build(root: Path, shape: str) -> Path:
    """Make a folder of the names in `shape`: "a/b" has two files of audio, "a/b=.txt" one other file."""
    for place in shape.split():
        name, _, suffix = place.partition("=")
        (root / name).mkdir(parents=True, exist_ok=True)
        if suffix:
            (root / name / f"x{suffix}").write_text("notes")
        else:
            for i in range(2):
                (root / name / f"{i}.wav").touch()
    return root


READ = {
    "train/a train/b eval/a eval/b": {"train": 4, "test": 4},
    "train/a train/b evaluation/a evaluation/b": {"train": 4, "test": 4},
    "Train/a Train/b DEV/a DEV/b Test/a Test/b": {"train": 4, "valid": 4, "test": 4},
    "train/a train/b val/a eval/a eval/b": {"train": 4, "valid": 2, "test": 4},
    "train/a train/b test/a test/b docs=.txt": {"train": 4, "test": 4},
    "train/a train/b test/a test/b noise": {"train": 4, "test": 4},
    "train/a train/b train=.md test/a test/b empty/x=.json": {"train": 4, "test": 4},
    "train/a/speaker1 train/b/speaker2 test/a/s3 test/b/s3": {"train": 4, "test": 4},
    "fold1/a fold1/b fold2/a fold2/b": {"1": 4, "2": 4},
    "fold_01/a fold_01/b fold-10/a fold-10/b": {"1": 4, "10": 4},
}


@pytest.mark.parametrize("shape", READ)
def test_splits_win_whatever_lies_beside_them(shape: str, tmp_path: Path) -> None:
    dataset = open_task(str(build(tmp_path / "x", shape)))
    assert Counter(clip.split or clip.fold for clip in dataset.clips) == READ[shape]
    assert {clip.labels for clip in dataset.clips} == {"a", "b"}
    assert ("not clips" in " ".join(dataset.problems)) == ("=" in shape or "noise" in shape)


CLASSES = ["a b", "train a b", "0/george 0/jackson 1/george 1/jackson", "test_tone train_horn a b", "a/x/y b/x"]


@pytest.mark.parametrize("shape", CLASSES)
def test_other_folders_are_classes(shape: str, tmp_path: Path) -> None:
    dataset = open_task(str(build(tmp_path / "x", shape)))
    assert {clip.labels for clip in dataset.clips} == {place.split("/")[0] for place in shape.split()}
    assert len(dataset.clips) == 2 * len(shape.split())
    assert ("is a class" in " ".join(dataset.problems)) == shape.startswith("train ")


REFUSED = [
    "train-clean/a train-clean/b test-clean/a test-clean/b",
    "train-clean test-clean",
    "train test",
    "fold1 fold2 fold3",
    "train/a train/b test",
    "train/a train/b test/a test/b unlabeled",
    "train/a train/b test/a test/b test2/a",
    "train/a train/b test/a test/b extra/a extra/b",
    "train/a train/b test/a eval/b",
    "train/a dev/a val/a test/a",
    "train/a train/b test/a fold1/b",
    "a b unlabelled",
    "trainset/a trainset/b testset/a testset/b",
    "a/train a/test b/train b/test",
]


@pytest.mark.parametrize("shape", REFUSED)
def test_what_cannot_be_told_is_refused_with_the_way_out(shape: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        open_task(str(build(tmp_path / "x", shape)))
    assert "or write a manifest.csv" in str(error.value.remedy)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["train", "test", "eval", "dev", "fold1", "fold2", "a", "b", "docs", "train-x", ".h", "."]),
            st.sampled_from(["", "a", "b", "c/d", "test"]),
            st.sampled_from(["", "=.txt", "=.wav", "=.m4a", "="]),
        ),
        max_size=8,
    )
)
def test_every_file_is_a_clip_or_counted(
    tmp_path_factory: pytest.TempPathFactory, places: list[tuple[str, ...]]
) -> None:
    root = build(tmp_path_factory.mktemp("f") / "x", " ".join(f"{'/'.join(p[:2])}{p[2]}" for p in places) or "a")
    try:
        dataset = open_task(str(root))
    except UwbenchError:
        return
    counts = [
        part.split()[0]
        for text in dataset.problems
        if "not clips: " in text
        for part in text.split("clips: ")[1].split("), ")
    ]
    hidden = [path for path in root.iterdir() if path.name.startswith(".")]
    files = [path for path in root.rglob("*") if path.is_file() and not hidden_below(path, hidden)]
    assert len(dataset.clips) + sum(map(int, counts)) == len(files) + len(hidden)


def hidden_below(path: Path, hidden: list[Path]) -> bool:
    return any(folder in path.parents for folder in hidden)


def tone(path: Path, kind: str = "WAV") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = np.random.default_rng(len(path.name))
    with path.open("wb") as file:
        soundfile.write(file, seed.uniform(-0.5, 0.5, 4000), 8000, format=kind)


def test_every_file_that_libsndfile_reads_is_a_clip(tmp_path: Path) -> None:
    kinds = {
        "x.rf64": "RF64",
        "x.voc": "VOC",
        "x.aifc": "AIFF",
        "x.sph": "NIST",
        "x.wave": "WAV",
        "x": "WAV",
        "y.m4a": "FLAC",
    }
    for label in ("a", "b"):
        for name, kind in kinds.items():
            tone(tmp_path / "x" / label / name, kind)
        (tmp_path / "x" / label / "cover.jpg").write_bytes(b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(90))
    dataset = open_task(str(tmp_path / "x"))
    assert len(dataset.clips) == 2 * len(kinds)
    (note,) = dataset.problems
    assert "2 .jpg (not audio that libsndfile reads)" in note
    assert {finding.code for finding in check_dataset(dataset).findings} <= {"reading", "duplicate", "duplicate-across"}


def test_links_are_followed_or_counted(tmp_path: Path) -> None:
    for name in ("a", "b"):
        tone(tmp_path / "elsewhere" / name / "1.wav")
        tone(tmp_path / "x" / name / "2.wav")
        (tmp_path / "x" / name / "more").symlink_to(tmp_path / "elsewhere" / name)
        (tmp_path / "x" / name / "one.wav").symlink_to(tmp_path / "elsewhere" / name / "1.wav")
        (tmp_path / "x" / name / "gone.wav").symlink_to(tmp_path / "nowhere")
        (tmp_path / "x" / name / "loop").symlink_to(tmp_path / "x")
        os.mkfifo(tmp_path / "x" / name / "pipe.wav")
    (tmp_path / "x" / "c").symlink_to(tmp_path / "elsewhere" / "a")
    dataset = open_task(str(tmp_path / "x"))
    assert Counter(clip.labels for clip in dataset.clips) == {"a": 3, "b": 3, "c": 1}
    (note,) = dataset.problems
    for text in ("2 .wav (broken link)", "2 without suffix (link to a folder above it)", "2 .wav (not a regular file)"):
        assert text in note
