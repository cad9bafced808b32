"""Options that several commands share, alone and in groups, and the names of tasks and models on the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from uwbench import api
from uwbench.api import ExtractOptions, ModelSpec, TaskSpec, UsageError, escaped
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
_METHODS = "|".join(api.BUILTIN_METHODS)
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
Corrupt = Annotated[
    str | None,
    typer.Option(
        "--corrupt",
        help="Test on corrupted clips too, of probes trained on clean ones. A list of " + api.CORRUPTIONS + ".",
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the probes.")]
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
Merge = Annotated[
    list[Path] | None,
    typer.Option("--merge", help="Another folder of results, from another machine, or a verified bundle. Repeat."),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print no plan and no progress.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show all columns, however wide the terminal is.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnData:
    """How the user's own data is read, unless options in brackets say otherwise for one task."""

    label: Annotated[str | None, typer.Option("--label", help="Own data: the manifest's column of labels.")] = None
    group: Annotated[
        str | None, typer.Option("--group", help="Own data: the column of the speaker, recording or song.")
    ] = None
    path: Annotated[str | None, typer.Option("--path", help="Own data: the column of audio files.")] = None
    split: Annotated[str | None, typer.Option("--split", help="Own data: the column of splits.")] = None
    fold: Annotated[str | None, typer.Option("--fold", help="Own data: the column of folds.")] = None
    start: Annotated[str | None, typer.Option("--start", help="Own data: the column of starts, in seconds.")] = None
    end: Annotated[str | None, typer.Option("--end", help="Own data: the column of ends, in seconds.")] = None
    duration: Annotated[
        str | None, typer.Option("--duration", help="Own data: the column of durations, in seconds.")
    ] = None
    name: Annotated[str | None, typer.Option("--name", help="Own data: the task's name.")] = None
    kind: Annotated[api.Kind | None, typer.Option("--kind", help="Own data: the task's kind.")] = None
    domain: Annotated[api.Domain, typer.Option("--domain", help="Own data: the task's domain.")] = api.Domain.SOUND
    allow_outside: Annotated[
        bool, typer.Option("--allow-outside", help="Own data: allow paths that leave the manifest's folder.")
    ] = False
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--source",
            help="Own data: the published dataset or collection its recordings are from, as freesound; or own. Repeat.",
        ),
    ] = None

    def spec(self) -> TaskSpec:
        """Return the specification of a task without its source."""
        options = {option.name: getattr(self, option.name) for option in fields(self)}
        taken_from = tuple(name for value in options.pop("source") or () for name in value.split(","))
        return TaskSpec("", taken_from=taken_from, **options)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """How each model that -m names is opened."""

    weights: Annotated[
        str | None, typer.Option("--weights", help="Folder or Hugging Face id of the model's weights.")
    ] = None
    context: Annotated[
        api.Context,
        typer.Option("--context", help="full: with padding, as the model was trained; trimmed: without padding."),
    ] = api.Context.FULL
    revision: Annotated[str | None, typer.Option("--revision", help="Revision of a Hugging Face id.")] = None
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run the Python code that comes with a checkpoint.")
    ] = False
    python: Annotated[
        str | None,
        typer.Option(
            "--python",
            metavar="PATH",
            help="Run FILE.py:Class, hear:MODULE or a folder in this interpreter, which needs no uwbench.",
        ),
    ] = None

    def spec(self, name: str) -> ModelSpec:
        """Return the model that `name` names, with these options."""
        return ModelSpec(name, self.weights, self.context.value, self.revision, self.trust_remote_code, self.python)


@dataclass(frozen=True, slots=True, kw_only=True)
class Extraction:
    """How clips are encoded."""

    layers: Annotated[str, typer.Option("--layers", help="last, all, or a list of names or numbers.")] = "last"
    pooling: Annotated[str, typer.Option("--pooling", help="Poolings to store: mean, mean-all, std, max, first.")] = (
        "mean,mean-all"
    )
    segments: Annotated[
        bool, typer.Option("--segments", help="Also store the means of 1, 2, 4 and 8 parts of each clip.")
    ] = False
    dtype: Annotated[
        api.Dtype, typer.Option("--dtype", help="Precision; bf16 also reports its distance from fp32.")
    ] = api.Dtype.FP32
    batch_seconds: Annotated[
        float | None,
        typer.Option("--batch-seconds", min=0.1, help="Seconds of audio per forward pass, including padding."),
    ] = None
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Decoding threads.")] = None
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Clips per split or fold; results are marked as limited.")
    ] = None
    force: Annotated[bool, typer.Option("--force", help="Re-encode even if cached.")] = False
    engine: Annotated[
        api.Engine, typer.Option("--engine", help="Extract in this process, or on a Ray cluster (RAY_ADDRESS).")
    ] = api.Engine.LOCAL

    def options(self, *, part: tuple[int, int] | None = None, corruptions: tuple[str, ...] = ()) -> ExtractOptions:
        """Return the options of an extraction, of one machine's `part` of it, with corrupted clips if there are any."""
        return ExtractOptions(
            layers=self.layers,
            poolings=tuple(split_commas(self.pooling)),
            segments=self.segments,
            dtype=self.dtype,
            batch_seconds=self.batch_seconds,
            workers=self.workers,
            limit=self.limit,
            force=self.force,
            engine=self.engine,
            part=part,
            corruptions=corruptions,
        )


_TASK_OPTIONS = (
    *("label", "group", "path", "split", "fold", "start", "end", "duration", "name", "kind", "domain", "source"),
)
_BRACKETS = re.compile(r"(?P<source>.+)\[(?P<options>[^\[\]]*)\]", re.DOTALL)
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")  # in NAME=PATH
# A part of a comma-separated list: brackets and what they hold, or single characters other than commas.
_LIST_PART = re.compile(r"(?:\[[^\[\]]*\]|[^,])+", re.DOTALL)


def task_specs(values: Sequence[str] | None, own_data: OwnData | None = None) -> list[TaskSpec]:
    """Return the tasks that -t names, with commas split, globs expanded and options in brackets read.

    `own_data` applies to all of the user's own data among them; options in brackets come first.
    """
    shared = (own_data or OwnData()).spec()
    specs = []
    for place, options in _sources(values):
        changes: dict[str, Any] = {**options}
        if "source" in changes:
            changes["taken_from"] = (changes.pop("source"),)
        specs.append(replace(shared if api.is_own_data(place) else TaskSpec(""), source=place, **changes))
    return list(dict.fromkeys(specs))


def _sources(values: Sequence[str] | None) -> Iterator[tuple[str, dict[str, str]]]:
    for value in values or ():
        whole = _exists(value) or _exists(split_task_options(value)[0])
        for item in [value] if whole else split_commas(value):
            source, options = (item, {}) if _exists(item) else split_task_options(item)
            name, mark, path = source.partition("=")
            if mark and _NAME.fullmatch(name) and api.is_own_data(path) and not _exists(source):
                source, options = path, {"name": name, **options}
            source = _at_home(source)
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
            names.extend(_expand(_at_home(item), list, "--model"))
    return list(dict.fromkeys(names))


def model_specs(values: Sequence[str] | None, options: ModelOptions) -> list[ModelSpec]:
    """Return the models that -m names, each with these options."""
    names = model_names(values)
    if not names:
        raise UsageError("no model was named", remedy="give -m NAME; uwbench models lists the names")
    return [options.spec(name) for name in names]


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


def _at_home(text: str) -> str:
    """Return a path with `~/` as the home folder, which a shell leaves as it is after a comma or an equals sign."""
    return str(Path(text).expanduser()) if text.startswith("~/") else text


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
