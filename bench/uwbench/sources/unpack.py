"""Unpack untrusted archives: nothing outside the folder, plain files only, no decompression bombs."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from uwbench.errors import FetchError

SCRATCH = ".unpack-"  # prefix of the temporary folders that archives are unpacked into
_BLOCK = 1 << 20
# Audio hardly compresses. An archive is refused if it unpacks to more than 20 times its size and more than a gibibyte.
_LARGEST_RATIO = 20
_ALWAYS_ALLOWED = 1 << 30  # bytes
_LONGEST_NAME = 255  # bytes; the limit of common file systems


def unpack_zip(archive: Path, folder: Path) -> list[Path]:
    """Unpack a zip into `folder` and return the files; raise FetchError, writing nothing, if a member is not safe.

    Absolute paths, `..`, drive letters, links, devices, colliding names and decompression bombs are refused.
    """
    scratch = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=folder))
    try:
        with zipfile.ZipFile(archive) as file:
            members = [member for member in file.infolist() if not member.filename.endswith("/")]
            names = [_safe_name(member, archive) for member in members]
            folded = {name.as_posix().casefold() for name in names}
            if len(folded) < len(names):
                raise FetchError("contains two members with the same name", where=archive)
            if any(parent.as_posix().casefold() in folded for name in names for parent in name.parents):
                raise FetchError("contains a member whose name is also a folder's", where=archive)
            total = sum(member.file_size for member in members)
            _refuse_bomb(total, archive)
            need_space(folder, total, str(archive))
            for member, name in zip(members, names, strict=True):
                _extract(file, member, scratch / name, archive)
        return _move(scratch, folder, names)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, LookupError, OverflowError) as error:
        raise FetchError(f"cannot be unpacked ({error})", where=archive, remedy="fetch it again") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def gunzip_tar(archive: Path) -> Path:
    """Decompress `x.tar.gz` to `x.tar` beside it, since shards are read in place; the archive is not deleted.

    Raises FetchError if the archive is damaged or a decompression bomb.
    """
    target = archive.with_name(re.sub(r"(\.tar\.gz|\.tgz)$", ".tar", archive.name))
    part = target.with_name(f"{target.name}.part")
    written = 0
    try:
        with gzip.open(archive) as source, part.open("wb") as file:
            while block := source.read(_BLOCK):
                written += len(block)
                _refuse_bomb(written, archive)
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except (OSError, EOFError, zlib.error) as error:
        raise FetchError(f"cannot be decompressed ({error})", where=archive, remedy="fetch it again") from error
    finally:
        part.unlink(missing_ok=True)
    return target


def need_space(folder: Path, needed: int, what: str) -> None:
    """Raise FetchError if the disk of `folder` has less than `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise FetchError(
            f"needs {needed / 1e9:.2f} GB, but {free / 1e9:.2f} GB are free in {folder}",
            where=what,
            remedy="free some space, or choose another folder with --data",
        )


def _safe_name(member: zipfile.ZipInfo, archive: Path) -> PurePosixPath:
    name = PurePosixPath(member.filename)
    mode = member.external_attr >> 16
    bad = (
        name.is_absolute()
        or ".." in name.parts
        or not name.parts
        or "\\" in member.filename
        or "\0" in member.orig_filename
        or any(len(part.encode("utf-8", "surrogatepass")) > _LONGEST_NAME for part in name.parts)
        or re.match(r"[A-Za-z]:", member.filename) is not None
    )
    if bad:
        raise FetchError(f"the member {member.filename!r} would leave the folder", where=archive)
    if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise FetchError(f"the member {member.filename!r} is not a plain file", where=archive)
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        what = f"the member {member.filename!r} uses compression method {member.compress_type}, not deflate"
        raise FetchError(what, where=archive, remedy="unpack the archive by hand")
    return name


def _refuse_bomb(total: int, archive: Path) -> None:
    size = archive.stat().st_size
    if total > max(_ALWAYS_ALLOWED, _LARGEST_RATIO * size):
        raise FetchError(f"unpacks from {size} to {total} bytes or more", where=archive, remedy="do not use it")


def _extract(file: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, archive: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with target.open("xb") as out:
        for block in _blocks(file, member, archive):
            written += len(block)
            if written > member.file_size:
                raise FetchError(f"the member {member.filename!r} is larger than its header says", where=archive)
            out.write(block)


def _blocks(file: zipfile.ZipFile, member: zipfile.ZipInfo, archive: Path) -> Iterator[bytes]:
    """Yield a member's content; an OSError here concerns the archive, not the file that is written."""
    try:
        with file.open(member) as source:
            while block := source.read(_BLOCK):
                yield block
    except (OSError, zlib.error, EOFError) as error:
        raise FetchError(f"cannot be unpacked ({error})", where=archive, remedy="fetch it again") from error


def _move(scratch: Path, folder: Path, names: list[PurePosixPath]) -> list[Path]:
    root = folder.resolve()
    paths = []
    for name in names:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.parent.resolve().is_relative_to(root):
            raise FetchError(f"{target.parent} is a link that leads out of {folder}", where=str(name))
        (scratch / name).replace(target)
        paths.append(target)
    return paths
