"""X-ARES's tars are read in place, and refused if they are damaged or unexpected."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from miniatures.xares import write_tar
from uwbench.audio.clip import AudioMember, read_bytes
from uwbench.cards.find import find_card
from uwbench.errors import DataError
from uwbench.sources.resolve import open_task
from uwbench.sources.shards import read_index


def esc50(data: Path, label: Any = 0, folds: str = "12345") -> Path:
    """Write shards of ESC-50 with two records per fold; the audio is never decoded."""
    folder = data / "esc50"
    for fold in folds:
        records = [(f"{fold}-10{fold}-A-{c}", "wav", f"audio {fold} {c}".encode(), {"label": label}) for c in "01"]
        write_tar(folder / f"wds-audio-fold-{fold}-000000.tar", records)
    return folder


def test_members_are_read_in_place(tmp_path: Path) -> None:
    esc50(tmp_path)
    dataset = open_task("esc50", data=tmp_path)
    assert [clip.id for clip in dataset.clips[:3]] == ["1-101-A-0", "1-101-A-1", "2-102-A-0"]
    assert [read_bytes(clip.audio) for clip in dataset.clips[:2]] == [b"audio 1 0", b"audio 1 1"]
    assert [(clip.labels, clip.fold, clip.group) for clip in dataset.clips[:1]] == [("dog", "1", "101")]
    assert dataset.origin == "shards"
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    open_task("esc50", data=tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("name", ["blues.00000", "a/b.c/blues.00000", "./blues.00000", "\u00fcber.1"])
def test_names_with_dots_stay_whole(tmp_path: Path, name: str) -> None:
    write_tar(tmp_path / "x.tar", [(name, "wav", b"one", {"genre": "blues"}), (f"{name}1", "flac", b"two", {})])
    audio, records = read_index(tmp_path / "x.tar")
    stem = name.removeprefix("./")
    assert list(audio) == list(records) == [stem, f"{stem}1"]
    assert read_bytes(audio[stem]) == b"one"
    assert records[stem] == {"genre": "blues"}


def test_an_index_of_classes_becomes_a_name(tmp_path: Path) -> None:
    esc50(tmp_path, label=49)
    assert {clip.labels for clip in open_task("esc50", data=tmp_path).clips} == {"hand_saw"}


@pytest.mark.parametrize("label", [None, [1], {"a": 1}, 1.5, True])
def test_a_label_of_the_wrong_type_is_refused(tmp_path: Path, label: Any) -> None:
    esc50(tmp_path, label=label)
    with pytest.raises(DataError, match=r"fold-1-000000\.tar#1-101-A-0: the record's label cannot be read"):
        open_task("esc50", data=tmp_path)


def test_a_missing_label_field_is_named(tmp_path: Path) -> None:
    write_tar(tmp_path / "ravdess" / "ravdess_fold_0_0000000.tar", [("a", "wav", b"x", {"emo": "sad"})])
    for fold in "123":
        write_tar(tmp_path / "ravdess" / f"ravdess_fold_{fold}_0000000.tar", [(fold, "wav", b"x", {"emotion": "sad"})])
    with pytest.raises(DataError, match=r"#a: .*KeyError\('emotion'\)"):
        open_task("ravdess", data=tmp_path)


def test_a_missing_fold_is_named(tmp_path: Path) -> None:
    esc50(tmp_path, folds="1245")
    with pytest.raises(DataError, match=r"no shard for fold 3 \(wds-audio-fold-3-\*\.tar\).*data fetch esc50"):
        open_task("esc50", data=tmp_path)


def test_records_without_a_partner_are_reported(tmp_path: Path) -> None:
    folder = esc50(tmp_path)
    with tarfile.open(folder / "wds-audio-fold-1-000001.tar", "w") as tar:
        for name, data in (("lonely.wav", b"x"), ("label.json", b'{"label": 1}')):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    dataset = open_task("esc50", data=tmp_path)
    assert len(dataset.clips) == 10
    assert dataset.problems == (
        "wds-audio-fold-1-000001.tar: label has no audio and is left out",
        "wds-audio-fold-1-000001.tar: lonely has no label and is left out",
    )


@pytest.mark.parametrize("cut", [700, 512 * 3, 512 * 4])
def test_a_truncated_tar_is_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "x.tar"
    write_tar(path, [(str(i), "wav", b"audio", {}) for i in range(4)])
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"cut short|cannot be read"):
        read_index(path)


def test_a_damaged_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    write_tar(path, [(str(i), "wav", b"audio", {}) for i in range(4)])
    data = bytearray(path.read_bytes())
    data[512 * 4 : 512 * 4 + 100] = b"\xff" * 100  # the header of the third member
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"damaged|cannot be read"):
        read_index(path)


def test_compressed_shards_are_refused_with_a_remedy(tmp_path: Path) -> None:
    folder = esc50(tmp_path)
    path = folder / "wds-audio-fold-1-000000.tar"
    (folder / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    with pytest.raises(DataError, match=r"is compressed.*gunzip"):
        open_task("esc50", data=tmp_path)
    path.write_bytes((folder / f"{path.name}.gz").read_bytes())
    with pytest.raises(DataError, match="is compressed"):
        open_task("esc50", data=tmp_path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_members_that_are_not_plain_files_are_refused(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo("a.wav")
        member.type, member.linkname = kind, "/etc/passwd"
        tar.addfile(member)
    with pytest.raises(DataError, match="not a plain file"):
        read_index(path)


def test_names_that_lead_outside_write_nothing(empty: Path) -> None:
    path = empty / "in" / "x.tar"
    write_tar(path, [("../../evil", "wav", b"x", {"a": 1}), ("/evil", "wav", b"y", {"a": 1})])
    audio, _ = read_index(path)
    assert [type(member) for member in audio.values()] == [AudioMember] * 2
    assert sorted(file.name for file in empty.rglob("*")) == ["in", "x.tar"]


@pytest.mark.parametrize("text", ["{", "", "[" * 100_000])
def test_a_record_that_is_not_json_is_named(tmp_path: Path, text: str) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        member = tarfile.TarInfo("a.json")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text.encode()))
    with pytest.raises(DataError, match=r"'a\.json' is not valid JSON"):
        read_index(tmp_path / "x.tar")


def test_shards_in_a_subfolder_are_found_but_not_x_ares_output(tmp_path: Path) -> None:
    inner = esc50(tmp_path / "made")
    home = tmp_path / "data" / "esc50"
    home.mkdir(parents=True)
    inner.rename(home / "audio")
    work = home / "embeddings" / "Whisper"
    work.mkdir(parents=True)
    (work / "wds-encoded-fold-1-000000.tar").touch()
    assert len(open_task("esc50", data=tmp_path / "data").clips) == 10


def test_folders_are_found_under_either_name(tmp_path: Path) -> None:
    for name in ("gtzan_genre", "GTZAN"):
        data = tmp_path / name / "data"
        for fold in range(10):
            record = (f"blues.{fold:05d}", "wav", b"x", {"genre": "blues"})
            write_tar(data / name / f"gtzan_fold_{fold}_0000000.tar", [record])
        assert len(open_task("gtzan", data=data).clips) == 10


def test_duplicate_names_are_kept_apart(tmp_path: Path) -> None:
    folder = esc50(tmp_path)
    write_tar(folder / "wds-audio-fold-2-000001.tar", [("1-101-A-0", "wav", b"x", {"label": 0})])
    dataset = open_task("esc50", data=tmp_path)
    assert len({clip.id for clip in dataset.clips}) == 11
    assert dataset.problems == ("1 names occur in more than one shard, first '1-101-A-0'",)


def test_the_whole_json_can_be_the_label(tmp_path: Path) -> None:
    events = [{"onset": 1, "offset": 2.5, "label": "Dog,Cat"}, {"onset": 3, "offset": 3, "label": "Dog"}]
    for part in ("train", "eval"):
        write_tar(tmp_path / "desed" / f"wds-audio-{part}-0.tar", [(part, "wav", b"x", json.loads(json.dumps(events)))])
    clip = open_task("desed", data=tmp_path).clips[0]
    assert [(e.onset_s, e.offset_s, e.label) for e in clip.labels if not isinstance(e, str)] == [
        (1.0, 2.5, "Cat"),
        (1.0, 2.5, "Dog"),
    ]
    assert find_card("desed").splits is not None
