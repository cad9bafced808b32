"""Tables for the terminal: a finished run and the board."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from uwbench.errors import printable
from uwbench.methods import HEADLINE, METHODS, in_order, metric_name
from uwbench.report.fitted import INTERVAL, Column, FittedTable, FlowingTable
from uwbench.report.geometry import geometry_rows
from uwbench.report.labels import labels_of
from uwbench.report.legend import (
    LEAK_MARK,
    LEAK_MEANING,
    METHOD_NAMES,
    RANKS_MEANING,
    TIE_MEANING,
    UNRANKED_MEANING,
    legend,
    marks,
    ranks_text,
)
from uwbench.report.ranks import certainty, certainty_lines
from uwbench.report.robustness import run_lines
from uwbench.results.averages import AVERAGES, Average, Method, averages

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from uwbench.cards.suite import Suite
    from uwbench.report.board import Board, Row
    from uwbench.results.record import Result, Score


def run_view(
    results: Sequence[Result],
    suite: Suite,
    *,
    methods: Sequence[Method] = (),
    paths: Sequence[object] = (),
    caveats: Sequence[str] = (),
    verbose: bool = False,
) -> RenderableType:
    """Return the end of a run: one table per model, the averages over `suite`, and the folders of the results.

    Scores by other methods than `methods`, which earlier runs left in the results, are named and not shown; without
    `methods`, all are shown.
    `caveats` are those of the protocol, and stand below the scores. With `verbose`, every column: also what the probes
    chose on validation data.
    """
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = []
    earlier = in_order(name for result in results for name in result.scores if methods and name not in methods)
    results = [_by(result, earlier) for result in results]
    labels = labels_of({result.model.fingerprint: result.model for result in results})
    by_model: dict[str, list[Result]] = {}
    for result in results:
        by_model.setdefault(labels[result.model.fingerprint], []).append(result)
    for label, of_model in by_model.items():
        parts.append(run_table(label, of_model, verbose=verbose))
        further = further_table(label, of_model, verbose=verbose)
        parts += [] if further is None else [further]
        for failed in (result for result in of_model if result.status == "failed"):
            reason = failed.error.message if failed.error else "no reason recorded"
            parts.append(Text(printable(f"failed: {failed.task.name}: {reason}"), style="red"))
        layers = layers_table(label, of_model)
        parts += [] if layers is None else [layers]
    parts += [Text(line) for line in run_lines(results)]
    notes = dict.fromkeys(f"{result.task.name}: {note}" for result in results for note in result.notes)
    parts += [Text(printable(f"note: {note}"), style="yellow") for note in notes]
    if any(result.leaked for result in results):
        parts.append(Text(LEAK_MEANING, style="dim"))
    if any(result.scores and result.status in ("ok", "partial") for result in results):
        parts.append(run_averages(by_model, suite, verbose=verbose))
        parts += _caveats(caveats)
    if earlier:
        names = ", ".join(earlier)
        parts.append(Text(f"Scored before by {names}: uwbench leaderboard --method all shows them", style="dim"))
    if paths:
        folders = "\n".join(sorted({f"Results: {path}" for path in paths}))
        parts.append(Text(printable(folders), no_wrap=True, overflow="ignore"))
    return Group(*parts)


def _by(result: Result, left_out: Sequence[Method]) -> Result:
    """Return a result without its scores by some methods."""
    scores = {method: score for method, score in result.scores.items() if method not in left_out}
    return result.model_copy(update={"scores": scores})


def _caveats(caveats: Sequence[str]) -> list[Text]:
    from rich.text import Text

    return [Text(printable(f"caveat: {line}"), style="yellow") for line in caveats]


def run_table(label: str, results: Sequence[Result], *, verbose: bool = False) -> FittedTable:
    """Return one model's table: clips, scores and seconds of each task; failed tasks come last."""
    from rich.text import Text

    finished = [result for result in results if result.status != "failed"]
    failed = [result for result in results if result.status == "failed"]
    blanks = [""] * len(failed)
    scored = {method for result in finished for method in result.scores}
    methods = HEADLINE if not scored or scored & set(HEADLINE) else ()
    tasks = [_task_text(result) for result in (*finished, *failed)]
    columns = [
        Column("Task", tasks, right=False),
        Column("n", [*(f"{result.task.n:,}" for result in finished), *(Text("failed", style="red") for _ in failed)]),
    ]
    for index, method in enumerate(methods):
        scores = [result.scores.get(method) for result in finished]
        numbers = [_number(None if score is None else score.main_score) for score in scores]
        ranges = [_range(None if score is None else score.ci95) for score in scores]
        columns.append(Column(METHOD_NAMES[method], [*numbers, *blanks]))
        columns.append(Column(INTERVAL, [*ranges, *blanks], 1 + index))
    columns.append(Column("s", [*(f"{sum(result.run.seconds.values()):.1f}" for result in finished), *blanks]))
    for method in methods:
        chosen = [_choice_text(result, method) for result in finished]
        columns.append(Column(f"chosen ({METHOD_NAMES[method]})", [*chosen, *blanks], None, right=False))
    return FittedTable(label, columns, verbose)


