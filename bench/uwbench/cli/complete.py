"""Names that the shell completes: models, tasks, suites, protocols, methods. The shell itself completes files."""

from __future__ import annotations

from collections.abc import Sequence

from uwbench import api


def models(incomplete: str) -> list[str]:
    """Return the models known by name that complete a list."""
    return _in_list(incomplete, [entry.name for entry in api.list_models()])


def tasks(incomplete: str) -> list[str]:
    """Return the tasks that complete a list."""
    return _in_list(incomplete, api.task_names())


def suites(incomplete: str) -> list[str]:
    """Return the suites that begin like this."""
    return [name for name in api.suite_names() if name.startswith(incomplete)]


def protocols(incomplete: str) -> list[str]:
    """Return the protocols that begin like this."""
    return [protocol.name for protocol in api.list_protocols() if protocol.name.startswith(incomplete)]


def method(incomplete: str) -> list[str]:
    """Return the methods that begin like this."""
    return [name for name in api.METHODS if name.startswith(incomplete)]


def methods(incomplete: str) -> list[str]:
    """Return the methods, and words for several, that complete a list."""
    return _in_list(incomplete, [*api.METHODS, "default", "all"])


def _in_list(incomplete: str, names: Sequence[str]) -> list[str]:
    """Return the lists that end in each name with the same beginning as the last item, unless it is in the list."""
    before, comma, last = incomplete.rpartition(",")
    items = before.split(",")
    return [f"{before}{comma}{name}" for name in names if name.startswith(last) and name not in items]
