"""Own data as `datasets` writes it: AudioFolder, save_to_disk and Parquet; labels by name, splits as written."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets.table import embed_table_storage

from uwbench.audio.clip import AudioMember, read_bytes
from uwbench.errors import InputError, UwbenchError
from uwbench.options import TaskSpec
from uwbench.sources.check import check_dataset
from uwbench.sources.dataset import Dataset
from uwbench.sources.resolve import open_task, with_name

SPEAKERS = ("george", "jackson")
DIGITS = ("zero", "one")


def recordings(shared: Path, takes: range) -> list[Path]:
    """Return recordings of two digits by two speakers."""
    return [
        shared / "fsdd" / "recordings" / f"{digit}_{who}_{take}.wav"
        for take in takes
        for who in SPEAKERS
        for digit in range(len(DIGITS))
    ]


def hf_dataset(files: list[Path]) -> datasets.Dataset:
    """Return a dataset as `datasets` makes it, with a class label, a speaker and audio."""
    columns = {
        "audio": [str(file) for file in files],
        "digit": [int(file.name[0]) for file in files],
        "speaker": [file.name.split("_")[1] for file in files],
    }
    made = datasets.Dataset.from_dict(columns).cast_column("digit", datasets.ClassLabel(names=list(DIGITS)))
    return made.cast_column("audio", datasets.Audio())


def hf_splits(shared: Path) -> datasets.DatasetDict:
    takes = {"train": range(4), "validation": range(4, 5), "test": range(5, 7)}
    return datasets.DatasetDict({split: hf_dataset(recordings(shared, takes[split])) for split in takes})


COUNTS = {"train": 16, "valid": 4, "test": 8}


def require_digits(dataset: Dataset, shared: Path, counts: dict[str, int] = COUNTS) -> None:
    """Assert that the clips are those recordings, byte for byte, with their digits as labels."""
    assert Counter(clip.split or clip.fold for clip in dataset.clips) == counts
    for clip in dataset.clips:
        name = Path(clip.id).name
        assert clip.labels == DIGITS[int(name[0])], clip.id
        assert read_bytes(clip.audio) == (shared / "fsdd" / "recordings" / name).read_bytes()
    errors = {finding.code for finding in check_dataset(dataset).findings if finding.severity == "error"}
    assert errors <= {"group-across"}  # both speakers are in every split


def audio_folder(folder: Path, shared: Path, *, per_split: bool = True, form: str = "csv") -> Path:
    """Write an AudioFolder whose tables `datasets` writes: one per split, or one for all."""
    tables = []
    for split, part in hf_splits(shared).items():
        (folder / str(split)).mkdir(parents=True)
        rows = []
        for row in part.cast_column("audio", datasets.Audio(decode=False)):
            source = Path(row["audio"]["path"])  # type: ignore[index]
            shutil.copyfile(source, folder / str(split) / source.name)
            name = source.name if per_split else f"{split}/{source.name}"
            rows.append({"file_name": name, "digit": DIGITS[row["digit"]], "speaker": row["speaker"]})  # type: ignore[index]
        tables.append((folder / str(split), rows))
    if not per_split:
        tables = [(folder, [row for _, rows in tables for row in rows])]
    for place, rows in tables:
        table = datasets.Dataset.from_list(rows)
        match form:
            case "csv":
                table.to_csv(str(place / "metadata.csv"))
            case "jsonl":
                table.to_json(str(place / "metadata.jsonl"))
            case _:
                table.to_parquet(str(place / "metadata.parquet"))
    return folder


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("per_split", [True, False])
def test_an_audio_folder(tmp_path: Path, shared_data: Path, per_split: bool, form: str) -> None:
    folder = audio_folder(tmp_path / "digits", shared_data, per_split=per_split, form=form)
    dataset = open_task(TaskSpec(folder, label="digit", group="speaker"))
    require_digits(dataset, shared_data)
    assert {clip.group for clip in dataset.clips} == set(SPEAKERS)
    assert dataset.source == f"AudioFolder {folder} (splits test, train, valid by name)"
    builder = datasets.load_dataset_builder("audiofolder", data_dir=str(folder), cache_dir=str(tmp_path / "hf"))
    for name, split in (("train", "train"), ("validation", "valid"), ("test", "test")):
        files = (Path(file) for file in (builder.config.data_files or {})[name])  # as `datasets` itself splits them
        theirs = {file.name for file in files if file.suffix == ".wav"}
        assert {Path(clip.id).name for clip in dataset.clips if clip.split == split} == theirs


def test_an_audio_folder_without_splits_is_dealt_by_group(tmp_path: Path, shared_data: Path) -> None:
    folder = tmp_path / "digits"
    folder.mkdir()
    files = recordings(shared_data, range(6))
    lines = ["speech_file_name,label,speaker"]
    for number, file in enumerate(files):
        shutil.copyfile(file, folder / file.name)
        lines.append(f"{file.name},{DIGITS[int(file.name[0])]},s{number // 4}")
    (folder / "metadata.csv").write_text("\n".join(lines))
    shutil.copyfile(files[0], folder / "extra.wav")
    (folder / files[1].name).unlink()
    for place in (folder, folder / "metadata.csv"):
        dataset = open_task(TaskSpec(place, group="speaker"))
        assert "5 folds by hash, groups whole" in dataset.source
        assert len(dataset.clips) == len(files)
        folds = {(clip.group, clip.fold) for clip in dataset.clips}
        assert len(folds) == 6  # each speaker in one fold
        assert "1 audio files are not listed in the tables and are left out, first extra.wav" in dataset.problems
        (finding,) = (finding for finding in check_dataset(dataset).findings if finding.code == "missing")
        assert finding.message.startswith("1 files are missing")


@pytest.mark.parametrize("shards", [1, 3])
def test_saved_splits(tmp_path: Path, shared_data: Path, shards: int) -> None:
    folder = tmp_path / "saved"
    hf_splits(shared_data).save_to_disk(folder, num_shards=dict.fromkeys(("train", "validation", "test"), shards))
    before = sorted(path for path in folder.rglob("*"))
    dataset = open_task(TaskSpec(folder, group="speaker"))
    require_digits(dataset, shared_data)
    assert "the column 'digit' is taken as 'label'" in dataset.problems
    assert all(isinstance(clip.audio, AudioMember) and clip.audio.path.suffix == ".arrow" for clip in dataset.clips)
    assert sorted(path for path in folder.rglob("*")) == before  # read in place
    by_speaker = open_task(TaskSpec(folder, label="speaker"))
    assert {clip.labels for clip in by_speaker.clips} == set(SPEAKERS)
    assert with_name(TaskSpec(folder, label="speaker")).name == "saved-speaker"


def test_a_saved_dataset_without_splits(tmp_path: Path, shared_data: Path) -> None:
    hf_dataset(recordings(shared_data, range(5))).select(range(2, 18)).save_to_disk(tmp_path / "saved")
    dataset = open_task(str(tmp_path / "saved"))
    require_digits(dataset, shared_data, dict(Counter(clip.fold or "" for clip in dataset.clips)))
    assert dataset.card.folds == ("1", "2", "3", "4", "5")
    part = open_task(str(tmp_path / "saved"))
    assert part.clips == dataset.clips


def parquet_folder(folder: Path, shared: Path) -> Path:
    """Write what push_to_hub would: audio embedded, two shards of train."""
    (folder / "data").mkdir(parents=True)
    for split, part in hf_splits(shared).items():
        count = 2 if split == "train" else 1
        for number in range(count):
            shard = part.shard(count, number, contiguous=True)
            embedded = shard.with_format("arrow").map(embed_table_storage, batched=True)
            path = folder / "data" / f"{split}-{number:05d}-of-{count:05d}.parquet"
            embedded.with_format(None).to_parquet(str(path))
    return folder


def test_parquet_of_the_hub(tmp_path: Path, shared_data: Path) -> None:
    folder = parquet_folder(tmp_path / "digits", shared_data)
    dataset = open_task(TaskSpec(folder, group="speaker"))
    require_digits(dataset, shared_data)
    blob = folder / ".hub" / "own" / "audio.bin"
    stamp = blob.stat().st_mtime_ns
    assert open_task(TaskSpec(folder, label="speaker")).clips[0].labels == "george"
    assert blob.stat().st_mtime_ns == stamp  # another label copies nothing again
    one = open_task(str(folder / "data" / "train-00000-of-00002.parquet"))
    assert len(one.clips) == 8
    assert "5 folds by hash" in one.source


def test_a_folder_that_cannot_be_written_is_copied_to_the_users_cache(
    tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = parquet_folder(tmp_path / "digits", shared_data)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("uwbench.sources.embedded.os.access", lambda *_: False)  # root may write anywhere
    require_digits(open_task(str(folder)), shared_data)
    assert not (folder / ".hub").exists()
    assert len(list((tmp_path / "home").rglob("audio.bin"))) == 1


@pytest.mark.parametrize("shape", ["folder", "saved", "parquet"])
def test_from_files_to_a_score(
    shape: str, tmp_path: Path, shared_data: Path, uwbench: Callable[..., Any], quick: Path
) -> None:
    make = {
        "folder": audio_folder,
        "parquet": parquet_folder,
        "saved": lambda folder, shared: hf_splits(shared).save_to_disk(folder),
    }
    make[shape](tmp_path / "digits", shared_data)
    checked = uwbench("data", "check", tmp_path / "digits", "--label", "digit", "--json")
    assert checked.code == 0, checked.err
    assert json.loads(checked.out)["counts"] == COUNTS
    ran = uwbench("run", "-m", "logmel", "-t", f"{tmp_path}/digits[label=digit]", "--protocol", quick)
    assert ran.code == 0, ran.err
    (result,) = (tmp_path / "results").rglob("digits-digit.json")
    assert json.loads(result.read_text())["counts"] == {"clips": sum(COUNTS.values()), "missing": 0, "chunked": 0}


def rows_of(**changes: Any) -> list[dict[str, Any]]:
    table = [
        {"audio": {"bytes": bytes([i]) * 4, "path": f"{i}.wav"}, "label": label, "split": split}
        for i, (label, split) in enumerate((label, split) for split in ("train", "test") for label in "ab")
    ]
    table[2] |= changes
    return table


def parquet(path: Path, rows: list[dict[str, Any]], features: dict[str, Any] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows)
    if features:
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        table = table.replace_schema_metadata(metadata)
    pq.write_table(table, path)
    return path


def test_rows_that_share_a_name_or_have_none(tmp_path: Path) -> None:
    table = rows_of(audio={"bytes": b"two", "path": "0.wav"})
    table[1]["audio"] = {"bytes": b"one", "path": None}
    dataset = open_task(str(parquet(tmp_path / "x.parquet", table)))
    assert [clip.id for clip in dataset.clips] == ["0.wav", "x-000002", "x-3/0.wav", "3.wav"]
    assert [read_bytes(clip.audio) for clip in dataset.clips] == [bytes(4), b"one", b"two", bytes([3]) * 4]


def test_a_row_without_audio_is_a_missing_clip(tmp_path: Path) -> None:
    table = rows_of(audio=None)
    dataset = open_task(str(parquet(tmp_path / "x.parquet", table)))
    assert len(dataset.clips) == 4
    (finding,) = (f for f in check_dataset(dataset).findings if f.code == "unreadable" and "x-000003" in f.clips)
    assert "4 clips cannot be decoded" in finding.message


CLASSES = {"label": {"names": ["a", "b"], "_type": "ClassLabel"}}
LISTS = {"label": {"feature": CLASSES["label"], "_type": "List"}}
REFUSED: dict[str, tuple[list[dict[str, Any]], dict[str, Any] | None, str, str]] = {
    "no class number": (rows_of(label=None), None, "single-label", "row 3, column 'label': is empty"),
    "unlabelled": (
        [{**row, "label": -1} for row in rows_of()],
        CLASSES,
        "single-label",
        "row 1, column 'label': -1 is none of the 2 class numbers, which `datasets` writes",
    ),
    "regression": ([{**row, "label": 0.25} for row in rows_of()], None, "single-label", "a number with a fraction"),
    "an object": ([{**row, "label": {"x": 1}} for row in rows_of()], None, "single-label", "is a list or an object"),
    "one-hot": ([{**row, "label": [0, 1, 0]} for row in rows_of()], None, "multi-label", "zeros and ones"),
    "no label": (
        [{"audio": row["audio"], "split": row["split"]} for row in rows_of()],
        None,
        "single-label",
        "the column 'label' is missing",
    ),
    "two audios": (
        [{"x": row["audio"], "y": row["audio"], **row, "audio": 1} for row in rows_of()],
        None,
        "single-label",
        "several columns that may be the audio",
    ),
    "outside": (rows_of(audio={"bytes": None, "path": "/etc/passwd"}), None, "single-label", "is outside the"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_rows_that_are_refused(name: str, tmp_path: Path) -> None:
    table, features, kind, message = REFUSED[name]
    path = parquet(tmp_path / "x.parquet", table, features)
    with pytest.raises(InputError, match=message) as error:
        open_task(TaskSpec(path, kind=kind))
    assert error.value.where == str(path)


def test_lists_of_class_numbers_are_names(tmp_path: Path) -> None:
    table = [{**row, "label": [1, 0] if i else [1]} for i, row in enumerate(rows_of())]
    dataset = open_task(TaskSpec(parquet(tmp_path / "x.parquet", table, LISTS), kind="multi-label"))
    assert [clip.labels for clip in dataset.clips] == [("b",), ("b", "a"), ("b", "a"), ("b", "a")]


def halves(column: str | None = None) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return rows of train and of test without, or with, a column that says so."""
    table = rows_of()
    for row in table:
        split = row.pop("split")
        if column:
            row[column] = split
    return table[:2], table[2:]


