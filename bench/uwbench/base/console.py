"""The console that prints tables and progress."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from uwbench.errors import printable

if TYPE_CHECKING:
    from rich.console import Console


def open_console(**options: Any) -> Console:
    """Return a console that escapes control characters in text: only rich's own styles reach the terminal."""
    from rich.console import Console
    from rich.segment import Segment

    class PlainConsole(Console):
        def render(self, renderable: Any, options: Any = None) -> Iterator[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else Segment(printable(segment.text), segment.style)

    return PlainConsole(highlight=False, **options)
