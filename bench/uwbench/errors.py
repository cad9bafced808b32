"""Error types: what went wrong, where, and what to do about it.

Every error that a user can cause or meet is one of these. The command line prints it as one line and exits with its
code: 1 if work failed (what finished is kept), 2 if the request itself was wrong.
"""

from __future__ import annotations

import re
from pathlib import Path

# Control characters except line ends and tabs, marks that change the direction of text, and lone surrogates.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Return untrusted text that is safe to print: what could change a terminal's state is escaped."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def escaped(json_text: str) -> str:
    """Return the same JSON value with everything that `printable` escapes written as JSON escapes."""
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", json_text)


class UwbenchError(Exception):
    """Base class of the errors that this package raises on purpose.

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
        # Workers send errors to other processes, and default pickling loses keyword-only arguments.
        return _rebuild, (type(self), self.what, self.where, self.remedy)


def counted(number: int, noun: str) -> str:
    """Return a count of things whose plural ends in s: `1 clip`, `2,000 clips`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _rebuild(kind: type[UwbenchError], what: str, where: str | None, remedy: str | None) -> UwbenchError:
    return kind(what, where=where, remedy=remedy)


class UsageError(UwbenchError):
    """The command or call is wrong: an unknown name, or options that contradict each other."""

    exit_code = 2


class InputError(UwbenchError):
    """A file that describes work (card, protocol, manifest, result) is missing or malformed."""

    exit_code = 2


class DataError(UwbenchError):
    """A dataset is missing, or does not match its card."""


class AudioError(UwbenchError):
    """A clip cannot be read or decoded, or contains no valid audio (NaN, Inf, no samples)."""


class EncoderError(UwbenchError):
    """An encoder cannot be loaded, breaks its contract, or returned values that are not finite."""


class StoreError(UwbenchError):
    """The embeddings cache is damaged, cannot be written, or lacks what a command needs."""


class FetchError(UwbenchError):
    """A download failed, or is not what the server promised."""


class ProbeError(UwbenchError):
    """A probe cannot be trained or scored on this data."""
