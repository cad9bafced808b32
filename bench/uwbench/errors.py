"""Error types of uwbench: what went wrong, where, and what to do about it.

Every error a user can cause or meet is one of these, so that the command line can print one line and leave
with the right exit code: 1 when work failed (what finished is kept), 2 when the request itself was wrong.
"""

from __future__ import annotations

import re
from pathlib import Path

# Control characters but line ends and tabs, marks that turn the direction of writing, halves of surrogate pairs.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Return a text of others for a terminal: what would move its cursor, title or colours stands as an escape."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def escaped(json_text: str) -> str:
    """Return JSON whose texts hold what `printable` replaces as JSON's own escapes: the same value."""
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", json_text)


class UwbenchError(Exception):
    """Base of all errors this package raises on purpose.

    `where` names the file, clip, card or option at fault; `remedy` says what to do.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str | Path | None = None, remedy: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = None if where is None else str(where)
        self.remedy = remedy

    def __str__(self) -> str:
        text = self.what if self.where is None else f"{self.where}: {self.what}"
        return printable(text if self.remedy is None else f"{text}; {self.remedy}")

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments are lost by the default pickling, and workers send errors across processes.
        return _rebuild, (type(self), self.what, self.where, self.remedy)


def _rebuild(kind: type[UwbenchError], what: str, where: str | None, remedy: str | None) -> UwbenchError:
    return kind(what, where=where, remedy=remedy)


def disk_error(error: OSError) -> UwbenchError:
    """Return what the system's refusal of a file means to a user: a full disk, a read-only folder, a broken drive.

    An OSError that comes from no system call is raised as it is: libraries use the type for errors of their own.
    """
    if error.errno is None:
        raise error
    remedy = "what was finished is kept; run the same command again once the disk takes it"
    return UwbenchError(error.strerror or str(error), where=error.filename, remedy=remedy)


class UsageError(UwbenchError):
    """The command or call cannot be carried out as given: an unknown name, options that contradict each other."""

    exit_code = 2


class InputError(UwbenchError):
    """A file that describes work (card, protocol, manifest, result) is missing or malformed."""

    exit_code = 2


class DataError(UwbenchError):
    """A dataset is not at hand, or is not what its card says."""


class AudioError(UwbenchError):
    """One clip cannot be read or decoded, or holds values that are not audio (NaN, Inf, no samples)."""


class EncoderError(UwbenchError):
    """An encoder cannot be loaded, broke its contract, or returned values that are not finite."""


class StoreError(UwbenchError):
    """The embeddings cache is damaged, unwritable, or lacks what was asked for."""


class FetchError(UwbenchError):
    """A download failed, or what came is not what was promised."""


class ProbeError(UwbenchError):
    """A probe cannot be trained or scored on the data at hand."""
