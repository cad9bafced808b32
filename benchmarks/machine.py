"""What every benchmark prints of the machine it ran on, and how it takes times."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import threading
import time
from collections.abc import Callable
from pathlib import Path


def print_machine(*packages: str, threads: int | None = None) -> None:
    """Print processor, cores, threads, Python and the versions of `packages`."""
    cores = os.cpu_count()
    used = f", {threads} threads" if threads is not None else ""
    print(f"{processor()}, {cores} cores{used}, Python {platform.python_version()}", end="")
    print("".join(f", {name} {importlib.metadata.version(name)}" for name in packages), flush=True)


def processor() -> str:
    """Return the processor's name, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def seconds(work: Callable[[], object]) -> float:
    """Return how long `work` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def best(work: Callable[[], object], rounds: int) -> float:
    """Return the shortest of some runs of `work`: what others do on the machine only adds."""
    return min(seconds(work) for _ in range(rounds))


def peak_anonymous(work: Callable[[], object], every_s: float = 0.01) -> int:
    """Return the most bytes of memory during `work` that belong to no file: the system cannot take them back."""
    stop = threading.Event()
    peak = [0]

    def watch() -> None:
        while not stop.wait(every_s):
            for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
                if line.startswith("RssAnon:"):
                    peak[0] = max(peak[0], 1024 * int(line.split()[1]))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        work()
    finally:
        stop.set()
        thread.join()
    return peak[0]
