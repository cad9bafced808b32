"""The program `uwbench`: its commands, groups of commands and exit codes. The work itself is in `uwbench.api`."""

from __future__ import annotations

import errno
import io
import shlex
import sys
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from uwbench import __version__
from uwbench.api import UwbenchError, disk_error, printable
from uwbench.cli import board, bundles, cache, data, doctor, models, protocols, run, tasks
from uwbench.cli.signals import exit_soon_after_signal

_HELP = """Measure how good a frozen audio encoder is.

    uwbench run -m logmel -s mini                            the built-in suite, no download

    uwbench run -m WHISPER_FOLDER -t my/manifest.csv         your model, your data, no code

    uwbench extract --model uniwhisper --weights DIR --task esc50

    uwbench probe --task esc50

    uwbench leaderboard --format html --output board.html
"""

_START = """uwbench measures how good a frozen audio encoder is.

  uwbench run -m logmel -s mini      score a model, no download
  uwbench leaderboard                rank the models that have results
  uwbench doctor                     check what this machine can run

uwbench --help lists every command, uwbench COMMAND --help its options."""

_PYDANTIC = "Value error, "  # before what typer says of a wrong choice


class Group(TyperGroup):
    """A group of commands that prints this package's errors as one line and exits with their code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = error.message.replace(_PYDANTIC, "")
            raise
        except UwbenchError as error:
            _fail(str(error), error.exit_code)
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader is gone; typer exits silently
                raise
            failure = disk_error(error)
            _fail(str(failure), failure.exit_code)
        except KeyboardInterrupt:
            _fail(_interrupted(), 1)


class ListingGroup(Group):
    """A group that takes a name for its hidden command `show`: `uwbench tasks esc50` is `uwbench tasks show esc50`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands:
            args = ["show", *args]
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        return [
            *super().shell_complete(ctx, incomplete),
            *self.commands["show"].params[0].shell_complete(ctx, incomplete),
        ]


def _fail(message: str, code: int) -> NoReturn:
    sys.stdout.flush()
    print(_line(message), file=sys.stderr, flush=True)
    raise SystemExit(code)


def _line(message: str) -> str:
    # Without rich, which would read brackets in file names as markup.
    return f"uwbench: {printable(message)}"


def _interrupted() -> str:
    command = shlex.join(["uwbench", *sys.argv[1:]])
    return f"interrupted; finished work is kept, run the same command again to resume: {command}"


app = typer.Typer(
    cls=Group,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help=_HELP,
)


def _add_group(name: str, help_text: str, *, listing: bool) -> typer.Typer:
    group = typer.Typer(
        cls=ListingGroup if listing else Group, help=help_text, no_args_is_help=not listing, rich_markup_mode=None
    )
    app.add_typer(group, name=name, invoke_without_command=listing)
    return group


@app.callback(invoke_without_command=True)
def _root(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"uwbench {__version__}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        print(_START)


run.register(app)
board.register(app)
bundles.register(app)
protocols.register(app)
doctor.register(app)
models.register(_add_group("models", "List the models known by name, show one, or check an encoder.", listing=True))
tasks.register(_add_group("tasks", "List the tasks, show a card in full, or check a card.", listing=True))
data.register(_add_group("data", "Fetch and check datasets.", listing=False))
cache.register(_add_group("cache", "List, verify and prune the embeddings cache.", listing=False))


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):  # prints file names that are not UTF-8
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with exit_soon_after_signal(lambda: _line(_interrupted())):
        app()
