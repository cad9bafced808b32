"""Atomic, durable file writes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from uwbench.base.sharing import follow_folder


def write_atomically(path: Path, data: bytes | memoryview, *, locked: bool = False) -> None:
    """Write `data` to `path`, which holds either all of it or its old content, even after a power cut.

    With `locked`, the caller holds a lock on `path`. The temporary file then has a fixed name, so the leftover of a
    killed writer is overwritten by the next one.
    """
    make_folder(path.parent)
    if locked:
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.unlink(missing_ok=True)  # of another user, whose file only that user could change
    else:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        os.close(handle)
        temporary = Path(name)
    with _replacing(path, temporary), temporary.open("wb") as file:
        file.write(data)
    sync_folder(path.parent)


@contextmanager
def write_in_place(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; when the block ends, the file is synced and renamed to `path`.

    The caller holds a lock on `path`, and syncs the folder afterwards to make the name durable (one sync serves many
    files). After an error, `path` is unchanged.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    with _replacing(path, temporary):
        yield temporary


@contextmanager
def _replacing(path: Path, temporary: Path) -> Iterator[None]:
    try:
        yield
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        follow_folder(temporary)
        temporary.replace(path)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # the error of a full disk names no file
        temporary.unlink(missing_ok=True)
        raise


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, and sync each, so that a power cut loses none of them with its files."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for parent in reversed(missing):
        try:
            parent.mkdir()
        except FileExistsError:  # made by another process meanwhile
            continue
        follow_folder(parent)
        sync_folder(parent.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable, if the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
