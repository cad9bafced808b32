"""Commands that read results: the leaderboard, comparisons, and the table that ends a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from uwbench.base.registry import suggestion
from uwbench.cli.options import (
    Cache,
    Device,
    Json,
    Models,
    Protocol,
    Results,
    Suite,
    Tasks,
    print_json,
    split_names,
)
from uwbench.errors import UsageError, printable

if TYPE_CHECKING:
    from uwbench.cards.suite import Suite as SuiteCard
    from uwbench.pipeline import Report
    from uwbench.report.board import Board

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
    app.command()(inflation)
    app.command()(figures)
    app.command("card")(model_card)


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
    contaminated: Annotated[
        str,
        typer.Option("--contaminated", help="keep: mark scores of tasks that a model was trained on; drop: leave out."),
    ] = "keep",
    as_json: Json = False,
) -> None:
    """Rank the models that have results: averages, intervals, ties, tasks."""
    chosen = _format(form, output, as_json)
    if contaminated not in ("keep", "drop"):
        raise UsageError(f"{contaminated!r} is not one of keep, drop", where="--contaminated")
    board = _board(results, merge, suite, protocol, references=references, drop=contaminated == "drop")
    if chosen is None:
        from uwbench.cli.progress import open_console
        from uwbench.report.table import board_view

        open_console().print(board_view(board))
        return
    text = _render(board, chosen, _audio_folders(audio))
    if output is None:
        print(text, end="")
        return
    from uwbench.base.atomic import write_atomically

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
    _print(found)


def sensitivity(
    suite: Suite = None,
    protocol: Protocol = "uwbench-1",
    method: Method = "mlp",
    results: Results = None,
    merge: Merge = None,
    as_json: Json = False,
) -> None:
    """Show how ranks depend on choices: averages, Borda, the probe's settings, without each task and domain."""
    from dataclasses import asdict

    from uwbench.report.sensitivity import sensitivity, sensitivity_view

    board = _board(results, merge, suite, protocol, references=False)
    found = sensitivity(board, _method(method))
    if found is None:
        raise UsageError("fewer than two models hold the same tasks", remedy="run the tasks that are missing")
    if as_json:
        print_json(asdict(found))
        return
    _print(sensitivity_view(board, found))


def inflation(
    task: Tasks = None,
    model: Models = None,
    seeds: Annotated[int, typer.Option("--seeds", min=2, help="Probe seeds, of each of the two rules.")] = 20,
    device: Device = "auto",
    cache: Cache = None,
    as_json: Json = False,
) -> None:
    """Measure how much choosing on test data, as X-ARES does, inflates a score, on embeddings in the cache."""
    from dataclasses import asdict

    from uwbench import api
    from uwbench.cache.clip_table import read_table
    from uwbench.cache.store import open_encoders
    from uwbench.cards.find import find_protocol
    from uwbench.pipeline import choose_stores
    from uwbench.probes.selection_bias import measure_inflation

    root = api.folders(cache, None, None).cache
    stores = choose_stores(open_encoders(root)[0], split_names(model), root)
    protocol = find_protocol("xares-0.1.3")
    names = split_names(task)
    found = []
    for store in stores:
        for name in names or store.tasks():
            manifest = store.manifest(name)
            if manifest is None:
                continue
            table = read_table(root, manifest.table)
            if names or table.card.folds is not None:
                found.append(measure_inflation(store, table, protocol, seeds=range(seeds), device=device))
    if not found:
        raise UsageError("no k-fold task is in the cache", remedy="run uwbench extract first, and name tasks with -t")
    if as_json:
        print_json([asdict(one) for one in found])
        return
    table = _table(f"X-ARES's probe over {seeds} seeds", "task", "model", "on test", "on validation", "inflation")
    for one in found:
        spread = f"{one.difference:+.4f} [{one.low:+.4f}, {one.high:+.4f}]"
        table.add_row(one.task, one.model, f"{one.on_test:.4f}", f"{one.on_validation:.4f}", spread)
    _print(table)


def figures(
    output: Annotated[Path, typer.Option("--output", help="The folder to write into.")],
    suite: Suite = None,
    protocol: Protocol = "uwbench-1",
    results: Results = None,
    merge: Merge = None,
    form: Annotated[str, typer.Option("--format", help="svg, png, pdf, or several.")] = "svg,png",
) -> None:
    """Write the board's figures for a paper, and its LaTeX table."""
    from uwbench.report.figures import write_figures

    board = _board(results, merge, suite, protocol, references=False)
    for path in write_figures(board, output, formats=split_names([form])):
        print(path)


def model_card(
    model: Annotated[str, typer.Argument(help="A model on the board.")],
    suite: Suite = None,
    protocol: Protocol = "uwbench-1",
    results: Results = None,
    merge: Merge = None,
    form: Annotated[
        str, typer.Option("--format", help="hf: model-index; eval: .eval_results; mteb: MTEB's JSON.")
    ] = "hf",
) -> None:
    """Print a model's scores for its Hugging Face card, or as MTEB keeps them."""
    from uwbench.report.model_card import mteb_results, render_eval_results, render_model_index

    board = _board(results, merge, suite, protocol, references=False)
    if form == "mteb":
        print_json(mteb_results(board, model))
    elif form in ("hf", "eval"):
        print(printable((render_model_index if form == "hf" else render_eval_results)(board, model)), end="")
    else:
        raise UsageError(f"{form!r} is not one of hf, eval, mteb", where="--format")


def print_report(report: Report, suite: str | None, *, as_json: bool) -> None:
    """Print what ends a run: a table a model, averages, and where the results are."""
    from uwbench.cli.progress import open_console
    from uwbench.report.board import suite_of
    from uwbench.report.table import run_view

    found = [result for _, result in report.results]
    if as_json:
        print_json([result.model_dump(mode="json", by_alias=True) for result in found])
        return
    if not found:
        return
    card = _suite(suite) or suite_of([result.task.name for result in found])
    open_console().print(run_view(found, card, paths=[path.parent for path, _ in report.results]))


def _board(
    results: Path | None,
    merge: list[Path] | None,
    suite: str | None,
    protocol: str,
    *,
    references: bool,
    drop: bool = False,
) -> Board:
    from uwbench import api
    from uwbench.report.board import build_board

    folder = api.folders(None, None, results).results
    return build_board(
        [folder, *(merge or [])],
        suite=_suite(suite),
        protocol=protocol,
        references=references,
        contaminated="drop" if drop else "keep",
    )


def _suite(name: str | None) -> SuiteCard | None:
    from uwbench.cards.find import find_suite

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


def _table(title: str, *columns: str) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(Text(column), justify="right" if index else "left")
    return table


def _print(table: Any) -> None:
    from uwbench.cli.progress import open_console

    open_console(markup=False).print(table)
