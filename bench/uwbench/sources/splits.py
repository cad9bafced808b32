"""Splits and folds in the names of files and folders: `train-00000-of-00002.parquet`, `cuts_dev.jsonl.gz`, `fold1`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from uwbench.errors import InputError
from uwbench.sources.table import SPLIT_NAMES

Subset = tuple[str, str]  # ("split", "train") or ("fold", "1")

_FOLD = re.compile(r"(?<![a-z0-9])fold[ _-]?0*(\d+)(?![a-z0-9])")


def subset_in(name: str) -> Subset | None:
    """Return the split or fold that a name tells by one of its words; raise ValueError if it tells several."""
    words = re.split(r"[^a-z0-9]+", name.lower())
    subsets = {("split", SPLIT_NAMES[word]) for word in words if word in SPLIT_NAMES}
    subsets |= {("fold", number) for number in _FOLD.findall(name.lower())}
    if len(subsets) > 1:
        raise ValueError(f"{name!r} names several splits")
    return next(iter(subsets), None)


def subset_of(names: Sequence[str]) -> Subset | None:
    """Return the split or fold that the last of the names that tells one does; several in one name tell none."""
    for name in reversed(names):
        try:
            subset = subset_in(name)
        except ValueError:
            continue
        if subset is not None:
            return subset
    return None


def subset_of_file(path: Path, root: Path) -> Subset | None:
    """Return the split or fold in a file's name, or else in the nearest of its folders below `root`.

    Raises InputError if the name tells several.
    """
    try:
        subset = subset_in(path.name.partition(".")[0])
    except ValueError as error:
        raise InputError(
            "names several splits", where=path, remedy="name it after one of train, valid, test"
        ) from error
    return subset or subset_of(path.relative_to(root).parts[:-1])
