"""A program leaves soon after a signal, whatever it is in the middle of, and says so once."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from uwbench.cli.signals import leaving_in_time

SOON_S = 20  # for a machine that is busy with other tests; undisturbed, each of these programs would take minutes

PROGRAM = """
import hashlib, signal, sys, threading, time
from uwbench.cli.signals import leaving_in_time, stopped_by_sigterm

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it

def native():  # one call into C, which no Python handler interrupts
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)

def thread():
    threading.Thread(target=time.sleep, args=(600,)).start()
    time.sleep(600)

def cleaning():
    try:
        time.sleep(600)
    finally:
        time.sleep(600)

with leaving_in_time(lambda: "last word"), stopped_by_sigterm():
    print("begun", flush=True)
    try:
        {what}()
    except KeyboardInterrupt:
        print("said", file=sys.stderr, flush=True)
        raise SystemExit(1)
"""


def stop(program: str, number: int) -> tuple[int, str]:
    """Start a program, send it a signal a while after it has begun; return its exit code and what it said."""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "begun\n"
        time.sleep(0.3)
        child.send_signal(number)
        try:
            _, said = child.communicate(timeout=SOON_S)
        except subprocess.TimeoutExpired:
            child.kill()
            raise
    return child.returncode, said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("what", "said"), [("native", "last word"), ("cleaning", "last word"), ("thread", "said")])
def test_a_program_leaves_whatever_it_is_in_the_middle_of(what: str, said: str, number: int) -> None:
    assert stop(PROGRAM.replace("{what}", what), number) == (1, f"{said}\n")


def test_a_program_that_gets_no_signal_ends_as_it_would() -> None:
    code = "from uwbench.cli.signals import leaving_in_time\nwith leaving_in_time(lambda: 'no'): raise SystemExit(7)"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (7, "", "")


def test_what_watches_is_gone_with_the_program() -> None:
    open_files = Path("/proc/self/fd")
    if not open_files.is_dir():
        pytest.skip("the system does not list a process's files")
    before, threads = len(list(open_files.iterdir())), threading.active_count()
    for _ in range(50):
        with leaving_in_time(lambda: "no"):
            pass
    deadline = time.monotonic() + SOON_S
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= threads
    assert len(list(open_files.iterdir())) <= before
