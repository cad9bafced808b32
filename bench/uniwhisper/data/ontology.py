"""Keep the most specific labels: of `dog` and `animal` only `dog`, by an ontology in AudioSet's format.

AudioSet's `ontology.json` is a list of `{id, name, child_ids}`. Datasets spell its names in their own ways
(`Accelerating_and_revving_and_vroom` for "Accelerating, revving, vroom"), so names are compared by their letters alone,
without "and".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from uwbench.api import InputError
from uwbench.base.json_text import parse_json

Ancestors = Mapping[str, frozenset[str]]


def read_ancestors(path: Path) -> Ancestors:
    """Return the ancestors of each name of an ontology, as `plain` names; raise InputError naming the file.

    A name that is there twice has the ancestors of both. A name above itself is refused.
    """
    try:
        entries = parse_json(path.read_text(encoding="utf-8"))
        names = {str(entry["id"]): plain(entry["name"]) for entry in entries}
        above: dict[str, set[str]] = {name: set() for name in names.values()}
        for entry in entries:
            for child in entry["child_ids"]:
                above[names[str(child)]].add(plain(entry["name"]))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"is no ontology ({' '.join(str(error).split())})",
            where=path,
            remedy="it is a JSON list of {id, name, child_ids}, as AudioSet's",
        ) from error
    ancestors = {name: frozenset(_all_above(name, above)) for name in above}
    for name, higher in ancestors.items():
        if name in higher:
            raise InputError(f"is no ontology: {name!r} is above itself", where=path)
    return ancestors


def _all_above(name: str, above: Mapping[str, set[str]]) -> set[str]:
    higher: set[str] = set()
    waiting = [name]
    while waiting:
        for parent in above[waiting.pop()] - higher:
            higher.add(parent)
            waiting.append(parent)
    return higher


def plain(name: str) -> str:
    """Return a name's letters and digits without the word "and", which is the same for all its spellings."""
    words = re.findall(r"[a-z0-9]+", name.lower())
    return "".join(word for word in words if word != "and")


def most_specific(labels: Sequence[str], ancestors: Ancestors) -> tuple[str, ...]:
    """Return the labels that are not an ancestor of another, in order; labels unknown to the ontology stay."""
    covered = {name for label in labels for name in ancestors.get(plain(label), ())}
    return tuple(label for label in labels if plain(label) not in covered)