def further_table(label: str, results: Sequence[Result], *, verbose: bool = False) -> FittedTable | None:
    """Return one model's scores by methods beyond the headline, a row each; None if there are none."""
    rows = [
        (result, method, result.scores[method])
        for result in results
        for method in in_order(result.scores)
        if method not in HEADLINE
    ]
    if not rows:
        return None
    columns = [
        Column("Task", [printable(result.task.name) for result, *_ in rows], right=False),
        Column("Method", [METHODS[method].title for _, method, _ in rows], right=False),
        Column("Metric", [metric_name(score.metric) for *_, score in rows], 2, right=False),
        Column("Score", [_number(score.main_score) for *_, score in rows]),
        Column(INTERVAL, [_range(score.ci95) for *_, score in rows], 1),
        Column("chosen", [_choice_text(result, method) for result, method, _ in rows], None, right=False),
    ]
    return FittedTable(f"{label}: further methods", columns, verbose)


def _choice_text(result: Result, method: Method) -> str:
    score = result.scores.get(method)
    return "" if score is None else printable(chosen_text(score.chosen, several_layers=len(result.model.layers) > 1))


def _task_text(result: Result) -> str:
    state = "" if result.status in ("ok", "failed") else f" ({result.status})"
    return printable(f"{result.task.name}{LEAK_MARK if result.leaked else ''}{state}")


def layers_table(label: str, results: Sequence[Result]) -> FlowingTable | None:
    """Return one model's MLP scores by layer, one column per task; None if the layers were not probed.

    A layer's score is that of the first seed. Two more rows have the scores, over all seeds, of the layer that is best
    on validation and of the trained sum of all layers; one more that of attention over the segments of all, if any.
    """
    swept = {r.task.name: r.scores["mlp"] for r in results if "mlp" in r.scores and r.scores["mlp"].layers}
    if not swept:
        return None
    layers = list(dict.fromkeys(layer for score in swept.values() for layer in score.layers or ()))
    further = {
        name: row
        for name, row in (("best layer", "best on validation"), ("weighted layers", "weighted sum of all"))
        if any(name in score.raw for score in swept.values())
    }
    attentive = [(result.task.name, result.scores.get("attentive")) for result in results]
    attended = {task: score.raw["all layers"] for task, score in attentive if score and "all layers" in score.raw}
    rows = [*layers, *further.values(), *(["attention over all"] if attended else [])]
    names = Column("Layer", [printable(name) for name in rows], right=False)
    columns = [
        Column(
            printable(task),
            [
                *(_number((score.layers or {}).get(layer)) for layer in layers),
                *(_further(score, name) for name in further),
                *([_number(attended.get(task))] if attended else []),
            ],
        )
        for task, score in swept.items()
    ]
    return FlowingTable(f"{label}: layers, {METHOD_NAMES['mlp']}, one seed", names, columns)


def _further(score: Score, name: str) -> str:
    if name not in score.raw:
        return "–"
    layer = f" ({score.chosen['best_layer']})" if name == "best layer" and "best_layer" in score.chosen else ""
    return f"{score.raw[name]:.3f}{layer}"


def run_averages(by_model: Mapping[str, Sequence[Result]], suite: Suite, *, verbose: bool = False) -> FittedTable:
    """Return the averages of each model's results over a suite, with the number of tasks in each."""
    labels, methods, rows = [], [], []
    for label, of_model in by_model.items():
        for method in METHODS:
            scored = [result for result in of_model if result.status in ("ok", "partial") and method in result.scores]
            values = averages(scored, suite, method)
            if values:
                labels.append(label)
                methods.append(METHODS[method].short)
                rows.append(values)
    names = [Column("Model", labels, right=False), Column("Method", methods, right=False)]
    return FittedTable(f"Averages over {suite.title}", [*names, *_average_columns(rows)], verbose)


def _average_columns(rows: Sequence[Mapping[str, Average | None]]) -> list[Column]:
    """Return the columns of the averages: the headline with its interval first, then as many as fit."""
    columns = []
    for index, (name, text) in enumerate(AVERAGES.items()):
        values = [row.get(name) for row in rows]
        scores = [_number(None if value is None else value.score) for value in values]
        columns.append(Column(text.short, scores, 2 + index if index else 0))
        columns.append(Column(INTERVAL, [_range(_bounds(value)) for value in values], 6 + index if index else 2))
    headline = [row.get("weighted") for row in rows]
    columns.append(Column("Tasks", ["" if value is None else _count_text(value) for value in headline], 1))
    return columns


