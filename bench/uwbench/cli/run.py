"""The commands that work: run, extract, probe, reproduce."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

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
from uwbench.cli.signals import sigterm_interrupts
from uwbench.errors import UsageError, printable

if TYPE_CHECKING:
    from uwbench.options import Folders, Options
    from uwbench.pipeline import Report, Reporter


class TaskCommand(TyperCommand):
    """A command whose stray words are most likely tasks without `-t`."""

    def invoke(self, ctx: Any) -> Any:
        if ctx.args:
            remedy = f"did you mean {' '.join(f'-t {word}' for word in ctx.args)}?"
            raise UsageError(f"unexpected {' '.join(ctx.args)!r}", remedy=remedy)
        return super().invoke(ctx)


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    for command in (run, extract, probe):
        app.command(cls=TaskCommand, context_settings={"allow_extra_args": True})(command)
    app.command()(reproduce)


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
    with sigterm_interrupts():
        report = api.run(
            model_specs(model, weights, context, revision, trust_remote_code),
            split_names(task),
            _folders(cache, data, results),
            options,
            suite=suite,
            reporter=_reporter(quiet),
        )
    _finish(report, suite, as_json)


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
    with sigterm_interrupts():
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
    with sigterm_interrupts():
        report = api.probe(
            split_names(task),
            split_names(model),
            folders=_folders(cache, data, results),
            options=options,
            suite=suite,
            reporter=_reporter(quiet),
        )
    _finish(report, suite, as_json)


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
