"""Where results are when a board is empty: under which other protocols, in which other folders."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

_FIRST = "To make results: uwbench run -m logmel -s mini"


def results_elsewhere(protocol: str, folders: Sequence[Path], usual: Iterable[Path]) -> tuple[str, ...]:
    """Return lines for a board of `folders` that is empty: why, where there are results, and how to show them.

    `usual` are the folders that results are in if nobody says otherwise.
    """
    shown = ", ".join(map(str, folders))
    here = sum((_protocols(folder) for folder in folders), Counter[str]())
    if here[protocol]:
        head = f"{_results(here[protocol])} of {protocol} in {shown}, none of which can be ranked; see below."
    else:
        head = f"No result of {protocol} is in {shown}."
    lines = commands_elsewhere(protocol, folders, usual)
    return (head, "There are:", *lines) if lines else (head,) if here[protocol] else (head, _FIRST)


def commands_elsewhere(protocol: str, folders: Sequence[Path], usual: Iterable[Path]) -> list[str]:
    """Return how many results there are of other protocols and in the usual folders, each with its command."""
    lines = []
    places = {folder.resolve(): folder for folder in (*folders, *usual)}
    searched = {folder.resolve() for folder in folders}
    for resolved, folder in places.items():
        for name, count in sorted(_protocols(folder).items()):
            if name == protocol and resolved in searched:
                continue
            option = "" if name == protocol else f" --protocol {name}"
            command = f"uwbench leaderboard{option} --results {shlex.quote(str(folder))}"
            lines.append(f"{_results(count)} of {name}: {command}")
    return lines


def _protocols(folder: Path) -> Counter[str]:
    """Return how many result files of each protocol a folder has."""
    return Counter(path.parent.name for path in folder.glob("*/*/*/*.json"))


def _results(count: int) -> str:
    return f"{count:,} {'result' if count == 1 else 'results'}"
