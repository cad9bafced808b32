"""Own data: manifests in four formats, and folders; errors name the file, line and column."""

from __future__ import annotations

import csv
import json
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uwbench.audio.clip import Event
from uwbench.errors import InputError, UsageError
from uwbench.options import TaskSpec
from uwbench.sources.resolve import is_own_data, open_task

Row = dict[str, Any]


def write(path: Path, rows: list[Row]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.suffix:
        case ".csv" | ".tsv":
            with path.open("w", encoding="utf-8", newline="") as file:
                literal = {"delimiter": "\t", "quoting": csv.QUOTE_NONE, "quotechar": None}
                writer = csv.DictWriter(file, list(rows[0]), **(literal if path.suffix == ".tsv" else {}))
                writer.writeheader()
                writer.writerows(rows)
        case ".jsonl":
            path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def rows(**changes: Any) -> list[Row]:
    """Return rows of two classes in train and test; `changes` replace values of the third, line 4 of a CSV."""
    table = [
        {"path": f"{split}/{label}.wav", "label": label, "split": split}
        for split in ("train", "test")
        for label in ("dog", "cat")
    ]
    table[2] |= changes
    return table


def test_real_manifests_become_tasks(shared_data: Path) -> None:
    esc10 = open_task(str(shared_data / "esc10" / "manifest.csv"))
    assert (esc10.card.name, esc10.card.folds, esc10.card.chance) == ("esc10", ("1", "2", "3", "4", "5"), 0.1)
    assert Counter(clip.fold for clip in esc10.clips) == dict.fromkeys("12345", 80)
    fsdd = open_task(TaskSpec(shared_data / "fsdd" / "manifest.csv", label="speaker", group="digit"))
    assert fsdd.card.splits is not None
    assert (fsdd.card.name, fsdd.card.splits.valid, fsdd.card.group) == ("fsdd", "valid", "digit")
    assert Counter(clip.split for clip in fsdd.clips) == {"train": 2400, "valid": 300, "test": 300}
    assert {clip.labels for clip in fsdd.clips} == {"george", "jackson", "lucas", "nicolas", "theo", "yweweler"}
    assert {clip.group for clip in fsdd.clips} == set("0123456789")
    first = fsdd.clips[0]
    assert (first.id, first.labels, first.group, first.split) == ("recordings/0_george_0.wav", "george", "0", "test")
    assert all(str(clip.audio).startswith(str(shared_data / "fsdd")) for clip in fsdd.clips)


def test_a_folder_with_a_manifest_is_read_as_the_manifest(shared_data: Path) -> None:
    assert open_task(str(shared_data / "esc10")).source == f"manifest {shared_data / 'esc10' / 'manifest.csv'}"


texts = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=12)


