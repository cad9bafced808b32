"""Labels that say more than others: of `dog` and `animal`, only `dog`, by an ontology in the form of AudioSet's.

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
    """Return, for each name of an ontology, all that lies above it, as `plain` names; raise InputError naming the file.

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
    found = {name: frozenset(_all_above(name, above)) for name in above}
    for name, higher in found.items():
        if name in higher:
            raise InputError(f"is no ontology: {name!r} is above itself", where=path)
    return found


def _all_above(name: str, above: Mapping[str, set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for parent in above[waiting.pop()] - found:
            found.add(parent)
            waiting.append(parent)
    return found


def plain(name: str) -> str:
    """Return the letters and digits of a name, without the word "and", by which ways to spell it are the same."""
    words = re.findall(r"[a-z0-9]+", name.lower())
    return "".join(word for word in words if word != "and")


def most_specific(labels: Sequence[str], ancestors: Ancestors) -> tuple[str, ...]:
    """Return the labels, in their order, that are no ancestor of another; those the ontology does not know stay."""
    covered = {one for label in labels for one in ancestors.get(plain(label), ())}
    return tuple(label for label in labels if plain(label) not in covered)
