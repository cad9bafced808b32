"""Handle SIGTERM for the length of a block."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def on_sigterm(notice: str, act: Callable[[], None]) -> Iterator[None]:
    """Print `notice` and call `act` on SIGTERM; restore the previous handler afterwards.

    Does nothing outside the main thread, which alone receives signals.
    """

    def handle(*_: object) -> None:
        print(f"uniwhisper: {notice}", file=sys.stderr, flush=True)
        act()

    try:
        before = signal.signal(signal.SIGTERM, handle)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
