"""Tables for the terminal: a finished run and the board."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from uwbench.encoders.base import IMPORTED
from uwbench.errors import printable
from uwbench.methods import HEADLINE, METHODS, in_order
from uwbench.report.export import LEAK_MARK, LEAK_MEANING, METHOD_NAMES, TIE_MEANING, legend, marks, ranks_text
from uwbench.report.ranks import certainty, certainty_lines
from uwbench.report.robustness import run_lines
from uwbench.results.averages import AVERAGES, Average, Method, averages

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from uwbench.cards.suite import Suite
    from uwbench.report.board import Board, Row
    from uwbench.results.record import Result, Score

_WIDTH = 80  # columns of a terminal


def run_view(results: Sequence[Result], suite: Suite, *, paths: Sequence[object] = ()) -> RenderableType:
    """Return the end of a run: one table per model, the averages over `suite`, and the folders of the results."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = []
    by_model: dict[str, list[Result]] = {}
    for result in results:
        by_model.setdefault(result.model.fingerprint, []).append(result)
    for of_model in by_model.values():
        parts.append(run_table(of_model))
        further = further_table(of_model)
        parts += [] if further is None else [further]
        for failed in (result for result in of_model if result.status == "failed"):
            reason = failed.error.message if failed.error else "no reason recorded"
            parts.append(Text(printable(f"failed: {failed.task.name}: {reason}"), style="red"))
        layers = layers_table(of_model)
        parts += [] if layers is None else [layers]
    parts += [Text(line) for line in run_lines(results)]
    notes = dict.fromkeys(f"{result.task.name}: {note}" for result in results for note in result.notes)
    parts += [Text(printable(f"note: {note}"), style="yellow") for note in notes]
    if any(result.leaked for result in results):
        parts.append(Text(LEAK_MEANING, style="dim"))
    if any(result.scores and result.status in ("ok", "partial") for result in results):
        parts.append(run_averages(list(by_model.values()), suite))
    if paths:
        parts.append(Text("Results: " + ", ".join(sorted({str(path) for path in paths}))))
    return Group(*parts)


def run_table(results: Sequence[Result]) -> Table:
    """Return one model's table: clips, headline scores and seconds of each task; failed tasks come last."""
    from rich.text import Text

    scored = {method for result in results for method in result.scores}
    methods = HEADLINE if not scored or scored & set(HEADLINE) else ()
    table = new_table(Text(_model_text(results[0])))
    table.add_column("Task", overflow="fold")
    table.add_column("n", justify="right")
    for method in methods:
        table.add_column(METHOD_NAMES[method], justify="right", no_wrap=True)
    table.add_column("s", justify="right")
    for result in sorted(results, key=lambda result: result.status == "failed"):
        if result.status == "failed":
            table.add_row(Text(result.task.name), "", Text("failed", style="red"))
            continue
        mark = (LEAK_MARK if result.leaked else "") + ("" if result.status == "ok" else f" ({result.status})")
        table.add_row(
            Text(result.task.name + mark),
            f"{result.task.n:,}",
            *(_score_text(result.scores.get(method)) for method in methods),
            f"{sum(result.run.seconds.values()):.1f}",
        )
    return table


def further_table(results: Sequence[Result]) -> Table | None:
    """Return one model's scores by methods beyond the headline, a row each; None if there are none."""
    from rich.text import Text

    rows = [
        (result.task.name, result.scores[method], METHODS[method].title)
        for result in results
        for method in in_order(result.scores)
        if method not in HEADLINE
    ]
    if not rows:
        return None
    table = new_table(Text(f"{_model_text(results[0])}: further methods"))
    table.add_column("Task", overflow="fold")
    for name in ("Method", "Metric"):
        table.add_column(name, no_wrap=True)
    table.add_column("Score", justify="right", no_wrap=True)
    for task, score, title in rows:
        table.add_row(Text(task), title, score.metric, _score_text(score))
    return table


def layers_table(results: Sequence[Result]) -> Table | None:
    """Return one model's MLP scores by layer, one column per task; None if the layers were not probed.

    A layer's score is that of the first seed. Two more rows have the scores, over all seeds, of the layer that is best
    on validation and of the trained sum of all layers.
    """
    from rich.text import Text

    swept = {r.task.name: r.scores["mlp"] for r in results if "mlp" in r.scores and r.scores["mlp"].layers}
    if not swept:
        return None
    title = f"{_model_text(results[0])}: layers, {METHOD_NAMES['mlp']}, one seed"
    table = new_table(Text(title))
    # Wide enough for the title, which would otherwise be broken into lines.
    table.add_column("Layer", overflow="fold", min_width=min(60, len(title) - 14 * len(swept)))
    for task in swept:
        table.add_column(Text(task, overflow="fold"), justify="right")
    for name in dict.fromkeys(layer for score in swept.values() for layer in score.layers or ()):
        cells = [(score.layers or {}).get(name) for score in swept.values()]
        table.add_row(Text(name), *("–" if value is None else f"{value:.3f}" for value in cells))
    for name, row in (("best layer", "best on validation"), ("weighted layers", "weighted sum of all")):
        if any(name in score.raw for score in swept.values()):
            table.add_row(row, *(_further(score, name) for score in swept.values()))
    return table