def board_view(board: Board, *, verbose: bool = False) -> RenderableType:
    """Return the board for a terminal: averages per method, task scores, and what is off the board."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [
        Text(f"{board.suite.title} · protocol {board.protocol}, version {board.protocol_version}", style="bold")
    ]
    parts += [Text(printable(line), no_wrap=True, overflow="ignore") for line in board.elsewhere]
    parts += [_board_averages(board, method, verbose=verbose) for method in board.first_methods]
    if board.models:
        parts.append(_board_tasks(board))
        if "geometry" in board.first_methods and (correlations := _geometry_table(board)) is not None:
            parts.append(correlations)
        lines = [line for method in board.first_methods for line in legend(board, method)]
        if any(row.standing is not None and row.standing.tied for row in board.rows):
            lines.insert(0, TIE_MEANING)
        if any(row.scope == "suite" and row.rank is None for row in board.rows):
            lines.insert(0, UNRANKED_MEANING)
        if any(row.standing is not None for row in board.rows):
            lines.insert(0, RANKS_MEANING)
        parts += [Text(printable(line)) for line in certainty_lines(board, certainty(board), verbose=verbose)]
        parts += [Text(line, style="dim") for line in dict.fromkeys(lines)]
        parts += _caveats(board.caveats)
    others = [method for method in board.methods if method not in board.first_methods]
    if others:
        parts.append(Text(f"also scored by {', '.join(others)}: --method shows them", style="dim"))
    parts += [Text(printable(f"note: {note}"), style="yellow") for note in board.notes]
    for off in board.off:
        line = f"off the board: {off.model}, {off.task} ({off.status}): {off.reason}"
        parts.append(Text(printable(line), style="yellow"))
    parts += [Text(printable(f"cannot be read: {problem}"), style="bold red") for problem in board.problems]
    return Group(*parts)


def _board_averages(board: Board, method: Method, *, verbose: bool) -> FittedTable:
    rows = [row for model in board.models if (row := board.row(model.key, method, "weighted")) is not None]
    rows.sort(key=lambda row: (row.rank is None, row.rank or 0))
    values = [
        {name: average.average for name in AVERAGES if (average := board.row(row.model, method, name)) is not None}
        for row in rows
    ]
    ranks = Column("#", [_rank_text(row) for row in rows])
    names = Column("Model", [board.label(row.model) for row in rows], right=False)
    certain = [Column("ranks", [ranks_text(row) for row in rows], 3)] if any(row.standing for row in rows) else []
    columns = [ranks, *certain, names, *_average_columns(values)]
    return FittedTable(f"{METHOD_NAMES[method]}: averages", columns, verbose)


def _board_tasks(board: Board) -> FlowingTable:
    """Return the task scores: models as rows, one column per task."""
    title = "Tasks: " + " / ".join(METHOD_NAMES[method] for method in board.first_methods)
    columns = []
    for task in board.tasks:
        cells = [f"{task.info.n:,}"]
        for model in board.models:
            by_method = [board.cell(model.key, task.info.name, method) for method in board.first_methods]
            mark = next((marks(cell) for cell in by_method if cell is not None), "")
            scores = [_number(None if cell is None else cell.score.main_score) for cell in by_method]
            cells.append(" / ".join(scores) + mark)
        columns.append(Column(task.info.name, cells))
    names = Column("Model", ["n", *(model.label for model in board.models)], right=False)
    return FlowingTable(title, names, columns)


def _geometry_table(board: Board) -> FlowingTable | None:
    """Return the rank correlation of each figure of geometry with each method's scores; None if there is none."""
    rows = geometry_rows(board)
    taus = {(row.figure, row.method, row.over): f"{row.tau:.2f}" for row in rows}
    figures = list(dict.fromkeys(row.figure for row in rows))
    columns = [
        Column(f"{METHODS[method].short}, {over}", [taus.get((figure, method, over), "–") for figure in figures])
        for method, over in dict.fromkeys((row.method, row.over) for row in rows)
    ]
    names = Column("tau-b with scores, over", figures, right=False)
    return FlowingTable("Geometry and scores", names, columns) if rows else None


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
    {"fold", "validation", "validation_clips", "validation_metric", "trained_on", "layers_on_validation", "all_layers"}
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


def html_of(view: RenderableType) -> str:
    """Return a terminal view as an HTML fragment, for notebooks."""
    import io

    from rich.console import Console

    # A console that knew that it is in a notebook would also show the view there itself.
    console = Console(file=io.StringIO(), record=True, width=200, highlight=False, force_jupyter=False)
    console.print(view)
    return console.export_html(inline_styles=True, code_format="<pre>{code}</pre>")


def _number(score: float | None) -> str:
    return "–" if score is None else f"{score:.3f}"


def _range(bounds: tuple[float, float] | None) -> Text:
    from rich.text import Text

    return Text("" if bounds is None else f"{bounds[0]:.3f}–{bounds[1]:.3f}", style="dim")


def _bounds(average: Average | None) -> tuple[float, float] | None:
    if average is None or average.low is None or average.high is None:
        return None
    return average.low, average.high


def _count_text(average: Average) -> str:
    return f"{len(average.tasks)} of {average.of}"


def _rank_text(row: Row) -> str:
    if row.rank is None:
        return "–"
    tied = row.standing is not None and any(row.standing.tied)
    return f"{row.rank}{'=' if tied else ''}"
