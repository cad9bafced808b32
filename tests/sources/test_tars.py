"""A user's own WebDataset tars: labels in JSON, in .cls or .txt, splits by name, what is left out and refused."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from uwbench.audio.clip import AudioMember, read_bytes
from uwbench.errors import DataError, InputError, UwbenchError
from uwbench.options import TaskSpec
from uwbench.sources.check import check_dataset
from uwbench.sources.resolve import open_task

SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo")
COUNTS = {"train": 20, "valid": 10, "test": 10}


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def digits(shared: Path, take: int, form: str) -> dict[str, bytes]:
    """Return members for recordings of two digits by five speakers, whose labels are in JSON or in plain text."""
    members = {}
    for who in SPEAKERS:
        for digit in (0, 1):
            key = f"{digit}_{who}_{take}"
            members[f"{key}.wav"] = (shared / "fsdd" / "recordings" / f"{key}.wav").read_bytes()
            if form == "json":
                members[f"{key}.json"] = json.dumps({"label": digit, "speaker": who, "sr": 8000}).encode()
            else:
                members[f"{key}.{form}"] = f"{digit}\n".encode()
    return members


def write_shards(folder: Path, shared: Path, form: str) -> Path:
    names = ("train-000000", "train-000001", "valid-000000", "test-000000")
    for take, name in enumerate(names):
        write_tar(folder / f"{name}.tar", digits(shared, take, form))
    return folder


@pytest.mark.parametrize("form", ["json", "cls"])
def test_tars(form: str, tmp_path: Path, shared_data: Path, uwbench: Callable[..., Any], quick: Path) -> None:
    folder = write_shards(tmp_path / "digits", shared_data, form)
    dataset = open_task(str(folder))
    assert Counter(clip.split for clip in dataset.clips) == COUNTS
    for clip in dataset.clips:
        assert isinstance(clip.audio, AudioMember)
        assert clip.labels == clip.id[0]
        assert read_bytes(clip.audio) == (shared_data / "fsdd" / "recordings" / clip.id).read_bytes()
    assert not [finding for finding in check_dataset(dataset).findings if finding.severity == "error"]
    assert dataset.problems == ()
    if form == "json":
        grouped = open_task(TaskSpec(folder, group="speaker"))
        assert {clip.group for clip in grouped.clips} == set(SPEAKERS)
        checked = uwbench("data", "check", f"{folder}[label=speaker]", "--json")
        assert (checked.code, json.loads(checked.out)["counts"]) == (0, COUNTS), checked.err
        ran = uwbench("run", "-m", "logmel", "-t", f"{folder}[label=speaker]", "--protocol", quick)
        assert ran.code == 0, ran.err


def test_texts_are_transcriptions(tmp_path: Path, shared_data: Path) -> None:
    dataset = open_task(TaskSpec(write_shards(tmp_path / "x", shared_data, "txt"), kind="transcription"))
    assert {clip.labels for clip in dataset.clips} == {"0", "1"}


def test_one_tar_is_dealt(tmp_path: Path, shared_data: Path) -> None:
    path = write_tar(tmp_path / "x.tar", digits(shared_data, 0, "json"))
    dataset = open_task(TaskSpec(path, group="speaker"))
    assert "5 folds by hash, groups whole" in dataset.source
    assert len({(clip.group, clip.fold) for clip in dataset.clips}) == len(SPEAKERS)


def pairs(**others: bytes) -> dict[str, bytes]:
    """Return four small records of two classes, and other members."""
    records = {
        f"{i}.{kind}": data for i in range(4) for kind, data in (("wav", bytes([i])), ("cls", b"ab"[i % 2 :][:1]))
    }
    return records | {name.replace("_", "."): data for name, data in others.items()}


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", pairs(x_wav=b"", y_json=b"{}", z_npy=b"", w_npy=b"", README=b""))
    assert open_task(str(path)).problems == (
        "x.tar: 1 records have no audio and are left out, first y",
        "x.tar: 1 records have no label and are left out, first x",
        "x.tar: members that are neither audio nor labels are not read (1 without suffix, 2 .npy)",
    )


LABELS = {
    "a text": (b'"dog"', b'"cat"', None, "single-label", ("dog", "cat")),
    "a number": (b"3", b"4", None, "single-label", ("3", "4")),
    "a list": (b'["a", "b"]', b'["b"]', None, "multi-label", (("a", "b"), ("b",))),
    "a field": (b'{"genre": "x"}', b'{"genre": "y"}', "genre", "single-label", ("x", "y")),
}


@pytest.mark.parametrize("name", LABELS)
def test_shapes_of_json(name: str, tmp_path: Path) -> None:
    first, second, label, kind, expected = LABELS[name]
    records = {f"{i}.flac": bytes([i]) for i in range(10)}
    records |= {f"{i}.json": (first, second)[i % 2] for i in range(10)}
    dataset = open_task(TaskSpec(write_tar(tmp_path / "x.tar", records), label=label, kind=kind))
    assert tuple(clip.labels for clip in dataset.clips) == expected * 5


REFUSED: dict[str, tuple[dict[str, bytes], str]] = {
    "no labels": ({"a.wav": b"", "b.wav": b""}, "holds no audio with a label; put NAME.json"),
    "not JSON": (pairs() | {"0.json": b"{"}, "'0.json' is not valid JSON"),
    "not UTF-8": (pairs() | {"0.cls": b"\xff"}, "'0.cls' is not UTF-8"),
    "other fields": ({"a.wav": b"", "a.json": b'{"genre": 1}'}, "the column 'label' is missing .*genre"),
    "an object": ({"a.wav": b"", "a.json": b'{"label": {"x": 1}}'}, "record a, column 'label': is a list or an object"),
    "a fraction": ({"a.wav": b"", "a.json": b'{"label": 0.5}'}, "record a, column 'label': .*fraction"),
    "no label in one": (
        {"a.wav": b"", "a.json": b'{"label": 1}', "b.wav": b"", "b.json": b"{}"},
        "record b, column 'label': is empty",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_tars_that_are_refused(name: str, tmp_path: Path) -> None:
    members, message = REFUSED[name]
    path = write_tar(tmp_path / "x.tar", members)
    with pytest.raises(UwbenchError, match=message) as error:
        open_task(str(path))
    assert error.value.where == str(path)


def test_compressed_tars_say_what_to_do(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", pairs())
    (tmp_path / "y.tar.gz").write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(DataError, match=r"is compressed, but audio is read in place; run: gunzip"):
        open_task(str(tmp_path / "y.tar.gz"))


def test_archives_beside_what_they_held_are_not_read(tmp_path: Path) -> None:
    write_tar(tmp_path / "train.tar", {"a.wav": b""})
    write_tar(tmp_path / "test.tar", {"a.wav": b""})
    for split in ("train", "test"):
        for label in "ab":
            (tmp_path / split / label).mkdir(parents=True)
            (tmp_path / split / label / "0.wav").touch()
    assert open_task(str(tmp_path)).source.startswith("folder")


def test_two_datasets_in_one_folder(tmp_path: Path) -> None:
    for name in ("a/train", "b/test"):
        write_tar(tmp_path / f"{name}.tar", pairs())
    with pytest.raises(InputError, match="holds several datasets: a, b"):
        open_task(str(tmp_path))