def _model_text(result: Result) -> str:
    """Return a model's name, and that its context is trimmed or its vectors were imported if they were."""
    model = result.model
    mark = "trimmed" if model.context == "trimmed" else IMPORTED if model.family == IMPORTED else None
    return printable(f"{model.name} ({mark})" if mark else model.name)


def _further(score: Score, name: str) -> str:
    if name not in score.raw:
        return "–"
    layer = f" ({score.chosen['best_layer']})" if name == "best layer" and "best_layer" in score.chosen else ""
    return f"{score.raw[name]:.3f}{layer}"


def run_averages(by_model: Sequence[Sequence[Result]], suite: Suite) -> Table:
    """Return the averages of each model's results over a suite, with the number of tasks in each."""
    from rich.text import Text

    table = _averages_head(Text(f"Averages over {suite.title}"), ranked=False)
    for of_model in by_model:
        for method in METHODS:
            scored = [result for result in of_model if result.status in ("ok", "partial") and method in result.scores]
            values = averages(scored, suite, method)
            if values:
                cells = [_average_text(values[name]) for name in AVERAGES]
                count = _count_text(values["weighted"])
                table.add_row(Text(_model_text(of_model[0])), METHODS[method].short, *cells, count)
    return table


def board_view(board: Board) -> RenderableType:
    """Return the board for a terminal: averages per method, task scores, and what is off the board."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [
        Text(f"{board.suite.title} · protocol {board.protocol}, version {board.protocol_version}", style="bold")
    ]
    if not board.models:
        parts.append(Text("No result of this protocol is here yet."))
    for method in board.first_methods:
        parts.append(_board_averages(board, method))
    if board.models:
        parts += _board_tasks(board)
        lines = [line for method in board.first_methods for line in legend(board, method)]
        if any(row.standing is not None and row.standing.tied for row in board.rows):
            lines.insert(0, TIE_MEANING)
        parts += [Text(printable(line)) for line in certainty_lines(board, certainty(board))]
        parts += [Text(line, style="dim") for line in dict.fromkeys(lines)]
    others = [method for method in board.methods if method not in board.first_methods]
    if others:
        parts.append(Text(f"also scored by {', '.join(others)}: --method shows them", style="dim"))
    parts += [Text(printable(f"note: {note}"), style="yellow") for note in board.notes]
    for off in board.off:
        line = f"off the board: {off.model}, {off.task} ({off.status}): {off.reason}"
        parts.append(Text(printable(line), style="yellow"))
    parts += [Text(printable(f"cannot be read: {problem}"), style="bold red") for problem in board.problems]
    return Group(*parts)


def _board_averages(board: Board, method: Method) -> Table:
    from rich.text import Text

    rows = [row for model in board.models if (row := board.row(model.key, method, "weighted")) is not None]
    table = _averages_head(Text(f"{METHOD_NAMES[method]}: averages"), ranked=True)
    for row in sorted(rows, key=lambda row: (row.rank is None, row.rank or 0)):
        averages_of_model = [board.row(row.model, method, name) for name in AVERAGES]
        cells = ["–" if average is None else _average_text(average.average) for average in averages_of_model]
        table.add_row(_rank_text(row), Text(board.label(row.model)), *cells, _count_text(row.average))
    return table


def _board_tasks(board: Board) -> Iterator[Table]:
    """Yield tables of task scores, models as rows, with as many tasks side by side as 80 columns hold."""
    from rich.text import Text

    title = "Tasks: " + " / ".join(METHOD_NAMES[method] for method in board.first_methods)
    columns: list[tuple[str, list[str]]] = []
    for task in board.tasks:
        cells = [f"{task.info.n:,}"]
        for model in board.models:
            by_method = [board.cell(model.key, task.info.name, method) for method in board.first_methods]
            mark = next((marks(cell) for cell in by_method if cell is not None), "")
            scores = ["–" if cell is None else f"{cell.score.main_score:.3f}" for cell in by_method]
            cells.append(" / ".join(scores) + mark)
        columns.append((task.info.name, cells))
    names = ["n", *(model.label for model in board.models)]
    room = _WIDTH - max(map(len, names)) - 3
    while columns:
        widths = accumulate(max(len(name), *map(len, cells)) + 3 for name, cells in columns)
        count = max(1, sum(width <= room for width in widths))
        table = new_table(Text(title))
        table.add_column("Model", overflow="fold")
        for name, _ in columns[:count]:
            table.add_column(Text(name), justify="right", no_wrap=True)
        for index, name in enumerate(names):
            table.add_row(Text(name), *(Text(cells[index]) for _, cells in columns[:count]))
        yield table
        columns = columns[count:]


def chosen_text(chosen: Mapping[str, Any], *, several_layers: bool = True) -> str:
    """Return what validation chose in a few words, `layer 4, width 512, rate 0.001`; over folds, the commonest of each.

    Details of the choice (validation clips, their score) are in the result file only, and so is the layer of a model
    that has one.
    """
    hidden = _HIDDEN if several_layers else _HIDDEN | {"layer"}
    visible = {name: value for name, value in chosen.items() if name not in hidden}
    shown = {name: value for name, value in visible.items() if not _folds_of(value)}
    folds = [fold for value in visible.values() for fold in _folds_of(value)]
    for name in dict.fromkeys(name for fold in folds for name in fold if name not in hidden):
        shown[name] = [fold[name] for fold in folds if name in fold]
    return ", ".join(
        f"{_SHORTER.get(name, name.replace('_', ' '))} {_commonest(value)}" for name, value in shown.items()
    )


_HIDDEN = frozenset(
    {"fold", "validation", "validation_clips", "validation_metric", "trained_on", "layers_on_validation"}
)
_SHORTER = {"learning_rate": "rate", "weight_decay": "decay"}


def _folds_of(value: object) -> list[Mapping[str, Any]]:
    values = [value] if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else []
    return [item for item in values if isinstance(item, Mapping)]


def _commonest(value: object) -> str:
    """Return a value as text; of a list (over folds or seeds) the commonest value and its count, or a range of ints."""
    if not isinstance(value, (list, tuple)):
        return f"{value:g}" if isinstance(value, float) else str(value)
    flat = [item for part in value for item in (part if isinstance(part, (list, tuple)) else [part])]
    if any(isinstance(part, (list, tuple)) for part in value) and all(isinstance(item, int) for item in flat):
        return f"{min(flat)}–{max(flat)}" if min(flat) < max(flat) else str(flat[0])
    counts = Counter(_commonest(item) for item in flat)
    first, times = counts.most_common(1)[0] if counts else ("–", 0)
    return first if len(counts) <= 1 else f"{first} ({times} of {counts.total()})"


def new_table(title: Any) -> Table:
    """Return an empty table in the common style."""
    from rich import box
    from rich.table import Table

    return Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)


def text_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Return a table of plain text without markup; the first column is aligned left, the others right."""
    from rich.text import Text

    table = new_table(Text(title))
    for index, column in enumerate(columns):
        table.add_column(Text(column), justify="right" if index else "left")
    for row in rows:
        table.add_row(*(Text(value) for value in row))
    return table


