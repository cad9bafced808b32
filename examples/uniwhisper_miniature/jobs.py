"""Run several trainings at once, one process each: models this small use the cores best with one thread each."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from uniwhisper.training.sigterm import on_sigterm
from uwbench.api import UwbenchError

GO_ON = "run the same command again to continue"


def run_side_by_side(work: Callable[..., None], calls: Sequence[tuple[Any, ...]], jobs: int) -> None:
    """Call `work` with each tuple of arguments, `jobs` at a time; the processes share the cores' threads.

    An error in one call is raised here when the calls under way have ended; no further call starts. SIGTERM is passed
    on, so that trainings save and stop. A process whose parent has died ends too.
    """
    if jobs == 1 or len(calls) < 2:
        for arguments in calls:
            work(*arguments)
        return
    threads = max(1, (os.cpu_count() or 1) // jobs)
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, context, initializer=_start_worker, initargs=(threads,))
    stopping = threading.Event()

    def stop() -> None:
        stopping.set()
        _terminate_children()

    waiting, running = deque(calls), set[Future[None]]()
    with pool, on_sigterm("stopping; trainings save first", stop):
        while running or (waiting and not stopping.is_set()):
            # No call waits in the pool, where it would start although a signal came.
            while waiting and len(running) < jobs and not stopping.is_set():
                running.add(pool.submit(work, *waiting.popleft()))
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            for future in ended:
                try:
                    future.result()
                except BrokenProcessPool as error:
                    what = "a training process was stopped or died"
                    raise UwbenchError(what, where="experiment", remedy=GO_ON) from error
    if waiting:
        raise UwbenchError("stopped by SIGTERM", where="experiment", remedy=GO_ON)


def _start_worker(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _terminate_children() -> None:
    for child in multiprocessing.active_children():
        child.terminate()
