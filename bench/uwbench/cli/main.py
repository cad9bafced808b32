"""The command `uwbench`: parse, call, print, exit code. What the commands do is in `uwbench.api` and below."""

from __future__ import annotations

import errno
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from uwbench import __version__
from uwbench.cli import board as cli_board
from uwbench.cli import listings as cli_listings
from uwbench.cli.options import (
    AllowMissing,
    AllowOutside,
    BatchSeconds,
    Cache,
    Context,
    Data,
    Device,
    Domain,
    Dtype,
    Engine,
    Force,
    GroupColumn,
    Json,
    Kind,
    Label,
    Layers,
    Limit,
    Method,
    Models,
    Name,
    Pooling,
    Protocol,
    Quiet,
    RemoteCode,
    Results,
    Revision,
    Seed,
    Suite,
    Tasks,
    TextEncoder,
    Weights,
    Workers,
    model_specs,
    split_names,
)
from uwbench.cli.signals import leaving_in_time, stopped_by_sigterm
from uwbench.errors import UsageError, UwbenchError, disk_error, printable

if TYPE_CHECKING:
    from uwbench.options import Folders, Options
    from uwbench.pipeline import Report, Reporter

_HELP = """Measure how good a frozen audio encoder is.

    uwbench run -m logmel -s mini                            the built-in suite, no download

    uwbench run -m WHISPER_FOLDER -t my/manifest.csv         own model, own data, no code

    uwbench extract --model uniwhisper --weights DIR --task esc50

    uwbench probe --task esc50

    uwbench leaderboard --format html --output board.html
"""


class Group(TyperGroup):
    """Prints this package's errors as one line and leaves with their exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UwbenchError as error:
            _fail(str(error), error.exit_code)
        except OSError as error:
            if error.errno == errno.EPIPE:  # nobody reads any more; typer leaves without a word
                raise
            failure = disk_error(error)
            _fail(str(failure), failure.exit_code)
        except KeyboardInterrupt:
            _fail(_interrupted(), 1)


class TaskCommand(TyperCommand):
    """A command whose stray words are most likely tasks without `-t`."""

    def invoke(self, ctx: Any) -> Any:
        if ctx.args:
            remedy = f"did you mean {' '.join(f'-t {word}' for word in ctx.args)}?"
            raise UsageError(f"unexpected {' '.join(ctx.args)!r}", remedy=remedy)
        return super().invoke(ctx)


class ListingGroup(Group):
    """A group whose first word may also be a name to show: `uwbench tasks esc50` is `uwbench tasks show esc50`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands:
            args = ["show", *args]
        return super().resolve_command(ctx, args)


def _fail(message: str, code: int) -> NoReturn:
    sys.stdout.flush()
    print(_line(message), file=sys.stderr, flush=True)
    raise SystemExit(code)


def _line(message: str) -> str:
    # Not rich: a message may hold file names with brackets, and must never be read as markup.
    return f"uwbench: {printable(message)}"


def _interrupted() -> str:
    return f"interrupted; what was written is kept, run the same command again to go on: {' '.join(sys.argv[1:])}"


app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help=_HELP,
)


def _add_group(name: str, help_text: str, *, listing: bool) -> typer.Typer:
    group = typer.Typer(
        cls=ListingGroup if listing else Group, help=help_text, no_args_is_help=not listing, rich_markup_mode=None
    )
    app.add_typer(group, name=name, invoke_without_command=listing)
    return group


models_app = _add_group("models", "List the models known by name, show one, or check an encoder.", listing=True)
tasks_app = _add_group("tasks", "List the tasks, show a card in full, or check a card.", listing=True)
data_app = _add_group("data", "Fetch and check datasets.", listing=False)
cache_app = _add_group("cache", "List, verify and prune the embeddings cache.", listing=False)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"uwbench {__version__}")
        raise typer.Exit


