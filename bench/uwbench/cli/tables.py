"""Tables and cards on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uwbench.cli.options import print_json
from uwbench.errors import printable

if TYPE_CHECKING:
    from rich.table import Table


def new_table(*columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def print_table(table: Table) -> None:
    """Print a table as wide as it is: folded into a narrow terminal, names come in pieces that nobody can copy."""
    from uwbench.cli.progress import open_console

    console = open_console(markup=False)
    console.width = max(console.width, console.measure(table, options=console.options.update(width=1000)).maximum)
    console.print(table)


def print_fields(fields: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(fields)
        return
    import yaml

    print(printable(yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=100)), end="")
