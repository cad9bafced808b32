"""The commands `uwbench cache`: list, verify and prune the embeddings cache."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from uwbench import api
from uwbench.api import Column, FittedTable, printable
from uwbench.cli import options as opt
from uwbench.cli.tables import print_view


def register(group: typer.Typer) -> None:
    """Add the commands of this module to the group `uwbench cache`."""
    group.command("ls")(list_cache)
    group.command("verify")(verify_cache)
    group.command("prune")(prune_cache)


def list_cache(cache: opt.Cache = None, verbose: opt.Verbose = False, as_json: opt.Json = False) -> None:
    """List what the embeddings cache holds."""
    root = api.folders(cache).cache
    entries, problems = api.list_cache(root)
    if as_json:
        opt.print_json([asdict(entry) for entry in entries])
    else:
        columns = [
            Column("model", [printable(entry.encoder) for entry in entries], right=False),
            Column("fingerprint", [entry.fingerprint[:8] for entry in entries], 1, right=False),
            Column("task", [printable(entry.task) for entry in entries], right=False),
            Column("clips", [f"{entry.clips:,}" for entry in entries], 2),
            Column("layers", [str(entry.layers) for entry in entries], 3),
            Column("poolings", [",".join(_stored(entry)) for entry in entries], 5, right=False),
            Column("MB", [f"{entry.bytes / 1e6:.2f}" for entry in entries], 4),
        ]
        print_view(FittedTable(None, columns, verbose))
        print(printable(f"{root}: {sum(entry.bytes for entry in entries) / 1e6:.1f} MB"))
    _report_damage(problems)


def _stored(entry: api.Holding) -> list[str]:
    """Return the poolings of an entry, with segments if all or some of its clips have them."""
    if not entry.segments:
        return [*entry.poolings]
    return [*entry.poolings, "segments" if entry.segments >= entry.clips else f"segments of {entry.segments:,}"]


def verify_cache(cache: opt.Cache = None) -> None:
    """Check every part of the cache against its checksum."""
    root = api.folders(cache).cache
    checked, damaged, problems = api.verify_cache(root)
    for damage in damaged:
        print(printable(f"{damage.path}: {damage.what}; the next extract of its task writes it again"))
    print(printable(f"{root}: {checked:,} parts checked, {len(damaged)} damaged"))
    if damaged:
        raise typer.Exit(1)
    _report_damage(problems)


def prune_cache(
    cache: opt.Cache = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be removed.")] = False,
) -> None:
    """Remove files that no manifest and no task refers to. Run it while nothing extracts."""
    root = api.folders(cache).cache
    removed = api.prune_cache(root, dry_run=dry_run)
    for file in removed:
        print(printable(f"{file.path}: {file.why}"))
    verb = "would be freed" if dry_run else "freed"
    print(printable(f"{root}: {sum(file.bytes for file in removed) / 1e6:.1f} MB {verb}"))


def _report_damage(problems: list[str]) -> None:
    for problem in problems:
        print(printable(f"damaged: {problem}"), file=sys.stderr)
    if problems:
        raise typer.Exit(1)
