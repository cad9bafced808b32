"""What the commands share: their options, and how names, models and folders are read from the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from uwbench.errors import UsageError, escaped

if TYPE_CHECKING:
    from uwbench.encoders.base import ModelSpec

Models = Annotated[
    list[str] | None,
    typer.Option(
        "-m", "--model", help="A name, a Hugging Face id, a folder, hear:MODULE or FILE.py:Class. Repeat or use commas."
    ),
]
Tasks = Annotated[
    list[str] | None,
    typer.Option(
        "-t",
        "--task",
        help="A card's name, a card, a manifest, or a folder with a sub-folder a class. Repeat, commas, globs.",
    ),
]
Suite = Annotated[
    str | None, typer.Option("-s", "--suite", help="A suite of tasks: uniwhisper-20, xares-22, mini, or a file.")
]
Protocol = Annotated[str, typer.Option("--protocol", help="The rules by which numbers are made.")]
Cache = Annotated[Path | None, typer.Option("--cache", envvar="UWBENCH_CACHE", help="The embeddings cache.")]
Data = Annotated[Path | None, typer.Option("--data", envvar="UWBENCH_DATA", help="The folder with one folder a task.")]
Results = Annotated[Path | None, typer.Option("--results", envvar="UWBENCH_RESULTS", help="Where results are kept.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")]
Method = Annotated[str, typer.Option("--method", help="mlp, knn or both.")]
Weights = Annotated[str | None, typer.Option("--weights", help="A folder or hub id with the model's weights.")]
Context = Annotated[
    str, typer.Option("--context", help="full: as the model was trained; trimmed: valid positions alone.")
]
Dtype = Annotated[str, typer.Option("--dtype", help="fp32, or bf16 with a report of how far it is from fp32.")]
Layers = Annotated[str, typer.Option("--layers", help="last, all, or a list of names or numbers.")]
Pooling = Annotated[str, typer.Option("--pooling", help="Poolings to store: mean, mean-all, std, max, first.")]
BatchSeconds = Annotated[
    float | None, typer.Option("--batch-seconds", min=0.1, help="Audio in one forward, padding counted.")
]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Threads that decode.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the probes.")]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, help="Clips a split or fold; the result is marked limited.")
]
Force = Annotated[bool, typer.Option("--force", help="Encode again what is cached.")]
AllowMissing = Annotated[int, typer.Option("--allow-missing", min=0, help="Score without up to N unreadable clips.")]
TextEncoder = Annotated[
    str | None,
    typer.Option(
        "--text-encoder",
        envvar="UWBENCH_TEXT_ENCODER",
        help="Retrieval: a sentence encoder on this machine: a folder, a package that carries one, a cached hub id.",
    ),
]
Label = Annotated[str | None, typer.Option("--label", help="The column of a manifest that holds the label.")]
GroupColumn = Annotated[
    str | None, typer.Option("--group", help="The column that holds the speaker, recording or song.")
]
Name = Annotated[str | None, typer.Option("--name", help="The name of a task made from a manifest or folder.")]
Kind = Annotated[str | None, typer.Option("--kind", help="The kind of such a task: single-label or multi-label.")]
Domain = Annotated[str, typer.Option("--domain", help="The domain of such a task: speech, sound or music.")]
AllowOutside = Annotated[bool, typer.Option("--allow-outside", help="Allow a manifest's paths to leave its folder.")]
RemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run code that comes with a checkpoint. Off by default.")
]
Revision = Annotated[str | None, typer.Option("--revision", help="The revision of a hub id.")]
Engine = Annotated[
    str, typer.Option("--engine", help="Who extracts: local, or ray: the workers of a Ray cluster (RAY_ADDRESS).")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No plan and no progress.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def split_names(values: Sequence[str] | None) -> list[str]:
    """Split commas and expand globs; a path that exists is taken as it is."""
    found: list[str] = []
    for value in values or ():
        for item in [value] if Path(value).exists() else filter(None, value.split(",")):
            found.extend(_expand(item))
    return list(dict.fromkeys(found))


def _expand(item: str) -> list[str]:
    if not any(mark in item for mark in "*?["):
        return [item]
    import fnmatch

    from uwbench.cards.find import find_cards

    names = sorted(fnmatch.filter(find_cards()[0], item)) or _paths(item)
    if not names:
        raise UsageError(f"{item!r} matches no card and no file", where="--task")
    return names


def _paths(pattern: str) -> list[str]:
    path = Path(pattern)
    root = Path(path.anchor) if path.is_absolute() else Path()
    return sorted(str(found) for found in root.glob(str(path.relative_to(path.anchor))))


def model_specs(
    models: Sequence[str] | None, weights: str | None, context: str, revision: str | None, trust: bool
) -> list[ModelSpec]:
    from uwbench.encoders.base import ModelSpec

    names = split_names(models)
    if not names:
        raise UsageError("no model was named", remedy="give -m NAME; uwbench models lists the names")
    if context == "full":
        return [ModelSpec(name, weights, "full", revision, trust) for name in names]
    if context == "trimmed":
        return [ModelSpec(name, weights, "trimmed", revision, trust) for name in names]
    raise UsageError(f"{context!r} is not one of full, trimmed", where="--context")


def print_json(value: Any) -> None:
    """Print a value as strict JSON, in which no text of others moves the terminal."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    print(escaped(text))