@given(
    labels=st.lists(texts, min_size=4, max_size=8, unique=True),
    groups=st.lists(texts, min_size=8, max_size=8),
    starts=st.lists(st.integers(0, 50), min_size=8, max_size=8),
)
def test_all_formats_give_the_same_clips(
    tmp_path_factory: pytest.TempPathFactory, labels: list[str], groups: list[str], starts: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("m")
    table = [
        {
            "path": f"a {i}.wav",
            "label": label,
            "fold": i % 2,
            "group": groups[i],
            "start": starts[i] / 10,
            "end": starts[i] / 10 + 1.5,
        }
        for i, label in enumerate(labels)
    ]
    read = [open_task(str(write(folder / f"t.{kind}", table))) for kind in ("csv", "tsv", "jsonl", "parquet")]
    assert [clip.labels for clip in read[0].clips] == labels
    assert [clip.start_s for clip in read[0].clips] == [start / 10 for start in starts[: len(labels)]]
    for other in read[1:]:
        assert other.clips == read[0].clips
        assert other.card == read[0].card


def test_names_of_splits_are_understood(tmp_path: Path) -> None:
    table = rows() + [{"path": f"{name}.wav", "label": "dog", "split": name} for name in ("Validation", "dev", "VAL")]
    dataset = open_task(str(write(tmp_path / "m.csv", table)))
    assert Counter(clip.split for clip in dataset.clips) == {"train": 2, "test": 2, "valid": 3}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "holdout"}, r"line 4, column 'split': 'holdout' is not one of train, valid .*, test"),
        ({"split": ""}, "line 4, column 'split': is empty"),
        ({"label": " "}, "line 4, column 'label': is empty"),
        ({"path": ""}, "line 4, column 'path': is empty"),
        ({"path": "../outside.wav"}, r"line 4, column 'path': '\.\./outside\.wav' is outside"),
        ({"path": "a/../../outside.wav"}, "is outside"),
        ({"path": "/etc/passwd"}, "is outside"),
        ({"path": "train/dog.wav"}, "line 4, column 'label': 'train/dog.wav' is 'wolf' here and 'dog' at line 2"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, changes: Row, message: str) -> None:
    if changes == {"path": "train/dog.wav"}:
        changes = changes | {"label": "wolf"}
    path = write(tmp_path / "m.csv", rows(**changes))
    with pytest.raises(InputError, match=message) as error:
        open_task(str(path))
    assert error.value.where == str(path)
    assert error.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "contains no rows"),
        ("path,label,split\n", "contains no rows"),
        ("path,lable,split\na,b,train\n", r"column 'label' is missing \(did you mean lable.*--label"),
        ("path,label\na,b\n", "neither a column `split`"),
        ("path,label,split,fold\na,b,train,1\n", "column `split` and a column `fold`"),
        ("path,label,split\na,b\n", "line 2: 2 values for 3 columns"),
        ("path,label,label,split\na,b,c,train\n", "there are two columns 'label'"),
        ('path,label,split\na,"b,train\n', "not valid CSV"),
        ("path,label,split\na,b,train\n", "no clip is in 'test'"),
        ("path,label,fold\na,b,1\nc,d,1\n", "at least two folds"),
        ("path,label,fold\na,b,train\nc,d,test\n", "contains names of splits.*rename the column to `split`"),
        ("path,label,fold\na,b,1\nc,b,2\n", "all tested clips have the label 'b'"),
        ("path,label,fold,start\na,b,1,soon\n", r"line 2, column 'start': 'soon' is not a number of seconds"),
        ("path,label,fold,start,end\na,b,1,2,1.5\n", "line 2, column 'end': '1.5' is not after the start"),
        ("path,label,fold,start\na,b,1,-1\n", "column 'start'"),
        ("path,label,fold,start\na,b,1,nan\n", "column 'start'"),
    ],
)
def test_a_bad_csv_is_explained(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "m.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        open_task(str(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [('{"path": "a"\n', "line 1: is not valid JSON"), ("[1]\n", "line 1: is not a JSON object"), ("\xff", "UTF-8")],
)
def test_bad_jsonl_is_explained(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=message):
        open_task(str(path))


def test_a_bad_parquet_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(InputError, match="not a valid Parquet"):
        open_task(str(path))


def test_a_missing_group_column_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "m.csv", rows())
    with pytest.raises(InputError, match=r"column 'speaker' is missing.*--group"):
        open_task(TaskSpec(path, group="speaker"))


def test_paths_outside_the_folder_can_be_allowed(tmp_path: Path) -> None:
    path = write(tmp_path / "in" / "m.csv", rows(path="../a.wav"))
    clip = open_task(TaskSpec(path, allow_outside=True)).clips[2]
    assert str(clip.audio) == str(tmp_path / "in" / ".." / "a.wav")


def test_absolute_paths_in_the_folder_are_those_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "in")
    relative = open_task(str(write(tmp_path / "in" / "m.csv", rows())))
    for place in ("in", "link"):
        table = [{**row, "path": f"{tmp_path}/{place}/{row['path']}"} for row in rows()]
        for folder in ("in", "link"):
            dataset = open_task(str(write(tmp_path / folder / "a.csv", table)))
            assert [clip.id for clip in dataset.clips] == [clip.id for clip in relative.clips]


