"""Parts on disk are read as they were written, and no damage goes unnoticed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from uwbench.cache.parts import (
    Expected,
    PartReader,
    PooledRows,
    damage,
    open_frames,
    read_index,
    write_frames,
    write_pooled,
)
from uwbench.errors import StoreError

ROWS, LAYERS, DIM = 700, 2, 1101  # 6 MB of vectors per pooling: read in several blocks, the last one not full


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


def vectors_in(path: Path, expected: Expected, pooling: str) -> np.ndarray:
    table = PartReader().table(path, expected, ("mean", "std"), LAYERS * DIM)
    return np.array(table.column(pooling).chunk(0).flatten()).reshape(ROWS, LAYERS, DIM)


def test_vectors_are_read_as_they_were_written(part: tuple[Path, Expected, dict[str, np.ndarray]]) -> None:
    path, expected, vectors = part
    for pooling in ("mean", "std"):
        np.testing.assert_array_equal(vectors_in(path, expected, pooling), vectors[pooling])


def test_an_index_is_read_without_the_vectors(
    part: tuple[Path, Expected, dict[str, np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _, _ = part
    table = read_index(path, ("mean", "std"), LAYERS * DIM)
    assert table.column_names == ["key", "frames", "chunks"]
    assert [int.from_bytes(key, "big") for key in table.column("key").to_pylist()] == list(range(ROWS))
    assert table.get_total_buffer_size() < 100 * ROWS


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_is_noticed(
    part: tuple[Path, Expected, dict[str, np.ndarray]], tmp_path: Path, where: float, bit: int
) -> None:
    path, expected, _ = part
    data = bytearray(path.read_bytes())
    # Half of the draws are near the ends, where Arrow keeps its metadata.
    at = int(where * len(data)) if bit % 2 else int(where * 1000) - 500
    data[at] ^= 1 << bit
    damaged = tmp_path / "damaged.arrow"
    damaged.write_bytes(data)
    assert damage(damaged, expected) == "does not match its checksum"
    with pytest.raises(StoreError, match=r"damaged\.arrow: does not match its checksum"):
        vectors_in(damaged, expected, "mean")


def test_a_cut_or_missing_file_is_reported_as_such(
    part: tuple[Path, Expected, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    path, expected, _ = part
    cut = tmp_path / "cut.arrow"
    cut.write_bytes(path.read_bytes()[:-10])
    for file, what in ((cut, f"has {expected.bytes - 10:,} bytes where"), (tmp_path / "none", "is missing")):
        with pytest.raises(StoreError, match=f"{file.name}: {what}"):
            vectors_in(file, expected, "mean")
        assert str(damage(file, expected)).startswith(what)


@pytest.mark.parametrize("left", [0, 1000, 0.5, 0.999])
def test_a_file_cut_off_while_it_is_read_is_damaged(
    part: tuple[Path, Expected, dict[str, np.ndarray]], left: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file has its full size when it is opened and looked at, and is cut before a byte of it is read."""
    path, expected, _ = part
    cut = tmp_path / "cut.arrow"
    cut.write_bytes(path.read_bytes())
    fstat = os.fstat

    def cut_off(handle: int) -> os.stat_result:
        status = fstat(handle)
        os.truncate(cut, int(left * expected.bytes) if left < 1 else int(left))
        return status

    monkeypatch.setattr(os, "fstat", cut_off)
    with pytest.raises(StoreError, match="does not match its checksum"):
        vectors_in(cut, expected, "mean")


@given(counts=st.lists(st.integers(0, 20), min_size=1, max_size=8))
def test_frames_are_kept_clip_by_clip(tmp_path_factory: pytest.TempPathFactory, counts: list[int]) -> None:
    path = tmp_path_factory.mktemp("frames") / "frames-00000.arrow"
    rng = np.random.default_rng(0)
    frames = [rng.standard_normal((count, 5)).astype(np.float16) for count in counts]
    keys = [index.to_bytes(32, "big") for index in range(len(counts))]
    assert damage(path, write_frames(path, keys, frames)) is None
    stored_keys, bounds, rows = open_frames(path, 5)
    assert stored_keys.to_pylist() == keys
    for clip, first, last in zip(frames, bounds[:-1], bounds[1:], strict=True):
        np.testing.assert_array_equal(rows[int(first) : int(last)], clip)
