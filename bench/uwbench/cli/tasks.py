"""The commands `uwbench tasks`: list the tasks, show a card, check a card."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from uwbench import api
from uwbench.api import printable
from uwbench.cli import complete
from uwbench.cli import options as opt
from uwbench.cli.tables import new_table, print_fields, print_view


def register(group: typer.Typer) -> None:
    """Add the commands of this module to the group `uwbench tasks`."""
    group.callback(invoke_without_command=True)(list_tasks)
    group.command("show", hidden=True)(show_task)
    group.command("check")(check_card)


def list_tasks(
    ctx: typer.Context,
    data: opt.Data = None,
    cache: opt.Cache = None,
    results: opt.Results = None,
    as_json: opt.Json = False,
) -> None:
    """List the tasks, show a card in full, or check a card."""
    if ctx.invoked_subcommand is not None:
        return
    rows, problems = api.list_tasks(cache=cache, data=data, results=results)
    if as_json:
        opt.print_json([asdict(row) for row in rows])
    else:
        table = new_table("task", "title", "domain", "kind", "metric", "clips", "data here", "cached", "scored")
        for row in sorted(rows, key=lambda row: (row.domain, row.name)):
            table.add_row(
                row.name,
                row.title,
                row.domain,
                row.kind,
                row.metric,
                f"{row.clips:,}" if row.clips else "-",
                "yes" if row.data else "no",
                str(row.cached or "-"),
                str(row.scored or "-"),
            )
        print_view(table)
        print("cached, scored: number of models. uwbench tasks NAME shows a card in full.")
    for problem in problems:
        print(printable(f"skipped: {problem}"), file=sys.stderr)


def show_task(
    name: Annotated[str, typer.Argument(help="A card's name or file.", autocompletion=complete.tasks)],
    as_json: opt.Json = False,
) -> None:
    """Show a task card in full."""
    card = api.load_card(name)
    fields = card.model_dump(mode="json", exclude_defaults=True)
    if card.size is not None and card.size.download_gb is None and not as_json:
        fields["size"]["download_gb"] = "unknown; data fetch shows it once the server reports it"
    print_fields(fields, as_json=as_json)


def check_card(path: Annotated[Path, typer.Argument(help="A card file.")]) -> None:
    """Check a task card: fields, vocabulary, kind and metric."""
    card = api.load_card(path)
    print(printable(f"{path}: {card.title}, {card.kind}, {card.metric}, version {card.version}: no fault found"))
