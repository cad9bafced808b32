"""Shards of real audio: lossless to 16 bits, reproducible even after a kill; damage is named."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import filelock
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from uniwhisper.data.rows import RowTable, open_rows
from uniwhisper.data.shards import Asked, Item, content_hash, pcm16, read_audio, write_shards
from uwbench.api import AudioArray, AudioError, AudioFile, UsageError, decode
from uwbench.base.hashing import clip_key, sha256_file

ASKED = {
    "fsdd": {"keyword": "digit", "speaker_id": "speaker"},
    "esc10": {"sound_cls": "label"},
    "philharmonia": {"instrument": "instrument"},
}
COUNT = 24  # clips of each dataset
SMALL = 600_000  # bytes: several shards
HALF_A_STEP = 1 / 65_536 + 1e-9  # rounding to 16 bits


def all_items(data: Path) -> list[Item]:
    """Return clips far apart in each manifest: spoken digits with two questions, sounds and instruments with one."""
    found = []
    for dataset, asked in ASKED.items():
        with (data / dataset / "manifest.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        for row in rows[:: len(rows) // COUNT][:COUNT]:
            questions = tuple(Asked(task, (row[column],)) for task, column in asked.items())
            audio = AudioFile(data / dataset / row["path"])
            found.append(Item(dataset, "train", row["path"], "sound", "CC BY 4.0", audio, questions))
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


@pytest.fixture(scope="module")
def items(shared_data: Path) -> list[Item]:
    return all_items(shared_data)


@pytest.fixture(scope="module")
def folder(items: list[Item], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    done = write_shards(folder, items, shard_bytes=SMALL)
    assert len(done.shards) > 3
    assert (done.clips, done.rows, done.refused) == (3 * COUNT, 4 * COUNT, ())
    return folder


@pytest.fixture(scope="module")
def table(folder: Path) -> RowTable:
    return open_rows([folder])


def test_audio_read_back_is_the_decoded_audio_to_16_bits(items: list[Item], table: RowTable) -> None:
    rows = {row.clip: row for row in table}
    assert len(rows) == len(items)
    for item in items:
        row, original = rows[item.clip], decode(item.audio, 16_000)
        read = read_audio(row)
        assert read.dtype == np.float32
        assert read.shape == original.shape
        assert np.abs(read - np.clip(original, -1, 32_767 / 32_768)).max() <= HALF_A_STEP
        assert row.duration_s == len(original) / 16_000
        assert row.audio.content == content_hash(original) == content_hash(read)
        assert isinstance(item.audio, AudioFile)
        assert row.key == clip_key(sha256_file(item.audio.path), None, None).hex()


def test_the_questions_of_a_clip_share_its_audio(items: list[Item], table: RowTable) -> None:
    assert len(np.unique(table.clip_index)) == len(items)
    first, second = table[0], table[1]
    assert first.audio == second.audio
    assert (first.task, second.task) == ("keyword", "speaker_id")
    assert first.id == f"fsdd/{first.clip}:keyword"
    assert len({row.id for row in table}) == len(table)


def test_shards_are_plain_tars(folder: Path, table: RowTable) -> None:
    rows = {(Path(row.audio.shard).name, row.audio.member): row for row in table}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path, "r:") as tar:
            members = tar.getmembers()
            assert [member.name.rpartition(".")[2] for member in members] == ["flac", "json"] * (len(members) // 2)
            for sound, about in zip(members[::2], members[1::2], strict=True):
                assert sound.name.removesuffix(".flac") == about.name.removesuffix(".json")
                row = rows[path.name, sound.name]
                assert (sound.offset_data, sound.size) == (row.audio.offset, row.audio.size)
                flac, text = (tar.extractfile(member) for member in (sound, about))
                assert flac is not None
                assert text is not None
                info = soundfile.info(io.BytesIO(flac.read()))
                assert (info.format, info.subtype, info.samplerate, info.channels) == ("FLAC", "PCM_16", 16_000, 1)
                told = json.loads(text.read())
                assert {name: told[name] for name in ("dataset", "clip", "licence", "content", "key")} == {
                    "dataset": row.dataset,
                    "clip": row.clip,
                    "licence": row.licence,
                    "content": row.audio.content,
                    "key": row.key,
                }
                assert row.id in [one["id"] for one in told["rows"]]


def test_the_same_clips_give_the_same_bytes(items: list[Item], folder: Path, tmp_path: Path) -> None:
    write_shards(tmp_path / "again", items, shard_bytes=SMALL, workers=3)
    assert contents(tmp_path / "again") == contents(folder)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_shards import SMALL, all_items
from uniwhisper.data.shards import write_shards

def progress(done):
    if done == int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)

write_shards(Path(sys.argv[3]), all_items(Path(sys.argv[2])), shard_bytes=SMALL, progress=progress)
"""


