"""Files that hold all of what was written or what they held before."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomically(path: Path, data: bytes | memoryview, *, locked: bool = False) -> None:
    """Write `data` so that `path` holds all of it or what it held before, also after a power cut.

    With `locked`, the caller holds a lock on `path`: the temporary file then has one name, so that what a killed writer
    left is overwritten by the next.
    """
    make_folder(path.parent)
    if locked:
        temporary = path.with_name(f".{path.name}.tmp")
    else:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        os.close(handle)
        temporary = Path(name)
    with _appearing(path, temporary), temporary.open("wb") as file:
        file.write(data)
    sync_folder(path.parent)


@contextmanager
def write_in_place(path: Path) -> Iterator[Path]:
    """Give the name of a file to write; once the block ends, it is `path`, whole and its bytes durable.

    Its name is durable once the caller has synced the folder, which serves many files at once. The caller holds a lock
    on `path`. After an error, `path` is what it was.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.tmp")
    with _appearing(path, temporary):
        yield temporary


@contextmanager
def _appearing(path: Path, temporary: Path) -> Iterator[None]:
    try:
        yield
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a full disk does not say for which file
        temporary.unlink(missing_ok=True)
        raise


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, whose names are durable: one lost in a power cut takes its files along."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for one in reversed(missing):
        one.mkdir(exist_ok=True)
        sync_folder(one.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
