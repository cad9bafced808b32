"""Tables fit the terminal: the most important columns are shown, cells are whole, and nothing is lost unsaid."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from uwbench.report.fitted import Column, FittedTable, FlowingTable

WORDS = st.text("abcdefgh", min_size=1, max_size=24)


@st.composite
def columns(draw: st.DrawFn) -> list[Column]:
    heads = draw(st.lists(WORDS, min_size=1, max_size=6, unique=True))
    rows = draw(st.integers(0, 3))
    cells = [draw(st.lists(WORDS, min_size=rows, max_size=rows)) for _ in heads]
    ranks = [0, *(draw(st.none() | st.integers(1, 4)) for _ in heads[1:])]
    return [Column(head, of_column, rank) for head, of_column, rank in zip(heads, cells, ranks, strict=True)]


def printed(table: object, width: int) -> str:
    out = io.StringIO()
    Console(file=out, width=width, no_color=True).print(table, crop=False)
    return out.getvalue()


def width_of(column: Column) -> int:
    return max(cell_len(str(text)) for text in (column.head, *column.cells))


@given(columns(), st.integers(30, 100))
def test_a_fitted_table_keeps_to_the_width_and_names_what_it_leaves_out(columns: list[Column], width: int) -> None:
    text = printed(FittedTable(None, columns), width)
    table, _, left_out = text.partition("--verbose adds: ")
    hidden = left_out.replace(",", " ").split()
    for column in columns:
        if column.head in hidden:
            assert column.rank != 0
        else:
            assert {column.head, *map(str, column.cells)} <= set(table.split())
    assert max(len(line.rstrip()) for line in table.splitlines()) <= max(width, width_of(columns[0]) + 2)
    whole = printed(FittedTable(None, columns, verbose=True), width)
    assert "--verbose" not in whole
    assert {str(cell) for column in columns for cell in column.cells} <= set(whole.split())


@given(columns(), st.integers(30, 100))
def test_a_flowing_table_shows_every_cell(columns: list[Column], width: int) -> None:
    text = printed(FlowingTable("title", columns[0], columns[1:]), width)
    if len(columns) > 1:
        assert {str(cell) for column in columns for cell in (column.head, *column.cells)} <= set(text.split())
    widest = max((width_of(column) for column in columns[1:]), default=0) + width_of(columns[0]) + 4
    assert max(map(len, text.splitlines()), default=0) <= max(width, widest)
