"""Manifests of Lhotse, written by the library itself, and of NeMo: stretches, speakers, splits, what is refused."""

from __future__ import annotations

import gzip
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from conftest import missing
from uwbench.audio.clip import Event, read_bytes
from uwbench.errors import InputError, UsageError
from uwbench.options import TaskSpec
from uwbench.sources.check import check_dataset
from uwbench.sources.resolve import open_task

SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo")
COUNTS = {"train": 20, "valid": 10, "test": 10}
SPLITS = {"train": range(2), "dev": range(2, 3), "test": range(3, 4)}


@pytest.fixture(scope="session")
def lhotse() -> Any:
    """The library that writes the manifests."""
    try:
        import lhotse  # type: ignore[import-not-found]
    except ImportError:
        missing("the package lhotse")
    return lhotse


def copied(folder: Path, shared: Path, takes: Iterable[int]) -> list[Path]:
    """Copy recordings of two digits by five speakers into `folder/wavs`."""
    (folder / "wavs").mkdir(parents=True, exist_ok=True)
    names = [f"{digit}_{who}_{take}.wav" for take in takes for who in SPEAKERS for digit in (0, 1)]
    for name in names:
        shutil.copyfile(shared / "fsdd" / "recordings" / name, folder / "wavs" / name)
    return [folder / "wavs" / name for name in names]


def cut_set(lhotse: Any, files: list[Path]) -> Any:
    """Return cuts with one supervision each, which has a speaker, a text and, as a custom field, a digit."""
    recordings = [lhotse.Recording.from_file(file) for file in files]
    supervisions = [
        lhotse.SupervisionSegment(
            id=recording.id,
            recording_id=recording.id,
            start=0,
            duration=recording.duration,
            speaker=recording.id.split("_")[1],
            text=("zero", "one")[int(recording.id[0])],
            custom={"digit": int(recording.id[0])},
        )
        for recording in recordings
    ]
    return lhotse.CutSet.from_manifests(
        recordings=lhotse.RecordingSet.from_recordings(recordings),
        supervisions=lhotse.SupervisionSet.from_segments(supervisions),
    )


def write_cuts(lhotse: Any, folder: Path, shared: Path) -> Path:
    for split, takes in SPLITS.items():
        cut_set(lhotse, copied(folder, shared, takes)).to_file(folder / f"digits_cuts_{split}.jsonl.gz")
    return folder


def write_supervisions(lhotse: Any, folder: Path, shared: Path) -> Path:
    for split, takes in SPLITS.items():
        cuts = cut_set(lhotse, copied(folder, shared, takes))
        recordings, supervisions, _ = cuts.decompose(verbose=False)
        recordings.to_file(folder / f"x_recordings_{split}.jsonl.gz")
        supervisions.to_file(folder / f"x_supervisions_{split}.jsonl.gz")
    return folder


@pytest.mark.parametrize("write", [write_cuts, write_supervisions])
def test_cuts_of_lhotse(lhotse: Any, write: Any, tmp_path: Path, shared_data: Path, uwbench: Any, quick: Path) -> None:
    folder = write(lhotse, tmp_path / "digits", shared_data)
    dataset = open_task(TaskSpec(folder, label="digit"))
    assert Counter(clip.split for clip in dataset.clips) == COUNTS
    for clip in dataset.clips:
        assert clip.id == f"wavs/{Path(clip.id).name}"
        assert (clip.labels, clip.start_s, clip.end_s) == (Path(clip.id).name[0], None, None)
        assert read_bytes(clip.audio) == (shared_data / "fsdd" / "recordings" / Path(clip.id).name).read_bytes()
    grouped = open_task(TaskSpec(folder, label="text", group="speaker"))
    assert {clip.group for clip in grouped.clips} == set(SPEAKERS)
    spoken = open_task(TaskSpec(folder, kind="transcription"))
    assert {clip.labels for clip in spoken.clips} == {"zero", "one"}
    checked = uwbench("data", "check", folder, "--label", "digit", "--json")
    assert (checked.code, json.loads(checked.out)["counts"]) == (0, COUNTS), checked.err
    ran = uwbench("run", "-m", "logmel", "-t", f"{folder}[label=speaker]", "--protocol", quick)
    assert ran.code == 0, ran.err


def test_one_file_of_cuts_is_dealt_and_names_its_neighbours(lhotse: Any, tmp_path: Path, shared_data: Path) -> None:
    folder = write_cuts(lhotse, tmp_path, shared_data)
    dataset = open_task(TaskSpec(folder / "digits_cuts_train.jsonl.gz", label="text", group="speaker"))
    assert "5 folds by hash, groups whole" in dataset.source
    assert len({(clip.group, clip.fold) for clip in dataset.clips}) == len(SPEAKERS)
    note = "digits_cuts_dev.jsonl.gz beside it may be another split; to use the splits, name the folder"
    assert note in dataset.problems


