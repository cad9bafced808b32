"""The commands `uwbench tasks`: list the tasks, show a card, check a card."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from uwbench.cli.options import Cache, Data, Json, Results, print_json
from uwbench.cli.tables import new_table, print_fields, print_table
from uwbench.errors import printable

if TYPE_CHECKING:
    from uwbench.cards.card import Card


def register(group: typer.Typer) -> None:
    """Add the commands of this module to the group `uwbench tasks`."""
    group.callback(invoke_without_command=True)(list_tasks)
    group.command("show", hidden=True)(show_task)
    group.command("check")(check_card)


def list_tasks(
    ctx: typer.Context, data: Data = None, cache: Cache = None, results: Results = None, as_json: Json = False
) -> None:
    """List the tasks, show a card in full, or check a card."""
    if ctx.invoked_subcommand is not None:
        return
    from uwbench import api
    from uwbench.cards.find import find_cards

    folders = api.folders(cache, data, results)
    cards, problems = find_cards()
    rows = [_task_row(card, folders.cache, folders.data, folders.results) for card in cards.values()]
    if as_json:
        print_json(rows)
    else:
        table = new_table("task", "title", "domain", "kind", "metric", "clips", "data here", "cached", "scored")
        for row in sorted(rows, key=lambda row: (row["domain"], row["name"])):
            clips = f"{row['clips']:,}" if row["clips"] else "-"
            here = "yes" if row["data"] else "no"
            counts = (str(row["cached"] or "-"), str(row["scored"] or "-"))
            table.add_row(row["name"], row["title"], row["domain"], row["kind"], row["metric"], clips, here, *counts)
        print_table(table)
        print("cached, scored: by how many models. uwbench tasks NAME prints a card in full.")
    for problem in problems:
        print(printable(f"skipped: {problem}"), file=sys.stderr)


def show_task(name: Annotated[str, typer.Argument(help="A card's name or file.")], as_json: Json = False) -> None:
    """Show a task card in full."""
    card = card_of(name)
    fields = card.model_dump(mode="json", exclude_defaults=True)
    if card.size is not None and card.size.download_gb is None and not as_json:
        fields["size"]["download_gb"] = "unknown; data fetch shows it as soon as the server has told it"
    print_fields(fields, as_json)


def card_of(name: str) -> Card:
    """Return a built-in card by its name, or one by its file."""
    from uwbench.cards.find import find_card, load_card

    return load_card(Path(name)) if name.endswith((".yaml", ".yml")) else find_card(name)


def check_card(path: Annotated[Path, typer.Argument(help="A card file.")]) -> None:
    """Check a task card: fields, vocabulary, kind and metric."""
    from uwbench.cards.find import load_card

    card = load_card(path)
    print(printable(f"{path}: {card.title}, {card.kind}, {card.metric}, version {card.version}: no fault found"))


def _task_row(card: Card, cache: Path, data: Path | None, results: Path) -> dict[str, Any]:
    from uwbench.sources.resolve import describe_task

    return {
        "name": card.name,
        "title": card.title,
        "domain": card.domain,
        "kind": card.kind,
        "metric": card.metric,
        "version": card.version,
        "clips": card.size.clips if card.size else None,
        "data": describe_task(card, data).found,
        "cached": len(list(cache.glob(f"*/{card.name}/manifest.json"))),
        "scored": len(list(results.glob(f"*/*/*/{card.name}.json"))),
    }
