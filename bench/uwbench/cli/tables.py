"""Tables and cards on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uwbench.api import open_console, printable
from uwbench.cli.options import print_json

if TYPE_CHECKING:
    from rich.console import RenderableType


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
