"""The disk's errors as users can act on them."""

from __future__ import annotations

from pathlib import Path

from uwbench.base.sharing import describe_access, remedy
from uwbench.errors import UwbenchError


def disk_error(error: OSError) -> UwbenchError:
    """Return an error that tells the user about a full disk, a read-only folder or a broken drive.

    An OSError without an error number is raised unchanged, because libraries use the type for other errors.
    """
    if error.errno is None:
        raise error
    if isinstance(error, PermissionError) and error.filename is not None:
        path = Path(error.filename).absolute()
        what = f"{error.strerror} ({describe_access(path)})"
        return UwbenchError(what, where=error.filename, remedy=remedy(path.parent))
    after = "finished work is kept; fix the disk and run the same command again"
    return UwbenchError(error.strerror or str(error), where=error.filename, remedy=after)
