"""The commands that compute: run, extract, probe, reproduce."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

from uwbench import api
from uwbench.api import ProbeOptions, UsageError, counted, printable
from uwbench.cli import options as opt
from uwbench.cli.groups import with_groups
from uwbench.cli.signals import sigterm_interrupts

if TYPE_CHECKING:
    from uwbench.pipeline.outcome import Results


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
        app.command(cls=TaskCommand, context_settings={"allow_extra_args": True})(with_groups(command))
    app.command()(reproduce)


def run(
    *,
    model: opt.Models = None,
    task: opt.Tasks = None,
    suite: opt.Suite = None,
    protocol: opt.Protocol = "uwbench-1",
    method: opt.Methods = "default",
    encoder: opt.ModelOptions,
    extraction: opt.Extraction,
    device: opt.Device = "auto",
    seed: opt.Seed = 0,
    corrupt: opt.Corrupt = None,
    allow_missing: opt.AllowMissing = 0,
    text_encoder: opt.TextEncoder = None,
    own_data: opt.OwnData,
    cache: opt.Cache = None,
    data: opt.Data = None,
    results: opt.Results = None,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    as_json: opt.Json = False,
) -> None:
    """Extract, probe and print the scores. Cached clips are not re-encoded."""
    with sigterm_interrupts():
        report = api.evaluate(
            opt.model_specs(model, encoder),
            opt.task_specs(task, own_data),
            suite=suite,
            protocol=protocol,
            methods=opt.split_commas(method),
            data=data,
            cache=cache,
            results=results,
            device=device,
            extract=extraction.options(),
            probe=ProbeOptions(seed, allow_missing, text_encoder, _argv(), _names(corrupt)),
            progress=not quiet,
        )
    _print_scores(report, verbose=verbose, as_json=as_json)
    _leave(report)


def extract(
    *,
    model: opt.Models = None,
    task: opt.Tasks = None,
    suite: opt.Suite = None,
    encoder: opt.ModelOptions,
    extraction: opt.Extraction,
    device: opt.Device = "auto",
    corrupt: opt.Corrupt = None,
    part: Annotated[
        str | None, typer.Option("--part", metavar="I/N", help="Extract the I-th of N shares, from 1.")
    ] = None,
    own_data: opt.OwnData,
    cache: opt.Cache = None,
    data: opt.Data = None,
    results: opt.Results = None,
    quiet: opt.Quiet = False,
) -> None:
    """Put embeddings into the cache. Without -t: every task of the suite whose data is on this machine."""
    with sigterm_interrupts():
        report = api.extract(
            opt.model_specs(model, encoder),
            opt.task_specs(task, own_data),
            suite=suite,
            data=data,
            cache=cache,
            results=results,
            device=device,
            extract=extraction.options(part=_part(part), corruptions=_names(corrupt)),
            progress=not quiet,
        )
    for model_name, task_name, encoded in report.extractions:
        if encoded is None:
            print(printable(f"{model_name}  {task_name}: everything was cached"))
        else:
            print(
                printable(f"{model_name}  {task_name}: {counted(encoded.encoded, 'clip')} in {encoded.seconds:.1f} s")
            )
    _leave(report)


def probe(
    *,
    task: opt.Tasks = None,
    model: opt.Models = None,
    suite: opt.Suite = None,
    protocol: opt.Protocol = "uwbench-1",
    method: opt.Methods = "default",
    device: opt.Device = "auto",
    seed: opt.Seed = 0,
    corrupt: opt.Corrupt = None,
    allow_missing: opt.AllowMissing = 0,
    text_encoder: opt.TextEncoder = None,
    own_data: opt.OwnData,
    cache: opt.Cache = None,
    data: opt.Data = None,
    results: opt.Results = None,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    as_json: opt.Json = False,
) -> None:
    """Score tasks from the cache, without audio or encoder. Without -m: every model in the cache."""
    with sigterm_interrupts():
        report = api.probe(
            opt.model_names(model),
            opt.task_specs(task, own_data),
            suite=suite,
            protocol=protocol,
            methods=opt.split_commas(method),
            data=data,
            cache=cache,
            results=results,
            device=device,
            probe=ProbeOptions(seed, allow_missing, text_encoder, _argv(), _names(corrupt)),
            progress=not quiet,
        )
    _print_scores(report, verbose=verbose, as_json=as_json)
    _leave(report)


def reproduce(
    result: Annotated[Path, typer.Argument(help="A result file.")],
    device: opt.Device = "auto",
    text_encoder: opt.TextEncoder = None,
    cache: opt.Cache = None,
    data: Annotated[Path | None, typer.Option("--data", hidden=True)] = None,
    results: Annotated[Path | None, typer.Option("--results", hidden=True)] = None,
) -> None:
    """Score a result again from the cache, and print equal or the differences."""
    del data, results  # accepted for scripts; only the cache and the result file are read
    reproduction = api.reproduce(result, cache=cache, device=device, text_encoder=text_encoder)
    for line in reproduction.context:
        print(printable(f"note: {line}"), file=sys.stderr)
    for line in reproduction.differences:
        print(printable(line))
    verdict = "equal" if reproduction.equal else "differs"
    print(printable(f"{reproduction.model}, {reproduction.task}: {verdict}"))
    raise typer.Exit(0 if reproduction.equal else 1)


def _names(values: str | None) -> tuple[str, ...]:
    return () if values is None else tuple(opt.split_commas(values))


def _part(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal()):
        raise UsageError(f"{text!r} is not I/N, as in 1/4", where="--part")
    return int(index), int(count)


def _argv() -> tuple[str, ...]:
    return ("uwbench", *map(printable, sys.argv[1:]))


def _print_scores(report: Results, *, verbose: bool, as_json: bool) -> None:
    if as_json:
        opt.print_json([result.model_dump(mode="json", by_alias=True) for _, result in report.results])
    elif report.results:
        from uwbench.cli.tables import print_view

        print_view(report.view(verbose=verbose))


def _leave(report: Results) -> NoReturn:
    sys.stdout.flush()
    for line in report.missing:
        print(printable(f"missing: {line}"), file=sys.stderr)
    for line in report.failures:
        print(printable(f"failed: {line}"), file=sys.stderr)
    raise typer.Exit(report.exit_code)
