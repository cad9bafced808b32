"""Commands that list, check and look after things: models, tasks, protocols, data, cache, doctor."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from uwbench.cli.options import (
    AllowOutside,
    Cache,
    Context,
    Data,
    Device,
    Domain,
    GroupColumn,
    Json,
    Kind,
    Label,
    Name,
    RemoteCode,
    Results,
    Revision,
    Weights,
    print_json,
)
from uwbench.errors import UsageError, printable

if TYPE_CHECKING:
    import numpy as np
    from rich.table import Table

    from uwbench.cards.card import Card
    from uwbench.encoders.base import EncoderInfo
    from uwbench.encoders.conformance import Conformance
    from uwbench.sources.check import CheckReport
    from uwbench.sources.dataset import Dataset


def register(app: typer.Typer, models: typer.Typer, tasks: typer.Typer, data: typer.Typer, cache: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    models.callback(invoke_without_command=True)(list_models)
    models.command("show", hidden=True)(show_model)
    models.command("check")(check_model)
    tasks.callback(invoke_without_command=True)(list_tasks)
    tasks.command("show", hidden=True)(show_task)
    tasks.command("check")(check_card)
    app.command("protocols")(list_protocols)
    data.command("fetch")(fetch_data)
    data.command("check")(check_data)
    cache.command("ls")(list_cache)
    cache.command("verify")(verify_cache)
    cache.command("prune")(prune_cache)
    app.command("doctor")(doctor)


def list_models(ctx: typer.Context, as_json: Json = False) -> None:
    """List the models known by name, show one, or check an encoder."""
    if ctx.invoked_subcommand is not None:
        return
    from uwbench.encoders.catalogue import CATALOGUE

    if as_json:
        print_json([asdict(entry) for entry in CATALOGUE])
        return
    table = _table("model", "family", "size", "rate", "context", "hop", "layers", "licence", "trained on")
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
    _print(table)
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
    _show(fields, as_json)


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


def list_tasks(
    ctx: typer.Context, data: Data = None, cache: Cache = None, results: Results = None, as_json: Json = False
) -> None:
    """List the tasks, show a card in full, or check a card."""
    if ctx.invoked_subcommand is not None:
        return
    from uwbench import api
    from uwbench.cards.find import find_cards

    folders = api.folders(cache, data, results)
    cards, problems = find_cards()
    rows = [_task_row(card, folders.cache, folders.data, folders.results) for card in cards.values()]
    if as_json:
        print_json(rows)
    else:
        table = _table("task", "title", "domain", "kind", "metric", "clips", "data here", "cached", "scored")
        for row in sorted(rows, key=lambda row: (row["domain"], row["name"])):
            clips = f"{row['clips']:,}" if row["clips"] else "-"
            here = "yes" if row["data"] else "no"
            counts = (str(row["cached"] or "-"), str(row["scored"] or "-"))
            table.add_row(row["name"], row["title"], row["domain"], row["kind"], row["metric"], clips, here, *counts)
        _print(table)
        print("cached, scored: by how many models. uwbench tasks NAME prints a card in full.")
    for problem in problems:
        print(printable(f"skipped: {problem}"), file=sys.stderr)


def show_task(name: Annotated[str, typer.Argument(help="A card's name or file.")], as_json: Json = False) -> None:
    """Show a task card in full."""
    card = _card(name)
    fields = card.model_dump(mode="json", exclude_defaults=True)
    if card.size is not None and card.size.download_gb is None and not as_json:
        fields["size"]["download_gb"] = "unknown; data fetch shows it as soon as the server has told it"
    _show(fields, as_json)


def _card(name: str) -> Card:
    """Return a built-in card by its name, or one by its file."""
    from uwbench.cards.find import find_card, load_card

    return load_card(Path(name)) if name.endswith((".yaml", ".yml")) else find_card(name)


def check_card(path: Annotated[Path, typer.Argument(help="A card file.")]) -> None:
    """Check a task card: fields, vocabulary, kind and metric."""
    from uwbench.cards.find import load_card

    card = load_card(path)
    print(printable(f"{path}: {card.title}, {card.kind}, {card.metric}, version {card.version}: no fault found"))


def list_protocols(
    name: Annotated[str | None, typer.Argument(help="Show this protocol in full.")] = None, as_json: Json = False
) -> None:
    """List the protocols, or show one in full."""
    from uwbench.cards.find import find_protocol, names_of

    protocols = [find_protocol(found) for found in ([name] if name else names_of("protocol"))]
    if name:
        _show(protocols[0].model_dump(mode="json"), as_json)
    elif as_json:
        print_json([protocol.model_dump(mode="json") for protocol in protocols])
    else:
        for protocol in protocols:
            print(printable(f"{protocol.name:<14} version {protocol.version}  {protocol.title}"))


def fetch_data(
    task: Annotated[list[str], typer.Argument(help="Cards' names, or card files.")],
    source: Annotated[
        str | None,
        typer.Option("--source", help="shards (X-ARES's, on Zenodo; the default) or hub, where a card has both."),
    ] = None,
    data: Data = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Download tasks' audio into --data: X-ARES's shards, or a Hugging Face dataset. Goes on where it stopped."""
    from uwbench import api
    from uwbench.sources.download import Patience
    from uwbench.sources.fetch import fetch_task

    folder = api.folders(None, data, None).data
    if folder is None:
        raise UsageError("no folder for datasets was given", remedy="give --data DIR or set UWBENCH_DATA")
    chosen: Literal["shards", "hub"] | None = None
    if source in ("shards", "hub"):
        chosen = source
    elif source is not None:
        raise UsageError(f"{source!r} is not one of shards, hub", where="--source")
    patience = Patience(tell=lambda line: print(f"\nuwbench: {line}", file=sys.stderr, flush=True))
    for name in task:
        bar = None if quiet else _DownloadBar()
        paths = fetch_task(_card(name), folder, source=chosen, progress=bar, patience=patience)
        print(f"{name}: {len(paths)} files in {folder}")


