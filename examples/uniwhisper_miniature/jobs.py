"""Several trainings side by side, a process each: at this size one thread a training gets the most out of the cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from uwbench.api import UwbenchError


def run_side_by_side(work: Callable[..., None], given: Sequence[tuple[Any, ...]], jobs: int) -> None:
    """Call `work` with each of the `given` arguments, `jobs` at a time; the processes share the cores' threads.

    What one of them raises is raised here once those under way have ended, and nothing further is begun. SIGTERM is
    passed on, so that trainings save and stop; a process whose parent is gone ends.
    """
    if jobs == 1 or len(given) < 2:
        for arguments in given:
            work(*arguments)
        return
    threads = max(1, (os.cpu_count() or 1) // jobs)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=_begin, initargs=(threads,)) as pool, _passing_on():
        futures = [pool.submit(work, *arguments) for arguments in given]
        try:
            for future in futures:
                future.result()
        except BrokenProcessPool as error:
            remedy = "give the same command again to go on"
            raise UwbenchError("a process was stopped or died", where="experiment", remedy=remedy) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _begin(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _passing_on() -> Iterator[None]:
    """Send SIGTERM on to the processes; the handler before is put back."""

    def tell(*_: object) -> None:
        print("uniwhisper: told to stop, trainings save first", file=sys.stderr, flush=True)
        for child in multiprocessing.active_children():
            child.terminate()

    try:
        before = signal.signal(signal.SIGTERM, tell)
    except ValueError:  # not the main thread: nobody can tell it
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
