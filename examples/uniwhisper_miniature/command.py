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
from uwbench.api import UwbenchError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
# Not shown on a page: how many trainings run at once changes no result.
_NOT_SHOWN = {"write_doc", "jobs"}


class Split(StrEnum):
    """The clips that are scored."""

    test = "test"
    valid = "valid"


class Arm(StrEnum):
    """The decoder that the encoder is trained with."""

    lm = "lm"
    random = "random"
    whisper = "whisper"


@app.command()
def experiment(
    ctx: typer.Context,
    data: Annotated[Path, typer.Option("--data", help="The folder that holds fsdd, esc10 and philharmonia.")],
    encoder: Annotated[Path, typer.Option("--encoder", help="The original encoder: a folder of Whisper weights.")],
    output: Annotated[Path, typer.Option("--output", help="The working folder; an interrupted run continues there.")],
    lm: Annotated[
        Path | None, typer.Option("--lm", help="A pretrained language model; without it, that of the configuration.")
    ] = None,
    config: Annotated[str, typer.Option("--config", help="The training configuration.")] = "cpu-mini",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE, for example run.batch_s=24; repeats.")
    ] = None,
    turn: Annotated[
        list[str] | None,
        typer.Option("--turn", help="Hold out a data set, a task (for example fsdd_speaker) or none; repeats."),
    ] = None,
    arm: Annotated[list[Arm] | None, typer.Option("--arm", help="The decoder used in training; repeats.")] = None,
    clips: Annotated[int, typer.Option("--clips", min=1, help="Score at most this many clips per split.")] = 300,
    alpha: Annotated[float, typer.Option("--alpha", help="The trained weights' share in the export.")] = 1.0,
    split: Annotated[Split, typer.Option("--split", help="Clips to score; choose settings on valid.")] = Split.test,
    jobs: Annotated[
        int | None, typer.Option("--jobs", min=1, help="Parallel trainings; default: as many as cores.")
    ] = None,
    write_doc: Annotated[
        Path | None, typer.Option("--write-doc", help="Write the tables into this page, between its two marks.")
    ] = None,
) -> None:
    """Train with one data set or kind of label held out at a time, and score the original and trained encoders.

    Without --turn and --arm: nothing and each data set held out with a language model as decoder, and nothing held out
    with Whisper's own decoder. With --lm, nothing is also held out with the same language model at random.
    """
    from uniwhisper_miniature.experiment import ALL, DEFAULT_RUNS, Settings, run_experiment
    from uniwhisper_miniature.page import report, write_tables

    runs = DEFAULT_RUNS if lm is None else (*DEFAULT_RUNS, (ALL, Arm.random.value))
    if turn or arm:
        turns = turn or list(dict.fromkeys(name for name, _ in DEFAULT_RUNS))
        arms = arm or [decoder for decoder in Arm if lm is not None or decoder != Arm.random]
        runs = tuple((name, decoder.value) for name in turns for decoder in arms)
    overlay = overlay_of(settings or (), lm=None if lm is None else str(lm))
    outcome = run_experiment(
        data,
        encoder,
        output,
        Settings(config, overlay, runs, clips, alpha=alpha, split=split.value),
        log=lambda text: print(text, file=sys.stderr, flush=True),
        jobs=jobs or min(len(runs), os.cpu_count() or 1),
    )
    lines = report(outcome)
    print("\n".join(lines))
    if write_doc is not None:
        write_tables(write_doc, command_line(ctx), lines)


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
