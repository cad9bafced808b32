"""Parallel trainings: all run, errors are raised, and no process outlives a parent that is stopped or killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from uniwhisper_miniature.jobs import run_side_by_side

SLEEPERS = """
import multiprocessing, threading, time
from uniwhisper_miniature.jobs import run_side_by_side
from uwbench.api import UwbenchError

def tell():
    while len(multiprocessing.active_children()) < 2:
        time.sleep(0.05)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)

if __name__ == "__main__":
    threading.Thread(target=tell, daemon=True).start()
    try:
        run_side_by_side(time.sleep, [(600,), (600,), (600,)], 2)
    except UwbenchError as error:
        raise SystemExit(str(error))
"""


SAVERS = """
import sys, threading, time
from pathlib import Path
from uniwhisper.training.sigterm import on_sigterm
from uniwhisper_miniature.jobs import run_side_by_side
from uwbench.api import UwbenchError

def save(place):
    stopping = threading.Event()
    with on_sigterm("saving", stopping.set):
        Path(place).touch()
        while not stopping.is_set():
            time.sleep(0.05)

if __name__ == "__main__":
    try:
        run_side_by_side(save, [(place,) for place in sys.argv[1:]], 2)
    except UwbenchError as error:
        raise SystemExit(str(error))
"""


def test_after_a_signal_no_further_call_starts(tmp_path: Path) -> None:
    program = tmp_path / "savers.py"
    program.write_text(SAVERS)
    places = [tmp_path / f"place-{number}" for number in range(4)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen([sys.executable, program, *map(str, places)], env=env, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while not all(place.exists() for place in places[:2]) and time.monotonic() < until:
        time.sleep(0.05)
    parent.send_signal(signal.SIGTERM)
    _, errors = parent.communicate(timeout=120)
    assert parent.returncode == 1
    assert "run the same command again to continue" in errors
    assert [place.exists() for place in places] == [True, True, False, False]


@pytest.mark.parametrize("jobs", [1, 2])
def test_all_calls_run_or_the_first_error_is_raised(tmp_path: Path, jobs: int) -> None:
    places = [str(tmp_path / f"place-{number}") for number in range(3)]
    run_side_by_side(os.mkdir, [(place,) for place in places], jobs)
    assert all(Path(place).is_dir() for place in places)
    with pytest.raises(FileExistsError):
        run_side_by_side(os.mkdir, [(places[2],), (str(tmp_path / "place-3"),)], jobs)


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_command(tmp_path: Path, told: signal.Signals) -> None:
    program = tmp_path / "sleepers.py"
    program.write_text(SLEEPERS)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen(
        [sys.executable, program], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    children = [int(word) for word in parent.stdout.readline().split()]
    assert len(children) == 2
    time.sleep(0.1 if told == signal.SIGKILL else 0)
    parent.send_signal(told)
    _, errors = parent.communicate(timeout=120)
    assert parent.returncode == (1 if told == signal.SIGTERM else -signal.SIGKILL)
    if told == signal.SIGTERM:
        assert "run the same command again to continue" in errors
    until = time.monotonic() + 60
    while (left := [pid for pid in children if Path(f"/proc/{pid}").exists()]) and time.monotonic() < until:
        time.sleep(0.1)
    assert not left
