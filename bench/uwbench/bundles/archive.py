"""The file of a bundle: a zip of stored members, written with reproducible bytes and read with every byte checked.

    bundle.json                                    the model, and size and sha256 of every other member
    results/<slug>/<fp8>/<protocol>/<task>.json    results with their predictions, as `results/record.py` lays them out
    cache/                                         clip tables and pooled vectors, as `cache/store.py` lays them out
    digests/<encoder folder>/<table>.parquet       a hash per clip of its row and of its vectors, to name what differs
    protocols/<name>.yaml                          the rules of the results

A bundle may come from anyone: it is unpacked by `sources.unpack`, and what it does not list is refused.
"""

from __future__ import annotations

import json
import re
import stat
import zipfile
from collections.abc import Iterable
from pathlib import Path
from shutil import copyfileobj
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, ValidationError

from uwbench.base.atomic import make_folder, sync_folder, write_in_place
from uwbench.base.hashing import sha256_file
from uwbench.base.json_text import parse_json
from uwbench.base.schema import Closed
from uwbench.errors import InputError
from uwbench.results.record import PlainName
from uwbench.sources.unpack import unpack_zip

CONTENTS = "bundle.json"
_FOLDERS = re.compile(r"(results|cache|digests|protocols)/[^\0]+")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first date that a zip can hold
_NEEDED = "ask for the file again, or make it again with uwbench bundle"


class Member(Closed):
    """A file in a bundle."""

    bytes: int = Field(strict=True, ge=0)
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Contents(Closed):
    """bundle.json: which model's results a bundle holds, under which protocol, and every other file in it."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal[1] = Field(default=1, alias="schema")
    model: str
    fingerprint: PlainName
    protocol: PlainName
    files: dict[str, Member]


def write_archive(path: Path, folder: Path, *, model: str, fingerprint: str, protocol: str) -> Contents:
    """Write the files below `folder` as the bundle `path`; hidden files are left out. Equal files give equal bytes."""
    names = sorted(file.relative_to(folder).as_posix() for file in _plain_files(folder))
    files = {name: Member(bytes=(folder / name).stat().st_size, sha256=sha256_file(folder / name)) for name in names}
    contents = Contents(model=model, fingerprint=fingerprint, protocol=protocol, files=files)
    text = json.dumps(contents.model_dump(mode="json", by_alias=True), indent=1, sort_keys=True, ensure_ascii=False)
    make_folder(path.parent)
    with write_in_place(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_member(CONTENTS, 0), f"{text}\n")
        for name in names:
            member = _member(name, files[name].bytes)
            with (folder / name).open("rb") as source, archive.open(member, "w") as target:
                copyfileobj(source, target, 1 << 20)
    sync_folder(path.parent)
    return contents


def read_archive(path: Path, folder: Path) -> tuple[Contents, list[str]]:
    """Unpack the bundle `path` into the empty `folder`; return its contents, and the members that differ from them.

    Raises InputError or FetchError if it is no bundle, or holds what it does not list; nothing in it is trusted.
    """
    if not path.is_file():
        raise InputError("is no file", where=path)
    unpacked = unpack_zip(path, folder)
    try:
        contents = Contents.model_validate(parse_json((folder / CONTENTS).read_bytes()))
    except OSError as error:
        raise InputError(f"is no bundle: it holds no {CONTENTS}", where=path) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(f"is no bundle: {CONTENTS}, {place}: {first['msg']}", where=path) from error
    except ValueError as error:
        raise InputError(f"is no bundle: {CONTENTS} is not JSON ({error})", where=path) from error
    there = {file.relative_to(folder).as_posix() for file in unpacked} - {CONTENTS}
    wrong = sorted(there ^ contents.files.keys()) or sorted(n for n in there if not _FOLDERS.fullmatch(n))
    if wrong:
        what = "is not in it" if wrong[0] in contents.files and wrong[0] not in there else "does not belong in it"
        raise InputError(f"is no whole bundle: {wrong[0]} {what}", where=path, remedy=_NEEDED)
    changed = [
        name
        for name, member in contents.files.items()
        if (folder / name).stat().st_size != member.bytes or sha256_file(folder / name) != member.sha256
    ]
    return contents, sorted(changed)


def _plain_files(folder: Path) -> Iterable[Path]:
    for path in folder.rglob("*"):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path


def _member(name: str, size: int) -> zipfile.ZipInfo:
    """Return a zip member that says nothing of this machine: no date, no owner, one mode."""
    member = zipfile.ZipInfo(name, _EPOCH)
    member.create_system, member.external_attr, member.file_size = 3, (stat.S_IFREG | 0o644) << 16, size
    return member