def test_stretches_and_resampled_cuts(lhotse: Any, tmp_path: Path, shared_data: Path) -> None:
    cuts = cut_set(lhotse, copied(tmp_path, shared_data, range(1)))
    halves = [cut.truncate(offset=0.1, duration=0.12) for cut in cuts] + [cut.resample(16_000) for cut in cuts]
    lhotse.CutSet.from_cuts(halves).to_file(tmp_path / "cuts.jsonl")
    dataset = open_task(TaskSpec(tmp_path / "cuts.jsonl", label="speaker"))
    assert {(clip.start_s, clip.end_s) for clip in dataset.clips} == {(0.1, 0.22), (None, None)}
    note = "cuts.jsonl: 10 cuts are resampled by Lhotse; here the recordings are read as they are"
    assert note in dataset.problems
    assert not [finding for finding in check_dataset(dataset).findings if finding.code in ("missing", "unreadable")]


def test_cuts_that_are_not_one_stretch_of_one_file(lhotse: Any, tmp_path: Path, shared_data: Path) -> None:
    first, second, *_ = cut_set(lhotse, copied(tmp_path, shared_data, range(1)))
    for name, cut in (
        ("mixed", first.mix(second)),
        ("padded", first.pad(2)),
        ("faster", first.perturb_speed(1.1)),
        ("appended", first.append(second)),
    ):
        lhotse.CutSet.from_cuts([cut]).to_file(tmp_path / f"{name}.jsonl")
        with pytest.raises(InputError, match=r"line 1: .*save_audios") as error:
            open_task(TaskSpec(tmp_path / f"{name}.jsonl", label="speaker"))
        assert error.value.where == str(tmp_path / f"{name}.jsonl")


def cut(**changes: Any) -> dict[str, Any]:
    """Return a cut of two supervisions as Lhotse writes it, with some fields changed."""
    recording = {
        "id": "a",
        "sources": [{"type": "file", "channels": [0], "source": "a.wav"}],
        "sampling_rate": 8000,
        "num_samples": 80_000,
        "duration": 10.0,
        "channel_ids": [0],
    }
    supervisions = [
        {"id": "s", "recording_id": "a", "start": -1.0, "duration": 3.0, "speaker": "x", "gender": "f", "text": "one"},
        {"id": "t", "recording_id": "a", "start": 4.0, "duration": 9.0, "speaker": "y", "gender": "f", "text": "two"},
    ]
    supervisions = changes.pop("supervisions", supervisions)
    recording |= changes.pop("recording", {})
    base = {"id": "c", "start": 2.0, "duration": 6.0, "channel": 0, "supervisions": supervisions}
    return {**base, "recording": recording, "custom": {"split": "train"}, "type": "MonoCut", **changes}


def write_lines(path: Path, rows: list[Any]) -> Path:
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_supervisions_become_events_tags_or_one_label(tmp_path: Path) -> None:
    other = [{"id": "u", "start": 0, "duration": 1, "speaker": "y", "gender": "m"}]
    rows = [cut(), cut(id="d", custom={"split": "test"}, start=0.0, supervisions=other)]
    path = write_lines(tmp_path / "cuts.jsonl.gz", rows)
    events = open_task(TaskSpec(path, label="speaker", kind="frame-multi-label"))
    assert events.clips[0].labels == (Event(0.0, 2.0, "x"), Event(4.0, 6.0, "y"))
    assert (events.clips[0].id, events.clips[0].start_s, events.clips[0].end_s) == ("a.wav#2-8", 2.0, 8.0)
    tags = open_task(TaskSpec(path, label="speaker", kind="multi-label"))
    assert [clip.labels for clip in tags.clips] == [("x", "y"), ("y",)]
    with pytest.raises(InputError, match=r"line 1: its 2 supervisions differ in 'speaker'; cut the recordings"):
        open_task(TaskSpec(path, label="speaker"))
    with pytest.raises(InputError, match="all tested clips have the label 'm'"):  # what the supervisions share is read
        open_task(TaskSpec(path, label="gender"))


