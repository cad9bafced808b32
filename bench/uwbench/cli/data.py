"""The commands `uwbench data`: fetch and check datasets."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from uwbench.cli.options import AllowOutside, Data, Domain, GroupColumn, Json, Kind, Label, Name, print_json
from uwbench.cli.tasks import card_of
from uwbench.errors import UsageError, printable

if TYPE_CHECKING:
    from uwbench.sources.check import CheckReport
    from uwbench.sources.dataset import Dataset


def register(group: typer.Typer) -> None:
    """Add the commands of this module to the group `uwbench data`."""
    group.command("fetch")(fetch_data)
    group.command("check")(check_data)


def fetch_data(
    task: Annotated[list[str], typer.Argument(help="Cards' names, or card files.")],
    source: Annotated[
        str | None,
        typer.Option("--source", help="shards (X-ARES's, on Zenodo; the default) or hub, where a card has both."),
    ] = None,
    data: Data = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Download tasks' audio into --data: X-ARES's shards, or a Hugging Face dataset. Goes on where it stopped."""
    from uwbench import api
    from uwbench.sources.download import Patience
    from uwbench.sources.fetch import fetch_task

    folder = api.folders(None, data, None).data
    if folder is None:
        raise UsageError("no folder for datasets was given", remedy="give --data DIR or set UWBENCH_DATA")
    chosen: Literal["shards", "hub"] | None = None
    if source in ("shards", "hub"):
        chosen = source
    elif source is not None:
        raise UsageError(f"{source!r} is not one of shards, hub", where="--source")
    patience = Patience(tell=lambda line: print(f"\nuwbench: {line}", file=sys.stderr, flush=True))
    for name in task:
        bar = None if quiet else _DownloadBar()
        paths = fetch_task(card_of(name), folder, source=chosen, progress=bar, patience=patience)
        print(f"{name}: {len(paths)} files in {folder}")


def check_data(
    task: Annotated[str, typer.Argument(help="A card's name, a card file, a manifest or a folder.")],
    data: Data = None,
    label: Label = None,
    group: GroupColumn = None,
    name: Name = None,
    kind: Kind = None,
    domain: Domain = "sound",
    allow_outside: AllowOutside = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    as_json: Json = False,
) -> None:
    """Count and decode a task's clips and say what is wrong with them."""
    from uwbench import api
    from uwbench.options import Options
    from uwbench.sources.check import check_dataset
    from uwbench.sources.resolve import is_own_data

    folder = api.folders(None, data, None).data
    own = Options(label=label, group=group, name=name, kind=kind, domain=domain, allow_outside=allow_outside)
    dataset = api.open_task(task, data=folder, **(own.own_data() if is_own_data(task) else {}))
    report = check_dataset(dataset) if quiet else _check_with_bar(dataset)
    if as_json:
        print_json(report.to_json())
    else:
        _print_check(report)
    raise typer.Exit(0 if report.ok else 1)


def _check_with_bar(dataset: Dataset) -> CheckReport:
    from uwbench.cli.progress import TerminalReporter
    from uwbench.sources.check import check_dataset

    bar = TerminalReporter()
    bar.started("check", dataset.card.name, len(dataset.clips))
    try:
        return check_dataset(dataset, progress=lambda _done, _all: bar.advanced(1, 0.0))
    finally:
        bar.finished()


def _print_check(report: CheckReport) -> None:
    counts = ", ".join(f"{place} {count:,}" for place, count in report.counts.items())
    print(printable(f"{report.task}: {report.clips:,} clips from {report.source} ({counts})"))
    for problem in report.problems:
        print(printable(f"  {problem.severity}: {problem.message} [{problem.code}]"))
    if not report.problems:
        print("  no fault found")
    for fault in report.faults:
        print(printable(f"  known of the dataset: {fault}"))


class _DownloadBar:
    """A line a file on stderr, redrawn as bytes come."""

    def __call__(self, name: str, done: int, total: int) -> None:
        ending = "\n" if done >= total else ""
        share = done / total if total else 1.0
        print(f"\r{name}: {done / 1e6:,.1f} of {total / 1e6:,.1f} MB ({share:.0%})", end=ending, file=sys.stderr)
