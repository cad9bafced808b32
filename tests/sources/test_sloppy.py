"""Sloppy copies of datasets (unpacked twice, copied on a Mac, saved by a spreadsheet) give the same clips."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from miniatures import CARDS
from uwbench.audio.clip import AudioFile
from uwbench.sources.check import check_dataset
from uwbench.sources.dataset import Dataset
from uwbench.sources.resolve import open_task

AUDIO = {".wav", ".flac", ".mp3"}
TABLES = {".csv", ".tsv", ".txt", ".trn", ".ndx"}


def files_of(folder: Path, suffixes: set[str]) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix in suffixes)


def mac_traces(root: Path) -> None:
    """Add what Finder and its archives leave behind: .DS_Store, AppleDouble files, __MACOSX."""
    for path in sorted(root.rglob("*")):
        if path.is_dir():
            (path / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
        else:
            path.with_name(f"._{path.name}").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X        ")
            twin = root / "__MACOSX" / path.relative_to(root).with_name(f"._{path.name}")
            twin.parent.mkdir(parents=True, exist_ok=True)
            twin.write_bytes(b"\0\5\26\7")


def strangers(root: Path) -> None:
    """Add archives that were not deleted, and notes."""
    (root / "README.md").write_text("Downloaded in May.\n")
    (root / "dataset.zip").write_bytes(b"PK\3\4")
    (root / "dataset.tar.gz.part").write_bytes(b"\x1f\x8b")
    (root / "unpacked.log").write_text("done\n")


def loud_suffixes(root: Path) -> None:
    for path in files_of(root, AUDIO):
        path.rename(path.with_suffix(path.suffix.upper()))


def saved_by_a_spreadsheet(root: Path) -> None:
    """Add a byte order mark, Windows line ends and an empty last line."""
    for path in files_of(root, TABLES):
        text = path.read_bytes().decode("utf-8").replace("\r\n", "\n").replace("\n", "\r\n")
        path.write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\r\n")


def trailing_space(root: Path) -> None:
    """Add a space at the end of every line."""
    for path in files_of(root, TABLES):
        lines = path.read_bytes().decode("utf-8").splitlines()
        path.write_bytes("".join(f"{line} \n" for line in lines).encode())


def nested_twice(root: Path) -> None:
    inner = root.with_name("inner")
    root.rename(inner)
    (root / "dataset").mkdir(parents=True)
    inner.rename(root / "dataset" / "dataset")


WAYS = (mac_traces, strangers, loud_suffixes, saved_by_a_spreadsheet, trailing_space, nested_twice)


def clips_of(dataset: Dataset) -> list[tuple[object, ...]]:
    return sorted(
        (str(clip.labels), clip.split, clip.fold, clip.group or "", Path(str(clip.audio)).stem)
        for clip in dataset.clips
    )


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("spoil", WAYS, ids=lambda way: way.__name__)
def test_sloppy_copies_hold_the_same_clips(
    card: str, spoil: Callable[[Path], None], miniatures: Path, tmp_path: Path
) -> None:
    clean = open_task(card, data=miniatures / "publisher")
    shutil.copytree(miniatures / "publisher" / card, tmp_path / card)
    spoil(tmp_path / card)
    dataset = open_task(card, data=tmp_path)
    assert clips_of(dataset) == clips_of(clean)
    assert all(isinstance(clip.audio, AudioFile) and clip.audio.path.is_file() for clip in dataset.clips)
    if spoil is not loud_suffixes:
        assert len(dataset.problems) == len(clean.problems)


def test_all_of_ravdess_copied_on_a_mac(tmp_path: Path, miniatures: Path) -> None:
    """The speech files are counted correctly among songs, zips and macOS's files, without a finding."""
    sources = files_of(miniatures / "publisher" / "ravdess", {".wav"})
    speech = tmp_path / "RAVDESS" / "Audio_Speech_Actors_01-24" / "Audio_Speech_Actors_01-24"
    songs = tmp_path / "RAVDESS" / "Audio_Song_Actors_01-24"
    number = 0
    for actor in range(1, 25):
        for emotion in range(1, 9):
            for tail in (
                "01-01-01",
                "01-01-02",
                "01-02-01",
                "01-02-02",
                "02-01-01",
                "02-01-02",
                "02-02-01",
                "02-02-02",
            ):
                if emotion == 1 and tail.startswith("02"):
                    continue
                for root, channel in ((speech, "01"), (songs, "02")):
                    path = root / f"Actor_{actor:02d}" / f"03-{channel}-{emotion:02d}-{tail}-{actor:02d}.WAV"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    data = bytearray(sources[number % len(sources)].read_bytes()[: 44 + 9600])
                    data[40:44] = (len(data) - 44).to_bytes(4, "little")
                    data[60:64] = number.to_bytes(4, "little")  # no two files are the same
                    path.write_bytes(data)
                    number += 1
    strangers(tmp_path / "RAVDESS")
    (tmp_path / "RAVDESS" / "Audio_Speech_Actors_01-24.zip").write_bytes(b"PK\3\4")
    mac_traces(speech)
    report = check_dataset(open_task("ravdess", data=tmp_path))
    assert report.ok
    assert (report.clips, report.counts) == (1440, dict.fromkeys("0123", 360))
    assert report.findings == ()


def test_two_files_that_differ_in_case_alone_are_not_mixed_up(tmp_path: Path, miniatures: Path) -> None:
    """A missing file is not replaced if several files could be meant."""
    shutil.copytree(miniatures / "publisher" / "esc50", tmp_path / "esc50")
    listed = files_of(tmp_path / "esc50", {".wav"})[0]
    for name in (listed.stem + ".WAV", listed.stem + ".Wav"):
        shutil.copyfile(listed, listed.with_name(name))
    listed.unlink()
    if len({path.name for path in listed.parent.iterdir()}) < 41:
        pytest.skip("this file system does not tell case apart")
    report = check_dataset(open_task("esc50", data=tmp_path))
    assert Counter(finding.code for finding in report.findings)["missing"] == 1
