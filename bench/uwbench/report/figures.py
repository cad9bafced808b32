"""Figures as SVG, PNG and PDF files, and the board as a LaTeX table, for papers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from uwbench.base.atomic import write_atomically
from uwbench.errors import UsageError
from uwbench.report.board import Board
from uwbench.report.charts import FIGURES, chart, chart_rows
from uwbench.report.legend import METHOD_NAMES
from uwbench.results.averages import AVERAGES, Method

_WIDTH = 560  # points; a two-column page
_FONT = "sans-serif"
_CONFIG: dict[str, Any] = {
    "background": "white",
    "font": _FONT,
    "view": {"stroke": None},
    "axis": {"gridColor": "#e3e6ea", "domainColor": "#9aa1ab", "tickColor": "#9aa1ab", "titleFontWeight": "normal"},
    "legend": {"columns": 4},
}
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}


def write_figures(
    board: Board, folder: Path, *, average: str = "weighted", formats: Sequence[str] = ("svg", "png")
) -> list[Path]:
    """Write `<figure>-<method>.<format>` for every figure that the board has data for, and `board.tex`.

    Returns the paths. Raises UsageError for a format that is not svg, png or pdf, and for a board without scores.
    """
    unknown = sorted(set(formats) - {"svg", "png", "pdf"})
    if unknown:
        raise UsageError(f"figures are written as svg, png or pdf, not {unknown[0]}", where="--format")
    if not board.cells:
        raise UsageError("the board has no scores to draw", remedy="run uwbench run first")
    written = []
    for method in board.methods:
        for figure in FIGURES:
            spec = figure_spec(board, figure, method, average)
            if spec is None:
                continue
            for extension in formats:
                path = folder / f"{figure}-{method}.{extension}"
                write_atomically(path, _drawn(spec, extension))
                written.append(path)
    table = folder / "board.tex"
    write_atomically(table, render_latex(board).encode())
    return [*written, table]


def figure_spec(board: Board, figure: str, method: Method, average: str) -> dict[str, Any] | None:
    """Return a complete specification with its rows, as wide as a page, or None if the board has no data for it."""
    rows = chart_rows(board, figure, method, average)
    needed = {"throughput": "clips_per_s", "size": "parameters"}.get(figure, "score")
    rows = [row for row in rows if row[needed] is not None and (needed == "score" or row[needed] > 0)]
    if not rows:
        return None
    spec = {**chart(board, figure, method, average, rows), "data": {"values": rows}, "config": _CONFIG}
    if spec.get("width") == "container":
        spec["width"] = _WIDTH
    return spec


def _drawn(spec: dict[str, Any], extension: str) -> bytes:
    import vl_convert

    text = json.dumps(spec, allow_nan=False)
    if extension == "svg":
        return vl_convert.vegalite_to_svg(text).encode()
    if extension == "pdf":
        return vl_convert.vegalite_to_pdf(text)
    return vl_convert.vegalite_to_png(text, scale=2)


def render_latex(board: Board) -> str:
    """Return one booktabs table per method: each model's averages with intervals, the best ranked one in bold."""
    lines = ["% Needs \\usepackage{booktabs}."]
    for method in board.methods:
        caption = f"{board.suite.title}: {METHOD_NAMES[method]}, protocol {board.protocol}, 95 % bootstrap intervals."
        lines += [
            r"\begin{table}",
            r"\centering",
            r"\begin{tabular}{l" + "r" * (len(AVERAGES) + 1) + "}",
            r"\toprule",
            " & ".join(["Model", *(text.name for text in AVERAGES.values()), "Tasks"]) + r" \\",
            r"\midrule",
            *(
                _latex_row(board, model.key, method)
                for model in board.models
                if board.row(model.key, method, "weighted")
            ),
            r"\bottomrule",
            r"\end{tabular}",
            rf"\caption{{{_latex(caption)}}}",
            r"\end{table}",
        ]
    return "\n".join(lines) + "\n"


def _latex_row(board: Board, model: str, method: Method) -> str:
    cells = [_latex(board.label(model))]
    for name in AVERAGES:
        row = board.row(model, method, name)
        if row is None:
            cells.append("--")
            continue
        number = f"{row.average.score:.3f}"
        shown = rf"\textbf{{{number}}}" if row.rank == 1 else number
        if row.average.low is not None and row.average.high is not None:
            shown += rf" {{\scriptsize [{row.average.low:.3f}, {row.average.high:.3f}]}}"
        cells.append(shown)
    first = board.row(model, method, "weighted")
    cells.append("--" if first is None else f"{len(first.average.tasks)} of {first.average.of}")
    return " & ".join(cells) + r" \\"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)
