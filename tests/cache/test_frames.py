"""Frames on disk read like one array, in memory that does not grow with their size."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectrum_encoder import SpectrumEncoder
from uwbench.cache.frames import ClipRows, FileRows
from uwbench.cache.parts import PooledRows
from uwbench.cache.store import EncoderStore
from uwbench.errors import StoreError
from uwbench.extraction.identity import describe_encoder
from uwbench.probes.data import Frames

DIM = SpectrumEncoder().info.dim


def made(counts: list[int], parts: int, seed: int) -> tuple[ClipRows, np.ndarray]:
    """Return clips dealt to parts in random order, and one array of all their frames."""
    rng = np.random.default_rng(seed)
    clips = [rng.standard_normal((count, 3)).astype(np.float16) for count in counts]
    part, start = rng.integers(0, parts, len(counts)), np.zeros(len(counts), np.int64)
    frames_of: list[list[np.ndarray]] = [[np.zeros((0, 3), np.float16)] for _ in range(parts)]
    for clip in rng.permutation(len(counts)):
        stored = frames_of[part[clip]]
        start[clip] = sum(map(len, stored))
        stored.append(clips[clip])
    return ClipRows([np.concatenate(stored) for stored in frames_of], part, start, np.array(counts)), np.concatenate(
        clips
    )


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(1, 4), st.integers(0, 99), st.data())
def test_slices_and_gathers_equal_those_of_one_array(
    counts: list[int], parts: int, seed: int, draw: st.DataObject
) -> None:
    rows, whole = made(counts, parts, seed)
    assert rows.shape == whole.shape
    first, last = (draw.draw(st.integers(0, len(whole))) for _ in range(2))
    np.testing.assert_array_equal(rows[first:last], whole[first:last])
    if len(whole):
        picked = np.array(draw.draw(st.lists(st.integers(0, len(whole) - 1), max_size=20)), np.int64)
        np.testing.assert_array_equal(rows[picked], whole[picked])


def test_rows_out_of_range_are_refused() -> None:
    rows, whole = made([2, 3], 2, 0)
    frames = Frames(rows, rows.offsets, 0.02)
    for wrong in (np.array([len(whole)]), np.array([-1])):
        with pytest.raises(IndexError):
            rows[wrong]
    with pytest.raises(IndexError):
        frames[2]


def written(root: Path, counts: list[int]) -> tuple[EncoderStore, list[bytes]]:
    """Return a store with two parts of half of the clips each; the frames of clip i are all i."""
    store = EncoderStore(root, describe_encoder(SpectrumEncoder().info))
    keys = [index.to_bytes(32, "big") for index in range(len(counts))]
    half = len(counts) // 2
    for name, own in (("00000", range(half)), ("00001", range(half, len(counts)))):
        vectors = {pooling: np.zeros((len(own), 1, DIM), np.float32) for pooling in ("mean", "mean-all")}
        rows = PooledRows([keys[i] for i in own], vectors, np.ones(len(own), int), np.ones(len(own), int))
        frames = [np.full((counts[i], DIM), i, np.float16) for i in own]
        store.enter("task", "table", [store.write_part("task", name, rows, frames)])
    return store, keys


def test_frames_of_a_store_are_read_without_being_held(tmp_path: Path) -> None:
    counts = [20_000 + 1000 * index for index in range(10)]  # 80 MB
    store, keys = written(tmp_path, counts)
    order = [7, 2, 9, 0]
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    rows = store.open_task("task", [keys[i] for i in order], needs_frames=True).frames()
    frames = Frames(rows, rows.offsets, 0.02)
    for clip, index in enumerate(order):
        assert frames[clip].shape == (counts[index], DIM)
        assert bool((frames[clip][::1000] == index).all())
    picked = frames.rows(np.array([rows.offsets[3], 0]))
    assert picked.dtype == np.float32
    assert picked[:, 0].tolist() == [0, 7]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 24 << 20, "at most two clips of up to 9 MB at a time"
    assert pa.total_allocated_bytes() - before < 1 << 20


def test_a_flipped_bit_in_frames_is_found_before_they_are_used(tmp_path: Path) -> None:
    store, keys = written(tmp_path, [10, 10, 10, 10])
    path = store.folder / "task" / "frames-00001.arrow"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    fresh = EncoderStore(tmp_path, store.record)
    assert fresh.open_task("task", keys[:2], needs_frames=True).frames().shape == (20, DIM)
    with pytest.raises(StoreError, match=r"frames-00001\.arrow: does not match its checksum"):
        fresh.open_task("task", keys, needs_frames=True).frames()


@pytest.mark.parametrize("ask", [slice(0, 40), np.array([39, 3, 4])], ids=["a slice", "some rows"])
def test_a_file_cut_off_while_it_is_read_is_an_error(tmp_path: Path, ask: slice | np.ndarray) -> None:
    rows = np.arange(40 * 3, dtype=np.float16).reshape(40, 3)
    path = tmp_path / "task" / "frames.bin"
    path.parent.mkdir()
    path.write_bytes(b"head" + rows.tobytes())
    opened = FileRows(path, 4, 40, 3)
    np.testing.assert_array_equal(opened[ask], rows[ask])
    with path.open("r+b") as file:
        file.truncate(100)
    with pytest.raises(StoreError, match="was cut off while it was read; run: uwbench extract --task task"):
        opened[ask]
    np.testing.assert_array_equal(opened[3:5], rows[3:5])
