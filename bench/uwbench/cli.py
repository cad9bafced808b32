"""The command `uwbench`: parse, call, print, exit code. What the commands do is in `uwbench.api` and below."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from uwbench import __version__
from uwbench.errors import UsageError, UwbenchError

if TYPE_CHECKING:
    from uwbench.encoders.base import ModelSpec
    from uwbench.run import Folders, Options, Report, Reporter

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
        except KeyboardInterrupt:
            from uwbench.console import interrupted

            _fail(interrupted(), 1)


class ListingGroup(Group):
    """A group whose first word may also be a name to show: `uwbench tasks esc50` is `uwbench tasks show esc50`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands:
            args = ["show", *args]
        return super().resolve_command(ctx, args)


def _fail(message: str, code: int) -> NoReturn:
    # Not rich: a message may hold file names with brackets, and must never be read as markup.
    sys.stdout.flush()
    print(f"uwbench: {message}", file=sys.stderr, flush=True)
    raise SystemExit(code)


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

Models = Annotated[
    list[str] | None,
    typer.Option(
        "-m", "--model", help="A name, a Hugging Face id, a folder, hear:MODULE or FILE.py:Class. Repeat or use commas."
    ),
]
Tasks = Annotated[
    list[str] | None,
    typer.Option(
        "-t",
        "--task",
        help="A card's name, a card, a manifest, or a folder with a sub-folder a class. Repeat, commas, globs.",
    ),
]
Suite = Annotated[
    str | None, typer.Option("-s", "--suite", help="A suite of tasks: uniwhisper-20, xares-22, mini, or a file.")
]
Protocol = Annotated[str, typer.Option("--protocol", help="The rules by which numbers are made.")]
Cache = Annotated[Path | None, typer.Option("--cache", envvar="UWBENCH_CACHE", help="The embeddings cache.")]
Data = Annotated[Path | None, typer.Option("--data", envvar="UWBENCH_DATA", help="The folder with one folder a task.")]
Results = Annotated[Path | None, typer.Option("--results", envvar="UWBENCH_RESULTS", help="Where results are kept.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")]
Method = Annotated[str, typer.Option("--method", help="mlp, knn or both.")]
Weights = Annotated[str | None, typer.Option("--weights", help="A folder or hub id with the model's weights.")]
Context = Annotated[
    str, typer.Option("--context", help="full: as the model was trained; trimmed: valid positions alone.")
]
Dtype = Annotated[str, typer.Option("--dtype", help="fp32, or bf16 with a report of how far it is from fp32.")]
Layers = Annotated[str, typer.Option("--layers", help="last, all, or a list of names or numbers.")]
Pooling = Annotated[str, typer.Option("--pooling", help="Poolings to store: mean, mean-all, std, max, first.")]
BatchSeconds = Annotated[
    float | None, typer.Option("--batch-seconds", min=0.1, help="Audio in one forward, padding counted.")
]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Threads that decode.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the probes.")]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, help="Clips a split or fold; the result is marked limited.")
]
Force = Annotated[bool, typer.Option("--force", help="Encode again what is cached.")]
AllowMissing = Annotated[int, typer.Option("--allow-missing", min=0, help="Score without up to N unreadable clips.")]
Label = Annotated[str | None, typer.Option("--label", help="The column of a manifest that holds the label.")]
GroupColumn = Annotated[
    str | None, typer.Option("--group", help="The column that holds the speaker, recording or song.")
]
Name = Annotated[str | None, typer.Option("--name", help="The name of a task made from a manifest or folder.")]
Kind = Annotated[str | None, typer.Option("--kind", help="The kind of such a task: single-label or multi-label.")]
Domain = Annotated[str, typer.Option("--domain", help="The domain of such a task: speech, sound or music.")]
AllowOutside = Annotated[bool, typer.Option("--allow-outside", help="Allow a manifest's paths to leave its folder.")]
RemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run code that comes with a checkpoint. Off by default.")
]
Revision = Annotated[str | None, typer.Option("--revision", help="The revision of a hub id.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No plan and no progress.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Stray = Annotated[list[str] | None, typer.Argument(hidden=True)]


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"uwbench {__version__}")
        raise typer.Exit


@app.command()
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
    allow_missing: AllowMissing = 0,
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
    stray: Stray = None,
) -> None:
    """Extract, probe and print the leaderboard. What is cached is not encoded again."""
    _refuse_stray(stray)
    from uwbench import api

    options = _options(locals())
    with _stoppable():
        report = api.run(
            _specs(model, weights, context, revision, trust_remote_code),
            _split(task),
            _folders(cache, data, results),
            options,
            suite=suite,
            reporter=_reporter(quiet),
        )
    _finish(report, suite, as_json)


@app.command()
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
    stray: Stray = None,
) -> None:
    """Put embeddings into the cache. Without tasks: every task of the suite whose data is at hand."""
    _refuse_stray(stray)
    from uwbench import api

    options = _options(locals())
    with _stoppable():
        report = api.extract(
            _specs(model, weights, context, revision, trust_remote_code),
            _split(task),
            folders=_folders(cache, data, results),
            options=options,
            suite=suite,
            reporter=_reporter(quiet),
        )
    for name_, task_, done in report.extractions:
        if done is None:
            print(f"{name_}  {task_}: everything was cached")
        else:
            print(f"{name_}  {task_}: {done.encoded:,} clips in {done.seconds:.1f} s")
    _leave(report)


