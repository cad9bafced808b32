"""Columns that are named by options, and files whose names on disk differ a little from the table's."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import uwbench
from uwbench.audio.clip import AudioFile
from uwbench.errors import InputError, UsageError
from uwbench.options import TaskSpec
from uwbench.sources.dataset import Dataset
from uwbench.sources.resolve import open_task

USES = ("path", "label", "split", "group", "start", "end")
SEGMENTS: list[dict[str, str]] = [
    {
        "path": f"{part}/{label}.wav",
        "label": label,
        "split": part,
        "group": f"{part}{label}",
        "start": "1",
        "end": "2.5",
    }
    for part in ("train", "test")
    for label in ("dog", "cat")
]


def table(folder: Path, rows: list[dict[str, str]]) -> Path:
    pd.DataFrame(rows).to_csv(folder / "m.csv", index=False)
    return folder / "m.csv"


def contents(dataset: Dataset) -> list[tuple[object, ...]]:
    return [(c.id, c.labels, c.split, c.fold, c.group, c.start_s, c.end_s) for c in dataset.clips]


@given(names=st.lists(st.from_regex(r"[a-zA-Z_]{1,8}", fullmatch=True), min_size=6, max_size=6, unique_by=str.lower))
def test_any_names_of_columns_give_the_same_clips(names: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("columns")
    named: dict[str, Any] = dict(zip(USES, names, strict=True))
    plain = open_task(str(table(folder, SEGMENTS)))
    renamed = table(folder, [{named[use]: cell for use, cell in row.items()} for row in SEGMENTS])
    dataset = open_task(TaskSpec(renamed, **named))
    assert contents(dataset) == contents(plain)
    assert not dataset.problems
    frame = pd.read_csv(renamed, dtype=str)
    assert contents(uwbench.load_task(frame, **named)) == contents(plain)


def test_a_chosen_column_leaves_the_one_it_replaces_out(tmp_path: Path) -> None:
    rows = [row | {"fold": str(i % 2), "duration": "9", "subset": row["split"]} for i, row in enumerate(SEGMENTS)]
    manifest = table(tmp_path, rows)
    with pytest.raises(InputError, match="a column `split` and a column `fold`; name the one to use with --split"):
        open_task(str(manifest))
    assert {clip.fold for clip in open_task(TaskSpec(manifest, fold="fold", end="end")).clips} == {"0", "1"}
    dataset = open_task(TaskSpec(manifest, split="subset", end="end"))
    assert [(clip.split, clip.end_s) for clip in dataset.clips] == [(row["split"], 2.5) for row in SEGMENTS]
    assert open_task(TaskSpec(manifest, split="subset", duration="duration")).clips[0].end_s == 10
    with pytest.raises(InputError, match=r"'0' is not one of train.*use --fold"):
        open_task(TaskSpec(manifest, split="fold", end="end"))
    with pytest.raises(InputError, match=r"names of splits \(test, train\).*--split"):
        open_task(TaskSpec(manifest, fold="subset", end="end"))


@pytest.mark.parametrize("use", USES)
def test_a_chosen_column_must_exist(use: str, tmp_path: Path) -> None:
    chosen: dict[str, Any] = {use: "nope"}
    spec = TaskSpec(table(tmp_path, SEGMENTS), **chosen)
    with pytest.raises(InputError, match=f"the column 'nope' is missing .*choose another column with --{use}"):
        open_task(spec)
    (tmp_path / "dog").mkdir()
    (tmp_path / "m.csv").unlink()
    with pytest.raises(UsageError, match=f"--{use} can be used with a manifest only"):
        open_task(TaskSpec(tmp_path, **chosen))


# How a table may write the file "Sounds/Été 1.wav".
SPELLINGS = [
    "Sounds/Été 1.wav",
    "./Sounds/Été 1.wav",
    "Sounds\\Été 1.wav",
    "sounds/été 1.WAV",
    unicodedata.normalize("NFD", "Sounds/Été 1.wav"),
    " sounds\\ÉTÉ 1.wav ",
]


@pytest.mark.parametrize("disk", ["NFC", "NFD"])
@pytest.mark.parametrize("listed", SPELLINGS)
def test_other_spellings_are_the_file(listed: str, disk: Literal["NFC", "NFD"], tmp_path: Path) -> None:
    file = tmp_path / unicodedata.normalize(disk, "Sounds/Été 1.wav")
    file.parent.mkdir()
    file.write_bytes(b"RIFF")
    dataset = open_task(str(table(tmp_path, [*SEGMENTS, SEGMENTS[0] | {"path": listed}])))
    audio = dataset.clips[-1].audio
    assert isinstance(audio, AudioFile)
    assert audio.path.resolve() == file
    assert dataset.clips[-1].id.startswith(Path(listed.strip()).as_posix())
    noted = any("1 files were found under names that differ" in note for note in dataset.problems)
    assert noted != (tmp_path / listed.strip()).exists()


def test_two_files_that_differ_in_case_alone_stay_two(tmp_path: Path) -> None:
    for name in ("a.wav", "A.wav"):
        (tmp_path / name).write_bytes(b"RIFF")
    rows = [SEGMENTS[0] | {"path": name} for name in ("a.wav", "A.wav", "a.WAV")] + SEGMENTS
    clips = open_task(str(table(tmp_path, rows))).clips
    assert [Path(str(clip.audio)).name for clip in clips[:3]] == ["a.wav", "A.wav", "a.WAV"]


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("https://x.org/a.wav", "'https://x.org/a.wav' is a URL; download the audio"),
        ("~/a.wav", "is outside the manifest's folder"),
        ("..\\..\\a.wav", None),
    ],
)
def test_places_elsewhere_are_named(path: str, what: str | None, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    (tmp_path / "data" / "sub").mkdir(parents=True)
    manifest = table(tmp_path / "data" / "sub", [*SEGMENTS, SEGMENTS[0] | {"path": path}])
    if what is None:  # a file of an odd name that does not exist, and no way out of the folder
        assert Path(str(open_task(str(manifest)).clips[-1].audio)).name == path
    else:
        with pytest.raises(InputError, match=what):
            open_task(str(manifest))


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    manifest = table(tmp_path, [*SEGMENTS, SEGMENTS[0] | {"path": "~/a.wav"}])
    clips = open_task(TaskSpec(manifest, allow_outside=True)).clips
    assert clips[-1].audio == AudioFile(tmp_path / "a.wav")
    assert len(uwbench.load_task("~/m.csv", allow_outside=True).clips) == len(clips)


def test_a_wrong_name_of_a_manifest_is_hinted_at(tmp_path: Path) -> None:
    manifest = table(tmp_path, SEGMENTS)
    with pytest.raises(InputError, match=r"did you mean .*m\.csv"):
        open_task(str(manifest.with_name("M.CSV")))


def test_eval_is_the_tested_part_unless_there_is_another(tmp_path: Path) -> None:
    rows = [row | {"split": {"test": "eval"}.get(row["split"], row["split"])} for row in SEGMENTS]
    assert {clip.split for clip in open_task(str(table(tmp_path, rows))).clips} == {"train", "test"}
    with pytest.raises(InputError, match="column 'split': holds 'eval' and 'test'; call the tested part test"):
        open_task(str(table(tmp_path, rows + SEGMENTS)))


def test_rows_of_one_file_with_two_labels_hint_at_stretches(tmp_path: Path) -> None:
    rows = [{"path": "all.wav", "label": row["label"], "split": row["split"], "begin": "1"} for row in SEGMENTS]
    with pytest.raises(InputError, match=r"'all\.wav' is 'cat' here and 'dog' at line 2; .*--start"):
        open_task(str(table(tmp_path, rows)))
