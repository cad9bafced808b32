"""The tables a terminal shows: a finished run, and the board."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from uwbench.errors import printable
from uwbench.report.export import MARKS, METHOD_NAMES, legend
from uwbench.results.averages import AVERAGES, METHODS, Average, Method, averages

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from uwbench.cards.suite import Suite
    from uwbench.report.board import Board, Row
    from uwbench.results.record import Result, Score

# Names that leave room for the numbers in 80 columns.
SHORT_NAMES = {
    "mlp": "MLP",
    "knn": "kNN",
    "weighted": "Weighted",
    "domain": "Domain",
    "task": "Task",
    "chance": "Chance",
}


def run_view(
    results: Sequence[Result],
    suite: Suite,
    *,
    failures: Sequence[str] = (),
    missing: Sequence[str] = (),
    paths: Sequence[object] = (),
) -> RenderableType:
    """Return what ends a run: a table a model (task, n, scores, choice, seconds), averages, paths, missing and failed
    work.
    """
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = []
    by_model: dict[str, list[Result]] = {}
    for result in results:
        by_model.setdefault(result.model.fingerprint, []).append(result)
    for own in by_model.values():
        parts.append(run_table(own))
        curves = layers_table(own)
        parts += [] if curves is None else [curves]
    if any(result.scores and result.status in ("ok", "partial") for result in results):
        parts.append(run_averages(list(by_model.values()), suite))
    if paths:
        parts.append(Text("Results: " + ", ".join(sorted({str(path) for path in paths}))))
    parts += [Text(f"not there: {line}", style="yellow") for line in missing]
    parts += [Text(f"failed: {line}", style="bold red") for line in failures]
    return Group(*parts)


def run_table(results: Sequence[Result]) -> Table:
    """Return one model's table: task, n, MLP with interval, kNN, what was chosen, seconds; what failed comes last."""
    from rich.text import Text

    table = new_table(Text(_model_text(results[0])))
    table.add_column("Task", overflow="fold")
    table.add_column("n", justify="right")
    for method in METHODS:
        table.add_column(METHOD_NAMES[method], justify="right", no_wrap=True)
    table.add_column("Chosen", overflow="fold")
    table.add_column("s", justify="right")
    for result in sorted(results, key=lambda result: result.status == "failed"):
        if result.status == "failed":
            reason = result.error.message if result.error else "failed"
            table.add_row(Text(result.task.name), "", Text("failed", style="red"), "", Text(reason), "")
            continue
        mark = "" if result.status == "ok" else f" ({result.status})"
        table.add_row(
            Text(result.task.name + mark),
            f"{result.task.n:,}",
            *(_score_text(result.scores.get(method)) for method in METHODS),
            Text(chosen_text(result.scores["mlp"].chosen, several_layers=len(result.model.layers) > 1))
            if "mlp" in result.scores
            else "",
            f"{sum(result.run.seconds.values()):.1f}",
        )
    return table


def layers_table(results: Sequence[Result]) -> Table | None:
    """Return one model's layer curves under the MLP probe, a column a task; None where no layers were swept.

    A layer's score is of the first seed. The best on validation, over all seeds, and a trained sum of all stand below.
    """
    from rich.text import Text

    swept = {r.task.name: r.scores["mlp"] for r in results if "mlp" in r.scores and r.scores["mlp"].layers}
    if not swept:
        return None
    title = f"{_model_text(results[0])}: layers, {METHOD_NAMES['mlp']}, one seed"
    table = new_table(Text(title))
    # As wide as the title, which would be broken over a narrow table.
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
    """Return a model's name, with its context where that is not what it was trained with."""
    model = result.model
    return printable(f"{model.name} (trimmed)" if model.context == "trimmed" else model.name)


def _further(score: Score, name: str) -> str:
    if name not in score.raw:
        return "–"
    which = f" ({score.chosen['best_layer']})" if name == "best layer" and "best_layer" in score.chosen else ""
    return f"{score.raw[name]:.3f}{which}"


def run_averages(by_model: Sequence[Sequence[Result]], suite: Suite) -> Table:
    """Return the averages of each model's results over a suite, with the number of tasks each holds."""
    from rich.text import Text

    table = _averages_head(Text(f"Averages over {suite.title}"), ranked=False)
    for own in by_model:
        for method in METHODS:
            scored = [result for result in own if result.status in ("ok", "partial") and method in result.scores]
            found = averages(scored, suite, method)
            if found:
                cells = [_average_text(found[name]) for name in AVERAGES]
                table.add_row(Text(_model_text(own[0])), SHORT_NAMES[method], *cells, _held(found["weighted"]))
    return table


