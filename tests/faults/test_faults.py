"""A few tries of every fault, in a program of its own that forks; and tests of the comparison, by planted damage."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from power import Call, states
from run_faults import table
from world import Ended, Tally, Verdict, compare, contents

from uwbench import api
from uwbench.cache.store import EncoderStore
from uwbench.cache.task_vectors import TaskVectors

HERE = Path(__file__).parent
FAULTS = 22


@pytest.fixture(scope="module")
def quick(shared_data: Path) -> list[dict]:
    # One job: the other cores have tests of their own, and each job would make its own undisturbed run.
    command = [sys.executable, HERE / "run_faults.py", "--quick", "--json", "--jobs", "1", "--data", shared_data]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert result.stdout, result.stderr
    print(result.stderr)
    return json.loads(result.stdout)


@pytest.mark.slow
def test_every_fault_ends_as_an_undisturbed_run(quick: list[dict]) -> None:
    assert len(quick) == FAULTS
    assert [line for line in quick if line["lost"] or line["wrong"]] == []
    untried = [line["fault"] for line in quick if not line["tried"]]
    assert untried in ([], ["a small disk runs full during extract"])  # it needs the right to mount one


def test_the_comparison_sees_planted_damage(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    (folder / "clips").mkdir(parents=True)
    (folder / ".locks").mkdir()
    for name in ("clips/a.parquet", "clips/b.parquet", "clips/a.scan.parquet", ".locks/x.lock", ".c.tmp"):
        (folder / name).write_bytes(name.encode())
    undisturbed = contents(folder)
    assert sorted(undisturbed) == ["clips/a.parquet", "clips/b.parquet"]
    assert compare(undisturbed, contents(folder)) == Verdict()
    (folder / "clips" / "a.scan.parquet").write_bytes(b"seen at another time")
    assert compare(undisturbed, contents(folder)) == Verdict()
    (folder / "clips" / "a.parquet").write_bytes(b"Clips/a.parquet")
    (folder / "clips" / "b.parquet").unlink()
    (folder / "clips" / "c.parquet").touch()
    verdict = compare(undisturbed, contents(folder))
    assert verdict == Verdict(("clips/b.parquet",), ("clips/a.parquet", "clips/c.parquet"))
    tally = Tally("planted")
    tally.add(verdict)
    assert (tally.tried, tally.lost, tally.wrong) == (1, 1, 2)
    row = table([(tally.fault, tally.tried, tally.lost, tally.wrong)]).splitlines()[2]
    assert [cell.strip() for cell in row.split("|")[1:-1]] == ["planted", "1", "1", "2"]


def test_a_changed_score_is_wrong_and_another_time_is_not(tmp_path: Path) -> None:
    path = tmp_path / "digits.json"
    result = {"predictions_sha256": "0", "run": {"started": "2026-01-01"}, "scores": {"knn": {"main_score": 0.5}}}

    def write(**changed: object) -> dict[str, str]:
        path.write_text(json.dumps({**result, **changed}))
        return contents(tmp_path)

    before = write()
    assert compare(before, write(run={"started": "2026-01-02"})) == Verdict()
    assert compare(before, write(scores={"knn": {"main_score": 0.501}})).wrong == ("digits.json",)


def test_a_traceback_is_no_clear_error() -> None:
    assert Ended(1, "", "uwbench: cache: No space left on device", 0.1).is_clear
    assert not Ended(1, "", "Traceback (most recent call last):\nuwbench: x", 0.1).is_clear
    assert not Ended(1, "", "Killed", 0.1).is_clear


@pytest.mark.parametrize("left_out", ["fsync", "sync"])
def test_the_model_of_the_disk_sees_a_sync_that_is_left_out(left_out: str) -> None:
    calls = [
        Call("mkdir", "cache"),
        Call("sync", "."),
        Call("create", "cache/.x.tmp"),
        Call("fsync", "cache/.x.tmp", data=b"whole"),
        Call("rename", "cache/.x.tmp", "cache/x"),
        Call("sync", "cache"),
        Call("promised", "", promise={"cache/x": ""}),
    ]

    def visible(calls: list[Call]) -> tuple[set[bytes | None], set[bytes | None]]:
        """Return the possible contents of the file at any time and after the promise; None: there is no file."""
        ever, after = set(), set()
        for state, promised in states(calls, random.Random(0), 0):
            ever.add(state.get("cache/x"))
            if promised:
                after.add(state.get("cache/x"))
        return ever, after

    assert visible(calls) == ({None, b"whole"}, {b"whole"})
    ever, after = visible([call for call in calls if call.kind != left_out])
    if left_out == "fsync":
        assert b"" in ever
    else:
        assert None in after


def test_parts_that_come_while_a_plan_is_made_are_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def extract(name: str) -> None:
        api.extract("logmel", "mini_speech", cache=tmp_path / name)

    extract("alone")
    open_task, calls = EncoderStore.open_task, iter(range(1 << 30))

    def opened_before_another_wrote(store: EncoderStore, *args: Any, **named: Any) -> TaskVectors:
        found = open_task(store, *args, **named)
        if next(calls) == 0:
            extract("shared")
        return found

    monkeypatch.setattr(EncoderStore, "open_task", opened_before_another_wrote)
    extract("shared")
    assert next(calls) > 1
    assert compare(contents(tmp_path / "alone"), contents(tmp_path / "shared")) == Verdict()
