"""Files with arbitrary content are either read or refused by an error that names them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from miniatures.publishers import write_midi
from miniatures.xares import write_tar
from uwbench.errors import DataError, InputError, UwbenchError
from uwbench.options import TaskSpec
from uwbench.sources.layouts.midi import read_notes
from uwbench.sources.resolve import open_task
from uwbench.sources.shards import read_index


def refusal(work: Callable[[], object]) -> UwbenchError | None:
    """Return the InputError or DataError that `work` raises, or None; any other error fails the test."""
    try:
        work()
    except (InputError, DataError) as error:
        return error
    return None


cells = st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(
    ["train", "test", "1", "2", "0.5", "-1", "inf", "../x", "/x", '"', "[1]", "{}", "a\0b", "path", "label", "split"]
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@given(st.lists(st.lists(cells, max_size=6), max_size=6), st.sampled_from(["csv", "tsv"]))
@example([["path", "label", "fold"], ["a\0", "x", "1"], ["b", "y", "2"]], "csv")
def test_tables(folder: Path, table: list[list[str]], kind: str) -> None:
    path = folder / f"m.{kind}"
    header = [["path", "label", "split", "start", "end"]] if table and len(table[0]) == 5 else []
    path.write_text("\n".join(",".join(row) for row in header + table), encoding="utf-8")
    refused = refusal(lambda: open_task(str(path)))
    assert refused is None or refused.where == str(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.lists(
        st.fixed_dictionaries(
            {"path": json_values, "label": json_values, "split": st.sampled_from(["train", "test", 3])},
            optional={"start": json_values, "end": json_values, "group": json_values},
        ),
        max_size=4,
    ),
    st.sampled_from(["single-label", "multi-label", "frame-multi-label", "retrieval", "transcription"]),
)
def test_json_rows(folder: Path, table: list[dict[str, object]], kind: str) -> None:
    path = folder / "m.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in table), encoding="utf-8")
    refused = refusal(lambda: open_task(TaskSpec(path, kind=kind)))
    assert refused is None or refused.where == str(path)


@given(st.binary(max_size=300), st.sampled_from(["csv", "jsonl", "parquet"]))
def test_bytes(folder: Path, data: bytes, kind: str) -> None:
    path = folder / f"b.{kind}"
    path.write_bytes(data)
    with pytest.raises(InputError):
        open_task(str(path))


@given(st.lists(st.tuples(st.integers(0, 10_239), st.integers(0, 255)), min_size=1, max_size=8), st.integers(0, 10_240))
def test_damaged_tars(folder: Path, changes: list[tuple[int, int]], length: int) -> None:
    path = folder / "x.tar"
    write_tar(path, [(f"name{i}", "wav", b"audio" * i, {"label": i}) for i in range(4)])
    data = bytearray(path.read_bytes())
    for place, value in changes:
        data[place] = value
    path.write_bytes(data[:length] if length % 2 else data)
    refused = refusal(lambda: read_index(path))
    if refused is not None:
        assert refused.where == str(path)
        return
    audio, _ = read_index(path)
    for member in audio.values():
        assert member.offset + member.size <= path.stat().st_size


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), min_size=1, max_size=6))
def test_damaged_midi(folder: Path, changes: list[tuple[int, int]]) -> None:
    path = folder / "x.midi"
    write_midi(path, [(0.5, 1.0, 60), (1.0, 2.0, 62)])
    data = bytearray(path.read_bytes())
    for place, value in changes:
        data[place % len(data)] = value
    path.write_bytes(data)
    refused = refusal(lambda: read_notes(path))
    assert refused is None or refused.where == str(path)
