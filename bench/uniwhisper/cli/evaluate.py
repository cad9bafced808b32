"""The commands `evaluate`, `ablate` and `experiment`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from uniwhisper.cli.train import Overlay, overlay_of
from uwbench.api import UsageError

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Context(StrEnum):
    """The length of audio that an encoder gets for a clip."""

    full = "full"
    trimmed = "trimmed"


def add_to(app: typer.Typer) -> None:
    """Add this module's commands to the command line."""
    app.command()(evaluate)
    # The example parses its own options, --help included.
    passing_on = {"allow_extra_args": True, "ignore_unknown_options": True}
    app.command(context_settings=passing_on, add_help_option=False)(experiment)
    ablations = typer.Typer(no_args_is_help=True, help="Train with one change to the recipe at a time.")
    ablations.command("list")(ablate_list)
    ablations.command("run")(ablate_run)
    app.add_typer(ablations, name="ablate")


def evaluate(
    trained: Annotated[Path, typer.Argument(help="An export, a checkpoint, or the folder of a training run.")],
    encoder: Annotated[Path, typer.Option("--encoder", help="The original encoder: a folder of Whisper weights.")],
    output: Annotated[Path, typer.Option("--output", help="The folder for the export, embeddings and results.")],
    task: Annotated[list[str] | None, typer.Option("-t", "--task", help="A benchmark task; repeats.")] = None,
    suite: Annotated[str | None, typer.Option("--suite", help="A suite of tasks, for example mini.")] = None,
    data: Annotated[Path | None, typer.Option("--data", help="The tasks' data.", envvar="UWBENCH_DATA")] = None,
    context: Annotated[
        Context, typer.Option("--context", help="full: Whisper's 30 s window; trimmed: the clip's own length.")
    ] = Context.full,
    as_json: AsJson = False,
) -> None:
    """Benchmark a trained encoder and the original on the same clips, and print the differences."""
    from uniwhisper import evaluate as module
    from uwbench.api import Folders

    if not task and suite is None:
        raise UsageError("names no tasks", where="evaluate", remedy="give -t TASK or --suite NAME")
    evaluation = module.evaluate(
        module.encoder_of(trained, output / "encoder"),
        encoder,
        task or (),
        folders=Folders(output / "cache", data, output / "results"),
        suite=suite,
        context=context.value,
        progress=True,
    )
    if as_json:
        print(json.dumps([asdict(row) for row in evaluation.differences], indent=2))
        return
    print("\n".join(module.table(evaluation.differences)))


def experiment(ctx: typer.Context) -> None:
    """Run the miniature experiment, a program of the source checkout; `--help` lists its options."""
    import uniwhisper

    examples = Path(uniwhisper.__file__).parents[2] / "examples"
    if not (examples / "uniwhisper_miniature" / "command.py").is_file():
        raise UsageError(
            "is an example that installed packages do not include",
            where="experiment",
            remedy="run it from a checkout of the repository: python examples/uniwhisper_miniature --help",
        )
    sys.path.insert(0, str(examples))
    from uniwhisper_miniature.command import app

    app(ctx.args, prog_name=ctx.command_path, standalone_mode=False)


def ablate_list(
    config: Annotated[str, typer.Option("--config", help="The configuration that arms change.")] = "full",
    as_json: AsJson = False,
) -> None:
    """List the arms and the settings that each changes."""
    from uniwhisper.ablate import arms, changes

    changed = {arm.name: changes(arm, config) for arm in arms()}
    if as_json:
        print(json.dumps(changed, indent=2))
        return
    for arm in arms():
        print(f"{arm.name:<20} {arm.title}")
        for key, (before, after) in changed[arm.name].items():
            print(f"{'':<20}   {key}: {json.dumps(before)} -> {json.dumps(after)}")


def ablate_run(
    arm: Annotated[str, typer.Argument(help="An arm's name (see `ablate list`) or a YAML overlay.")],
    output: Annotated[Path, typer.Option("--output", help="The folder for checkpoints and logs.")],
    data: Annotated[list[Path], typer.Option("--data", help="A folder of training rows and shards; repeats.")],
    config: Annotated[str, typer.Option("--config", help="The configuration that the arm changes.")] = "full",
    mixture: Annotated[str | None, typer.Option("--mixture", help="A mixture's name or file.")] = None,
    encoder: Annotated[str | None, typer.Option("--encoder", help="The Whisper weights to start from.")] = None,
    lm: Annotated[str | None, typer.Option("--lm", help="The causal language model to start from.")] = None,
    settings: Overlay = None,
    allow_several: Annotated[bool, typer.Option("--allow-several", help="Allow an arm with several changes.")] = False,
) -> None:
    """Train one arm; --set changes the base configuration."""
    from uniwhisper.ablate import find_arm, run_arm

    base = overlay_of(settings or (), encoder=encoder, lm=lm)
    print(run_arm(find_arm(arm), config, data, output, base=base, mixture=mixture, allow_several=allow_several))
