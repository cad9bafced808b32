"""The board as GitHub Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from uwbench.errors import printable
from uwbench.methods import METHODS, metric_name
from uwbench.report.board import Board, Row
from uwbench.report.geometry import geometry_rows
from uwbench.report.legend import METHOD_NAMES, legend, marks, ranks_text
from uwbench.report.robustness import robustness_tables
from uwbench.results.averages import AVERAGES, Method

NOTE = (
    "Scores are in [0, 1], higher is better, with 95 % bootstrap intervals. Place is 1 + the number of models that are "
    "significantly better (paired bootstrap, Holm): models of one place are tied. Ranks is the 95 % interval of the "
    "true rank, which ends at the number of models that are not significantly worse. An average over other tasks or "
    "other data than the rest carries no rank."
)
ROBUSTNESS_NOTE = (
    "Change of the score when the test clips are corrupted and the probes are those of clean clips, with the 95 % "
    "interval of a bootstrap over the same clips."
)
GEOMETRY_NOTE = (
    "Rank correlation (Kendall's tau-b) of each figure of the vectors' geometry with scores: over the models of a task "
    "or over the layers of a model, three at least; the mean over these sets, with the least and the greatest. A "
    "figure that goes with the scores of these models need not do so for others."
)


def render_markdown(board: Board) -> str:
    """Return the board as GitHub Markdown: averages, task scores, what is off the board, published numbers."""
    lines = [
        f"# {_text(board.suite.title)}",
        "",
        f"Protocol `{board.protocol}`, version {board.protocol_version}. {NOTE}",
    ]
    for method in board.methods:
        lines += ["", f"## {METHOD_NAMES[method]}: averages", "", *_averages_table(board, method)]
        lines += ["", f"## {METHOD_NAMES[method]}: tasks", "", *_tasks_table(board, method)]
        for title, head, rows in robustness_tables(board, method):
            lines += ["", f"### {METHOD_NAMES[method]}: {_text(title)}, corrupted", "", ROBUSTNESS_NOTE, ""]
            lines += _table([_text(name) for name in head], [[_text(cell) for cell in row] for row in rows])
    if rows := geometry_rows(board):
        lines += ["", "## Geometry and scores", "", GEOMETRY_NOTE, ""]
        lines += _table(
            ["figure", "method", "over", "tau-b", "least", "greatest", "sets"],
            [
                [
                    row.figure,
                    METHOD_NAMES[row.method],
                    row.over,
                    *(f"{v:.2f}" for v in (row.tau, row.low, row.high)),
                    str(row.sets),
                ]
                for row in rows
            ],
        )
    if not board.models:
        lines += ["", "No result of this protocol is here yet."]
    elif board.caveats:
        lines += ["", "## Caveats of the protocol", "", *(f"- {_text(caveat)}" for caveat in board.caveats)]
    if board.notes:
        lines += ["", "## Notes on the data", "", *(f"- {_text(note)}" for note in board.notes)]
    if board.off or board.problems:
        lines += ["", "## Off the board", ""]
        lines += [f"- {_text(off.model)}, {_text(off.task)} ({off.status}): {_text(off.reason)}" for off in board.off]
        lines += [f"- {_text(problem)}" for problem in board.problems]
    if board.references:
        lines += ["", "## Published numbers, not run here", "", *_published_table(board)]
    return "\n".join(lines) + "\n"


def _averages_table(board: Board, method: Method) -> list[str]:
    rows = []
    for model in board.models:
        headline = board.row(model.key, method, "weighted")
        if headline is None:
            continue
        cells = [_interval(board.row(model.key, method, name)) for name in AVERAGES]
        count = f"{len(headline.average.tasks)} of {headline.average.of}"
        standing = headline.standing
        rank = "" if headline.rank is None else str(headline.rank)
        place = "" if standing is None else str(standing.place)
        rows.append([rank, place, ranks_text(headline), _text(model.label), *cells, count])
    rows.sort(key=lambda row: (row[0] == "", int(row[0] or 0)))
    return _table(["Rank", "Place", "Ranks", "Model", *(text.name for text in AVERAGES.values()), "Tasks"], rows)


def _tasks_table(board: Board, method: Method) -> list[str]:
    rows = []
    for task in board.tasks:
        cells = []
        for model in board.models:
            cell = board.cell(model.key, task.info.name, method)
            if cell is None:
                cells.append("–")
            else:
                mark = "" if cell.same_data and cell.status == "ok" else "*"
                mark += marks(cell)
                cells.append(_number(cell.score.main_score, cell.score.ci95) + mark)
        outside = "" if task.in_suite else " (outside the suite)"
        metric = metric_name(METHODS[method].metric or task.info.metric)
        rows.append([_text(task.info.title) + outside, task.info.domain, _text(metric), str(task.info.n), *cells])
    lines = _table(["Task", "Domain", "Metric", "n", *(_text(model.label) for model in board.models)], rows)
    if any(not cell.same_data or cell.status != "ok" for cell in board.cells if cell.method == method):
        lines += ["", "\\* scored without some clips, or on other data than the board's other models."]
    for line in legend(board, method):
        lines += ["", _text(line)]
    return lines


def _published_table(board: Board) -> list[str]:
    rows = []
    for published in board.references:
        printed = "; ".join(f"{_text(name)} {score:.3f}" for name, score in published.printed.items()) or "–"
        recomputed = "; ".join(f"{name} {average.score:.3f}" for name, average in published.averages.items()) or "–"
        count = str(len(published.entries)) if published.entries else "–"
        rows.append([_text(published.source), _text(published.model), published.method, printed, recomputed, count])
    return _table(["Source", "Model", "Method", "Averages as published", "Recomputed from its tasks", "Tasks"], rows)


def _interval(row: Row | None) -> str:
    if row is None:
        return "–"
    average = row.average
    return _number(average.score, None if average.low is None or average.high is None else (average.low, average.high))


def _number(score: float, bounds: tuple[float, float] | None) -> str:
    return f"{score:.3f}" if bounds is None else f"{score:.3f} ({bounds[0]:.3f}–{bounds[1]:.3f})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}", *(f"| {' | '.join(row)} |" for row in rows)]


def _text(text: str) -> str:
    """Return `text` escaped so that neither Markdown nor HTML interprets it."""
    safe = printable(" ".join(text.split())).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#~!])", r"\\\1", safe)