@app.command(cls=TaskCommand, context_settings={"allow_extra_args": True})
def run(
    model: Models = None,
    task: Tasks = None,
    suite: Suite = None,
    protocol: Protocol = "uwbench-1",
    method: Method = "mlp,knn",
    weights: Weights = None,
    context: Context = "full",
    layers: Layers = "last",
    pooling: Pooling = "mean,mean-all",
    dtype: Dtype = "fp32",
    device: Device = "auto",
    batch_seconds: BatchSeconds = None,
    workers: Workers = None,
    seed: Seed = 0,
    limit: Limit = None,
    force: Force = False,
    engine: Engine = "local",
    allow_missing: AllowMissing = 0,
    text_encoder: TextEncoder = None,
    label: Label = None,
    group: GroupColumn = None,
    name: Name = None,
    kind: Kind = None,
    domain: Domain = "sound",
    allow_outside: AllowOutside = False,
    trust_remote_code: RemoteCode = False,
    revision: Revision = None,
    cache: Cache = None,
    data: Data = None,
    results: Results = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Extract, probe and print the leaderboard. What is cached is not encoded again."""
    from uwbench import api

    options = _options(locals())
    with stopped_by_sigterm():
        report = api.run(
            model_specs(model, weights, context, revision, trust_remote_code),
            split_names(task),
            _folders(cache, data, results),
            options,
            suite=suite,
            reporter=_reporter(quiet),
        )
    _finish(report, suite, as_json)


@app.command(cls=TaskCommand, context_settings={"allow_extra_args": True})
def extract(
    model: Models = None,
    task: Tasks = None,
    suite: Suite = None,
    weights: Weights = None,
    context: Context = "full",
    layers: Layers = "last",
    pooling: Pooling = "mean,mean-all",
    dtype: Dtype = "fp32",
    device: Device = "auto",
    batch_seconds: BatchSeconds = None,
    workers: Workers = None,
    limit: Limit = None,
    force: Force = False,
    engine: Engine = "local",
    part: Annotated[str | None, typer.Option("--part", help="I/N: this machine's share of the parts, from 1.")] = None,
    label: Label = None,
    group: GroupColumn = None,
    name: Name = None,
    kind: Kind = None,
    domain: Domain = "sound",
    allow_outside: AllowOutside = False,
    trust_remote_code: RemoteCode = False,
    revision: Revision = None,
    cache: Cache = None,
    data: Data = None,
    results: Results = None,
    quiet: Quiet = False,
) -> None:
    """Put embeddings into the cache. Without tasks: every task of the suite whose data is at hand."""
    from uwbench import api

    options = _options(locals())
    with stopped_by_sigterm():
        report = api.extract(
            model_specs(model, weights, context, revision, trust_remote_code),
            split_names(task),
            folders=_folders(cache, data, results),
            options=options,
            suite=suite,
            reporter=_reporter(quiet),
        )
    for name_, task_, done in report.extractions:
        if done is None:
            print(printable(f"{name_}  {task_}: everything was cached"))
        else:
            print(printable(f"{name_}  {task_}: {done.encoded:,} clips in {done.seconds:.1f} s"))
    _leave(report)


@app.command(cls=TaskCommand, context_settings={"allow_extra_args": True})
def probe(
    task: Tasks = None,
    model: Models = None,
    suite: Suite = None,
    protocol: Protocol = "uwbench-1",
    method: Method = "mlp,knn",
    device: Device = "auto",
    seed: Seed = 0,
    allow_missing: AllowMissing = 0,
    text_encoder: TextEncoder = None,
    label: Label = None,
    group: GroupColumn = None,
    name: Name = None,
    kind: Kind = None,
    domain: Domain = "sound",
    allow_outside: AllowOutside = False,
    cache: Cache = None,
    data: Data = None,
    results: Results = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Score tasks from the cache, without audio or encoder. Without models: every model in the cache."""
    from uwbench import api

    options = _options(locals())
    with stopped_by_sigterm():
        report = api.probe(
            split_names(task),
            split_names(model),
            folders=_folders(cache, data, results),
            options=options,
            suite=suite,
            reporter=_reporter(quiet),
        )
    _finish(report, suite, as_json)


@app.command()
def reproduce(
    result: Annotated[Path, typer.Argument(help="A result file.")],
    device: Device = "auto",
    text_encoder: TextEncoder = None,
    cache: Cache = None,
    data: Data = None,
    results: Results = None,
) -> None:
    """Score a result again from the cache and say equal, or what differs."""
    from uwbench import api
    from uwbench.options import Options

    own = Options(device=device, text_encoder=text_encoder)
    found = api.reproduce(result, folders=_folders(cache, data, results), options=own)
    for line in found.context:
        print(printable(f"note: {line}"), file=sys.stderr)
    for line in found.differences:
        print(printable(line))
    print(printable(f"{found.model}, {found.task}: {'equal' if found.equal else 'differs'}"))
    raise typer.Exit(0 if found.equal else 1)


cli_board.register(app)
cli_listings.register(app, models_app, tasks_app, data_app, cache_app)


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):  # a name that is not UTF-8 is shown by its escapes
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with leaving_in_time(lambda: _line(_interrupted())):
        app()


def _options(given: dict[str, Any]) -> Options:
    """Build the options of a run from a command's arguments."""
    from uwbench.options import Options

    methods = tuple(split_names([given.get("method", "mlp,knn")]))
    unknown = [name for name in methods if name not in ("mlp", "knn")]
    if unknown or not methods:
        raise UsageError(f"{given['method']!r} is not mlp, knn or mlp,knn", where="--method")
    dtype = given.get("dtype", "fp32")
    if dtype not in ("fp32", "bf16"):
        raise UsageError(f"{dtype!r} is not one of fp32, bf16", where="--dtype")
    engine = given.get("engine", "local")
    if engine not in ("local", "ray"):
        raise UsageError(f"{engine!r} is not one of local, ray", where="--engine")
    plain = ("protocol", "layers", "batch_seconds", "workers", "seed", "limit", "force", "allow_missing", "label")
    more = ("group", "name", "kind", "domain", "allow_outside", "device", "text_encoder")
    return Options(
        methods=methods,
        dtype=dtype,
        engine=engine,
        poolings=tuple(split_names([given.get("pooling", "mean,mean-all")])),
        part=_share(given.get("part")),
        argv=("uwbench", *map(printable, sys.argv[1:])),
        **{key: given[key] for key in (*plain, *more) if key in given},
    )


def _share(part: str | None) -> tuple[int, int] | None:
    if part is None:
        return None
    index, _, count = part.partition("/")
    if not (index.isdigit() and count.isdigit() and 1 <= int(index) <= int(count)):
        raise UsageError(f"{part!r} is not I/N with 1 <= I <= N", where="--part")
    return int(index), int(count)


def _folders(cache: Path | None, data: Path | None, results: Path | None) -> Folders:
    from uwbench import api

    if data is not None and not data.is_dir():
        raise UsageError("is no folder", where=f"--data {data}")
    return api.folders(cache, data, results)


def _reporter(quiet: bool) -> Reporter | None:
    if quiet:
        return None
    from uwbench.cli.progress import TerminalReporter

    return TerminalReporter()


def _finish(report: Report, suite: str | None, as_json: bool) -> None:
    from uwbench.cli.board import print_report

    print_report(report, suite, as_json=as_json)
    _leave(report)


def _leave(report: Report) -> None:
    sys.stdout.flush()
    for line in report.missing:
        print(printable(f"not here: {line}"), file=sys.stderr)
    for line in report.failures:
        print(printable(f"failed: {line}"), file=sys.stderr)
    raise typer.Exit(report.exit_code)
