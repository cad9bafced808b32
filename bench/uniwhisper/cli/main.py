"""The command `uniwhisper`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from uniwhisper.cli import data as cli_data
from uniwhisper.cli import evaluate as cli_evaluate
from uniwhisper.cli import train as cli_train
from uniwhisper.export import Peer
from uwbench.api import UwbenchError

if TYPE_CHECKING:
    from uniwhisper.config import Config


class Group(TyperGroup):
    """Prints errors as one line and exits with their code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UwbenchError as error:
            print(f"uniwhisper: {error}", file=sys.stderr)
            raise SystemExit(error.exit_code) from None


app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="The companion of uwbench: train a UniWhisper, and export encoders that uwbench loads.",
)


@app.callback()
def _root() -> None:
    pass


@app.command()
def plan(
    config: Annotated[str, typer.Argument(help="full, small, cpu-mini, or a YAML file.")],
    settings: cli_train.Overlay = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Estimate the cost of a training run: parameters, FLOPs, memory, GPU-hours. Computed, not measured."""
    from uniwhisper.config import load_config
    from uniwhisper.cost import make_plan

    planned = load_config(config, cli_train.overlay_of(settings or ()))
    cost = make_plan(planned)
    if as_json:
        print(json.dumps({**cost.model_dump(), "parameters": cost.parameters}, indent=2, sort_keys=True))
        return
    gpus = f"{planned.hardware.gpus} GPU" + ("" if planned.hardware.gpus == 1 else "s")
    wall = f"{cost.wall_hours:,.1f} h on {gpus}"
    lm = planned.lm
    decoder = lm.init if lm.kind == "causal" and lm.init else lm.kind
    rows = [
        ("encoder", f"{cost.encoder_parameters / 1e6:,.1f} M parameters"),
        ("adapter", f"{cost.adapter_parameters / 1e6:,.2f} M parameters"),
        ("language model", f"{cost.lm_parameters / 1e6:,.1f} M parameters, {lm.train} ({decoder})"),
        ("together", f"{cost.parameters / 1e9:.3f} B, of which {cost.trained_parameters / 1e9:.3f} B are trained"),
        ("encoder forward", f"{cost.forward_30s_encoder_flops / 1e12:.3f} TFLOP for 30 s"),
        ("LM forward", f"{cost.forward_30s_lm_flops / 1e12:.3f} TFLOP for 30 s with its text"),
        ("training", f"{cost.train_flops_per_hour / 1e15:.3f} PFLOP per hour of audio, {_questions(planned)}"),
        ("model states", f"{cost.state_gb:.1f} GiB without activations"),
        ("time", f"{cost.gpu_hours:,.{0 if cost.gpu_hours >= 10 else 1}f} GPU-hours, {wall}"),
        ("assumed", f"{planned.hardware.mfu:.0%} of {planned.hardware.peak_tflops:g} TFLOP/s"),
    ]
    for name, text in rows:
        print(f"{name:<16} {text}")


def _questions(settings: Config) -> str:
    count = settings.data.qa_per_audio
    if count == 1:
        return "one question per clip"
    packed = settings.data.packed and settings.lm.kind != "whisper"
    return f"{count} questions per clip in {'one row' if packed else 'rows of their own'}"


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="A run, its checkpoint, or a folder of Whisper weights.")],
    output: Annotated[Path, typer.Option("--output", help="The folder to write.")],
    base: Annotated[Path | None, typer.Option("--base", help="The original weights to interpolate with.")] = None,
    alpha: Annotated[float, typer.Option("--alpha", help="The trained weights' share.")] = 1.0,
    ema: Annotated[bool, typer.Option("--ema", help="Export the averaged weights.")] = False,
    training_data: Annotated[
        Path | None, typer.Option("--training-data", help="YAML list of {dataset, split, licence}.")
    ] = None,
    peers: Annotated[
        list[Peer] | None, typer.Option("--for", help="Add the file by which this program loads it; repeats.")
    ] = None,
) -> None:
    """Write the encoder of a checkpoint as a folder for `uwbench -m uniwhisper --weights FOLDER`."""
    from uniwhisper.evaluate import checkpoint_of
    from uniwhisper.export import export_encoder, write_wrapper

    checkpoint = checkpoint_of(checkpoint) or checkpoint
    print(export_encoder(checkpoint, output, base=base, alpha=alpha, training_data=training_data, ema=ema))
    for peer in dict.fromkeys(peers or ()):
        if (path := write_wrapper(peer, output)) != output:
            print(path)


cli_data.add_to(app)
cli_train.add_to(app)
cli_evaluate.add_to(app)


def main() -> None:
    """Run the command line."""
    if not sys.stderr.isatty():  # progress bars are for terminals, not for logs
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    app()
