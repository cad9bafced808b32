"""Readers with one planted fault each, to test the trial itself: it must find every fault."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from fuzz.readers import Reader
from uwbench.errors import InputError

TRIGGER = b"!"


def refuses(folder: Path, world: Path, data: bytes) -> None:
    """Behave as a reader should: raise its own error, which names the file."""
    if TRIGGER in data:
        raise InputError("is refused", where=folder)


def raises(folder: Path, world: Path, data: bytes) -> None:
    """Let an error of Python's through."""
    if TRIGGER in data:
        raise KeyError(data)


def names_nothing(folder: Path, world: Path, data: bytes) -> None:
    """Say what is wrong but not where."""
    if TRIGGER in data:
        raise InputError("is refused")


def dies(folder: Path, world: Path, data: bytes) -> None:
    """End the process, as a fault in a native library does."""
    if TRIGGER in data:
        os.kill(os.getpid(), signal.SIGSEGV)


def hangs(folder: Path, world: Path, data: bytes) -> None:
    """Never return."""
    if TRIGGER in data:
        while True:
            pass


def claims(folder: Path, world: Path, data: bytes) -> None:
    """Allocate as much memory as an input asks for."""
    if TRIGGER in data:
        bytearray(1 << 34)


READERS = tuple(Reader(read.__name__, read, 1) for read in (refuses, raises, names_nothing, dies, hangs, claims))
