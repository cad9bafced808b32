"""One file over HTTP: resumed by range, checked by size and md5, retried with back-off; whole or not at all."""

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
from typing import Any

from uwbench.errors import FetchError

BLOCK = 1 << 20  # bytes read at a time
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})  # answers after which the same request may succeed


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to try: `attempts` in a row without a byte gained, waits doubling from `first_s` up to `longest_s`.

    `tell` hears why a wait is made, before it.
    """

    attempts: int = 8
    first_s: float = 1.0
    longest_s: float = 300.0
    timeout_s: float = 60.0
    sleep: Callable[[float], None] = time.sleep
    tell: Callable[[str], None] = lambda _: None

    def wait(self, attempt: int, url: str, error: _PassingError) -> None:
        """Sleep before attempt `attempt` + 1; what the server asks for counts, within bounds."""
        own = self.first_s * 2 ** (attempt - 1)
        seconds = min(max(own, error.asked_s or 0.0), self.longest_s)
        self.tell(f"{url} {error.what}; attempt {attempt + 1} of {self.attempts} in {seconds:.0f} s")
        self.sleep(seconds)


class _NoDowngrade(urllib.request.HTTPRedirectHandler):
    """Follow redirects, but never from https to anything else."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise FetchError(f"redirects from https to {newurl}", where=req.full_url)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _BrokenError(Exception):
    """The connection broke while an answer was read."""


class _RangeRefusedError(Exception):
    """The server has no byte at the offset asked for: what is on disk is not a beginning of its file."""


@dataclass(slots=True)
class _PassingError(Exception):
    """A failure that may pass: `reached` bytes are on disk, `asked_s` is what the server asked to wait."""

    what: str
    reached: int = 0
    asked_s: float | None = None


def get(url: str, patience: Patience, limit: int) -> bytes:
    """Return a small document; raise FetchError where it cannot be had or is larger than `limit` bytes."""

    def read() -> bytes:
        parts: list[bytes] = []
        with _open(url, patience, 0) as answer:
            try:
                while part := _read(answer):
                    parts.append(part)
                    if sum(map(len, parts)) > limit:
                        raise FetchError(f"sends more than {limit} bytes", where=url)
            except _BrokenError as error:
                raise _PassingError(f"the connection broke ({error})") from error
        return b"".join(parts)

    return _retried(url, patience, read)


def download(
    url: str, target: Path, *, size: int, md5: str, patience: Patience, progress: Callable[[int], None]
) -> None:
    """Download `url` to `target`, going on from `<target>.part` where that is there; raise FetchError.

    What arrives must have `size` bytes and the md5 `md5`; a wrong checksum is tried once more from the start.
    `progress` is called with the bytes of this file that are there.
    """
    part = target.with_name(f"{target.name}.part")
    for last in (False, True):
        _retried(url, patience, lambda: _fill(url, part, size, patience, progress))
        found = file_md5(part)
        if found == md5:
            part.replace(target)
            return
        part.unlink()
        if last:
            raise FetchError(
                f"the file has the md5 {found}, and {md5} was promised; nothing of it was kept",
                where=url,
                remedy="try again later; should it persist, report it to the publisher",
            )


def file_md5(path: Path) -> str:
    """Return the hex md5 of a file: Zenodo's checksum, against damage and not against forgery."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _fill(url: str, part: Path, size: int, patience: Patience, progress: Callable[[int], None]) -> None:
    """Bring `part` to `size` bytes by one request; raise _PassingError where it falls short."""
    have = part.stat().st_size if part.exists() else 0
    if have > size:
        part.unlink()
        have = 0
    if have == size and part.exists():
        return
    try:
        _receive(url, part, have, size, patience, progress)
    except _RangeRefusedError as error:
        part.unlink()
        raise _PassingError(f"has no byte {have}, and what was there is thrown away") from error


def _receive(url: str, part: Path, have: int, size: int, patience: Patience, progress: Callable[[int], None]) -> None:
    with _open(url, patience, have) as answer, part.open("r+b" if part.exists() else "w+b") as file:
        if answer.status == 206 and not str(answer.headers.get("Content-Range", "")).startswith(f"bytes {have}-"):
            raise FetchError(f"answers with another range than asked for ({have}-)", where=url)
        start = have if answer.status == 206 else 0
        file.seek(start)
        file.truncate()
        done = start
        progress(done)
        try:
            while block := _read(answer):
                done += len(block)
                if done > size:
                    file.truncate(0)
                    raise _PassingError(f"sends more than the {size} bytes that were promised")
                file.write(block)
                progress(done)
        except _BrokenError as error:
            raise _PassingError(f"the connection broke ({error})", done) from error
        file.flush()
        os.fsync(file.fileno())
    if done < size:
        raise _PassingError(f"ends after {done} of {size} bytes", done)


def _read(answer: Any) -> bytes:
    try:
        return answer.read(BLOCK)
    except http.client.IncompleteRead as error:
        # The server promised more than it sent; what came is good as far as the checksum will tell.
        return error.partial
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenError(str(error) or type(error).__name__) from error


@contextmanager
def _open(url: str, patience: Patience, offset: int) -> Iterator[Any]:
    """Send a GET from byte `offset`; raise FetchError or, where trying again may help, _PassingError."""
    if not url.startswith(("https://", "http://")):
        raise FetchError("is not an http address", where=url)
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity", "User-Agent": "uwbench"})
    if offset:
        request.add_header("Range", f"bytes={offset}-")
    try:
        answer = urllib.request.build_opener(_NoDowngrade).open(request, timeout=patience.timeout_s)
    except urllib.error.HTTPError as error:
        with error:
            asked = _retry_after(error.headers.get("Retry-After"))
        if error.code in _PASSING:
            raise _PassingError(f"answers {error.code} {error.reason}", asked_s=asked) from error
        if error.code == 416 and offset:
            raise _RangeRefusedError from error
        raise FetchError(f"answers {error.code} {error.reason}", where=url, remedy=_advice(error.code)) from error
    except (OSError, http.client.HTTPException) as error:
        raise _PassingError(f"cannot be reached ({getattr(error, 'reason', error)})") from error
    with answer:
        yield answer


def _retried(url: str, patience: Patience, work: Callable[[], Any]) -> Any:
    attempt = furthest = 0
    while True:
        try:
            return work()
        except _PassingError as error:
            # Bytes that were there before and had to be thrown away are no progress.
            attempt = 1 if error.reached > furthest else attempt + 1
            furthest = max(furthest, error.reached)
            if attempt >= patience.attempts:
                raise FetchError(
                    f"{error.what}; gave up after {attempt} attempts",
                    where=url,
                    remedy="run the same command again later; it goes on where it stopped",
                ) from error
            patience.wait(attempt, url, error)


def _retry_after(value: str | None) -> float | None:
    """Return the seconds of a Retry-After header, which holds seconds or a date."""
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
        403: "the server refuses this connection; wait some hours, or download the files in a browser",
        404: "the record or file does not exist (any more)",
        410: "the record was taken back",
    }.get(code)
