"""Leave soon after Ctrl-C or SIGTERM, whatever the program is in the middle of.

Python turns a signal into KeyboardInterrupt between two of its own instructions, and waits for its threads before it
ends. A product of large matrices, a search through neighbours or a thread at work can hold that up for long. What is
on the disk is whole at any moment, so a process that takes too long is ended where it is.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

LEAVES_WITHIN_S = 1.0  # after a signal; the promise is two seconds, on a busy machine too
_SHOW_CURSOR = "\x1b[?25h"  # a progress bar hides it


@contextmanager
def leaving_in_time(last_word: Callable[[], str]) -> Iterator[None]:
    """Around a whole program: end the process if it is still there `LEAVES_WITHIN_S` after a signal that it handles.

    The exit code is then 1, after the line `last_word()` on stderr if the block was not left by then. Only for the main
    thread of a process that is the program's own.
    """
    if os.name != "posix":  # no file tells of signals there
        yield
        return
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    left = threading.Event()

    def watch() -> None:
        # Written as the signal arrives, not when Python gets round to its handler.
        with os.fdopen(ours, "rb", buffering=0) as signals:
            number = signals.read(1)
        if not number or number[0] not in (signal.SIGINT, signal.SIGTERM):
            return
        time.sleep(LEAVES_WITHIN_S)
        if not left.is_set():
            cursor = _SHOW_CURSOR if sys.stderr.isatty() else ""
            os.write(2, f"{cursor}{last_word()}\n".encode(errors="backslashreplace"))
        os._exit(1)

    before = signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
    threading.Thread(target=watch, name="leaving", daemon=True).start()
    try:
        yield
    finally:
        left.set()
        signal.set_wakeup_fd(before)
        os.close(theirs)  # without a signal, the watch ends with it


@contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """While a run works, SIGTERM stops it as Ctrl-C does, so that batch schedulers leave a usable state."""

    def stop(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
