"""Download a file over HTTP: resumed by range, checked by size and md5, retried with back-off, and never half done."""

from __future__ import annotations

import email.utils
import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from uwbench.errors import FetchError

Result = TypeVar("Result")

BLOCK = 1 << 20  # bytes read at a time
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})  # statuses after which the same request may succeed


@dataclass(frozen=True, slots=True)
class Patience:
    """Retry settings: give up after `attempts` in a row without progress; waits double from `first_s` to `longest_s`.

    `tell` is called with the reason before each wait.
    """

    attempts: int = 8
    first_s: float = 1.0
    longest_s: float = 300.0
    timeout_s: float = 60.0
    sleep: Callable[[float], None] = time.sleep
    tell: Callable[[str], None] = lambda _: None

    def wait(self, attempt: int, url: str, error: _TransientError) -> None:
        """Sleep before attempt `attempt` + 1, for as long as the server asks if that is longer, within bounds."""
        backoff_s = self.first_s * 2 ** (attempt - 1)
        seconds = min(max(backoff_s, error.retry_after_s or 0.0), self.longest_s)
        self.tell(f"{url} {error.what}; attempt {attempt + 1} of {self.attempts} in {seconds:.0f} s")
        self.sleep(seconds)


class _NoDowngrade(urllib.request.HTTPRedirectHandler):
    """Follow redirects, but never from https to anything else."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise FetchError(f"redirects from https to {newurl}", where=req.full_url)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _BrokenError(Exception):
    """The connection broke while the response was read."""


class _RangeRefusedError(Exception):
    """The server has nothing at the requested offset: the partial file does not belong to its file."""


@dataclass(slots=True)
class _TransientError(Exception):
    """A failure worth a retry: `reached` bytes are on disk, and the server asked to wait `retry_after_s`."""

    what: str
    reached: int = 0
    retry_after_s: float | None = None


def get(url: str, patience: Patience, limit: int) -> bytes:
    """Return a small document; raise FetchError if it cannot be fetched or is larger than `limit` bytes."""

    def read() -> bytes:
        content = bytearray()
        with _open(url, patience, 0) as response:
            try:
                while block := _read(response):
                    content += block
                    if len(content) > limit:
                        raise FetchError(f"sends more than {limit} bytes", where=url)
            except _BrokenError as error:
                raise _TransientError(f"the connection broke ({error})") from error
        return bytes(content)

    return _retried(url, patience, read)


def download(
    url: str, target: Path, *, size: int, md5: str, patience: Patience, progress: Callable[[int], None]
) -> None:
    """Download `url` to `target`, resuming from `<target>.part` if it exists; raise FetchError if that fails.

    The file must have `size` bytes and the checksum `md5`; after a wrong checksum, the download is repeated once.
    `progress` is called with the number of bytes of this file on disk.
    """
    part = target.with_name(f"{target.name}.part")
    for last in (False, True):
        _retried(url, patience, lambda: _fill(url, part, size, patience, progress))
        actual = file_md5(part)
        if actual == md5:
            part.replace(target)
            return
        part.unlink()
        if last:
            raise FetchError(
                f"the file has the md5 {actual}, but the record says {md5}; the download was deleted",
                where=url,
                remedy="try again later, and report it to the publisher if it persists",
            )


def file_md5(path: Path) -> str:
    """Return the hex md5 of a file, Zenodo's checksum, which detects damage but not forgery."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _fill(url: str, part: Path, size: int, patience: Patience, progress: Callable[[int], None]) -> None:
    """Bring `part` to `size` bytes with one request; raise _TransientError if bytes are still missing."""
    offset = part.stat().st_size if part.exists() else 0
    if offset > size:
        part.unlink()
        offset = 0
    if offset == size and part.exists():
        return
    try:
        _receive(url, part, offset, size, patience, progress)
    except _RangeRefusedError as error:
        part.unlink()
        raise _TransientError(f"has no byte {offset}, so that the partial download was deleted") from error


def _receive(url: str, part: Path, offset: int, size: int, patience: Patience, progress: Callable[[int], None]) -> None:
    with _open(url, patience, offset) as response, part.open("r+b" if part.exists() else "w+b") as file:
        content_range = str(response.headers.get("Content-Range", ""))
        if response.status == 206 and not content_range.startswith(f"bytes {offset}-"):
            raise FetchError(f"sent another range than the requested one ({offset}-)", where=url)
        received = offset if response.status == 206 else 0  # 200: the server ignores ranges and starts over
        file.seek(received)
        file.truncate()
        progress(received)
        try:
            while block := _read(response):
                received += len(block)
                if received > size:
                    file.truncate(0)
                    raise _TransientError(f"sends more than the promised {size} bytes")
                file.write(block)
                progress(received)
        except _BrokenError as error:
            raise _TransientError(f"the connection broke ({error})", received) from error
        file.flush()
        os.fsync(file.fileno())
    if received < size:
        raise _TransientError(f"ends after {received} of {size} bytes", received)


def _read(response: Any) -> bytes:
    try:
        return response.read(BLOCK)
    except http.client.IncompleteRead as error:
        # The server sent less than it announced. The checksum decides later if what came is good.
        return error.partial
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenError(str(error) or type(error).__name__) from error


@contextmanager
def _open(url: str, patience: Patience, offset: int) -> Iterator[Any]:
    """Send a GET from byte `offset`; raise _TransientError if a retry may help, FetchError otherwise."""
    if not url.startswith(("https://", "http://")):
        raise FetchError("is not an http address", where=url)
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity", "User-Agent": "uwbench"})
    if offset:
        request.add_header("Range", f"bytes={offset}-")
    try:
        response = urllib.request.build_opener(_NoDowngrade).open(request, timeout=patience.timeout_s)
    except urllib.error.HTTPError as error:
        with error:
            retry_after_s = _retry_after(error.headers.get("Retry-After"))
        if error.code in _TRANSIENT:
            raise _TransientError(f"answers {error.code} {error.reason}", retry_after_s=retry_after_s) from error
        if error.code == 416 and offset:
            raise _RangeRefusedError from error
        raise FetchError(f"answers {error.code} {error.reason}", where=url, remedy=_advice(error.code)) from error
    except (OSError, http.client.HTTPException) as error:
        raise _TransientError(f"cannot be reached ({getattr(error, 'reason', error)})") from error
    with response:
        yield response


def _retried(url: str, patience: Patience, work: Callable[[], Result]) -> Result:
    attempt = furthest = 0
    while True:
        try:
            return work()
        except _TransientError as error:
            # Only bytes beyond the furthest point so far are progress: a restarted download repeats earlier ones.
            attempt = 1 if error.reached > furthest else attempt + 1
            furthest = max(furthest, error.reached)
            if attempt >= patience.attempts:
                raise FetchError(
                    f"{error.what}; gave up after {attempt} attempts",
                    where=url,
                    remedy="run the same command again later; it resumes where it stopped",
                ) from error
            patience.wait(attempt, url, error)


def _retry_after(value: str | None) -> float | None:
    """Return the wait in seconds that a Retry-After header asks for; the header has seconds or a date."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _advice(code: int) -> str | None:
    return {
        401: "the record is not public",
        403: "the server refuses this connection; wait some hours, or download the files with a browser",
        404: "the record or file does not exist, or no longer",
        410: "the record was withdrawn",
    }.get(code)
