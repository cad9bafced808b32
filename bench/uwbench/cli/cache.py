"""The commands `uwbench cache`: list, verify and prune the embeddings cache."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from uwbench.cli.options import Cache, Json, print_json
from uwbench.cli.tables import new_table, print_table
from uwbench.errors import printable


def register(group: typer.Typer) -> None:
    """Add the commands of this module to the group `uwbench cache`."""
    group.command("ls")(list_cache)
    group.command("verify")(verify_cache)
    group.command("prune")(prune_cache)


def list_cache(cache: Cache = None, as_json: Json = False) -> None:
    """List what the embeddings cache holds."""
    from uwbench import api
    from uwbench.cache.maintenance import holdings

    root = api.folders(cache, None, None).cache
    found, problems = holdings(root)
    if as_json:
        print_json([asdict(one) for one in found])
    else:
        table = new_table("model", "fingerprint", "task", "clips", "layers", "poolings", "MB")
        for one in found:
            poolings = ",".join(one.poolings)
            table.add_row(
                printable(one.encoder),
                one.fingerprint[:8],
                one.task,
                f"{one.clips:,}",
                str(one.layers),
                poolings,
                f"{one.bytes / 1e6:.2f}",
            )
        print_table(table)
        print(f"{root}: {sum(one.bytes for one in found) / 1e6:.1f} MB")
    _print_problems(problems)


def verify_cache(cache: Cache = None) -> None:
    """Check every part of the cache against its checksum."""
    from uwbench import api
    from uwbench.cache.maintenance import verify

    root = api.folders(cache, None, None).cache
    checked, damaged, problems = verify(root)
    for damage in damaged:
        print(printable(f"{damage.path}: {damage.what}; the next extract of its task redoes it"))
    print(f"{root}: {checked:,} parts checked, {len(damaged)} damaged")
    if damaged:
        raise typer.Exit(1)
    _print_problems(problems)


def prune_cache(
    cache: Cache = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Remove what no manifest and no task refers to. Run it while nothing extracts."""
    from uwbench import api
    from uwbench.cache.maintenance import prune

    root = api.folders(cache, None, None).cache
    found = prune(root, dry_run=dry_run)
    for one in found:
        print(printable(f"{one.path}: {one.why}"))
    verb = "would be freed" if dry_run else "freed"
    print(f"{root}: {sum(one.bytes for one in found) / 1e6:.1f} MB {verb}")


def _print_problems(problems: list[str]) -> None:
    for problem in problems:
        print(printable(f"damaged: {problem}"), file=sys.stderr)
    if problems:
        raise typer.Exit(1)
