"""The commands of bundles: bundle, verify."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from uwbench import api
from uwbench.api import printable
from uwbench.cli import options as opt


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command()(bundle)
    app.command()(verify)


def bundle(
    model: Annotated[str, typer.Argument(help="A model on the leaderboard.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write, for example my_model.zip.")],
    protocol: opt.Protocol = "uwbench-1",
    results: opt.Results = None,
    cache: opt.Cache = None,
    as_json: opt.Json = False,
) -> None:
    """Pack a model's results, predictions, labels and vectors into one file that anyone can score again."""
    packed = api.bundle(model, output, protocol=protocol, results=results, cache=cache)
    for line in packed.left_out:
        print(printable(f"left out: {line}"), file=sys.stderr)
    if as_json:
        opt.print_json({**asdict(packed), "path": str(packed.path)})
        return
    print(printable(f"{output}: {packed.model}, {', '.join(packed.tasks)}; {packed.bytes / 1e6:.1f} MB"))
    print(f"sha256 {packed.sha256}")


def verify(
    file: Annotated[Path, typer.Argument(help="A bundle.")],
    device: opt.Device = "auto",
    text_encoder: opt.TextEncoder = None,
    results: opt.Results = None,
    quiet: opt.Quiet = False,
    as_json: opt.Json = False,
) -> None:
    """Score a bundle again, without audio or encoder, and print equal or what differs."""
    verified = api.verify(file, results=results, device=device, text_encoder=text_encoder, progress=not quiet)
    if as_json:
        opt.print_json({**asdict(verified), "path": str(verified.path)})
        raise typer.Exit(0 if verified.equal else 1)
    for line in verified.context:
        print(printable(f"note: {line}"), file=sys.stderr)
    for line in verified.differences:
        print(printable(line))
    before = " (verified before)" if verified.verified_before else ""
    print(
        printable(f"{verified.model}, {', '.join(verified.tasks)}: {'equal' if verified.equal else 'differs'}{before}")
    )
    raise typer.Exit(0 if verified.equal else 1)
