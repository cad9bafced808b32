"""Commands that read results: the leaderboard, comparisons, and the table that ends a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from uwbench.cli_options import Json, Protocol, Results, Suite, print_json
from uwbench.errors import UsageError
from uwbench.registry import suggestion

if TYPE_CHECKING:
    from uwbench.card import Suite as SuiteCard
    from uwbench.report.board import Board
    from uwbench.report.compare import Comparison
    from uwbench.run import Report

_FORMATS = ("csv", "md", "html", "json")

Method = Annotated[str, typer.Option("--method", help="mlp or knn.")]
Merge = Annotated[
    list[Path] | None, typer.Option("--merge", help="A further results folder, from another machine. Repeat.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command()(leaderboard)
    app.command()(compare)
    app.command()(sensitivity)


def leaderboard(
    suite: Suite = None,
    protocol: Protocol = "uwbench-1",
    results: Results = None,
    merge: Merge = None,
    form: Annotated[str | None, typer.Option("--format", help="csv, md, html or json; a table without it.")] = None,
    output: Annotated[Path | None, typer.Option("--output", help="Write here instead of printing.")] = None,
    audio: Annotated[
        list[str] | None,
        typer.Option("--audio", help="TASK=FOLDER: let the HTML page play the hardest clips from there."),
    ] = None,
    references: Annotated[bool, typer.Option(help="Show published rows beside the results.")] = True,
    as_json: Json = False,
) -> None:
    """Rank the models that have results: averages, intervals, ties, tasks."""
    chosen = _format(form, output, as_json)
    board = _board(results, merge, suite, protocol, references=references)
    if chosen is None:
        from rich.console import Console

        from uwbench.report.table import board_view

        Console(highlight=False).print(board_view(board))
        return
    text = _render(board, chosen, _audio_folders(audio))
    if output is None:
        print(text, end="")
        return
    from uwbench.files import write_atomically

    write_atomically(output, text.encode())
    print(f"{output}: {len(board.models)} models, {len(board.tasks)} tasks")


def compare(
    first: Annotated[str, typer.Argument(help="A model on the board.")],
    second: Annotated[str, typer.Argument(help="Another model on the board.")],
    suite: Suite = None,
    protocol: Protocol = "uwbench-1",
    method: Method = "mlp",
    results: Results = None,
    merge: Merge = None,
    as_json: Json = False,
) -> None:
    """Compare two models on the tasks both hold: paired bootstrap, Holm's correction, effect sizes."""
    from dataclasses import asdict

    from uwbench.report.compare import compare_models

    board = _board(results, merge, suite, protocol, references=False)
    found = compare_models(board, first, second, _method(method))
    if as_json:
        print_json(asdict(found))
        return
    _print_comparison(found)


def sensitivity(
    suite: Suite = None,
    protocol: Protocol = "uwbench-1",
    method: Method = "mlp",
    results: Results = None,
    merge: Merge = None,
    as_json: Json = False,
) -> None:
    """Show how ranks depend on the average and the tasks: the four averages, Borda, without each task and domain."""
    from dataclasses import asdict

    from uwbench.report.sensitivity import sensitivity

    board = _board(results, merge, suite, protocol, references=False)
    found = sensitivity(board, _method(method))
    if found is None:
        raise UsageError("fewer than two models hold the same tasks", remedy="run the tasks that are missing")
    if as_json:
        print_json(asdict(found))
        return
    table = _table(
        f"Ranks under other views ({method})", "view", *(board.label(model) for model in found.models), "tau"
    )
    for view in found.views:
        ranks = [str(view.ranks[model]) for model in found.models]
        table.add_row(f"{view.kind} {view.name}", *ranks, "-" if view.tau is None else f"{view.tau:.2f}")
    _print(table)


