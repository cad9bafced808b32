"""Parts on disk: what is read is what was written, in any order, and no damage goes unseen."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from uwbench.cache.parts import Expected, PooledRows, damage, read_vectors, write_frames, write_pooled

ROWS, LAYERS, DIM = 700, 2, 1101  # 6 MB of vectors a pooling: read in two blocks, of which the second is not full


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Expected, dict[str, np.ndarray]]:
    path = tmp_path_factory.mktemp("part") / "pooled-00000.arrow"
    rng = np.random.default_rng(0)
    vectors = {name: rng.standard_normal((ROWS, LAYERS, DIM), dtype=np.float32) for name in ("mean", "std")}
    keys = [index.to_bytes(32, "big") for index in range(ROWS)]
    ones = np.ones(ROWS, np.int32)
    return path, write_pooled(path, PooledRows(keys, vectors, ones, ones)), vectors


def test_the_checksum_is_that_of_the_file(part: tuple[Path, Expected, dict[str, np.ndarray]]) -> None:
    path, expected, vectors = part
    data = path.read_bytes()
    assert expected == Expected(len(data), xxhash.xxh3_128_hexdigest(data))
    assert damage(path, expected) is None
    table = pa.ipc.open_file(path).read_all()
    assert table.column_names == ["key", "frames", "chunks", "mean", "std"]
    found = np.stack(table.column("std").to_pylist()).reshape(ROWS, LAYERS, DIM)
    np.testing.assert_array_equal(found.astype(np.float32), vectors["std"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.integers(0, ROWS - 1), max_size=40) | st.just(list(range(ROWS))) | st.permutations(range(ROWS)),
    pooling=st.sampled_from(["mean", "std"]),
    spread=st.integers(1, 2),
)
def test_rows_come_in_any_order_and_number(
    part: tuple[Path, Expected, dict[str, np.ndarray]], rows: list[int], pooling: str, spread: int
) -> None:
    path, expected, vectors = part
    places = np.arange(len(rows)) * spread
    out = np.full((len(rows) * spread, LAYERS, DIM), np.nan, np.float32)
    assert read_vectors(path, expected, pooling, np.array(rows, np.int64), out, places) is None
    np.testing.assert_array_equal(out[places], vectors[pooling][rows])
    assert np.isnan(np.delete(out, places, axis=0)).all()


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_is_seen(
    part: tuple[Path, Expected, dict[str, np.ndarray]], tmp_path: Path, where: float, bit: int
) -> None:
    path, expected, _ = part
    data = bytearray(path.read_bytes())
    # Half of the draws near the ends, where Arrow keeps what it reads itself.
    at = int(where * len(data)) if bit % 2 else int(where * 1000) - 500
    data[at] ^= 1 << bit
    hurt = tmp_path / "hurt.arrow"
    hurt.write_bytes(data)
    assert damage(hurt, expected) == "does not match its checksum"
    out = np.empty((ROWS, LAYERS, DIM), np.float32)
    assert read_vectors(hurt, expected, "mean", np.arange(ROWS), out, np.arange(ROWS)) == "does not match its checksum"


def test_a_cut_or_missing_file_is_said_to_be_one(
    part: tuple[Path, Expected, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    path, expected, _ = part
    cut = tmp_path / "cut.arrow"
    cut.write_bytes(path.read_bytes()[:-10])
    out = np.empty((1, LAYERS, DIM), np.float32)
    for file, what in ((cut, f"has {expected.bytes - 10:,} bytes where"), (tmp_path / "none", "is missing")):
        found = read_vectors(file, expected, "mean", np.array([0]), out, np.array([0]))
        assert found is not None
        assert found.startswith(what)
        assert damage(file, expected) == found


def test_a_file_cut_off_while_it_is_read_is_damaged(
    part: tuple[Path, Expected, dict[str, np.ndarray]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, expected, _ = part
    cut = tmp_path / "cut.arrow"
    cut.write_bytes(path.read_bytes())
    make = xxhash.xxh3_128

    def cut_off() -> xxhash.xxh3_128:  # the hash is made once the file is open and its layout known
        os.truncate(cut, expected.bytes // 2)
        return make()

    monkeypatch.setattr(xxhash, "xxh3_128", cut_off)
    out = np.empty((ROWS, LAYERS, DIM), np.float32)
    assert read_vectors(cut, expected, "mean", np.arange(ROWS), out, np.arange(ROWS)) == "does not match its checksum"


@given(counts=st.lists(st.integers(0, 20), min_size=1, max_size=8))
def test_frames_are_kept_clip_by_clip(tmp_path_factory: pytest.TempPathFactory, counts: list[int]) -> None:
    path = tmp_path_factory.mktemp("frames") / "frames-00000.arrow"
    rng = np.random.default_rng(0)
    frames = [rng.standard_normal((count, 5)).astype(np.float16) for count in counts]
    keys = [index.to_bytes(32, "big") for index in range(len(counts))]
    assert damage(path, write_frames(path, keys, frames)) is None
    found = pa.ipc.open_file(path).read_all().column("frames").to_pylist()
    for clip, values in zip(frames, found, strict=True):
        np.testing.assert_array_equal(np.array(values, np.float16).reshape(-1, 5), clip)