def check_data(
    task: Annotated[str, typer.Argument(help="A card's name, a card file, a manifest or a folder.")],
    data: Data = None,
    label: Label = None,
    group: GroupColumn = None,
    name: Name = None,
    kind: Kind = None,
    domain: Domain = "sound",
    allow_outside: AllowOutside = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    as_json: Json = False,
) -> None:
    """Count and decode a task's clips and say what is wrong with them."""
    from uwbench import api
    from uwbench.options import Options
    from uwbench.sources.check import check_dataset
    from uwbench.sources.resolve import is_own_data

    folder = api.folders(None, data, None).data
    own = Options(label=label, group=group, name=name, kind=kind, domain=domain, allow_outside=allow_outside)
    dataset = api.open_task(task, data=folder, **(own.own_data() if is_own_data(task) else {}))
    report = check_dataset(dataset) if quiet else _check_with_bar(dataset)
    if as_json:
        print_json(report.to_json())
    else:
        _print_check(report)
    raise typer.Exit(0 if report.ok else 1)


def _check_with_bar(dataset: Dataset) -> CheckReport:
    from uwbench.cli.progress import TerminalReporter
    from uwbench.sources.check import check_dataset

    bar = TerminalReporter()
    bar.started("check", dataset.card.name, len(dataset.clips))
    try:
        return check_dataset(dataset, progress=lambda _done, _all: bar.advanced(1, 0.0))
    finally:
        bar.finished()


def _print_check(report: CheckReport) -> None:
    counts = ", ".join(f"{place} {count:,}" for place, count in report.counts.items())
    print(printable(f"{report.task}: {report.clips:,} clips from {report.source} ({counts})"))
    for finding in report.findings:
        print(printable(f"  {finding.severity}: {finding.message} [{finding.code}]"))
    if not report.findings:
        print("  no fault found")
    for fault in report.faults:
        print(printable(f"  known of the dataset: {fault}"))


