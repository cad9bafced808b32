"""Many threads enter parts at once and none is lost; keys are found in any order."""

from __future__ import annotations

import json
import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import uwbench.cache.store
from cache.made_store import ROWS, key, open_store, write
from uwbench.cache.store import EncoderStore


def names(store: EncoderStore) -> list[str]:
    manifest = store.manifest("task")
    return [part.name for part in manifest.parts] if manifest else []


def test_parts_of_many_threads_are_all_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomically = uwbench.cache.store.write_atomically

    def checked(path: Path, data: bytes, **options: Any) -> None:
        """Every part that a manifest names is there, whole, when the manifest appears."""
        for part in json.loads(data)["parts"]:
            assert (path.parent / part["name"]).stat().st_size == part["bytes"]
        time.sleep(0.005)  # meanwhile the other threads write parts
        write_atomically(path, data, **options)

    monkeypatch.setattr(uwbench.cache.store, "write_atomically", checked)
    store = open_store(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: write(store, number), range(60)))
    assert names(store) == [f"pooled-{number:05d}.arrow" for number in range(60)]
    vectors = store.open_task("task", [key(index) for index in range(60 * ROWS)]).pooled()
    np.testing.assert_array_equal(vectors[:, 0, 0], np.arange(60 * ROWS))
    assert list(store.damaged("task")) == []


def test_a_manifest_that_cannot_be_written_fails_its_own_part_and_loses_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, failures = open_store(tmp_path), iter([OSError(28, "No space left on device")] * 3)
    write_atomically = uwbench.cache.store.write_atomically

    def failing(path: Path, data: bytes, **options: Any) -> None:
        for error in failures:
            raise error
        write_atomically(path, data, **options)

    def attempt(number: int) -> bool:
        try:
            write(store, number)
        except OSError:
            return False
        return True

    monkeypatch.setattr(uwbench.cache.store, "write_atomically", failing)
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(attempt, range(30)))
    assert done.count(False) == 3
    succeeded = {f"pooled-{number:05d}.arrow" for number in range(30) if done[number]}
    assert succeeded <= set(names(store))


def test_a_folder_is_synced_before_its_manifest_names_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is durable first, should the power fail: bytes, name, folder, manifest, folder."""
    events: list[str] = []
    sync, replace = os.fsync, Path.replace

    def named(handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").readlink()
        events.append("sync " + ("folder" if path.is_dir() else "pooled" if "pooled" in path.name else "manifest"))
        sync(handle)

    def renamed(path: Path, target: Path) -> Path:
        events.append("name " + ("pooled" if "pooled" in target.name else "manifest"))
        return replace(path, target)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("this system does not list the names of open files")
    store = open_store(tmp_path)
    write(store, 0)  # the folders are there from now on
    monkeypatch.setattr(os, "fsync", named)
    monkeypatch.setattr(Path, "replace", renamed)
    write(store, 1)
    assert events == ["sync pooled", "name pooled", "sync folder", "sync manifest", "name manifest", "sync folder"]


def test_a_store_travels_to_other_processes(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    write(store, 0)
    copy = pickle.loads(pickle.dumps(store))
    write(copy, 1)
    assert names(store) == names(copy) == ["pooled-00000.arrow", "pooled-00001.arrow"]


@given(st.permutations(range(3 * ROWS)), st.integers(0, 3 * ROWS), st.booleans())
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_keys_are_found_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], asked: int, in_order: bool
) -> None:
    store = open_store(tmp_path_factory.mktemp("store"))
    stored = list(range(3 * ROWS)) if in_order else order
    for number in range(3):
        write(store, number, stored[ROWS * number : ROWS * (number + 1)])
    for wanted in (stored, order[:asked], [*order, order[0]]):  # in stored order; some; one twice
        if wanted:
            found = store.open_task("task", [key(index) for index in wanted]).pooled()
            np.testing.assert_array_equal(found[:, 0, 0], wanted)
    vectors = store.open_task("task", [key(index) for index in [*stored, 99]])
    assert vectors.missing.tolist() == [len(stored)]
