"""Names that stand for Python objects, resolved when they are used.

A registry maps a name to `"module:attribute"`; nothing is imported until `load` is called. Plug-ins add names through
an entry-point group; a name that is taken is refused, naming both sides.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from uwbench.errors import UsageError


@dataclass(frozen=True, slots=True)
class Registry:
    """A closed vocabulary of `what` (for messages, e.g. "encoder family"), name -> "module:attribute"."""

    what: str
    builtin: Mapping[str, str]
    entry_point_group: str | None = None

    def entries(self) -> dict[str, str]:
        """Return every name with its target; raise UsageError where a plug-in takes a name that exists."""
        found = dict(self.builtin)
        if self.entry_point_group is not None:
            for point in importlib.metadata.entry_points(group=self.entry_point_group):
                if found.get(point.name, point.value) != point.value:
                    raise UsageError(
                        f"the {self.what} {point.name!r} is defined twice, by {found[point.name]} and {point.value}",
                        remedy="uninstall one of the two packages",
                    )
                found[point.name] = point.value
        return found

    def load(self, name: str) -> object:
        """Import and return what `name` stands for; raise UsageError, with suggestions, for an unknown name."""
        entries = self.entries()
        if name not in entries:
            raise UsageError(f"unknown {self.what} {name!r}", remedy=suggestion(name, entries))
        module, _, attribute = entries[name].partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise UsageError(f"the {self.what} {name!r} ({entries[name]}) cannot be imported: {error}") from error


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return "did you mean X?" where something close is known, else the list of what is known."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"known: {', '.join(names)}" if names else "none are known"
