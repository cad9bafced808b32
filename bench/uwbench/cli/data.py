"""The commands `uwbench data`: fetch and check datasets."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from uwbench import api
from uwbench.api import UsageError, counted, printable
from uwbench.cli import complete
from uwbench.cli import options as opt
from uwbench.cli.groups import with_groups

if TYPE_CHECKING:
    from uwbench.sources.check import CheckReport

Quiet = Annotated[bool, typer.Option("--quiet", help="Print no progress.")]


def register(group: typer.Typer) -> None:
    """Add the commands of this module to the group `uwbench data`."""
    group.command("fetch")(fetch_data)
    group.command("check")(with_groups(check_data))


def fetch_data(
    task: Annotated[list[str], typer.Argument(help="Names of cards, or card files.", autocompletion=complete.tasks)],
    source: Annotated[
        api.FetchSource | None,
        typer.Option("--source", help="X-ARES's shards on Zenodo (the default) or Hugging Face, if the card has both."),
    ] = None,
    data: opt.Data = None,
    quiet: Quiet = False,
) -> None:
    """Download tasks' audio into --data: X-ARES's shards, or a Hugging Face dataset. Resumes interrupted downloads."""
    folder = api.folders(data=data).data
    for name in task:
        progress = None if quiet else _print_download
        paths = api.fetch_data(name, data=folder, source=source, progress=progress, notice=_notice)
        print(printable(f"{name}: {counted(len(paths), 'file')} in {folder}"))


def check_data(
    *,
    task: Annotated[
        str, typer.Argument(help="A card's name, a card file, a manifest or a folder.", autocompletion=complete.tasks)
    ],
    data: opt.Data = None,
    own_data: opt.OwnData,
    quiet: Quiet = False,
    as_json: opt.Json = False,
) -> None:
    """Count and decode a task's clips and report what is wrong with them."""
    specs = opt.task_specs([task], own_data)
    if len(specs) != 1:
        raise UsageError(f"names {len(specs)} tasks; check one at a time", where=task)
    report = api.check_data(specs[0], data=data, progress=not quiet)
    if as_json:
        opt.print_json(report.to_json())
    else:
        _print_check(report)
    raise typer.Exit(0 if report.ok else 1)


def _print_download(name: str, done: int, total: int) -> None:
    """Print one line per file on stderr, redrawn as bytes arrive."""
    end = "\n" if done >= total else ""
    share = done / total if total else 1.0
    line = f"\r{printable(name)}: {done / 1e6:,.1f} of {total / 1e6:,.1f} MB ({share:.0%})"
    print(line, end=end, file=sys.stderr)


def _notice(line: str) -> None:
    print(f"\nuwbench: {printable(line)}", file=sys.stderr, flush=True)


def _print_check(report: CheckReport) -> None:
    counts = ", ".join(f"{part} {count:,}" for part, count in report.counts.items())
    print(printable(f"{report.task}: {report.clips:,} clips from {report.source} ({counts})"))
    for finding in report.findings:
        print(printable(f"  {finding.severity}: {finding.message} [{finding.code}]"))
    if not report.findings:
        print("  no fault found")
    for fault in report.faults:
        print(printable(f"  known fault of the dataset: {fault}"))
