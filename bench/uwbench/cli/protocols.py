"""The command `uwbench protocols`: list the protocols, or show one."""

from __future__ import annotations

from typing import Annotated

import typer

from uwbench.cli.options import Json, print_json
from uwbench.cli.tables import print_fields
from uwbench.errors import printable


def register(app: typer.Typer) -> None:
    """Add the command of this module to the command line."""
    app.command("protocols")(list_protocols)


def list_protocols(
    name: Annotated[str | None, typer.Argument(help="Show this protocol in full.")] = None, as_json: Json = False
) -> None:
    """List the protocols, or show one in full."""
    from uwbench.cards.find import find_protocol, names_of

    protocols = [find_protocol(found) for found in ([name] if name else names_of("protocol"))]
    if name:
        print_fields(protocols[0].model_dump(mode="json"), as_json)
    elif as_json:
        print_json([protocol.model_dump(mode="json") for protocol in protocols])
    else:
        for protocol in protocols:
            print(printable(f"{protocol.name:<14} version {protocol.version}  {protocol.title}"))