@app.command()
def probe(
    task: Tasks = None,
    model: Models = None,
    suite: Suite = None,
    protocol: Protocol = "uwbench-1",
    method: Method = "mlp,knn",
    device: Device = "auto",
    seed: Seed = 0,
    allow_missing: AllowMissing = 0,
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
    stray: Stray = None,
) -> None:
    """Score tasks from the cache, without audio or encoder. Without models: every model in the cache."""
    _refuse_stray(stray)
    from uwbench import api

    options = _options(locals())
    with _stoppable():
        report = api.probe(
            _split(task),
            _split(model),
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
    cache: Cache = None,
    data: Data = None,
    results: Results = None,
) -> None:
    """Score a result again from the cache and say equal, or what differs."""
    from uwbench import api
    from uwbench.run import Options

    found = api.reproduce(result, folders=_folders(cache, data, results), options=Options(device=device))
    for line in found.context:
        print(f"note: {line}", file=sys.stderr)
    for line in found.differences:
        print(line)
    print(f"{found.model}, {found.task}: {'equal' if found.equal else 'differs'}")
    raise typer.Exit(0 if found.equal else 1)


def main() -> None:
    """Run the command line."""
    from uwbench import cli_board, cli_listings

    cli_board.register(app)
    cli_listings.register(app, models_app, tasks_app, data_app, cache_app)
    app()


def _split(values: Sequence[str] | None) -> list[str]:
    """Split commas and expand globs; a path that exists is taken as it is."""
    found: list[str] = []
    for value in values or ():
        for item in [value] if Path(value).exists() else filter(None, value.split(",")):
            found.extend(_expand(item))
    return list(dict.fromkeys(found))


def _expand(item: str) -> list[str]:
    if not any(mark in item for mark in "*?["):
        return [item]
    import fnmatch

    from uwbench.card import find_cards

    names = sorted(fnmatch.filter(find_cards()[0], item)) or _paths(item)
    if not names:
        raise UsageError(f"{item!r} matches no card and no file", where="--task")
    return names


def _paths(pattern: str) -> list[str]:
    path = Path(pattern)
    root = Path(path.anchor) if path.is_absolute() else Path()
    return sorted(str(found) for found in root.glob(str(path.relative_to(path.anchor))))


def _specs(
    models: Sequence[str] | None, weights: str | None, context: str, revision: str | None, trust: bool
) -> list[ModelSpec]:
    from uwbench.encoders.base import ModelSpec

    names = _split(models)
    if not names:
        raise UsageError("no model was named", remedy="give -m NAME; uwbench models lists the names")
    if context == "full":
        return [ModelSpec(name, weights, "full", revision, trust) for name in names]
    if context == "trimmed":
        return [ModelSpec(name, weights, "trimmed", revision, trust) for name in names]
    raise UsageError(f"{context!r} is not one of full, trimmed", where="--context")


def _options(given: dict[str, Any]) -> Options:
    """Build the options of a run from a command's arguments."""
    from uwbench.run import Options

    methods = tuple(_split([given.get("method", "mlp,knn")]))
    unknown = [name for name in methods if name not in ("mlp", "knn")]
    if unknown or not methods:
        raise UsageError(f"{given['method']!r} is not mlp, knn or mlp,knn", where="--method")
    dtype = given.get("dtype", "fp32")
    if dtype not in ("fp32", "bf16"):
        raise UsageError(f"{dtype!r} is not one of fp32, bf16", where="--dtype")
    plain = ("protocol", "layers", "batch_seconds", "workers", "seed", "limit", "force", "allow_missing", "label")
    more = ("group", "name", "kind", "domain", "allow_outside", "device")
    return Options(
        methods=methods,
        dtype=dtype,
        poolings=tuple(_split([given.get("pooling", "mean,mean-all")])),
        part=_share(given.get("part")),
        argv=("uwbench", *sys.argv[1:]),
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
    from uwbench.console import TerminalReporter

    return TerminalReporter()


@contextmanager
def _stoppable() -> Iterator[None]:
    """While a run works, SIGTERM stops it as Ctrl-C does, so that batch schedulers leave a usable state."""

    def stop(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _finish(report: Report, suite: str | None, as_json: bool) -> None:
    from uwbench.cli_board import print_report

    print_report(report, suite, as_json=as_json)
    _leave(report)


def _leave(report: Report) -> None:
    sys.stdout.flush()
    for line in report.missing:
        print(f"not here: {line}", file=sys.stderr)
    for line in report.failures:
        print(f"failed: {line}", file=sys.stderr)
    raise typer.Exit(report.exit_code)


def _refuse_stray(words: Sequence[str] | None) -> None:
    if words:
        remedy = f"did you mean {' '.join(f'-t {word}' for word in words)}?"
        raise UsageError(f"unexpected {' '.join(words)!r}", remedy=remedy)


def print_json(value: Any) -> None:
    """Print a value as strict JSON."""
    print(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False))