def test_killed_packing_resumes_to_the_same_bytes(
    items: list[Item], folder: Path, shared_data: Path, tmp_path: Path
) -> None:
    output = tmp_path / "killed"
    words = [sys.executable, "-c", KILLED, Path(__file__).parent, shared_data, output]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    for last in (40, 60):
        done = subprocess.run([*words, str(last)], capture_output=True, text=True, check=False, env=env)
        assert done.returncode == -9, done.stderr
    whole = sorted(path.name for path in output.glob("*.tar"))
    assert 1 < len(whole) < len(list(folder.glob("*.tar")))
    ends = len(open_rows([output]))
    asked = []
    write_shards(output, items, shard_bytes=SMALL, progress=asked.append)
    assert asked[0] == len({row.clip for row in list(open_rows([output]))[:ends]}) + 1  # what was whole is not redone
    assert contents(output) == contents(folder)  # and no temporary file is left


def test_a_tar_without_its_index_is_written_again(items: list[Item], folder: Path, tmp_path: Path) -> None:
    write_shards(tmp_path, items, shard_bytes=SMALL)
    last = sorted(tmp_path.glob("*.rows.arrow"))[-1]
    last.unlink()
    write_shards(tmp_path, items, shard_bytes=SMALL)
    assert contents(tmp_path) == contents(folder)


def test_damaged_audio_is_an_error_that_names_the_row(items: list[Item], tmp_path: Path) -> None:
    write_shards(tmp_path, items[:4])
    rows = list(open_rows([tmp_path]))
    path = Path(rows[0].audio.shard)
    whole = path.read_bytes()
    middle = rows[2].audio.offset + rows[2].audio.size // 2
    path.write_bytes(whole[:middle] + bytes(byte ^ 255 for byte in whole[middle : middle + 40]) + whole[middle + 40 :])
    with pytest.raises(AudioError, match=rows[2].id):
        read_audio(rows[2])
    assert len(read_audio(rows[0]))
    path.write_bytes(whole[:middle])
    with pytest.raises(AudioError, match=rows[2].id):
        read_audio(rows[2])
    path.write_bytes(whole)
    elsewhere = replace(rows[2], audio=replace(rows[4].audio, content=rows[2].audio.content))
    with pytest.raises(AudioError, match="not those that were packed"):
        read_audio(elsewhere)


def test_clips_that_cannot_be_decoded_are_left_out_and_named(items: list[Item], tmp_path: Path) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF, but no more")
    nowhere = AudioFile(tmp_path / "nowhere.wav")
    given = [items[0], replace(items[1], audio=AudioFile(broken)), replace(items[2], audio=nowhere), items[3]]
    done = write_shards(tmp_path / "out", given)
    assert [clip for clip, _ in done.refused] == [items[1].clip, items[2].clip]
    assert "broken.wav" in done.refused[0][1]
    assert list(dict.fromkeys(row.clip for row in open_rows([tmp_path / "out"]))) == [items[0].clip, items[3].clip]
    assert write_shards(tmp_path / "out", given) == done
    only = write_shards(tmp_path / "only", given[1:2])
    assert (only.clips, len(only.refused), len(open_rows([tmp_path / "only"]))) == (0, 1, 0)


def test_a_folder_of_other_clips_is_refused(items: list[Item], tmp_path: Path) -> None:
    write_shards(tmp_path, items[:2])
    before = contents(tmp_path)
    for other in (items[1:3], [replace(items[0], asked=(Asked("asr", ("x",)),)), items[1]]):
        with pytest.raises(UsageError, match="other clips"):
            write_shards(tmp_path, other)
    with pytest.raises(UsageError, match="sizes"):
        write_shards(tmp_path, items[:2], shard_bytes=SMALL)
    assert contents(tmp_path) == before
    write_shards(tmp_path, items[1:3], name="more")
    assert len(open_rows([tmp_path])) == 8


def test_a_folder_that_another_process_packs_into_is_refused(items: list[Item], tmp_path: Path) -> None:
    with filelock.FileLock(tmp_path / ".data.lock"), pytest.raises(UsageError, match="another process"):
        write_shards(tmp_path, items[:1])
    write_shards(tmp_path, items[:1])


def test_time_ranges_repeated_tasks_and_forms_have_distinct_ids(tmp_path: Path) -> None:
    tone = AudioArray(np.sin(np.arange(32_000) / 5).astype(np.float32) * 0.5, 16_000, "tone")
    asked = (Asked("qa", ("a",), "Who?"), Asked("qa", ("b",), "What?"), Asked("pitch", ("60",), slots={"form": "midi"}))
    write_shards(tmp_path, [Item("d", "train", "c", "music", "CC0", tone, asked, start_s=0.5, end_s=1.5)])
    rows = list(open_rows([tmp_path]))
    assert [row.id for row in rows] == ["d/c:qa", "d/c:qa#2", "d/c:pitch/midi"]
    assert np.abs(read_audio(rows[0]) - tone.samples[8_000:24_000]).max() <= HALF_A_STEP


@given(st.lists(st.floats(-2, 2, width=32), min_size=1))
def test_sixteen_bits_round_to_the_nearest_and_stay_within_full_scale(values: list[float]) -> None:
    words = pcm16(np.asarray(values, np.float32))
    wanted = np.clip(np.asarray(values, np.float64), -1, 32_767 / 32_768)
    assert np.abs(words / 32_768 - wanted).max() <= 1 / 65_536
    back = (words / 32_768).astype(np.float32)
    assert (pcm16(back) == words).all()
    assert content_hash(back) == content_hash(words)
