"""Permissions of new files and folders, which follow those of the folder that they are in.

A cache, a folder of datasets or of results is shared by a group if its folder is (`chmod g+rwxs`). What is made in it
can then be read and replaced by the group, whatever the maker's umask is.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PRIVATE_FILE, _PLAIN_FILE = 0o600, 0o644


def file_mode(folder: Path) -> int:
    """Return the permissions of a new file in `folder`: those of the folder, less writing by others.

    In a folder with the sticky bit, as /tmp, each user's files are their own to write.
    """
    mode = folder.stat().st_mode
    return _PLAIN_FILE if mode & stat.S_ISVTX else _PRIVATE_FILE | stat.S_IMODE(mode) & 0o664


def follow_folder(path: Path) -> None:
    """Give a file or folder that this process made the permissions and the group of the folder that it is in."""
    parent = path.parent.stat()
    if path.is_dir():
        if not parent.st_mode & stat.S_ISVTX:
            path.chmod(0o700 | stat.S_IMODE(parent.st_mode) & 0o2775)
    else:
        path.chmod(file_mode(path.parent))
    if parent.st_mode & stat.S_IWGRP and path.stat().st_gid != parent.st_gid:
        with suppress(PermissionError):  # this user is not of that group
            os.chown(path, -1, parent.st_gid)


def access_problem(root: Path) -> tuple[str, str] | None:
    """Return what keeps this user, or the group that shares `root`, from its content, and what to do; None if nothing.

    Files and folders that this user cannot read come first, then folders of a shared one that the group cannot write.
    """
    if not root.is_dir():
        return None
    closed = [root] if not os.access(root, os.R_OK | os.X_OK) else list(_unreadable(root))
    if closed:
        return f"{len(closed)} files or folders cannot be read: {describe_access(closed[0])}", remedy(root)
    unshared = list(_unshared(root))
    if unshared:
        what = f"{len(unshared)} folders cannot be written by the group that shares it: {describe_access(unshared[0])}"
        return what, remedy(root)
    return None


def _unreadable(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        for name in folders:
            if not os.access(Path(folder, name), os.R_OK | os.X_OK):
                yield Path(folder, name)
        for name in files:
            if not os.access(Path(folder, name), os.R_OK):
                yield Path(folder, name)


def _unshared(root: Path) -> Iterator[Path]:
    if root.stat().st_mode & stat.S_IWGRP and not root.stat().st_mode & stat.S_ISVTX:
        for folder, folders, _ in os.walk(root):
            for name in folders:
                if not Path(folder, name).stat().st_mode & stat.S_IWGRP:
                    yield Path(folder, name)


def describe_access(path: Path) -> str:
    """Return who may do what with a file or its nearest folder that can be seen, and who asks."""
    while not os.access(path.parent, os.X_OK) or not path.exists():
        if path == path.parent:
            break
        path = path.parent
    status = path.stat()
    umask = os.umask(0o077)
    os.umask(umask)
    owner = f"{_user(status.st_uid)}:{_group(status.st_gid)}"
    return f"{path} is {stat.filemode(status.st_mode)} {owner}; you are {_user(os.geteuid())}, umask {umask:03o}"


def remedy(folder: Path) -> str:
    """Return the commands that share a folder with its group."""
    return f"its owner can share it: chmod -R g+rwX {folder} && find {folder} -type d -exec chmod g+s {{}} +"


def _user(number: int) -> str:
    try:
        import pwd

        return pwd.getpwuid(number).pw_name
    except (ImportError, KeyError):
        return str(number)


def _group(number: int) -> str:
    try:
        import grp

        return grp.getgrgid(number).gr_name
    except (ImportError, KeyError):
        return str(number)