REFUSED = {
    "no recording": ({**cut(), "recording": None}, "has no recording"),
    "from the web": (
        cut(recording={"sources": [{"type": "url", "channels": [0], "source": "http://x"}]}),
        r"not one file \(url\)",
    ),
    "of no type": (cut(recording={"sources": [{"type": [], "source": "a"}]}), r"not one file \(\[\]\)"),
    "a start of many digits": (cut(start=10**400), "is not a number of seconds"),
    "a file per channel": (
        cut(recording={"sources": [{"type": "file", "source": "a"}, {"type": "file", "source": "b"}]}),
        r"not one file \(2 files\)",
    ),
    "one channel of two": (cut(recording={"channel_ids": [0, 1]}), "uses channel 0 of 2, and channels are averaged"),
    "no start": (cut(start=None), "its start, None, is not a number"),
    "a negative start": (cut(start=-1.0), "its start, -1.0, is not a number"),
    "outside": (
        cut(recording={"sources": [{"type": "file", "channels": [0], "source": "/etc/a.wav"}]}),
        "'/etc/a.wav' is outside the manifest's folder; .*--allow-outside",
    ),
    "supervisions": (cut(supervisions="x"), "its supervisions are not a list"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_cuts_that_are_refused(name: str, tmp_path: Path) -> None:
    row, message = REFUSED[name]
    path = write_lines(tmp_path / "cuts.jsonl", [row])
    with pytest.raises(InputError, match=message) as error:
        open_task(TaskSpec(path, label="gender"))
    assert error.value.where == str(path)


def test_supervisions_without_recordings(tmp_path: Path) -> None:
    row = {"id": "s", "recording_id": "a", "start": 0, "duration": 1, "speaker": "x"}
    for name, remedy in (("supervisions.jsonl", "put recordings.jsonl beside it"), ("x.jsonl", "write cuts")):
        with pytest.raises(InputError, match=f"their recordings are missing; {remedy}"):
            open_task(TaskSpec(write_lines(tmp_path / name, [row]), label="speaker"))
    write_lines(tmp_path / "recordings.jsonl", [{"id": "b"}])
    with pytest.raises(InputError, match=r"line 1, column 'recording_id': 'a' is not in recordings\.jsonl"):
        open_task(TaskSpec(tmp_path / "supervisions.jsonl", label="speaker"))


# NeMo


def nemo_rows(files: list[Path], folder: Path | None) -> list[dict[str, Any]]:
    """Return rows as NeMo's scripts write them: absolute paths, or relative to `folder`."""
    return [
        {
            "audio_filepath": str(file if folder is None else file.relative_to(folder)),
            "offset": 0.05,
            "duration": 0.2,
            "text": ("zero", "one")[int(file.name[0])],
            "label": file.name.split("_")[1],
            "speaker": f"{file.name.split('_')[2]}",
        }
        for file in files
    ]


@pytest.mark.parametrize("absolute", [True, False])
def test_manifests_of_nemo(
    absolute: bool, tmp_path: Path, shared_data: Path, uwbench: Callable[..., Any], quick: Path
) -> None:
    folder = tmp_path / "digits"
    for split, takes in SPLITS.items():
        files = copied(folder, shared_data, takes)
        write_lines(folder / f"{split}_manifest.json", nemo_rows(files, None if absolute else folder))
    dataset = open_task(TaskSpec(folder, group="speaker"))
    assert Counter(clip.split for clip in dataset.clips) == COUNTS
    assert {clip.labels for clip in dataset.clips} == set(SPEAKERS)
    assert {(clip.start_s, clip.end_s) for clip in dataset.clips} == {(0.05, 0.25)}
    assert all(clip.id == f"wavs/{Path(str(clip.audio)).name}#0.05-0.25" for clip in dataset.clips)
    assert {clip.labels for clip in open_task(TaskSpec(folder, label="text")).clips} == {"zero", "one"}
    checked = uwbench("data", "check", folder, "--json")
    assert (checked.code, json.loads(checked.out)["counts"]) == (0, COUNTS), checked.out
    if absolute:
        ran = uwbench("run", "-m", "logmel", "-t", folder, "--protocol", quick)
        assert ran.code == 0, ran.err


def test_one_manifest_of_nemo(tmp_path: Path, shared_data: Path) -> None:
    files = copied(tmp_path, shared_data, range(2))
    path = write_lines(tmp_path / "all.json", nemo_rows(files, tmp_path))
    for place in (path, tmp_path):
        dataset = open_task(str(place))
        assert "5 folds by hash" in dataset.source
        assert len(dataset.clips) == 20
    files[0].unlink()
    (finding,) = (f for f in check_dataset(open_task(str(path))).findings if f.code == "missing")
    assert finding.message.startswith("1 files are missing")
    rows = [row | {"split": ("train", "test")[i % 2]} for i, row in enumerate(nemo_rows(files, tmp_path))]
    dataset = open_task(str(write_lines(tmp_path / "all.json", rows)))
    assert Counter(clip.split for clip in dataset.clips) == {"train": 10, "test": 10}


def test_options_need_rows(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "x" / name).mkdir(parents=True)
        (tmp_path / "x" / name / "0.wav").touch()
    with pytest.raises(UsageError, match="--label can be used with a manifest only"):
        open_task(TaskSpec(tmp_path / "x", label="speaker"))
