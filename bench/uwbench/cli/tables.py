"""Tables and cards on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uwbench.api import open_console, printable
from uwbench.cli.options import print_json

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table


def new_table(*columns: str) -> Table:
    """Return an empty table with these columns."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(Text(column), overflow="fold")
    return table


def print_view(view: RenderableType) -> None:
    """Print tables at their full width: folded into a narrow terminal, names could not be copied."""
    from rich.measure import Measurement

    console = open_console(markup=False)
    wide = console.options.update(width=1000)
    console.width = max(console.width, Measurement.get(console, wide, view).maximum)
    console.print(view)


def print_fields(fields: dict[str, Any], *, as_json: bool) -> None:
    """Print a card or model in full, as YAML or JSON."""
    if as_json:
        print_json(fields)
        return
    import yaml

    print(printable(yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=100)), end="")
