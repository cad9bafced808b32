"""The commands that read results: leaderboard, compare, sensitivity, figures, card, inflation."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from uwbench import api
from uwbench.api import Column, FittedTable, UsageError, counted, printable
from uwbench.cli import options as opt
from uwbench.cli.tables import print_view

if TYPE_CHECKING:
    from uwbench.report.leaderboard import Leaderboard


class BoardFormat(StrEnum):
    """A file format of the leaderboard."""

    CSV = "csv"
    MD = "md"
    HTML = "html"
    JSON = "json"


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command()(leaderboard)
    app.command()(compare)
    app.command()(sensitivity)
    app.command(hidden=True)(inflation)  # a study of X-ARES's protocol, not a step of a benchmark
    app.command()(figures)
    app.command("card")(model_card)


def leaderboard(
    suite: opt.Suite = None,
    protocol: opt.Protocol = "uwbench-1",
    results: opt.Results = None,
    merge: opt.Merge = None,
    form: Annotated[
        BoardFormat | None, typer.Option("--format", help="By default, a table, or what --output ends in.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", help="Write to this file instead of printing.")] = None,
    audio: Annotated[
        list[str] | None,
        typer.Option("--audio", metavar="TASK=FOLDER", help="Let the HTML page play a task's hardest clips. Repeat."),
    ] = None,
    method: opt.ShownMethods = None,
    references: Annotated[bool, typer.Option(help="Show published rows beside the results.")] = True,
    contaminated: Annotated[
        api.Contaminated,
        typer.Option("--contaminated", help="Mark scores of tasks that a model was trained on, or leave them out."),
    ] = api.Contaminated.KEEP,
    margin: Annotated[
        float | None,
        typer.Option("--margin", metavar="POINTS", help="Test which models are equal within so many points."),
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the HTML page of --output in the browser.")] = False,
    verbose: opt.Verbose = False,
    as_json: opt.Json = False,
) -> None:
    """Rank the models that have results: averages, intervals, ties, tasks."""
    chosen = BoardFormat.JSON if as_json else form or _format_of(output)
    if open_page and (output is None or chosen is not BoardFormat.HTML):
        raise UsageError("needs a page to open; add --output board.html", where="--open")
    folders = _audio_folders(audio)
    ranking = api.leaderboard(
        _result_folders(results, merge),
        suite=suite,
        protocol=protocol,
        references=references,
        contaminated=contaminated,
        margin=margin,
        methods=None if method is None else opt.split_commas(method),
    )
    if chosen is None:
        print_view(ranking.view(verbose=verbose))
        return
    text = _render(ranking, chosen, output, folders)
    if text is not None:
        print(text, end="")
    else:
        models, tasks = len(ranking.board.models), len(ranking.board.tasks)
        print(printable(f"{output}: {counted(models, 'model')}, {counted(tasks, 'task')}"))
    if open_page and output is not None:
        import webbrowser

        webbrowser.open(output.resolve().as_uri())


def compare(
    first: Annotated[str, typer.Argument(help="A model on the leaderboard.")],
    second: Annotated[str, typer.Argument(help="Another model on the leaderboard.")],
    suite: opt.Suite = None,
    protocol: opt.Protocol = "uwbench-1",
    method: opt.Method = "mlp",
    results: opt.Results = None,
    merge: opt.Merge = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Show how many more clips or tasks would tell the two apart.")
    ] = False,
    verbose: opt.Verbose = False,
    as_json: opt.Json = False,
) -> None:
    """Compare two models on the tasks that both have: paired bootstrap, Holm's correction, effect sizes."""
    folders = _result_folders(results, merge)
    comparison = api.compare(first, second, method=method, results=folders, suite=suite, protocol=protocol)
    if as_json:
        opt.print_json({**asdict(comparison), **({"plan": asdict(comparison.plan())} if plan else {})})
        return
    print_view(comparison.view(verbose=verbose))
    if plan:
        print_view(comparison.plan().view(verbose=verbose))


def sensitivity(
    suite: opt.Suite = None,
    protocol: opt.Protocol = "uwbench-1",
    method: opt.Method = "mlp",
    results: opt.Results = None,
    merge: opt.Merge = None,
    as_json: opt.Json = False,
) -> None:
    """Show how ranks depend on choices: averages, Borda count, probe settings, leaving out each task and domain."""
    ranking = api.leaderboard(_result_folders(results, merge), suite=suite, protocol=protocol, references=False)
    ranks = ranking.sensitivity(method=method)
    if ranks is None:
        raise UsageError("fewer than two models have the same tasks", remedy="run the missing tasks")
    if as_json:
        opt.print_json(asdict(ranks))
        return
    print_view(api.sensitivity_view(ranking.board, ranks))


