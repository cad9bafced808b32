"""Files whose checksum this process has verified, so that each is hashed once."""

from __future__ import annotations

from pathlib import Path

State = tuple[int, int, int, int]  # inode, size, time of modification, time of change


def file_state(path: Path) -> State | None:
    """Return what changes whenever a file is written or replaced, or None if there is no such file."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


class VerifiedFiles:
    """Files found to match their checksum; one that changes afterwards no longer counts as verified."""

    def __init__(self) -> None:
        self._states: dict[Path, State] = {}

    def __contains__(self, path: Path) -> bool:
        return path in self._states and self._states[path] == file_state(path)

    def add(self, path: Path, state: State | None) -> None:
        """Note that a file's checksum is right; `state` is what it had before it was read."""
        if state is not None:
            self._states[path] = state
