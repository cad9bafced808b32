"""A layer between a command and the disk that sees every call that changes files in a folder, before and after it.

It replaces Python's own calls in the whole process, so use it in children only. Arrow and the encoders write through
Python's files or into memory, never to a path of their own.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

Watch = Callable[[str, str, str], None]  # kind of call, path, and where a rename leads to


def watch(folder: Path, before: Watch, after: Watch) -> None:
    """Have `before` and `after` called around each create, write, reserve, sync, rename, unlink and mkdir in `folder`.

    An error raised by `before` reaches the caller. A write that fails this way has written half of its data.
    """
    root = os.path.realpath(folder)

    def inside(path: Any) -> str | None:
        if isinstance(path, int):
            path = Path(f"/proc/self/fd/{path}").readlink()
        given = Path(os.fspath(path))
        name = str(Path(os.path.realpath(given.parent)) / given.name)
        return name if name == root or name.startswith(root + os.sep) else None

    def around(kind: str, call: Callable[..., Any], *, target: bool = False) -> Callable[..., Any]:
        def instead(path: Any, *args: Any, **named: Any) -> Any:
            name = inside(path)
            if name is None:
                return call(path, *args, **named)
            to = str(inside(args[0])) if target else ""
            before(kind, name, to)
            result = call(path, *args, **named)
            after(kind, name, to)
            return result

        return instead

    class Watched(io.FileIO):
        def write(self, data: Any, /) -> int:
            given = memoryview(data).cast("B")
            try:
                before("write", str(self.name), "")
            except OSError:
                super().write(given[: len(given) // 2])
                raise
            return super().write(given)

    plain_open, plain_os_open = io.open, os.open

    def open_file(file: Any, mode: str = "r", buffering: int = -1, *args: Any, **named: Any) -> Any:
        name = None if isinstance(file, int) else inside(file)
        if name is None or not set(mode) & set("wax+"):
            return plain_open(file, mode, buffering, *args, **named)
        kind = "create" if set(mode) & set("wx") or not Path(name).exists() else "open"
        before(kind, name, "")
        raw = Watched(name, mode.replace("b", "").replace("t", ""))
        after(kind, name, "")
        if "b" not in mode:
            return io.TextIOWrapper(io.BufferedWriter(raw), *args, **named)
        if buffering == 0:
            return raw
        return io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)

    def os_open(path: Any, flags: int, *args: Any, **named: Any) -> int:
        name = inside(path)
        if name is None or not flags & os.O_CREAT or Path(name).exists():
            return plain_os_open(path, flags, *args, **named)
        before("create", name, "")
        handle = plain_os_open(path, flags, *args, **named)
        after("create", name, "")
        return handle

    builtins.open = io.open = open_file
    os.open = os_open
    os.mkdir, os.unlink, os.remove = around("mkdir", os.mkdir), around("unlink", os.unlink), around("unlink", os.remove)
    os.fsync, os.posix_fallocate = around("fsync", os.fsync), around("reserve", os.posix_fallocate)
    os.replace = around("rename", os.replace, target=True)
    os.rename = around("rename", os.rename, target=True)


def full_from(number: int, count_in: Path) -> tuple[Watch, Callable[[], None]]:
    """Return a watch that lets `number` calls pass and then reports a full disk, and a function to save the count."""
    calls = 0

    def before(kind: str, path: str, to: str) -> None:
        nonlocal calls
        if kind in ("open", "unlink"):
            return  # these succeed on a full disk
        calls += 1
        if calls > number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *([path] if kind in ("create", "mkdir") else []))

    def note() -> None:
        count_in.write_text(str(calls))

    return before, note
