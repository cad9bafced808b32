"""One handle per encoder and task: each manifest is read once, each part hashed once, and damage is still noticed."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import xxhash

import uwbench.cache.store
from cache.made_store import ROWS, key, open_store, write
from conftest import Command
from uwbench.errors import StoreError


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count how often manifests are read and parts hashed."""
    counts: Counter[str] = Counter()
    read_manifest, xxh3_128 = uwbench.cache.store.read_manifest, xxhash.xxh3_128

    class Hash:
        """A checksum that counts once it has seen bytes."""

        def __init__(self) -> None:
            self._hash, self._used = xxh3_128(), False

        def update(self, data: bytes) -> None:
            counts["hashes"] += not self._used
            self._used = True
            self._hash.update(data)

        def hexdigest(self) -> str:
            return self._hash.hexdigest()

    def read(path: Path) -> object:
        counts["manifests"] += 1
        return read_manifest(path)

    monkeypatch.setattr(uwbench.cache.store, "read_manifest", read)
    monkeypatch.setattr(xxhash, "xxh3_128", Hash)
    return counts


def parts_in(cache: Path, task: str) -> int:
    return len(list(cache.glob(f"*/{task}/*.arrow")))


@pytest.mark.parametrize("command", ["run", "probe"])
def test_a_warm_command_reads_each_manifest_and_hashes_each_part_once(
    command: str, tmp_path: Path, uwbench: Command, counted: Counter[str]
) -> None:
    work = ("run", "-m", "logmel", "-t", "mini_speech", "-t", "mini_sound")
    assert uwbench(*work).code == 0
    parts = parts_in(tmp_path / "cache", "mini_speech") + parts_in(tmp_path / "cache", "mini_sound")
    assert parts > 2
    counted.clear()
    assert uwbench(command, *work[1:]).code == 0
    assert counted == {"manifests": 2, "hashes": parts}


def test_a_part_that_changes_after_it_was_verified_is_hashed_again(tmp_path: Path, counted: Counter[str]) -> None:
    store = open_store(tmp_path)
    for number in range(2):
        write(store, number)
    keys = [key(index) for index in range(2 * ROWS)]
    vectors = store.open_task("task", keys)
    counted.clear()
    for _ in range(2):
        vectors.pooled()
    assert list(store.damaged("task")) == []
    assert counted["hashes"] == 4  # by the first read, and by `damaged`, which always looks
    path = store.folder / "task" / "pooled-00001.arrow"
    data = bytearray(path.read_bytes())
    data[-2000] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"pooled-00001\.arrow: .*"):
        vectors.pooled()


@pytest.mark.parametrize("left", [0, 500, -1])
def test_a_part_cut_off_under_an_open_task_is_an_error(left: int, tmp_path: Path) -> None:
    store = open_store(tmp_path)
    write(store, 0)
    vectors = store.open_task("task", [key(index) for index in range(ROWS)])
    path = store.folder / "task" / "pooled-00000.arrow"
    os.truncate(path, left % path.stat().st_size)
    with pytest.raises(StoreError, match=r"pooled-00000\.arrow: has .* bytes where"):
        vectors.pooled()
    assert len(list(store.damaged("task"))) == 1


def test_missing_clips_are_listed_and_the_others_kept(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    for number in (0, 2):
        write(store, number)
    vectors = store.open_task("task", [key(index) for index in reversed(range(3 * ROWS))])
    assert vectors.missing.tolist() == list(range(ROWS, 2 * ROWS))
    with pytest.raises(StoreError, match=f"{ROWS} of {3 * ROWS} clips of task have no embedding"):
        vectors.pooled()
    present = vectors.keep([0, 2 * ROWS])
    np.testing.assert_array_equal(present.pooled()[:, 0, 0], [3 * ROWS - 1, ROWS - 1])
    assert [counts.tolist() for counts in present.counts()] == [[1, 1], [1, 1]]


def test_an_unknown_pooling_is_refused(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    write(store, 0)
    with pytest.raises(StoreError, match="holds no 'std' pooling, only mean; extract again with --pooling mean,std"):
        store.open_task("task", [key(0)]).pooled("std")