def list_cache(cache: Cache = None, as_json: Json = False) -> None:
    """List what the embeddings cache holds."""
    from uwbench import api
    from uwbench.cache.maintenance import holdings

    root = api.folders(cache, None, None).cache
    found, problems = holdings(root)
    if as_json:
        print_json([asdict(one) for one in found])
    else:
        table = _table("model", "fingerprint", "task", "clips", "layers", "poolings", "MB")
        for one in found:
            poolings = ",".join(one.poolings)
            table.add_row(
                printable(one.encoder),
                one.fingerprint[:8],
                one.task,
                f"{one.clips:,}",
                str(one.layers),
                poolings,
                f"{one.bytes / 1e6:.2f}",
            )
        _print(table)
        print(f"{root}: {sum(one.bytes for one in found) / 1e6:.1f} MB")
    _print_problems(problems)


def verify_cache(cache: Cache = None) -> None:
    """Check every part of the cache against its checksum."""
    from uwbench import api
    from uwbench.cache.maintenance import verify

    root = api.folders(cache, None, None).cache
    checked, damaged, problems = verify(root)
    for damage in damaged:
        print(printable(f"{damage.path}: {damage.what}; the next extract of its task redoes it"))
    print(f"{root}: {checked:,} parts checked, {len(damaged)} damaged")
    if damaged:
        raise typer.Exit(1)
    _print_problems(problems)


def prune_cache(
    cache: Cache = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Remove what no manifest and no task refers to. Run it while nothing extracts."""
    from uwbench import api
    from uwbench.cache.maintenance import prune

    root = api.folders(cache, None, None).cache
    found = prune(root, dry_run=dry_run)
    for one in found:
        print(printable(f"{one.path}: {one.why}"))
    verb = "would be freed" if dry_run else "freed"
    print(f"{root}: {sum(one.bytes for one in found) / 1e6:.1f} MB {verb}")


def doctor(cache: Cache = None, data: Data = None, results: Results = None, as_json: Json = False) -> None:
    """Say what works on this machine, and what to do about the rest."""
    from uwbench import api
    from uwbench.cli.doctor import examine

    findings = examine(api.folders(cache, data, results))
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            print(printable(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.subject:<12} {finding.text}"))
            if finding.remedy:
                print(f"      {'':<12} -> {finding.remedy}")
    raise typer.Exit(0 if all(finding.ok for finding in findings) else 1)


def _show(fields: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(fields)
        return
    import yaml

    print(printable(yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=100)), end="")


def _task_row(card: Card, cache: Path, data: Path | None, results: Path) -> dict[str, Any]:
    from uwbench.sources.resolve import describe_source

    return {
        "name": card.name,
        "title": card.title,
        "domain": card.domain,
        "kind": card.kind,
        "metric": card.metric,
        "version": card.version,
        "clips": card.size.clips if card.size else None,
        "data": describe_source(card, data),
        "cached": len(list(cache.glob(f"*/{card.name}/manifest.json"))),
        "scored": len(list(results.glob(f"*/*/*/{card.name}.json"))),
    }


def _table(*columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _print(table: Table) -> None:
    """Print a table as wide as it is: folded into a narrow terminal, names come in pieces that nobody can copy."""
    from uwbench.cli.progress import open_console

    console = open_console(markup=False)
    console.width = max(console.width, console.measure(table, options=console.options.update(width=1000)).maximum)
    console.print(table)


def _print_problems(problems: list[str]) -> None:
    for problem in problems:
        print(printable(f"damaged: {problem}"), file=sys.stderr)
    if problems:
        raise typer.Exit(1)


class _DownloadBar:
    """A line a file on stderr, redrawn as bytes come."""

    def __call__(self, name: str, done: int, total: int) -> None:
        ending = "\n" if done >= total else ""
        share = done / total if total else 1.0
        print(f"\r{name}: {done / 1e6:,.1f} of {total / 1e6:,.1f} MB ({share:.0%})", end=ending, file=sys.stderr)
