"""Tables and cards on the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from uwbench.api import printable
from uwbench.cli.options import print_json

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


def open_console(**options: Any) -> Console:
    """Return a console that escapes control characters in text: only rich's own styles reach the terminal."""
    from rich.console import Console
    from rich.segment import Segment

    class PlainConsole(Console):
        def render(self, renderable: Any, options: Any = None) -> Iterator[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else Segment(printable(segment.text), segment.style)

    return PlainConsole(highlight=False, **options)


def print_view(view: RenderableType) -> None:
    """Print tables and text; what is wider than the terminal runs on, so that names can be copied."""
    open_console(markup=False).print(view, crop=False)


def print_fields(fields: dict[str, Any], *, as_json: bool) -> None:
    """Print a card or model in full, as YAML or JSON."""
    if as_json:
        print_json(fields)
        return
    import yaml

    print(printable(yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=100)), end="")