def inflation(
    task: opt.Tasks = None,
    model: opt.Models = None,
    seeds: Annotated[int, typer.Option("--seeds", min=2, help="Probe seeds for each of the two rules.")] = 20,
    device: opt.Device = "auto",
    cache: opt.Cache = None,
    verbose: opt.Verbose = False,
    as_json: opt.Json = False,
) -> None:
    """Measure how much choosing on test data, as X-ARES does, inflates a score, on embeddings in the cache."""
    tasks = [str(spec.source) for spec in opt.task_specs(task)]
    rows = api.measure_inflation(tasks, opt.model_names(model), seeds=seeds, device=device, cache=cache)
    if as_json:
        opt.print_json([asdict(row) for row in rows])
        return
    columns = [
        Column("task", [printable(row.task) for row in rows], right=False),
        Column("model", [printable(row.model) for row in rows], right=False),
        Column("on test", [f"{row.on_test:.4f}" for row in rows], 2),
        Column("on validation", [f"{row.on_validation:.4f}" for row in rows], 2),
        Column("inflation", [f"{row.difference:+.4f} [{row.low:+.4f}, {row.high:+.4f}]" for row in rows], 1),
    ]
    print_view(FittedTable(f"X-ARES's probe over {seeds} seeds", columns, verbose))


def figures(
    output: Annotated[Path, typer.Option("--output", help="The folder to write into.")],
    suite: opt.Suite = None,
    protocol: opt.Protocol = "uwbench-1",
    results: opt.Results = None,
    merge: opt.Merge = None,
    form: Annotated[
        str, typer.Option("--format", metavar="<svg|png|pdf>", help="One format, or several separated by commas.")
    ] = "svg,png",
) -> None:
    """Write the leaderboard's figures for a paper, and its LaTeX table."""
    folders = _result_folders(results, merge)
    formats = opt.split_commas(form)
    for path in api.write_figures(output, formats=formats, results=folders, suite=suite, protocol=protocol):
        print(printable(str(path)))


def model_card(
    model: Annotated[str, typer.Argument(help="A model on the leaderboard.")],
    suite: opt.Suite = None,
    protocol: opt.Protocol = "uwbench-1",
    results: opt.Results = None,
    merge: opt.Merge = None,
    form: Annotated[
        api.CardFormat, typer.Option("--format", help="hf: model-index; eval: .eval_results; mteb: MTEB's JSON.")
    ] = api.CardFormat.HF,
) -> None:
    """Print a model's scores for its Hugging Face card, or in MTEB's format."""
    folders = _result_folders(results, merge)
    card = api.model_card(model, format=form, results=folders, suite=suite, protocol=protocol)
    if isinstance(card, str):
        print(printable(card), end="")
    else:
        opt.print_json(card)


def _result_folders(results: Path | None, merge: list[Path] | None) -> list[Path]:
    return [api.folders(results=results).results, *(merge or [])]


def _format_of(output: Path | None) -> BoardFormat | None:
    """Return the format that a file's name ends in; None without a file."""
    if output is None:
        return None
    ending = output.suffix.removeprefix(".")
    if ending not in list(BoardFormat):
        what = f"the file name must end in one of {', '.join(f'.{form}' for form in BoardFormat)}"
        raise UsageError(what, where=f"--output {output}")
    return BoardFormat(ending)


def _audio_folders(pairs: list[str] | None) -> dict[str, Path]:
    folders = {}
    for pair in pairs or ():
        task, mark, folder = pair.partition("=")
        if not mark or not Path(folder).is_dir():
            raise UsageError(f"{pair!r} is not TASK=FOLDER with a folder that exists", where="--audio")
        folders[task] = Path(folder).resolve()
    return folders


def _render(ranking: Leaderboard, form: BoardFormat, output: Path | None, audio: dict[str, Path]) -> str | None:
    """Write the leaderboard to `output`, or return its text."""
    match form:
        case BoardFormat.CSV:
            return ranking.to_csv(output)
        case BoardFormat.MD:
            return ranking.to_markdown(output)
        case BoardFormat.JSON:
            return ranking.to_json(output)
        case BoardFormat.HTML:
            return ranking.to_html(output, audio=audio)
