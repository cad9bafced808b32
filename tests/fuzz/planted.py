"""Readers with faults of every kind planted in them, by which the trial itself is tested: it must find each."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from fuzz.readers import Reader
from uwbench.errors import InputError

TRIGGER = b"!"


def refuses(folder: Path, world: Path, data: bytes) -> None:
    """As a reader should: its own error, with a name."""
    if TRIGGER in data:
        raise InputError("is refused", where=folder)


def raises(folder: Path, world: Path, data: bytes) -> None:
    """Lets an error of Python's through."""
    if TRIGGER in data:
        raise KeyError(data)


def names_nothing(folder: Path, world: Path, data: bytes) -> None:
    """Says what is wrong, and not where."""
    if TRIGGER in data:
        raise InputError("is refused")


def dies(folder: Path, world: Path, data: bytes) -> None:
    """Ends the process, as a fault in a native library does."""
    if TRIGGER in data:
        os.kill(os.getpid(), signal.SIGSEGV)


def hangs(folder: Path, world: Path, data: bytes) -> None:
    """Does not come back."""
    if TRIGGER in data:
        while True:
            pass


def claims(folder: Path, world: Path, data: bytes) -> None:
    """Asks for as much memory as an input says."""
    if TRIGGER in data:
        bytearray(1 << 34)


READERS = tuple(Reader(read.__name__, read, 1) for read in (refuses, raises, names_nothing, dies, hangs, claims))
