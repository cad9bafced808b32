"""Options that several commands share, and the names of tasks and models on the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from uwbench import api
from uwbench.api import ModelSpec, TaskSpec, UsageError, escaped
from uwbench.cli import complete

Models = Annotated[
    list[str] | None,
    typer.Option(
        "-m",
        "--model",
        help="A name, a Hugging Face id, a folder, hear:MODULE, FILE.py:Class, or ready vectors (.parquet, .npz, a "
        "folder of .npy). Repeat, or separate by commas.",
        autocompletion=complete.models,
    ),
]
Tasks = Annotated[
    list[str] | None,
    typer.Option(
        "-t",
        "--task",
        help="A task's name, a card file, a manifest, or a folder with one sub-folder per class. Repeat, separate by "
        "commas, or use globs. NAME=PATH names your own data. Options for one task go in brackets: "
        "'my.csv[label=speaker,group=session,name=who]'.",
        autocompletion=complete.tasks,
    ),
]
Suite = Annotated[
    str | None,
    typer.Option(
        "-s",
        "--suite",
        help="A suite of tasks: uniwhisper-20, xares-22, mini, or a file.",
        autocompletion=complete.suites,
    ),
]
Protocol = Annotated[
    str, typer.Option("--protocol", help="The rules for probes and scores.", autocompletion=complete.protocols)
]
Cache = Annotated[Path | None, typer.Option("--cache", envvar="UWBENCH_CACHE", help="Folder of cached embeddings.")]
Data = Annotated[
    Path | None, typer.Option("--data", envvar="UWBENCH_DATA", help="Folder of datasets, with one folder per task.")
]
Results = Annotated[Path | None, typer.Option("--results", envvar="UWBENCH_RESULTS", help="Folder of results.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")]
_METHODS = "|".join(api.METHODS)
Methods = Annotated[
    str,
    typer.Option(
        "--method",
        metavar=f"<{_METHODS}|default|all>",
        help=f"How embeddings are scored; several are separated by commas. default: {','.join(api.HEADLINE)}.",
        autocompletion=complete.methods,
    ),
]
ShownMethods = Annotated[
    str | None,
    typer.Option(
        "--method",
        metavar=f"<{_METHODS}|default|all>",
        help="Methods to show; files have all without this option.",
        autocompletion=complete.methods,
    ),
]
Method = Annotated[
    str,
    typer.Option(
        "--method",
        metavar=f"<{_METHODS}>",
        help="Method whose scores are compared.",
        autocompletion=complete.method,
    ),
]
Weights = Annotated[str | None, typer.Option("--weights", help="Folder or Hugging Face id of the model's weights.")]
Context = Annotated[
    api.Context,
    typer.Option("--context", help="full: with padding, as the model was trained; trimmed: without padding."),
]
Dtype = Annotated[api.Dtype, typer.Option("--dtype", help="Precision; bf16 also reports its distance from fp32.")]
Layers = Annotated[str, typer.Option("--layers", help="last, all, or a list of names or numbers.")]
Pooling = Annotated[str, typer.Option("--pooling", help="Poolings to store: mean, mean-all, std, max, first.")]
BatchSeconds = Annotated[
    float | None,
    typer.Option("--batch-seconds", min=0.1, help="Seconds of audio per forward pass, including padding."),
]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Decoding threads.")]
Corrupt = Annotated[
    str | None,
    typer.Option(
        "--corrupt",
        help="Test on corrupted clips too, of probes trained on clean ones. A list of " + api.CORRUPTIONS + ".",
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the probes.")]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, help="Clips per split or fold; results are marked as limited.")
]
Force = Annotated[bool, typer.Option("--force", help="Re-encode even if cached.")]
AllowMissing = Annotated[
    int, typer.Option("--allow-missing", min=0, help="Score even if up to this many clips cannot be read.")
]
TextEncoder = Annotated[
    str | None,
    typer.Option(
        "--text-encoder",
        envvar="UWBENCH_TEXT_ENCODER",
        help="Sentence encoder for retrieval, on this machine: a folder, a package, or a cached Hugging Face id.",
    ),
]
Label = Annotated[str | None, typer.Option("--label", help="Own data: the manifest's column that holds the label.")]
Group = Annotated[
    str | None, typer.Option("--group", help="Own data: the column that holds the speaker, recording or song.")
]
Name = Annotated[str | None, typer.Option("--name", help="Own data: the task's name.")]
Kind = Annotated[api.Kind | None, typer.Option("--kind", help="Own data: the task's kind.")]
Domain = Annotated[api.Domain, typer.Option("--domain", help="Own data: the task's domain.")]
AllowOutside = Annotated[
    bool, typer.Option("--allow-outside", help="Own data: allow paths that leave the manifest's folder.")
]
Source = Annotated[
    list[str] | None,
    typer.Option(
        "--source",
        help="Own data: the published dataset or collection its recordings are from, as freesound; or own. Repeat.",
    ),
]
RemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run the Python code that comes with a checkpoint.")
]
Revision = Annotated[str | None, typer.Option("--revision", help="Revision of a Hugging Face id.")]
Python = Annotated[
    str | None,
    typer.Option(
        "--python",
        metavar="PATH",
        help="Run FILE.py:Class, hear:MODULE or a folder in this interpreter, which needs no uwbench.",
    ),
]
Engine = Annotated[
    api.Engine, typer.Option("--engine", help="Extract in this process, or on a Ray cluster (RAY_ADDRESS).")
]
Merge = Annotated[
    list[Path] | None,
    typer.Option("--merge", help="Another folder of results, from another machine, or a verified bundle. Repeat."),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print no plan and no progress.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show all columns, however wide the terminal is.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_TASK_OPTIONS = ("label", "group", "name", "kind", "domain", "source")
_BRACKETS = re.compile(r"(?P<source>.+)\[(?P<options>[^\[\]]*)\]", re.DOTALL)
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")  # in NAME=PATH
# A part of a comma-separated list: brackets and what they hold, or single characters other than commas.
_LIST_PART = re.compile(r"(?:\[[^\[\]]*\]|[^,])+", re.DOTALL)


def task_specs(
    values: Sequence[str] | None,
    label: str | None = None,
    group: str | None = None,
    name: str | None = None,
    kind: api.Kind | None = None,
    domain: api.Domain = api.Domain.SOUND,
    allow_outside: bool = False,
    origins: Sequence[str] | None = None,
) -> list[TaskSpec]:
    """Return the tasks that -t names, with commas split, globs expanded and options in brackets read.

    The other arguments apply to all of the user's own data among them; options in brackets come first.
    """
    taken_from = tuple(name for value in origins or () for name in value.split(","))
    own_data = TaskSpec("", label, group, name, kind, domain, allow_outside, taken_from)
    specs = []
    for place, options in _sources(values):
        fields: dict[str, Any] = {**options}
        if "source" in fields:
            fields["taken_from"] = (fields.pop("source"),)
        specs.append(replace(own_data if api.is_own_data(place) else TaskSpec(""), source=place, **fields))
    return list(dict.fromkeys(specs))


def _sources(values: Sequence[str] | None) -> Iterator[tuple[str, dict[str, str]]]:
    for value in values or ():
        whole = _exists(value) or _exists(split_task_options(value)[0])
        for item in [value] if whole else split_commas(value):
            source, options = (item, {}) if _exists(item) else split_task_options(item)
            name, mark, path = source.partition("=")
            if mark and _NAME.fullmatch(name) and api.is_own_data(path) and not _exists(source):
                source, options = path, {"name": name, **options}
            for path in _expand(source, api.task_names, "--task"):
                yield path, options


def split_commas(value: str) -> list[str]:
    """Split a list at its commas, except between brackets."""
    return _LIST_PART.findall(value)


def split_task_options(item: str) -> tuple[str, dict[str, str]]:
    """Split `my.csv[label=speaker,name=who]` into its source and options.

    Brackets at the end hold options only if each of their parts is KEY=VALUE with a known key; others, as in the glob
    `clips[0-9]`, belong to the source.
    """
    match = _BRACKETS.fullmatch(item)
    pairs = [part.partition("=") for part in match["options"].split(",")] if match else []
    if match is None or not all(key in _TASK_OPTIONS and mark for key, mark, _ in pairs):
        return item, {}
    options = {key: text for key, _, text in pairs}
    if len(options) < len(pairs) or not all(options.values()):
        raise UsageError("gives an option twice or without a value", where=f"--task {item}")
    return match["source"], options


def model_names(values: Sequence[str] | None) -> list[str]:
    """Return the models that -m names, with commas split and globs of folders expanded."""
    names = []
    for value in values or ():
        for item in [value] if _exists(value) else split_commas(value):
            names.extend(_expand(item, list, "--model"))
    return list(dict.fromkeys(names))


def model_specs(
    values: Sequence[str] | None,
    weights: str | None,
    context: api.Context,
    revision: str | None,
    trust: bool,
    python: str | None,
) -> list[ModelSpec]:
    """Return the models that -m names, each with these options."""
    names = model_names(values)
    if not names:
        raise UsageError("no model was named", remedy="give -m NAME; uwbench models lists the names")
    return [ModelSpec(name, weights, context.value, revision, trust, python) for name in names]


def _expand(item: str, names: Callable[[], list[str]], option: str) -> list[str]:
    """Expand a glob over `names`, or over files if it matches none; anything else is returned as it is."""
    if _exists(item) or not any(mark in item for mark in "*?["):
        return [item]
    import fnmatch

    matches = sorted(fnmatch.filter(names(), item)) or _glob(item)
    if not matches:
        remedy = f"options in brackets are {', '.join(_TASK_OPTIONS)}" if item.endswith("]") else None
        raise UsageError(f"{item!r} matches no card and no file", where=option, remedy=remedy)
    return matches


def _glob(pattern: str) -> list[str]:
    path = Path(pattern)
    root = Path(path.anchor) if path.is_absolute() else Path()
    return sorted(str(match) for match in root.glob(str(path.relative_to(path.anchor))))


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # longer than a file name may be, or with a null character
        return False


def print_json(value: Any) -> None:
    """Print a value as strict JSON, with control characters in its texts escaped."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    print(escaped(text))
