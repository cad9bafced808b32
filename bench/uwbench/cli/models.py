"""The commands `uwbench models`: list the models known by name, show one, check an encoder."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from uwbench.cli.options import Context, Data, Device, Json, RemoteCode, Revision, Weights, print_json
from uwbench.cli.tables import new_table, print_fields, print_table
from uwbench.errors import UsageError, printable

if TYPE_CHECKING:
    import numpy as np

    from uwbench.encoders.base import EncoderInfo
    from uwbench.encoders.conformance import Conformance


def register(group: typer.Typer) -> None:
    """Add the commands of this module to the group `uwbench models`."""
    group.callback(invoke_without_command=True)(list_models)
    group.command("show", hidden=True)(show_model)
    group.command("check")(check_model)


def list_models(ctx: typer.Context, as_json: Json = False) -> None:
    """List the models known by name, show one, or check an encoder."""
    if ctx.invoked_subcommand is not None:
        return
    from uwbench.encoders.catalogue import CATALOGUE

    if as_json:
        print_json([asdict(entry) for entry in CATALOGUE])
        return
    table = new_table("model", "family", "size", "rate", "context", "hop", "layers", "licence", "trained on")
    table.columns[-1].max_width = 40
    for entry in CATALOGUE:
        table.add_row(
            entry.name,
            entry.family,
            "-" if entry.parameters is None else f"{entry.parameters / 1e6:.0f} M",
            f"{entry.sample_rate / 1000:g} kHz",
            f"{entry.context_s:g} s" if entry.context_s else "any",
            f"{entry.hop_s * 1000:.4g} ms",
            str(entry.layers or "-"),
            entry.licence,
            entry.training_data,
        )
    print_table(table)
    print("Any Hugging Face id or folder of a known architecture, hear:MODULE and FILE.py:Class work too.")


def show_model(
    name: Annotated[str, typer.Argument(help="A name of the catalogue, its hub id, or a folder with weights.")],
    as_json: Json = False,
) -> None:
    """Show one model in full: facts, what it was trained on, and its contamination flag for every task."""
    from uwbench.base.registry import suggestion
    from uwbench.cards.find import find_cards
    from uwbench.encoders.catalogue import CATALOGUE
    from uwbench.results.contamination import FLAGS, judge, read_lineage, stated, training_of

    entries = {key: entry for entry in CATALOGUE for key in (entry.name, entry.hub_id) if key}
    listed = None
    if name in entries:
        fields, name = asdict(entries[name]), entries[name].name
    elif Path(name).expanduser().is_dir():
        fields, listed = _folder_facts(name)
        name = fields["name"]
    else:
        raise UsageError(f"unknown model {name!r}", remedy=suggestion(name, {entry.name for entry in CATALOGUE}))
    training = stated(listed) if listed is not None else training_of(name, read_lineage())
    if training is not None:
        fields["trained_on"] = training.model_dump(mode="json", exclude={"names"}, exclude_none=True)
    cards = find_cards()[0].values()
    flags = {card.name: judge(card.name, name, listed, folds=card.folds is not None).flag for card in cards}
    found = {flag: [task for task, own in flags.items() if own == flag] for flag in reversed(FLAGS)}
    fields["contamination"] = {flag: tasks for flag, tasks in found.items() if tasks}
    print_fields(fields, as_json)


def _folder_facts(name: str) -> tuple[dict[str, Any], tuple[dict[str, Any], ...] | None]:
    """Return what a folder of weights says of itself, and its own list of training data."""
    from uwbench.encoders.base import ModelSpec
    from uwbench.encoders.resolve import open_encoder

    info = open_encoder(ModelSpec(name)).info
    facts = ("name", "family", "parameters", "sample_rate", "context_s", "hop_s", "licence")
    fields = {fact: getattr(info, fact) for fact in facts}
    return {**fields, "layers": len(info.layers)}, info.training_data


def check_model(
    model: Annotated[str, typer.Argument(help="A model, named as for -m.")],
    task: Annotated[
        str | None, typer.Option("-t", "--task", help="Take the audio of this card, manifest or folder.")
    ] = None,
    data: Data = None,
    weights: Weights = None,
    context: Context = "full",
    revision: Revision = None,
    device: Device = "auto",
    trust_remote_code: RemoteCode = False,
    as_json: Json = False,
) -> None:
    """Measure what an encoder promises: frame hop, independence of batch mates, determinism, speed.

    On clips of a task's audio; without --task, on sounds that are computed on the spot.
    """
    from uwbench.base.device import pick_device
    from uwbench.cli.options import model_specs
    from uwbench.encoders.conformance import check_encoder
    from uwbench.encoders.resolve import open_encoder

    encoder = open_encoder(model_specs([model], weights, context, revision, trust_remote_code)[0])
    clips, audio = _clips_of(task, data, encoder.info.sample_rate)
    found = check_encoder(encoder, clips=clips, device=pick_device(device))
    if as_json:
        print_json({**found.to_json(), "audio": audio})
    else:
        _print_conformance(found, encoder.info, audio)
    raise typer.Exit(1 if found.problems else 0)


def _clips_of(task: str | None, data: Path | None, rate: int) -> tuple[list[np.ndarray], str]:
    """Return four clips out of a task, spread over it, and where they come from in words."""
    from uwbench import api

    dataset = api.open_task(task or "mini_sound", data=api.folders(None, data, None).data)
    clips = [dataset.clips[len(dataset.clips) * index // 4] for index in range(min(4, len(dataset.clips)))]
    if not clips:
        raise UsageError("holds no clip", where=f"--task {task}")
    decoded = [api.decode(clip.audio, rate, start_s=clip.start_s, end_s=clip.end_s) for clip in clips]
    if task is None:
        return decoded, f"{len(clips)} generated sounds of mini_sound; give --task for real audio"
    return decoded, f"{len(clips)} clips of {dataset.card.name} ({dataset.source})"


def _print_conformance(found: Conformance, info: EncoderInfo, audio: str) -> None:
    from uwbench.encoders.conformance import BATCH_TOLERANCE

    how = {"padded": "padded to the longest", "equal-length": "with mates of its length", "single": "one by one"}
    rows = {
        "model": found.model,
        "audio": audio,
        "layers": f"{len(info.layers)} of {info.dim} values",
        "hop": f"{found.hop_seconds * 1000:.4g} ms ({info.hop_s * 1000:.4g} ms declared)",
        "batch deviation": f"{found.batch_deviation:.2g} ({how[info.batching]}; at most {BATCH_TOLERANCE:g})",
        "deterministic": "yes" if found.deterministic else "no",
        "clips a second": f"{found.clips_per_second:.3g}, of 1 to 4.3 s each",
    }
    for name, value in rows.items():
        print(printable(f"{name:<16} {value}"))
    for problem in found.problems:
        print(printable(f"problem: {problem}"))
    if not found.problems:
        print("no problem found")
