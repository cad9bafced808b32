"""Ctrl-C and SIGTERM end a program soon, whatever it is doing and whatever signals came before."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from conftest import ROOT
from uwbench.cli.signals import exit_soon_after_signal

PROMISE_S = 2.0
TIMEOUT_S = 20  # undisturbed, each program below would run for minutes

PROGRAM = """
import hashlib, os, signal, sys, threading, time
from uwbench.cli.signals import exit_soon_after_signal, sigterm_interrupts

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it

def native():  # one C call, which no Python handler interrupts
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)

def matmul():  # a product of large matrices
    import numpy as np
    a = np.ones((8_000, 8_000), np.float32)
    print("begun", flush=True)
    for _ in range(1000):
        a @ a

def after_other_signals():
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for _ in range(300):
        os.kill(os.getpid(), signal.SIGCHLD)
    os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
    native()

def thread():
    threading.Thread(target=time.sleep, args=(600,)).start()
    time.sleep(600)

def cleaning():
    try:
        time.sleep(600)
    finally:
        time.sleep(600)

with exit_soon_after_signal(lambda: "last line"), sigterm_interrupts():
    if "{what}" != "matmul":
        print("begun", flush=True)
    try:
        {what}()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        raise SystemExit(1)
"""


def stop(program: str, number: int, *, times: int = 1) -> tuple[int, str, float]:
    """Run a program, send it a signal soon after it begins; return its exit code, stderr and seconds until its end."""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "begun\n"
        time.sleep(0.3)
        sent = time.monotonic()
        for _ in range(times):
            child.send_signal(number)
            time.sleep(0.1)
        try:
            _, err = child.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            raise
        return child.returncode, err, time.monotonic() - sent


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("native", "last line"),
        ("matmul", "last line"),
        ("after_other_signals", "last line"),
        ("cleaning", "last line"),
        ("thread", "interrupted"),
    ],
)
def test_a_signal_ends_a_program_whatever_it_is_doing(what: str, line: str, number: int) -> None:
    code, err, seconds = stop(PROGRAM.replace("{what}", what), number)
    assert (code, err) == (1, f"{line}\n")
    assert seconds < PROMISE_S


def test_an_impatient_user_gets_one_line(tmp_path: Path) -> None:
    code, err, seconds = stop(PROGRAM.replace("{what}", "native"), signal.SIGINT, times=5)
    assert (code, err) == (1, "last line\n"), "further signals find the pipe open"
    assert seconds < PROMISE_S


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
def test_a_signal_to_a_forked_child_leaves_its_parent_running() -> None:
    program = PROGRAM.replace(
        "        {what}()\n",
        """
        child = os.fork()
        if not child:
            time.sleep(600)
        time.sleep(0.3)
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
        time.sleep(1.5)
        raise SystemExit(7)
""",
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (7, "interrupted\n"), "the line is the child's"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_interrupted_says_so_once(number: int, tmp_path: Path) -> None:
    """The whole command, in a native call of an encoder, after a SIGCHLD that Python handles."""
    (tmp_path / "stuck.py").write_text(STUCK_ENCODER)
    words = ["extract", "-m", f"{tmp_path}/stuck.py:Stuck", "-t", "mini_music", "--quiet"]
    with subprocess.Popen(
        [sys.executable, "-m", "uwbench", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT / "bench")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        deadline = time.monotonic() + 60
        while not (tmp_path / "begun").exists() and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        sent = time.monotonic()
        child.send_signal(number)
        _, err = child.communicate(timeout=TIMEOUT_S)
    assert time.monotonic() - sent < PROMISE_S
    assert child.returncode == 1
    remedy = f"run the same command again to resume: uwbench {shlex.join(words)}"
    assert err == f"uwbench: interrupted; finished work is kept, {remedy}\n"


STUCK_ENCODER = """
import hashlib, os, pathlib, signal
import torch

signal.signal(signal.SIGINT, signal.default_int_handler)


class Stuck(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.sampling_rate, self.output_dim, self.hop_size_in_ms = 16000, 4, 20

    def forward(self, audio):
        signal.signal(signal.SIGCHLD, lambda *_: None)
        os.kill(os.getpid(), signal.SIGCHLD)
        (pathlib.Path(__file__).parent / "begun").touch()
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)
"""


def test_a_program_without_a_signal_ends_as_it_would() -> None:
    program = (
        "from uwbench.cli.signals import exit_soon_after_signal\n"
        "with exit_soon_after_signal(lambda: 'no'): raise SystemExit(7)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (7, "", "")


def test_the_watcher_leaves_no_thread_and_no_open_file() -> None:
    open_files = Path("/proc/self/fd")
    if not open_files.is_dir():
        pytest.skip("the system does not list a process's files")
    before, threads = len(list(open_files.iterdir())), threading.active_count()
    for _ in range(50):
        with exit_soon_after_signal(lambda: "no"):
            pass
    deadline = time.monotonic() + TIMEOUT_S
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= threads
    assert len(list(open_files.iterdir())) <= before