@pytest.mark.parametrize(
    ("kind", "label", "message"),
    [
        ("single-label", 0.5, "is 0.5, a number with a fraction"),
        ("single-label", b"dog", "of the type bytes"),
        ("single-label", datetime(2020, 1, 1), "of the type datetime"),
        ("single-label", {"a": 1}, "is a list or an object"),
        ("multi-label", [0.25, 0.5], "a number with a fraction"),
        ("multi-label", [0, 1, 0, 1], "a vector of zeros and ones"),
    ],
)
def test_labels_of_types_that_name_no_class(tmp_path: Path, kind: str, label: Any, message: str) -> None:
    table = [{**row, "label": label} for row in rows()]
    with pytest.raises(InputError, match=rf"row 1, column 'label': .*{message}"):
        open_task(TaskSpec(write(tmp_path / "m.parquet", table), kind=kind))


def test_ids_are_unique_and_stable(tmp_path: Path) -> None:
    table = [
        {"path": "a.wav", "label": label, "fold": fold, "start": start, "end": end}
        for label, fold, start, end in (("x", 1, "", ""), ("x", 1, 0.5, ""), ("y", 2, 1.5, 2.25), ("x", 1, "", ""))
    ]
    dataset = open_task(str(write(tmp_path / "m.csv", table)))
    assert [clip.id for clip in dataset.clips] == ["a.wav", "a.wav#0.5", "a.wav#1.5-2.25", "a.wav~2"]
    assert dataset.problems == (
        "m.csv: 1 clips have a start and no end, and run to the end of the file",
        "m.csv lists 1 clips more than once, first 'a.wav'",
    )


def test_a_spreadsheet_export_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    lines = ("\ufeffpath,label,split", "a b.wav,\u00fc,Train", "", "c.wav,d,Test", "e.wav,\u00fc,test", "")
    path.write_bytes("\r\n".join(lines).encode())
    first, second, _ = open_task(str(path)).clips
    assert (first.id, first.labels, first.split) == ("a b.wav", "\u00fc", "train")
    assert (second.id, second.labels, second.split) == ("c.wav", "d", "test")


def test_integers_stored_as_floats_stay_integers(tmp_path: Path) -> None:
    table = [{"path": f"{i}.wav", "label": float(i % 2), "fold": i % 2} for i in range(4)]
    assert {clip.labels for clip in open_task(str(write(tmp_path / "m.parquet", table))).clips} == {"0", "1"}


def test_multi_label_and_events(tmp_path: Path) -> None:
    table = [
        {"path": f"{s}{i}.wav", "label": "dog;cat" if i else "dog", "split": s}
        for s in ("train", "test")
        for i in (0, 1)
    ]
    dataset = open_task(TaskSpec(write(tmp_path / "m.csv", table), kind="multi-label"))
    assert [clip.labels for clip in dataset.clips] == [("dog",), ("dog", "cat")] * 2
    assert (dataset.card.metric, dataset.card.chance) == ("map", 0.75)
    events = [{"onset": 0.5, "offset": 1.25, "label": "dog"}]
    table = [{"path": f"{s}.wav", "label": json.dumps(events), "split": s} for s in ("train", "test")]
    for kind in ("csv", "jsonl"):
        dataset = open_task(TaskSpec(write(tmp_path / f"e.{kind}", table), kind="frame-multi-label"))
        assert dataset.clips[0].labels == (Event(0.5, 1.25, "dog"),)
    assert (dataset.card.metric, dataset.card.segment_s) == ("segment-f1-macro", 1.0)


def test_bad_events_are_named(tmp_path: Path) -> None:
    table = [{"path": "a.wav", "label": [{"onset": 2, "offset": 1, "label": "x"}], "split": "train"}]
    with pytest.raises(InputError, match="line 1, column 'label': the event from"):
        open_task(TaskSpec(write(tmp_path / "m.jsonl", table), kind="frame-multi-label"))


