"""The commands `uwbench models`: list the models known by name, show one, check an encoder."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from uwbench import api
from uwbench.api import printable
from uwbench.cli import complete
from uwbench.cli import options as opt
from uwbench.cli.tables import new_table, print_fields, print_view

if TYPE_CHECKING:
    from uwbench.encoders.conformance import Conformance


def register(group: typer.Typer) -> None:
    """Add the commands of this module to the group `uwbench models`."""
    group.callback(invoke_without_command=True)(list_models)
    group.command("show", hidden=True)(show_model)
    group.command("check")(check_model)


def list_models(ctx: typer.Context, as_json: opt.Json = False) -> None:
    """List the models known by name, show one, or check an encoder."""
    if ctx.invoked_subcommand is not None:
        return
    entries = api.list_models()
    if as_json:
        opt.print_json([asdict(entry) for entry in entries])
        return
    table = new_table(
        "model", "family", "size", "rate", "context", "hop", "layers", "verified", "licence", "trained on"
    )
    table.columns[-1].max_width = 40
    for entry in entries:
        table.add_row(
            entry.name,
            entry.family,
            "-" if entry.parameters is None else f"{entry.parameters / 1e6:.0f} M",
            f"{entry.sample_rate / 1000:g} kHz",
            f"{entry.context_s:g} s" if entry.context_s else "any",
            f"{entry.hop_s * 1000:.4g} ms",
            str(entry.layers or "-"),
            entry.verified,
            entry.licence,
            entry.training_data,
        )
    print_view(table)
    counts = Counter(entry.verified for entry in entries)
    kinds = {"weights": "with published weights", "random": "with random weights of its class", "not run": "not run"}
    print(f"{len(entries)} models; in tests: {', '.join(f'{counts[kind]} {text}' for kind, text in kinds.items())}.")
    print(
        "Also: Hugging Face ids and folders of known families, hear:MODULE, FILE.py:Class, ready vectors, model cards."
    )


def show_model(
    name: Annotated[
        str,
        typer.Argument(
            help="A model's name, its Hugging Face id, a folder with weights, or a model card.",
            autocompletion=complete.models,
        ),
    ],
    as_json: opt.Json = False,
) -> None:
    """Show one model in full: facts, training data, and its contamination flag for every task."""
    print_fields(api.describe_model(name), as_json=as_json)


def check_model(
    model: Annotated[str, typer.Argument(help="A model, named as for -m.", autocompletion=complete.models)],
    task: Annotated[
        str | None, typer.Option("-t", "--task", help="Take the audio of this card, manifest or folder.")
    ] = None,
    data: opt.Data = None,
    weights: opt.Weights = None,
    context: opt.Context = api.Context.FULL,
    revision: opt.Revision = None,
    device: opt.Device = "auto",
    trust_remote_code: opt.RemoteCode = False,
    python: opt.Python = None,
    as_json: opt.Json = False,
) -> None:
    """Measure what an encoder promises: frame hop, independence of batch mates, determinism, speed.

    Uses clips of a task's audio; without --task, generated sounds.
    """
    spec = api.ModelSpec(model, weights, context.value, revision, trust_remote_code, python)
    conformance = api.check_encoder(spec, task=task, data=data, device=device)
    if as_json:
        opt.print_json(conformance.to_json())
    else:
        _print_conformance(conformance)
    raise typer.Exit(1 if conformance.problems else 0)


def _print_conformance(conformance: Conformance) -> None:
    info = conformance.info
    batches = {"padded": "padded to the longest", "equal-length": "of equal lengths", "single": "of one clip"}
    deviation = f"{conformance.batch_deviation:.2g} in batches {batches[info.batching]}"
    rows = {
        "model": conformance.model,
        "audio": conformance.audio,
        "layers": f"{len(info.layers)} of {info.dim} values",
        "hop": f"{conformance.hop_seconds * 1000:.4g} ms ({info.hop_s * 1000:.4g} ms declared)"
        if info.hop_s
        else "none: one vector per clip",
        "batch deviation": f"{deviation} (at most {api.BATCH_TOLERANCE:g})",
        "deterministic": "yes" if conformance.deterministic else "no",
        "clips per second": f"{conformance.clips_per_second:.3g}, of 1 to 4.3 s each",
    }
    for name, value in rows.items():
        print(printable(f"{name:<16} {value}"))
    for note in info.notes:
        print(printable(f"note: {note}"))
    for problem in conformance.problems:
        print(printable(f"problem: {problem}"))
    if not conformance.problems:
        print("no problem found")