def board_view(board: Board) -> RenderableType:
    """Return the board for a terminal: averages a method, task scores, what is off the board."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [
        Text(f"{board.suite.title} · protocol {board.protocol}, version {board.protocol_version}", style="bold")
    ]
    if not board.models:
        parts.append(Text("No result of this protocol is here yet."))
    for method in board.methods:
        parts.append(_board_averages(board, method))
    if board.models:
        parts.append(_board_tasks(board))
        lines = [line for method in board.methods for line in legend(board, method)]
        parts += [Text(line, style="dim") for line in dict.fromkeys(lines)]
    parts += [Text(f"off the board: {o.model}, {o.task} ({o.status}): {o.reason}", style="yellow") for o in board.off]
    parts += [Text(f"cannot be read: {problem}", style="bold red") for problem in board.problems]
    return Group(*parts)


def _board_averages(board: Board, method: Method) -> Table:
    from rich.text import Text

    table = _averages_head(Text(f"{METHOD_NAMES[method]}: averages"), ranked=True)
    rows = [row for model in board.models if (row := board.row(model.key, method, "weighted")) is not None]
    for row in sorted(rows, key=lambda row: (row.rank is None, row.rank or 0)):
        found = [board.row(row.model, method, name) for name in AVERAGES]
        cells = [Text("–") if other is None else _average_text(other.average) for other in found]
        table.add_row(_rank_text(row), Text(board.label(row.model)), *cells, _held(row.average))
    return table


def _board_tasks(board: Board) -> Table:
    from rich.text import Text

    table = new_table(Text("Tasks: " + " / ".join(METHOD_NAMES[method] for method in board.methods)))
    table.add_column("Task", overflow="fold")
    table.add_column("n", justify="right")
    for model in board.models:
        table.add_column(Text(model.label, overflow="fold"), justify="right")
    for task in board.tasks:
        cells = []
        for model in board.models:
            found = [board.cell(model.key, task.info.name, method) for method in board.methods]
            mark = next((MARKS.get(cell.contamination.flag, "") for cell in found if cell is not None), "")
            cells.append(" / ".join("–" if cell is None else f"{cell.score.main_score:.3f}" for cell in found) + mark)
        table.add_row(Text(task.info.name), f"{task.info.n:,}", *cells)
    return table


def chosen_text(chosen: Mapping[str, Any], *, several_layers: bool = True) -> str:
    """Return what validation chose in a few words: `layer 4, width 512, rate 0.001`; over folds, the commonest of each.

    How the choice was made (validation clips, their score) is left to the result file, and the layer where there was no
    choice.
    """
    hidden = _HIDDEN if several_layers else _HIDDEN | {"layer"}
    kept = {name: value for name, value in chosen.items() if name not in hidden}
    shown = {name: value for name, value in kept.items() if not _folds_of(value)}
    folds = [fold for value in kept.values() for fold in _folds_of(value)]
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
    """Return a value, or of a list (of folds, of seeds) the commonest and how common it is; of whole numbers their
    range.
    """
    if not isinstance(value, (list, tuple)):
        return f"{value:g}" if isinstance(value, float) else str(value)
    flat = [item for part in value for item in (part if isinstance(part, (list, tuple)) else [part])]
    if any(isinstance(part, (list, tuple)) for part in value) and all(isinstance(item, int) for item in flat):
        return f"{min(flat)}–{max(flat)}" if min(flat) < max(flat) else str(flat[0])
    counts = Counter(_commonest(item) for item in flat)
    first, times = counts.most_common(1)[0] if counts else ("–", 0)
    return first if len(counts) <= 1 else f"{first} ({times} of {counts.total()})"


def new_table(title: Any) -> Table:
    """Return an empty table in the style of every table here."""
    from rich import box
    from rich.table import Table

    return Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)


def text_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Return a table of plain text, in which nothing is read as markup: first column left, the others right."""
    from rich.text import Text

    table = new_table(Text(title))
    for index, column in enumerate(columns):
        table.add_column(Text(column), justify="right" if index else "left")
    for row in rows:
        table.add_row(*(Text(value) for value in row))
    return table


def html_of(view: RenderableType) -> str:
    """Return what a terminal would show as an HTML fragment, for notebooks."""
    import io

    from rich.console import Console

    console = Console(file=io.StringIO(), record=True, width=200, highlight=False)
    console.print(view)
    return console.export_html(inline_styles=True, code_format="<pre>{code}</pre>")


def _averages_head(title: Any, *, ranked: bool) -> Table:
    table = new_table(title)
    if ranked:
        table.add_column("#", justify="right")
    table.add_column("Model", overflow="fold")
    if not ranked:
        table.add_column("Method")
    for name in AVERAGES:
        table.add_column(SHORT_NAMES[name], justify="right", no_wrap=True)
    table.add_column("Tasks", justify="right", no_wrap=True)
    return table


def _score_text(score: Score | None) -> str:
    if score is None:
        return "–"
    return _with_interval(score.main_score, score.ci95)


def _average_text(average: Average) -> str:
    bounds = None if average.low is None or average.high is None else (average.low, average.high)
    # Only the headline has room for its interval in 80 columns; the other formats show them all.
    return _with_interval(average.score, bounds if average.name == "weighted" else None)


def _with_interval(score: float, bounds: tuple[float, float] | None) -> str:
    return f"{score:.3f}" if bounds is None else f"{score:.3f} [dim]{bounds[0]:.3f}–{bounds[1]:.3f}[/dim]"


def _held(average: Average) -> str:
    return f"{len(average.tasks)} of {average.of}"


def _rank_text(row: Row) -> str:
    if row.rank is None:
        return "–"
    tied = row.standing is not None and any(row.standing.tied)
    return f"{row.rank}{'=' if tied else ''}"