def test_names_of_own_tasks(tmp_path: Path) -> None:
    path = write(tmp_path / "My Data (v2)" / "m.csv", rows())
    assert open_task(str(path)).card.name == "my-data-v2"
    assert open_task(TaskSpec(path, name="mine")).card.name == "mine"
    with pytest.raises(InputError, match="may contain only"):
        open_task(TaskSpec(path, name="My Data"))


def test_a_name_shared_with_a_card_is_noted(tmp_path: Path) -> None:
    path = write(tmp_path / "gtzan" / "m.csv", rows())
    assert "a built-in card is also named" in open_task(str(path)).problems[0]
    assert open_task(TaskSpec(path, name="mine")).problems == ()


def make_folder(root: Path, names: dict[str, int]) -> Path:
    for place, count in names.items():
        (root / place).mkdir(parents=True)
        for i in range(count):
            (root / place / f"{i}.wav").touch()
        (root / place / ".hidden.wav").touch()
        (root / place / "notes.txt").touch()
    return root


def test_a_folder_is_dealt_into_five_stratified_folds(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pets", {"dog": 10, "cat": 10, "bird": 7})
    dataset = open_task(str(folder))
    assert (dataset.card.name, dataset.card.folds) == ("pets", ("1", "2", "3", "4", "5"))
    assert "5 folds by hash" in dataset.source
    counts = Counter((clip.labels, clip.fold) for clip in dataset.clips)
    assert {counts[label, fold] for label in ("dog", "cat") for fold in "12345"} == {2}
    assert {counts["bird", fold] for fold in "12345"} == {1, 2}
    before = {clip.id: clip.fold for clip in dataset.clips}
    (folder / "cat" / "10.wav").touch()
    after = {clip.id: clip.fold for clip in open_task(str(folder)).clips}
    assert all(after[name] == fold for name, fold in before.items() if not name.startswith("cat"))


def test_a_folder_with_splits(tmp_path: Path) -> None:
    names = {f"{split}/{label}": 2 for split in ("train", "validation", "test") for label in ("dog", "cat")}
    dataset = open_task(str(make_folder(tmp_path / "pets", names)))
    assert Counter((clip.split, clip.labels) for clip in dataset.clips) == {
        (split, label): 2 for split in ("train", "valid", "test") for label in ("dog", "cat")
    }


def test_a_folder_without_audio_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x" / "dog").mkdir(parents=True)
    with pytest.raises(InputError, match="no sub-folder with audio"):
        open_task(str(tmp_path / "x"))
    with pytest.raises(InputError, match="is not a folder"):
        open_task(str(tmp_path / "nowhere"))


def test_options_about_columns_need_a_manifest(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pets", {"dog": 5, "cat": 5})
    assert open_task(TaskSpec(folder, kind="single-label", name="mine", domain="music")).card.domain == "music"
    with pytest.raises(UsageError, match="--label can be used with a manifest only"):
        open_task(TaskSpec(folder, label="x"))
    with pytest.raises(UsageError, match="--group, --kind can be"):
        open_task(TaskSpec(folder, group="x", kind="multi-label"))


def test_what_is_own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "esc50").mkdir()
    (tmp_path / "pets").mkdir()
    monkeypatch.chdir(tmp_path)
    assert not is_own_data("esc50")  # a card's name comes before a folder's
    assert is_own_data("./esc50")
    assert is_own_data("pets")
    assert is_own_data("pets.csv")
    assert not is_own_data("pets.yaml")
    assert not is_own_data("unknown")
    with pytest.raises(UsageError, match="--group can be used with own data only"):
        open_task(TaskSpec("esc50", group="x"))
    with pytest.raises(UsageError, match=r"--kind.*not one of single-label, multi-label"):
        open_task(TaskSpec("pets.csv", kind="multilabel"))