def html_of(view: RenderableType) -> str:
    """Return a terminal view as an HTML fragment, for notebooks."""
    import io

    from rich.console import Console

    # A console that knew that it is in a notebook would also show the view there itself.
    console = Console(file=io.StringIO(), record=True, width=200, highlight=False, force_jupyter=False)
    console.print(view)
    return console.export_html(inline_styles=True, code_format="<pre>{code}</pre>")


def _averages_head(title: Any, *, ranked: bool) -> Table:
    table = new_table(title)
    if ranked:
        table.add_column("#", no_wrap=True)
    table.add_column("Model", overflow="fold")
    if not ranked:
        table.add_column("Method")
    for name in AVERAGES:
        table.add_column(AVERAGES[name].short, justify="right", no_wrap=True)
    table.add_column("Tasks", justify="right", no_wrap=True)
    return table


def _score_text(score: Score | None) -> str:
    if score is None:
        return "–"
    return _with_interval(score.main_score, score.ci95)


def _average_text(average: Average) -> str:
    bounds = None if average.low is None or average.high is None else (average.low, average.high)
    # In 80 columns only the headline has room for its interval; the other formats show them all.
    return _with_interval(average.score, bounds if average.name == "weighted" else None)


def _with_interval(score: float, bounds: tuple[float, float] | None) -> str:
    return f"{score:.3f}" if bounds is None else f"{score:.3f} [dim]{bounds[0]:.3f}–{bounds[1]:.3f}[/dim]"


def _count_text(average: Average) -> str:
    return f"{len(average.tasks)} of {average.of}"


def _rank_text(row: Row) -> str:
    """Return a rank, marked if it is shared and with the interval of the true rank if others are in it: `1= 1–3`."""
    if row.rank is None:
        return "–"
    tied = row.standing is not None and any(row.standing.tied)
    return f"{row.rank}= [dim]{ranks_text(row)}[/dim]" if tied else f"{row.rank}"
