"""The leakage check finds test clips among training rows by bytes, by samples and by the recording's id."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile

from packed import items, pack
from uniwhisper.cli.main import main
from uniwhisper.data.leakage import TestSet, check_leaks, find_leaks, open_test_set
from uniwhisper.data.mixture import load_mixture
from uniwhisper.data.rows import RowTable, open_rows
from uniwhisper.data.shards import write_shards
from uniwhisper.sampling.prepare import prepare
from uwbench.api import AudioFile, InputError, UsageError, decode


@pytest.fixture(scope="module")
def clean(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clean")
    pack(shared_data, folder, 12)
    return folder


@pytest.fixture(scope="module")
def leaky(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve clips per data set as training rows; four in FSDD are test clips: two unchanged, two as FLAC."""
    folder = tmp_path_factory.mktemp("leaky")
    other = []
    for number, item in enumerate(items(shared_data, "fsdd", 4, "test")):
        taken = replace(item, split="train", source=None)
        if number >= 2:
            assert isinstance(item.audio, AudioFile)
            samples, rate = soundfile.read(item.audio.path)
            soundfile.write(folder / f"{number}.flac", samples, rate)
            taken = replace(taken, audio=AudioFile(folder / f"{number}.flac"), clip=f"again/{number}")
        other.append(taken)
    write_shards(folder, [*items(shared_data, "fsdd", 8), *items(shared_data, "esc10", 12), *other], name="train")
    return folder


def manifest(data: Path) -> str:
    return str(data / "fsdd" / "manifest.csv")


def test_equal_bytes_and_equal_samples_are_found(shared_data: Path, leaky: Path, clean: Path) -> None:
    tests = [open_test_set(manifest(shared_data))]
    assert len(tests[0].keys) == len(tests[0].contents) == 300
    assert not tests[0].unread
    table = open_rows([leaky])
    leaks = find_leaks(table, tests)
    assert [leak.how for leak in leaks] == ["key"] * 4 + ["content"] * 4  # two questions a clip
    assert {table[leak.row].clip for leak in leaks if leak.how == "content"} == {"again/2", "again/3"}
    assert all(table[leak.row].clip.endswith(leak.clip) or leak.how == "content" for leak in leaks)
    assert find_leaks(open_rows([clean]), tests) == []


def test_parts_of_a_task_are_tests(shared_data: Path, clean: Path) -> None:
    folds = str(shared_data / "esc10" / "manifest.csv")
    table = open_rows([clean])
    assert find_leaks(table, [open_test_set(f"{folds}:5")]) == []
    leaks = find_leaks(table, [open_test_set(folds)])
    assert len(leaks) == 12
    assert {leak.dataset for leak in leaks} == {"esc10"}
    with pytest.raises(UsageError, match="has no clips in 6"):
        open_test_set(f"{folds}:6")


def test_ids_are_compared_between_sets_of_one_source(clean: Path) -> None:
    table = open_rows([clean])
    row = next(index for index in range(len(table)) if table[index].dataset == "esc10")
    source = table[row].source
    assert source
    tests = [TestSet("esc50", sources={source: "x"}), TestSet("gtzan", sources={source: "y"})]
    assert {leak.task for leak in find_leaks(table, tests)} == {"esc50", "gtzan"}
    leaks = find_leaks(table, tests, load_mixture("mini"))
    assert [(leak.row, leak.task, leak.how) for leak in leaks] == [(row, "esc50", "source")]


def test_a_cache_is_a_test_set(shared_data: Path, leaky: Path, tmp_path: Path) -> None:
    from uwbench.api import extract

    folder = tmp_path / "digits"
    folder.mkdir()
    lines = ["path,label,split"]
    for split in ("train", "test"):
        for item in items(shared_data, "fsdd", 4, split):
            name = f"{split}-{Path(item.clip).name}"
            shutil.copyfile(shared_data / "fsdd" / item.clip, folder / name)
            lines.append(f"{name},{item.asked[0].answers[0]},{split}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    extract("logmel", folder / "manifest.csv", cache=tmp_path / "cache", results=tmp_path / "results")
    (clips,) = (tmp_path / "cache" / "clips").glob("digits-*.parquet")
    leaks = find_leaks(open_rows([leaky]), [open_test_set(str(clips))])
    assert [leak.how for leak in leaks] == ["key"] * 4


def test_leaking_rows_are_refused_or_dropped(
    shared_data: Path, leaky: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"fsdd: 8 rows are test clips of the benchmark"):
        check_leaks(open_rows([leaky]), [manifest(shared_data)], None)
    assert "4 by key, 4 by content" in capsys.readouterr().err
    words = ["cpu-mini", "--data", str(leaky), "--test-data", manifest(shared_data), "--output", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", ["uniwhisper", "train", *words, "--set", "stages.joint=20"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(sys, "argv", ["uniwhisper", "leakage", manifest(shared_data), "--data", str(leaky)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1


def test_dropped_rows_are_not_planned(shared_data: Path, leaky: Path) -> None:
    from uniwhisper.config import load_config

    config = load_config("cpu-mini", {"stages": {"bridge": 0, "joint": 20}})
    whole = prepare(config, [leaky])
    found = prepare(config, [leaky], test_data=[manifest(shared_data)], drop_leaks=True)
    table = open_rows([leaky])
    leaks = {leak.row for leak in find_leaks(table, [open_test_set(manifest(shared_data))])}
    planned = set(found.batches.planner.units.rows.tolist())
    assert planned == set(range(len(table))) - leaks
    assert found.digest != whole.digest
    assert _heard(table, leaks).isdisjoint(
        example.row for step in range(5) for micro in found.batches.micro_batches(step, 0, 1) for example in micro
    )


def _heard(table: RowTable, rows: set[int]) -> set[str]:
    return {table[row].id for row in rows}


def test_a_row_knows_the_audio_that_the_gate_hashes(shared_data: Path, clean: Path) -> None:
    from uniwhisper.data.shards import content_hash

    row = open_rows([clean])[0]
    assert row.audio.content == content_hash(decode(AudioFile(shared_data / "fsdd" / row.clip), 16_000))