READ = {
    "train-00000-of-00001 test-00000-of-00001": {"train": 2, "test": 2},
    "data/train-00000-of-00001 data/test-00000-of-00001": {"train": 2, "test": 2},
    "train/0000 eval/0000": {"train": 2, "test": 2},
    "default/train/0000 default/test/0000": {"train": 2, "test": 2},
    "my_train my_testing": {"train": 2, "test": 2},
    "fold1 fold_02": {"1": 2, "2": 2},
}


@pytest.mark.parametrize("shape", READ)
def test_names_of_files_tell_splits(shape: str, tmp_path: Path) -> None:
    for name, rows in zip(shape.split(), halves(), strict=True):
        parquet(tmp_path / "x" / f"{name}.parquet", rows)
    dataset = open_task(str(tmp_path / "x"))
    assert Counter(clip.split or clip.fold for clip in dataset.clips) == READ[shape]


UNCLEAR = {
    "train dev": "holds the splits train, valid, and none is called test",
    "a/train b/test": "holds several datasets: a, b",
    "train_test b": "names several splits",
    "train fold1": "holds both splits and folds",
}


@pytest.mark.parametrize("shape", UNCLEAR)
def test_names_that_are_refused(shape: str, tmp_path: Path) -> None:
    for name, rows in zip(shape.split(), halves(), strict=True):
        parquet(tmp_path / "x" / f"{name}.parquet", rows)
    with pytest.raises(InputError, match=UNCLEAR[shape]):
        open_task(str(tmp_path / "x"))


