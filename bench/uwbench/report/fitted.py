"""Tables for the terminal that show the columns there is room for, and never cut or fold a cell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.segment import Segment
    from rich.table import Table
    from rich.text import Text


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its head and cells. `rank` 0 is always shown, 1 is the first of the others to be shown.

    A column without a rank is shown only if all are.
    """

    head: str
    cells: Sequence[str | Text]
    rank: int | None = 0
    right: bool = True


INTERVAL = "95 %"  # head of the column of intervals beside a column of scores


@dataclass(frozen=True, slots=True)
class FittedTable:
    """A table of the columns that fit into the terminal, chosen by rank; with `verbose`, of all columns.

    It is wider than the terminal if even the columns of rank 0 are: a name that is cut cannot be copied. A line below
    names the columns that are left out, which --verbose adds.
    """

    title: str | None
    columns: Sequence[Column]
    verbose: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        shown = list(self.columns) if self.verbose else self._fitting(options.max_width)
        yield from _table_of(console, options, self.title, shown)
        left_out = [self._described(index) for index, column in enumerate(self.columns) if column not in shown]
        if left_out:
            yield Text(f"Columns that --verbose adds: {', '.join(dict.fromkeys(left_out))}", style="dim")

    def _described(self, index: int) -> str:
        """Return a column's head; an interval's with that of the column before it, which it belongs to."""
        head = self.columns[index].head
        return f"{head} interval of {self.columns[index - 1].head}" if head == INTERVAL and index else head

    def _fitting(self, width: int) -> list[Column]:
        """Return the columns to show, in their order."""
        shown = [column for column in self.columns if column.rank == 0]
        for column in sorted((c for c in self.columns if c.rank), key=lambda column: column.rank or 0):
            if _width([*shown, column]) <= width:
                shown.append(column)
        return [column for column in self.columns if column in shown]


@dataclass(frozen=True, slots=True)
class FlowingTable:
    """A table whose columns all appear: as many side by side as fit, the others in further tables below.

    Each of these tables starts with the column `names`.
    """

    title: str
    names: Column
    columns: Sequence[Column]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        waiting = list(self.columns)
        while waiting:
            count = 1
            while count < len(waiting) and _width([self.names, *waiting[: count + 1]]) <= options.max_width:
                count += 1
            yield from _table_of(console, options, self.title, [self.names, *waiting[:count]])
            waiting = waiting[count:]


def _table_of(
    console: Console, options: ConsoleOptions, title: str | None, columns: Sequence[Column]
) -> Iterator[RenderableType | Segment]:
    from rich.text import Text

    if title is not None:
        yield Text(title, style="bold")
    yield from console.render(_table(columns), options.update(width=max(options.max_width, _width(columns))))


def _table(columns: Sequence[Column]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(Text(column.head), justify="right" if column.right else "left", no_wrap=True)
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in cells))
    return table


def _width(columns: Sequence[Column]) -> int:
    """Return the width of a table: the widest cell of each column, two spaces between them, one at each edge."""
    from rich.cells import cell_len

    widths = [
        max(cell_len(text if isinstance(text, str) else text.plain) for text in (column.head, *column.cells))
        for column in columns
    ]
    return sum(widths) + 2 * len(widths)
