"""The experiment's command line."""

from __future__ import annotations

import os
import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from uniwhisper.cli.train import overlay_of
from uwbench.api import UsageError, UwbenchError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
# Not shown on a page: how many trainings run at once changes no result.
_NOT_SHOWN = {"write_doc", "jobs"}


class Arm(StrEnum):
    """The part that answers the questions in training."""

    lm = "lm"
    random = "random"
    whisper = "whisper"
    control = "control"


@app.command()
def experiment(
    ctx: typer.Context,
    data: Annotated[
        Path,
        typer.Option("--data", help="The folder of urbansound8k, fluidr3, fsdd, esc10 and philharmonia."),
    ],
    encoder: Annotated[Path, typer.Option("--encoder", help="The original encoder: a folder of Whisper weights.")],
    output: Annotated[Path, typer.Option("--output", help="The working folder; an interrupted run continues there.")],
    lm: Annotated[
        Path | None, typer.Option("--lm", help="The pretrained language model, for the arms lm and random.")
    ] = None,
    sentences: Annotated[
        Path | None,
        typer.Option("--sentences", help="Sentences to transcribe: a folder whose manifest.csv has path and text."),
    ] = None,
    config: Annotated[
        str | None, typer.Option("--config", help="The training configuration. Default: miniature.yaml beside it.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE, for example stages.joint=100; repeats.")
    ] = None,
    arm: Annotated[list[Arm] | None, typer.Option("--arm", help="An arm; repeats. Default: all.")] = None,
    lever: Annotated[
        list[str] | None,
        typer.Option(
            "--lever",
            help="Train one arm (default: lm) unchanged and with each lever: a name in levers/, or a YAML file of a "
            "title and a change; repeats. The best on validation clips is scored on test clips.",
        ),
    ] = None,
    clips: Annotated[int, typer.Option("--clips", min=2, help="Score at most this many clips per split.")] = 300,
    jobs: Annotated[
        int | None, typer.Option("--jobs", min=1, help="Parallel trainings; default: one per core.")
    ] = None,
    write_doc: Annotated[
        Path | None, typer.Option("--write-doc", help="Write the tables into this page, between its two marks.")
    ] = None,
) -> None:
    """Train an encoder in four arms on the same clips, and score it on data sets that it never heard.

    The arms: a pretrained language model, the same shape at random, Whisper's own decoder, and a control without any
    language model.
    """
    from uniwhisper_miniature.experiment import run_experiment
    from uniwhisper_miniature.levers import run_levers
    from uniwhisper_miniature.page import ARMS_MARKS, LEVERS_MARKS, report, report_levers, write_tables
    from uniwhisper_miniature.stages import CONFIG, Settings

    if lever and len(arm or ()) > 1:
        raise UsageError("levers change one arm", where="--arm", remedy="name a single --arm")
    arms = tuple(dict.fromkeys(name.value for name in arm or ([Arm.lm] if lever else Arm)))
    overlay = overlay_of(settings or (), lm=None if lm is None else str(lm))
    asked = Settings(config or str(CONFIG), overlay, arms, clips=clips, sentences=sentences)
    trainings = len(lever) + 1 if lever else len(arms)
    side_by_side = jobs or min(trainings, os.cpu_count() or 1)
    if lever:
        lines = report_levers(run_levers(data, encoder, output, asked, lever, _log, side_by_side))
    else:
        lines = report(run_experiment(data, encoder, output, asked, _log, side_by_side))
    print("\n".join(lines))
    if write_doc is not None:
        write_tables(write_doc, LEVERS_MARKS if lever else ARMS_MARKS, command_line(ctx), lines)


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def command_line(ctx: typer.Context) -> str:
    """Return the command as it was given, with absolute paths cut to their last part: a page names no local folder."""
    words = ["uniwhisper", "experiment"]
    for parameter in ctx.command.params:
        name = parameter.name or ""
        source = ctx.get_parameter_source(name)
        if name in _NOT_SHOWN or source is None or source.name != "COMMANDLINE":
            continue
        value = ctx.params[name]
        for item in value if isinstance(value, list | tuple) else [value]:
            is_absolute = isinstance(item, Path) and item.is_absolute()
            words += [parameter.opts[0], item.name if is_absolute else str(item)]
    return shlex.join(words)


def main() -> None:
    """Run the command line; print a UwbenchError as one line and exit with its code."""
    try:
        app(prog_name="uniwhisper experiment")
    except UwbenchError as error:
        print(f"uniwhisper: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
