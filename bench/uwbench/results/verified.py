"""Bundles that were verified on this machine: their results, and the record that says so.

`results/bundles/<sha256>/verified.json` is the record, and `results/bundles/<sha256>/results/` holds the results with
their predictions, laid out as in a folder of results. A bundle is known by its bytes, wherever its file lies.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from uwbench.base.atomic import write_atomically
from uwbench.base.hashing import sha256_file
from uwbench.base.json_text import parse_json
from uwbench.base.schema import Closed
from uwbench.errors import InputError, UsageError

_RECORD = "verified.json"


class Verified(Closed):
    """The record of a bundle that was scored again and came out equal."""

    name: str  # of its file
    sha256: str
    model: str
    tasks: tuple[str, ...]
    verified: str  # UTC, ISO 8601
    versions: dict[str, str]  # that it was scored again with


def verified_folder(results: Path, sha256: str) -> Path:
    """Return the folder for the results of a verified bundle."""
    return results / "bundles" / sha256 / "results"


def write_verified(results: Path, record: Verified) -> None:
    """Write the record of a verified bundle; its results are in place."""
    text = json.dumps(record.model_dump(mode="json"), indent=2, sort_keys=True, ensure_ascii=False)
    write_atomically(verified_folder(results, record.sha256).with_name(_RECORD), f"{text}\n".encode())


def read_verified(folder: Path) -> Verified | None:
    """Return the record of the bundle whose results are in `folder`; None if they are from no bundle."""
    path = folder.with_name(_RECORD)
    if not path.is_file():
        return None
    try:
        return Verified.model_validate(parse_json(path.read_bytes()))
    except (OSError, ValueError, ValidationError) as error:
        remedy = "remove its folder and verify the bundle again"
        raise InputError(f"cannot be read ({' '.join(str(error).split())})", where=path, remedy=remedy) from error


def merged_folder(bundle: Path, results: Path) -> Path:
    """Return the folder with the results of the bundle in the file `bundle`, which was verified.

    `results` is the folder that `uwbench verify` recorded it in. Raises UsageError if it did not.
    """
    folder = verified_folder(results, sha256_file(bundle))
    if read_verified(folder) is None:
        what = "has not been verified on this machine, or has changed since"
        raise UsageError(what, where=bundle, remedy=f"run: uwbench verify {bundle} --results {results}")
    return folder