def test_tables_of_text_and_a_file_that_names_no_split(tmp_path: Path) -> None:
    for name in ("train", "dev", "test", "validated"):
        lines = ["path\tlabel", *(f"clips/{name}{i}.wav\t{'ab'[i % 2]}" for i in range(4))]
        (tmp_path / f"{name}.tsv").write_text("\n".join(lines))
    dataset = open_task(str(tmp_path))
    assert Counter(clip.split for clip in dataset.clips) == {"train": 4, "valid": 4, "test": 4}
    assert "1 files name no split and are left out, first validated.tsv" in dataset.problems


def test_a_column_against_a_name(tmp_path: Path) -> None:
    train, test = halves("split")
    parquet(tmp_path / "x" / "train.parquet", train)
    parquet(tmp_path / "x" / "test.parquet", test)
    assert Counter(clip.split for clip in open_task(str(tmp_path / "x")).clips) == {"train": 2, "test": 2}
    parquet(tmp_path / "x" / "test.parquet", train)
    with pytest.raises(InputError, match="row 1, column 'split': is 'train', but the file's name says 'test'"):
        open_task(str(tmp_path / "x"))


SAVED: dict[str, dict[str, object]] = {
    "../x": {"state.json": {"_data_files": [{"filename": "../x.arrow"}]}},
    "indices": {"state.json": {"_data_files": [], "_indices_data_files": [{"filename": "i.arrow"}]}},
    "nothing": {"state.json": {"_data_files": []}},
    "no list": {"state.json": {"_data_files": True}},
    "a list": {"state.json": [1]},
    "no splits": {"dataset_dict.json": {"splits": []}},
    "a split elsewhere": {"dataset_dict.json": {"splits": ["../train"]}},
    "two of a kind": {"dataset_dict.json": {"splits": ["clean", "other"]}},
}


