"""Rows: read back as written from any number of folders; a damaged index is refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uniwhisper.data.rows import SUFFIX, AudioRef, Row, open_rows, write_rows
from uwbench.api import InputError, UsageError

TEXT = st.text(max_size=12)
HASH = st.binary(min_size=32, max_size=32).map(bytes.hex)
ROWS = st.builds(
    Row,
    id=TEXT,
    dataset=st.sampled_from(["fsdd", "esc10", "é"]),
    split=st.sampled_from(["train", "valid"]),
    clip=TEXT,
    domain=st.sampled_from(["speech", "sound"]),
    licence=TEXT,
    source=st.none() | TEXT,
    duration_s=st.floats(0.01, 1e5),
    audio=st.builds(
        AudioRef,
        shard=st.sampled_from(["a-00000.tar", "a-00001.tar"]),
        member=TEXT,
        offset=st.integers(0, 2**40),
        size=st.integers(0, 2**40),
        content=HASH,
    ),
    task=st.sampled_from(["asr", "lid"]),
    instruction=st.none() | TEXT,
    slots=st.dictionaries(TEXT, TEXT, max_size=2),
    answers=st.lists(TEXT, max_size=3).map(tuple),
    key=st.none() | HASH,
)


def row(name: str, *, dataset: str = "fsdd", task: str = "asr", shard: str = "a.tar", offset: int = 512) -> Row:
    audio = AudioRef(shard, f"{name}.flac", offset, 100, "00" * 32)
    return Row(
        f"{dataset}/{name}:{task}", dataset, "train", name, "speech", "CC0", None, 1.0, audio, task, None, {}, ("a",)
    )


@settings(max_examples=40)
@given(rows=st.lists(ROWS, min_size=1, max_size=8))
def test_rows_are_read_as_they_were_written(rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("rows")
    write_rows(folder, rows)
    table = open_rows([folder])
    for read in ([table[index] for index in range(len(table))], list(table)):
        assert [row.audio.shard for row in read] == [str(folder / row.audio.shard) for row in rows]
        bare = [AudioRef("", a.member, a.offset, a.size, a.content) for a in (row.audio for row in read)]
        for stored, audio, expected in zip(read, bare, rows, strict=True):
            w = expected.audio
            assert audio == AudioRef("", w.member, w.offset, w.size, w.content)
            for name in Row.__slots__:
                assert name == "audio" or getattr(stored, name) == getattr(expected, name)
    assert table.durations.tolist() == [row.duration_s for row in rows]
    codes, names = table.codes("dataset")
    assert [names[code] for code in codes] == [row.dataset for row in rows]
    assert list(names) == sorted(set(names))
    places = [(row.audio.shard, row.audio.offset) for row in rows]
    same = np.equal.outer(table.clip_index, table.clip_index)
    assert (same == [[first == second for first in places] for second in places]).all()


def test_folders_are_numbered_together_and_their_clips_apart(tmp_path: Path) -> None:
    write_rows(tmp_path / "one", [row("a"), row("a", task="lid"), row("b", offset=2048)])
    write_rows(tmp_path / "two", [row("a", dataset="esc10")])
    table = open_rows([tmp_path / "one", tmp_path / "two"])
    assert [row.dataset for row in table] == ["fsdd", "fsdd", "fsdd", "esc10"]
    assert table.codes("dataset")[0].tolist() == [1, 1, 1, 0]
    assert table.codes("task")[1] == ("asr", "lid")
    assert table.clip_index.tolist() == [0, 0, 1, 2]
    assert table[3].audio.shard == str(tmp_path / "two" / "a.tar")
    assert table.column("id").to_pylist() == [row.id for row in table]


def test_many_rows_lie_in_files_of_their_own_and_keep_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uniwhisper.data.rows.ROWS_PER_FILE", 4)
    rows = [row(str(number), offset=512 * (number // 2)) for number in range(10)]
    written = write_rows(tmp_path, rows)
    table = open_rows([tmp_path])
    assert (
        [path.name for path in written] == [f"data-0000{n}{SUFFIX}" for n in range(3)] == [p.name for p in table.files]
    )
    assert [table[index].clip for index in range(10)] == [row.clip for row in rows]


def test_equal_rows_are_equal_bytes_and_a_table_is_pickled_by_its_files(tmp_path: Path) -> None:
    rows = [row(str(number)) for number in range(100)]
    for name in ("one", "two"):
        write_rows(tmp_path / name, iter(rows))
    first, second = (next((tmp_path / name).iterdir()) for name in ("one", "two"))
    assert first.read_bytes() == second.read_bytes()
    table = open_rows([tmp_path / "one"])
    assert table.sha256() == open_rows([tmp_path / "two"]).sha256()
    sent = pickle.dumps(table)
    assert len(sent) < 500
    assert list(pickle.loads(sent)) == list(table)
    write_rows(tmp_path / "two", rows[:-1])
    assert table.sha256() != open_rows([tmp_path / "two"]).sha256()


def test_a_file_that_is_not_an_index_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no rows"):
        open_rows([tmp_path])
    (path,) = write_rows(tmp_path, [row("a")])
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(InputError, match=path.name):
        open_rows([tmp_path])
    path.write_bytes(b"")
    with pytest.raises(InputError, match=path.name):
        open_rows([tmp_path])


def test_a_missing_row_or_column_is_an_error(tmp_path: Path) -> None:
    write_rows(tmp_path, [row("a")])
    table = open_rows([tmp_path])
    with pytest.raises(IndexError):
        table[1]
    with pytest.raises(UsageError, match="answers"):
        table.codes("answers")
