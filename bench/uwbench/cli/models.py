"""The commands `uwbench models`: list the models known by name, show one, check an encoder."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from uwbench import api
from uwbench.api import Column, FittedTable, printable
from uwbench.cli import complete
from uwbench.cli import options as opt
from uwbench.cli.groups import with_groups
from uwbench.cli.tables import print_fields, print_view

if TYPE_CHECKING:
    from uwbench.encoders.base import CatalogueEntry
    from uwbench.encoders.conformance import Conformance


def register(group: typer.Typer) -> None:
    """Add the commands of this module to the group `uwbench models`."""
    group.callback(invoke_without_command=True)(list_models)
    group.command("show", hidden=True)(with_groups(show_model))
    group.command("check")(with_groups(check_model))


def list_models(ctx: typer.Context, verbose: opt.Verbose = False, as_json: opt.Json = False) -> None:
    """List the models known by name, show one, or check an encoder."""
    if ctx.invoked_subcommand is not None:
        return
    entries = api.list_models()
    if as_json:
        opt.print_json([asdict(entry) for entry in entries])
        return
    print_view(_models_table(entries, verbose=verbose))
    counts = Counter(entry.verified for entry in entries)
    kinds = {"weights": "published weights", "random": "random weights", "not run": "not run"}
    tested = ", ".join(f"{text} {counts[kind]}" for kind, text in kinds.items())
    print(f"{len(entries)} models; in tests: {tested}.")
    texts = ", ".join(entry.name for entry in entries if entry.texts)
    print(textwrap.fill(f"With texts, for zero-shot: {texts}.", 79, break_on_hyphens=False))
    print("uwbench models NAME shows a model in full. NAME and -m also take a Hugging Face")
    print("id, a folder of weights, hear:MODULE, FILE.py:Class, vectors, a model card.")


def _models_table(entries: Sequence[CatalogueEntry], *, verbose: bool) -> FittedTable:
    sizes = ["-" if entry.parameters is None else f"{entry.parameters / 1e6:,.0f} M" for entry in entries]
    contexts = [f"{entry.context_s:g} s" if entry.context_s else "any" for entry in entries]
    columns = [
        Column("model", [entry.name for entry in entries], right=False),
        Column("family", [entry.family for entry in entries], 7, right=False),
        Column("size", sizes, 1),
        Column("rate", [f"{entry.sample_rate / 1000:g} kHz" for entry in entries], 6),
        Column("context", contexts, 3),
        Column("hop", ["-" if entry.hop_s is None else f"{entry.hop_s * 1000:.4g} ms" for entry in entries], 4),
        Column("layers", [str(entry.layers or "-") for entry in entries], 4),
        Column("verified", [entry.verified for entry in entries], 5, right=False),
        Column("texts", ["yes" if entry.texts else "-" for entry in entries], 4),
        Column("licence", [entry.licence for entry in entries], 2, right=False),
        Column("trained on", [entry.training_data for entry in entries], 8, right=False),
    ]
    return FittedTable(None, columns, verbose)


def show_model(
    *,
    name: Annotated[list[str], typer.Argument(help="Models, named as for -m.", autocompletion=complete.models)],
    encoder: opt.ModelOptions,
    as_json: opt.Json = False,
) -> None:
    """Show models in full: facts, training data, and the contamination flag for every task."""
    specs = opt.model_specs(name, encoder)
    described = [api.describe_model(spec) for spec in specs]
    if as_json:
        opt.print_json(described[0] if len(described) == 1 else described)
        return
    for index, fields in enumerate(described):
        if index:
            print("---")
        print_fields({name: value for name, value in fields.items() if value is not None}, as_json=False)


def check_model(
    *,
    model: Annotated[str, typer.Argument(help="A model, named as for -m.", autocompletion=complete.models)],
    task: Annotated[
        str | None, typer.Option("-t", "--task", help="Take the audio of this card, manifest or folder.")
    ] = None,
    data: opt.Data = None,
    encoder: opt.ModelOptions,
    device: opt.Device = "auto",
    as_json: opt.Json = False,
) -> None:
    """Measure what an encoder promises: frame hop, independence of batch mates, determinism, speed.

    Uses clips of a task's audio; without --task, generated sounds.
    """
    conformance = api.check_encoder(encoder.spec(model), task=task, data=data, device=device)
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
