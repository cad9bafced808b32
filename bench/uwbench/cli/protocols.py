"""The command `uwbench protocols`: list the protocols, or show one."""

from __future__ import annotations

from typing import Annotated

import typer

from uwbench import api
from uwbench.api import printable
from uwbench.cli import complete
from uwbench.cli import options as opt
from uwbench.cli.tables import print_fields


def register(app: typer.Typer) -> None:
    """Add the command of this module to the command line."""
    app.command("protocols")(list_protocols)


def list_protocols(
    name: Annotated[
        str | None, typer.Argument(help="Show this protocol in full.", autocompletion=complete.protocols)
    ] = None,
    as_json: opt.Json = False,
) -> None:
    """List the protocols, or show one in full."""
    if name:
        print_fields(api.load_protocol(name).model_dump(mode="json"), as_json=as_json)
        return
    protocols = api.list_protocols()
    if as_json:
        opt.print_json([protocol.model_dump(mode="json") for protocol in protocols])
        return
    for protocol in protocols:
        print(printable(f"{protocol.name:<14} version {protocol.version}  {protocol.title}"))