def print_report(report: Report, suite: str | None, *, as_json: bool) -> None:
    """Print what ends a run: a table a model, averages, and where the results are."""
    from rich.console import Console

    from uwbench.report.board import suite_of
    from uwbench.report.table import run_view

    found = [result for _, result in report.results]
    if as_json:
        print_json([result.model_dump(mode="json", by_alias=True) for result in found])
        return
    if not found:
        return
    card = _suite(suite) or suite_of([result.task.name for result in found])
    Console(highlight=False).print(run_view(found, card, paths=[path.parent for path, _ in report.results]))


def _board(
    results: Path | None, merge: list[Path] | None, suite: str | None, protocol: str, *, references: bool
) -> Board:
    from uwbench import api
    from uwbench.report.board import build_board

    folder = api.folders(None, None, results).results
    return build_board([folder, *(merge or [])], suite=_suite(suite), protocol=protocol, references=references)


def _suite(name: str | None) -> SuiteCard | None:
    from uwbench.card import find_suite

    return find_suite(name) if name else None


def _method(method: str) -> Any:
    if method not in ("mlp", "knn"):
        raise UsageError(f"{method!r} is not mlp or knn", where="--method")
    return method


def _format(form: str | None, output: Path | None, as_json: bool) -> str | None:
    """Return the format asked for: by --format, --json, or the ending of --output."""
    if as_json:
        return "json"
    if form is None and output is not None:
        form = output.suffix.removeprefix(".")
    if form is not None and form not in _FORMATS:
        raise UsageError(
            f"{form!r} is not one of {', '.join(_FORMATS)}", where="--format", remedy=suggestion(form, _FORMATS)
        )
    return form


def _audio_folders(pairs: list[str] | None) -> dict[str, Path]:
    folders = {}
    for pair in pairs or ():
        task, mark, folder = pair.partition("=")
        if not mark or not Path(folder).is_dir():
            raise UsageError(f"{pair!r} is not TASK=FOLDER with a folder that exists", where="--audio")
        folders[task] = Path(folder).resolve()
    return folders


def _render(board: Board, form: str, audio: dict[str, Path]) -> str:
    from uwbench.report.export import render_csv, render_json, render_markdown

    if form == "html":
        from uwbench.report.html import render_html

        return render_html(board, audio=audio)
    return {"csv": render_csv, "md": render_markdown, "json": render_json}[form](board)


def _print_comparison(found: Comparison) -> None:
    table = _table(
        f"{found.first} against {found.second} ({found.method}), {len(found.tasks)} of {found.of} tasks",
        "task",
        found.first,
        found.second,
        "difference",
        "p",
        "p (Holm)",
        "effect h",
    )
    for row in found.tasks:
        between = "" if row.low is None or row.high is None else f" [{row.low:+.3f}, {row.high:+.3f}]"
        ps = ["-" if p is None else f"{p:.4f}" for p in (row.p, row.p_corrected)]
        difference = f"{row.difference:+.3f}{between}"
        table.add_row(row.task, f"{row.first:.3f}", f"{row.second:.3f}", difference, *ps, f"{row.effect:+.2f}")
    _print(table)
    averages = _table(
        "Averages", "average", found.first, found.second, "these tasks", "p", "tasks like these", "p", "ahead"
    )
    for row in found.overall:
        these = f"{row.difference:+.3f} [{row.low:+.3f}, {row.high:+.3f}]"
        like = f"[{row.tasks_low:+.3f}, {row.tasks_high:+.3f}]"
        averages.add_row(
            row.average,
            f"{row.first:.3f}",
            f"{row.second:.3f}",
            these,
            f"{row.p:.4f}",
            like,
            f"{row.tasks_p:.4f}",
            f"{row.ahead:.0%}",
        )
    _print(averages)
    if found.left_out:
        print(f"left out, not held by both: {', '.join(found.left_out)}")


def _table(title: str, *columns: str) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(Text(column), justify="right" if index else "left")
    return table


def _print(table: Any) -> None:
    from rich.console import Console

    Console(highlight=False, markup=False).print(table)
