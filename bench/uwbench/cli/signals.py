"""Exit soon after Ctrl-C or SIGTERM, even inside a long native call.

Python raises KeyboardInterrupt between two of its own instructions, and joins its threads before it exits. A product of
large matrices or a busy thread can hold up either for long. Files appear whole or not at all, so a process that takes
too long can be ended wherever it is. This needs native calls that release the interpreter's lock, as those of NumPy,
torch and libsndfile do.
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

EXIT_WITHIN_S = 1.0  # after the signal; the promise is two seconds, also on a busy machine
_SHOW_CURSOR = "\x1b[?25h"  # progress bars hide it


@contextmanager
def exit_soon_after_signal(last_line: Callable[[], str]) -> Iterator[None]:
    """End the process with code 1 if it still runs `EXIT_WITHIN_S` after a SIGINT or SIGTERM that Python handles.

    Prints `last_line()` to stderr if the block is still running then. Wrap the whole program, in its main thread.
    """
    if os.name != "posix":  # signals are not written to a pipe there
        yield
        return
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    block_over = threading.Event()

    def watch() -> None:
        # The interpreter writes the number of each signal on arrival, before any Python handler runs.
        while number := os.read(read_end, 1):
            if number[0] in (signal.SIGINT, signal.SIGTERM):
                break
        else:  # the block is over and no signal asked to stop
            os.close(read_end)
            return
        time.sleep(EXIT_WITHIN_S)
        if not block_over.is_set():
            cursor = _SHOW_CURSOR if sys.stderr.isatty() else ""
            os.write(2, f"{cursor}{last_line()}\n".encode(errors="backslashreplace"))
        os._exit(1)

    previous = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    # A forked child shares the pipe: a signal to it must not end its parent.
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
    threading.Thread(target=watch, name="exit-soon", daemon=True).start()
    try:
        yield
    finally:
        block_over.set()
        signal.set_wakeup_fd(previous)
        os.close(write_end)


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM too, so that a batch scheduler can stop a run as Ctrl-C does."""

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
