"""Registries of Python objects by name, imported when they are used.

A registry maps a name to `"module:attribute"`; `load` imports it. Plug-ins add names through an entry-point group; a
name that is already taken is refused, and the error names both packages' objects.
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
    """A mapping from names to "module:attribute"; `what` is what error messages call an entry ("encoder family")."""

    what: str
    builtin: Mapping[str, str]
    entry_point_group: str | None = None

    def entries(self) -> dict[str, str]:
        """Return every name with its target; raise UsageError if a plug-in takes a name that exists."""
        entries = dict(self.builtin)
        if self.entry_point_group is not None:
            for point in importlib.metadata.entry_points(group=self.entry_point_group):
                if entries.get(point.name, point.value) != point.value:
                    raise UsageError(
                        f"the {self.what} {point.name!r} is defined twice, by {entries[point.name]} and {point.value}",
                        remedy="uninstall one of the two packages",
                    )
                entries[point.name] = point.value
        return entries

    def load(self, name: str) -> object:
        """Import and return the object called `name`; raise UsageError, with suggestions, for an unknown name."""
        entries = self.entries()
        if name not in entries:
            raise UsageError(f"unknown {self.what} {name!r}", remedy=suggestion(name, entries))
        module, _, attribute = entries[name].partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise UsageError(f"the {self.what} {name!r} ({entries[name]}) cannot be imported: {error}") from error


def close_names(name: str, known: Iterable[str]) -> list[str]:
    """Return up to three known names that are close to `name` in any case, the closest first."""
    folded = {other.casefold(): other for other in known}
    return [folded[match] for match in difflib.get_close_matches(name.casefold(), list(folded), n=3, cutoff=0.6)]


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return "did you mean X?" if a known name is close to `name`, else the list of known names."""
    names = sorted(known)
    close = close_names(name, names)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"known: {', '.join(names)}" if names else "none are known"