@pytest.mark.parametrize("name", SAVED)
def test_saved_folders_that_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "dataset_info.json").write_text("{}")
    for file, content in SAVED[name].items():
        (tmp_path / "x" / file).write_text(json.dumps(content))
    with pytest.raises(InputError) as error:
        open_task(str(tmp_path / "x"))
    assert str(error.value.where).startswith(str(tmp_path / "x"))


def test_a_column_whose_name_is_no_text(tmp_path: Path, shared_data: Path) -> None:
    hf_dataset(recordings(shared_data, range(1))).save_to_disk(tmp_path / "x")
    (path,) = (tmp_path / "x").glob("*.arrow")
    path.write_bytes(path.read_bytes().replace(b"speaker", b"spe\x95ker"))
    with pytest.raises(InputError, match=r"\.arrow: is not a valid Arrow file .*utf-8"):
        open_task(str(tmp_path / "x"))


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(rows_of())
    pq.write_table(table.append_column("audio", table.column("audio")), tmp_path / "x.parquet")
    with pytest.raises(InputError, match="has two columns 'audio'"):
        open_task(str(tmp_path / "x.parquet"))


def test_a_damaged_arrow_file(tmp_path: Path, shared_data: Path) -> None:
    hf_dataset(recordings(shared_data, range(1))).save_to_disk(tmp_path / "x")
    (path,) = (tmp_path / "x").glob("*.arrow")
    data = path.read_bytes()
    for cut in (0, 10, 600, len(data) // 2, len(data) - 1000):
        path.write_bytes(data[:cut])
        with pytest.raises(UwbenchError, match=r"Arrow|no rows"):
            open_task(str(tmp_path / "x"))
