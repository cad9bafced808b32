"""`data check`: each kind of fault is planted in real audio, and it alone must be found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from uwbench.audio.clip import AudioFile, Clip, Event
from uwbench.cards.card import Size
from uwbench.cards.find import find_card
from uwbench.sources.check import CheckReport, check_dataset
from uwbench.sources.dataset import Dataset
from uwbench.sources.resolve import open_task


class Pets:
    """A small task of real recordings: two classes, with three train clips and one test clip each."""

    def __init__(self, folder: Path, shared: Path) -> None:
        self.folder = folder
        self.rows: list[dict[str, str]] = []
        audio = shared / "esc10" / "audio"
        for label in ("dog", "rain"):
            for i in range(4):
                name = f"{label}{i}.ogg"
                source = sorted(audio.glob("*.ogg"))[len(self.rows)]
                folder.mkdir(exist_ok=True)
                shutil.copyfile(source, folder / name)
                split = "test" if i == 3 else "train"
                self.rows.append({"path": name, "label": label, "split": split, "group": f"{label}{i}"})

    def check(self, *, decode: bool = True) -> CheckReport:
        lines = ["path,label,split,group"]
        lines += [f"{row['path']},{row['label']},{row['split']},{row['group']}" for row in self.rows]
        (self.folder / "manifest.csv").write_text("\n".join(lines) + "\n")
        return check_dataset(open_task(str(self.folder / "manifest.csv")), decode=decode)


@pytest.fixture
def pets(tmp_path: Path, shared_data: Path) -> Pets:
    return Pets(tmp_path / "pets", shared_data)


def test_good_data_has_no_findings(pets: Pets) -> None:
    for decode in (True, False):
        report = pets.check(decode=decode)
        assert report.findings == ()
        assert report.ok
        assert (report.task, report.clips, report.counts) == ("pets", 8, {"train": 6, "test": 2})


def same_audio_in_test(pets: Pets) -> None:
    shutil.copyfile(pets.folder / "dog0.ogg", pets.folder / "dog3.ogg")


def same_audio_in_train(pets: Pets) -> None:
    shutil.copyfile(pets.folder / "dog0.ogg", pets.folder / "dog1.ogg")


def same_sound_in_another_format(pets: Pets) -> None:
    samples, rate = soundfile.read(pets.folder / "dog0.ogg", dtype="float32")
    for name, i in (("dog0.wav", 0), ("dog3.flac", 3)):
        soundfile.write(pets.folder / name, np.round(samples * 32767).astype(np.int16), rate)
        pets.rows[i]["path"] = name


def group_in_both(pets: Pets) -> None:
    pets.rows[3]["group"] = "dog0"


def missing(pets: Pets) -> None:
    (pets.folder / "rain2.ogg").unlink()


def truncated(pets: Pets) -> None:
    path = pets.folder / "rain2.ogg"
    path.write_bytes(path.read_bytes()[:50])


def empty(pets: Pets) -> None:
    (pets.folder / "rain2.ogg").write_bytes(b"")


def pointer(pets: Pets) -> None:
    (pets.folder / "rain2.ogg").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")


def silent(pets: Pets) -> None:
    for i in (0, 1):  # two silences are no duplicates
        soundfile.write(pets.folder / f"quiet{i}.wav", np.zeros(16_000, np.int16), 16_000)
        pets.rows[i]["path"] = f"quiet{i}.wav"


def short(pets: Pets) -> None:
    samples, rate = soundfile.read(pets.folder / "dog0.ogg", dtype="int16")
    loudest = int(np.abs(samples[: -rate // 20].astype(int)).argmax())
    soundfile.write(pets.folder / "dog0.wav", samples[loudest : loudest + rate // 20], rate)
    pets.rows[0]["path"] = "dog0.wav"


def untrained(pets: Pets) -> None:
    pets.rows[3]["label"] = "cat"


@pytest.mark.parametrize(
    ("plant", "code", "severity", "clips", "extra"),
    [
        (same_audio_in_test, "duplicate-across", "error", ("dog0.ogg", "dog3.ogg"), set()),
        (same_audio_in_train, "duplicate", "warning", ("dog0.ogg", "dog1.ogg"), set()),
        (same_sound_in_another_format, "duplicate-across", "error", ("dog0.wav", "dog3.flac"), set()),
        (group_in_both, "group-across", "error", ("dog0.ogg", "dog3.ogg"), set()),
        (missing, "missing", "error", ("rain2.ogg",), set()),
        (truncated, "unreadable", "error", ("rain2.ogg",), set()),
        (empty, "unreadable", "error", ("rain2.ogg",), set()),
        (pointer, "unreadable", "error", ("rain2.ogg",), set()),
        (silent, "silent", "warning", ("quiet0.wav", "quiet1.wav"), set()),
        (short, "short", "warning", ("dog0.wav",), set()),
        (untrained, "class-untrained", "error", ("dog3.ogg",), {"class-missing"}),
    ],
)
def test_a_planted_fault_is_the_only_finding(
    pets: Pets,
    plant: Callable[[Pets], None],
    code: str,
    severity: str,
    clips: tuple[str, ...],
    extra: set[str],
) -> None:
    plant(pets)
    report = pets.check()
    findings = {finding.code: finding for finding in report.findings}
    assert set(findings) == {code} | extra
    assert (findings[code].severity, findings[code].clips) == (severity, clips)
    assert report.ok == (severity == "warning")
    assert json.loads(json.dumps(report.to_json()))["problems"][0].keys() == {"code", "severity", "message", "clips"}


def test_leaks_into_validation_alone_are_warnings(pets: Pets) -> None:
    shutil.copyfile(pets.folder / "dog0.ogg", pets.folder / "dog1.ogg")
    pets.rows[1] |= {"split": "valid", "group": "dog0"}
    pets.rows[5] |= {"split": "valid"}
    report = pets.check()
    assert [(finding.code, finding.severity) for finding in report.findings] == [
        ("duplicate-across", "warning"),
        ("group-across", "warning"),
    ]


def test_without_decoding_files_are_compared_by_their_bytes(pets: Pets) -> None:
    same_audio_in_test(pets)
    truncated(pets)
    assert {finding.code for finding in pets.check(decode=False).findings} == {"duplicate-across", "unreadable"}


def test_a_git_lfs_pointer_is_recognised(pets: Pets) -> None:
    pointer(pets)
    assert "git lfs pull" in pets.check().findings[0].message


def with_size(dataset: Dataset, **size: object) -> Dataset:
    card = dataset.card.model_copy(update={"size": Size.model_validate(size)})
    return Dataset(card, dataset.clips, dataset.source, dataset.problems, dataset.origin)


def test_counts_are_compared_with_the_card(shared_data: Path) -> None:
    dataset = open_task("mini_speech")
    assert check_dataset(with_size(dataset, clips=120, splits={"train": 72})).findings == ()
    findings = check_dataset(with_size(dataset, clips=121, splits={"train": 72, "test": 31})).findings
    assert [finding.message for finding in findings] == [
        "120 clips, but the card says 121",
        "30 clips in 'test', but the card says 31",
    ]
    assert {(finding.code, finding.severity) for finding in findings} == {("count", "error")}


def test_generated_tasks_pass() -> None:
    for name in ("mini_speech", "mini_sound", "mini_music"):
        assert check_dataset(open_task(name)).findings == ()


def clip(name: str, label: str, split: str, shared: Path, **more: float) -> Clip:
    audio = AudioFile(sorted((shared / "esc10" / "audio").glob("*.ogg"))[int(name)])
    return Clip(name, audio, label, split=split, start_s=more.get("start"), end_s=more.get("end"))


def test_labels_outside_the_vocabulary_are_errors(shared_data: Path) -> None:
    card = find_card("ravdess").model_copy(update={"folds": None, "size": None})
    clips = [clip(str(i), label, split, shared_data) for i, (label, split) in enumerate(
        (("sad", "train"), ("angry", "train"), ("sad", "test"), ("bored", "test"))
    )]  # fmt: skip
    report = check_dataset(Dataset(card, tuple(clips), "here"))
    unknown = next(finding for finding in report.findings if finding.code == "label-unknown")
    assert (unknown.severity, unknown.clips) == ("error", ("3",))


def test_stretches_of_one_recording_across_splits(shared_data: Path) -> None:
    card = open_task("mini_speech").card.model_copy(update={"size": None})
    clips = (
        clip("9", "a", "train", shared_data, start=0, end=2),
        clip("1", "b", "train", shared_data, start=0, end=2),
        Clip("9x", clip("9", "a", "test", shared_data).audio, "a", split="test", start_s=2.0, end_s=4.0),
        Clip("9y", clip("9", "a", "test", shared_data).audio, "a", split="test", start_s=1.5, end_s=3.0),  # overlaps
        clip("2", "b", "test", shared_data),
    )
    dataset = Dataset(card, clips, "here")
    findings = [f for f in check_dataset(dataset).findings if f.code not in ("class-missing", "silent")]
    assert [(finding.code, finding.severity, finding.clips) for finding in findings] == [
        ("recording-across", "warning", ("9", "9x", "9y"))
    ]


def test_events_after_the_end_are_found(shared_data: Path) -> None:
    card = find_card("desed").model_copy(update={"size": None})
    audio = clip("0", "", "test", shared_data).audio
    clips = (
        Clip("a", audio, (Event(4.0, 6.0, "Dog"),), split="train"),
        Clip("b", clip("1", "", "test", shared_data).audio, (Event(5.5, 6.0, "Dog"),), split="test"),
    )
    findings = {finding.code: finding for finding in check_dataset(Dataset(card, clips, "here")).findings}
    assert findings["event-outside"].clips == ("b",)


def test_tolerated_findings_are_reported_as_warnings(shared_data: Path) -> None:
    card = find_card("mini_speech").model_copy(update={"size": None})
    audio = clip("0", "", "test", shared_data).audio
    clips = (
        Clip("a", audio, "x", split="train", group="g"),
        Clip("b", audio, "x", split="test", group="g"),
    )
    for tolerated, ok in (((), False), (("duplicates",), False), (("duplicates", "groups-cross"), True)):
        dataset = Dataset(card.model_copy(update={"tolerated": tolerated}), clips, "here")
        report = check_dataset(dataset)
        assert {"duplicate-across", "group-across"} <= {finding.code for finding in report.findings}
        assert report.ok == ok


def test_progress_is_reported(pets: Pets) -> None:
    pets.check()
    steps: list[tuple[int, int]] = []
    dataset = open_task(str(pets.folder / "manifest.csv"))
    check_dataset(dataset, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(i, 8) for i in range(1, 9)]


def test_the_command_prints_progress_to_stderr_and_only_json_to_stdout(pets: Pets, uwbench: Callable[..., Any]) -> None:
    pets.check()
    result = uwbench("data", "check", pets.folder / "manifest.csv", "--json")
    assert json.loads(result.out)["clips"] == 8
    assert "check  pets: 8/8 clips" in result.err
    assert uwbench("data", "check", pets.folder / "manifest.csv", "--quiet").err == ""
