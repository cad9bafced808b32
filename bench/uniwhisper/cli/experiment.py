"""The commands `evaluate`, `ablate` and `experiment`."""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from uniwhisper.cli.train import overlay_of
from uwbench.api import UsageError

Encoder = Annotated[Path, typer.Option("--encoder", help="The original encoder: a folder of Whisper weights.")]
Changes = Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE, as in run.batch_s=24; repeats.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def add_to(app: typer.Typer) -> None:
    """Add this module's commands to the command line."""
    for command in (evaluate, experiment):
        app.command()(command)
    ablations = typer.Typer(no_args_is_help=True, help="One change of the recipe at a time.")
    ablations.command("list")(ablate_list)
    ablations.command("run")(ablate_run)
    app.add_typer(ablations, name="ablate")


def evaluate(
    trained: Annotated[Path, typer.Argument(help="An export, a checkpoint, or the folder of a training run.")],
    encoder: Encoder,
    output: Annotated[Path, typer.Option("--output", help="Where export, embeddings and results go.")],
    task: Annotated[list[str] | None, typer.Option("-t", "--task", help="A benchmark task; repeats.")] = None,
    suite: Annotated[str | None, typer.Option("--suite", help="A suite of tasks, as in mini.")] = None,
    data: Annotated[Path | None, typer.Option("--data", help="The tasks' data.", envvar="UWBENCH_DATA")] = None,
    context: Annotated[
        str, typer.Option("--context", help="full: 30 s, as Whisper hears; trimmed: the clip's own length.")
    ] = "full",
    as_json: AsJson = False,
) -> None:
    """Run the benchmark on what was trained with the original beside it, and print the differences."""
    from uniwhisper import evaluate as module
    from uwbench.api import Folders

    if not task and suite is None:
        raise UsageError("names no tasks", where="evaluate", remedy="give -t TASK or --suite NAME")
    chosen: Literal["full", "trimmed"] = "trimmed" if context == "trimmed" else "full"
    if context != chosen:
        raise UsageError(f"{context!r} is not full or trimmed", where="--context")
    found = module.evaluate(
        module.encoder_of(trained, output / "encoder"),
        encoder,
        task or (),
        folders=Folders(output / "cache", data, output / "results"),
        suite=suite,
        context=chosen,
    )
    if as_json:
        print(json.dumps([asdict(row) for row in found.differences], indent=2))
        return
    print("\n".join(module.table(found.differences)))


def experiment(
    data: Annotated[Path, typer.Option("--data", help="The folder that holds fsdd, esc10 and philharmonia.")],
    encoder: Encoder,
    output: Annotated[Path, typer.Option("--output", help="The folder to work in; goes on with what it holds.")],
    config: Annotated[str, typer.Option("--config", help="The training configuration.")] = "cpu-mini",
    settings: Changes = None,
    turn: Annotated[
        list[str] | None,
        typer.Option("--turn", help="What to hold out: a set, a task (as in fsdd_speaker), or none; repeats."),
    ] = None,
    arm: Annotated[list[str] | None, typer.Option("--arm", help="lm or whisper; repeats.")] = None,
    clips: Annotated[int, typer.Option("--clips", min=1, help="The most clips of a split that are scored.")] = 300,
    alpha: Annotated[float, typer.Option("--alpha", help="The share of the trained weights in the export.")] = 1.0,
    split: Annotated[
        str, typer.Option("--split", help="The clips that are scored: test, or valid to choose settings on.")
    ] = "test",
    jobs: Annotated[
        int | None, typer.Option("--jobs", min=1, help="Trainings at a time; without it, one a core.")
    ] = None,
    write_doc: Annotated[
        Path | None, typer.Option("--write-doc", help="Write the tables into this page, between its two marks.")
    ] = None,
) -> None:
    """Train with a set or a kind of label held out, in turns, by two arms; score original and trained encoders.

    Without --turn and --arm: nothing and each set held out with a language model, and nothing held out with Whisper's
    decoder.
    """
    from uniwhisper.experiment import ARMS, DEFAULT_RUNS, Settings, run_experiment
    from uniwhisper.experiment_page import report, write_tables

    chosen: Literal["test", "valid"] = "valid" if split == "valid" else "test"
    if split != chosen:
        raise UsageError(f"{split!r} is not test or valid", where="--split")
    runs = DEFAULT_RUNS
    if turn or arm:
        turns = turn or list(dict.fromkeys(name for name, _ in DEFAULT_RUNS))
        runs = tuple((name, own) for name in turns for own in arm or ARMS)
    found = run_experiment(
        data,
        encoder,
        output,
        Settings(config, overlay_of(settings or ()), runs, clips, alpha=alpha, split=chosen),
        say=lambda text: print(text, file=sys.stderr, flush=True),
        jobs=jobs or min(len(runs), os.cpu_count() or 1),
    )
    lines = report(found)
    print("\n".join(lines))
    if write_doc is not None:
        words = ["experiment"]
        for name, path in (("--data", data), ("--encoder", encoder), ("--output", output)):
            words += [name, path.name if path.is_absolute() else str(path)]  # a page names no folder of one machine
        given = {"--config": config, "--clips": str(clips), "--alpha": f"{alpha:g}", "--split": split}
        usual = {"--config": "cpu-mini", "--clips": "300", "--alpha": "1", "--split": "test"}
        words += [word for name, value in given.items() if value != usual[name] for word in (name, value)]
        for name, values in (("--set", settings), ("--turn", turn), ("--arm", arm)):
            words += [word for value in values or () for word in (name, value)]
        write_tables(write_doc, f"uniwhisper {shlex.join(words)}", lines)


def ablate_list(
    config: Annotated[str, typer.Option("--config", help="The configuration that the arms change.")] = "full",
    as_json: AsJson = False,
) -> None:
    """Print each arm with what it changes."""
    from uniwhisper.ablate import arms, changes

    found = {arm.name: changes(arm, config) for arm in arms()}
    if as_json:
        print(json.dumps(found, indent=2))
        return
    for arm in arms():
        print(f"{arm.name:<20} {arm.title}")
        for key, (before, after) in found[arm.name].items():
            print(f"{'':<20}   {key}: {json.dumps(before)} -> {json.dumps(after)}")


def ablate_run(
    arm: Annotated[str, typer.Argument(help="An arm's name (see `ablate list`) or a YAML overlay.")],
    output: Annotated[Path, typer.Option("--output", help="The folder of checkpoints and logs.")],
    data: Annotated[list[Path], typer.Option("--data", help="A folder of training rows and shards; repeats.")],
    config: Annotated[str, typer.Option("--config", help="The configuration that the arm changes.")] = "full",
    mixture: Annotated[str | None, typer.Option("--mixture", help="A mixture's name or file.")] = None,
    encoder: Annotated[str | None, typer.Option("--encoder", help="The Whisper weights to start from.")] = None,
    lm: Annotated[str | None, typer.Option("--lm", help="The language model to start from.")] = None,
    settings: Changes = None,
    allow_several: Annotated[bool, typer.Option("--allow-several", help="Let an arm change several things.")] = False,
) -> None:
    """Train one arm; `--set` changes the base of all arms."""
    from uniwhisper.ablate import find_arm, run_arm

    base = overlay_of(settings or (), encoder=encoder, lm=lm)
    print(run_arm(find_arm(arm), config, data, output, base=base, mixture=mixture, allow_several=allow_several))
