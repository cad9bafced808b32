"""The commands `train`, `mix` and `leakage`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from uwbench.api import InputError, UsageError
from uwbench.base.yaml_text import parse_yaml

if TYPE_CHECKING:
    from uniwhisper.data.mixture import Mixture
    from uniwhisper.sampling.prepare import MixReport

Data = Annotated[list[Path] | None, typer.Option("--data", help="A folder of training rows and shards; repeats.")]
MixtureFile = Annotated[
    str | None, typer.Option("--mixture", help="A mixture's name or file, instead of the configuration's.")
]
TestData = Annotated[
    list[str] | None,
    typer.Option(
        "--test-data", help="Refuse rows of these test clips: TASK[:PARTS], a manifest, or a cache's clip table."
    ),
]
BenchmarkData = Annotated[
    Path | None, typer.Option("--benchmark-data", help="The benchmark's data.", envvar="UWBENCH_DATA")
]
Overlay = Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE, for example run.batch_s=96; repeats.")]


def add_to(app: typer.Typer) -> None:
    """Add this module's commands to the command line."""
    for command in (train, mix, leakage):
        app.command()(command)


def overlay_of(pairs: Sequence[str], *, encoder: str | None = None, lm: str | None = None) -> dict[str, Any]:
    """Return the configuration overlay of --set options; raise UsageError naming a malformed one."""
    overlay: dict[str, Any] = {}
    named: list[tuple[str, Any]] = [] if encoder is None else [("encoder.init", encoder)]
    if lm is not None:  # its shape and tokenizer come with it
        named += [("lm.kind", "causal"), ("lm.init", lm), ("lm.shape", None), ("lm.tokenizer", None)]
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not all(key.split(".")):
            raise UsageError(f"{pair!r} is not KEY=VALUE", where="--set")
        try:
            named.append((key, parse_yaml(text, f"--set {key}")))
        except InputError as error:
            raise UsageError(f"{text!r} is not a value", where=f"--set {key}") from error
    for key, value in named:
        *sections, last = key.split(".")
        inner = overlay
        for section in sections:
            inner = inner.setdefault(section, {})
            if not isinstance(inner, dict):
                raise UsageError("is set as a value and as a section", where=f"--set {key}")
        inner[last] = value
    return overlay


def train(
    config: Annotated[str, typer.Argument(help="full, small, cpu-mini, or a YAML file.")],
    output: Annotated[
        Path, typer.Option("--output", help="The folder for checkpoints and logs; a run there is resumed.")
    ],
    data: Data = None,
    mixture: MixtureFile = None,
    encoder: Annotated[str | None, typer.Option("--encoder", help="The Whisper weights to start from.")] = None,
    lm: Annotated[str | None, typer.Option("--lm", help="The causal language model to start from.")] = None,
    settings: Overlay = None,
    until: Annotated[int | None, typer.Option("--until", help="Stop after this step.")] = None,
    test_data: TestData = None,
    benchmark_data: BenchmarkData = None,
    drop_leaks: Annotated[
        bool, typer.Option("--drop-leaks", help="Leave out rows of test clips instead of failing.")
    ] = False,
    held_out: Annotated[
        list[Path] | None, typer.Option("--held-out", help="A folder of rows for monitoring during training; repeats.")
    ] = None,
) -> None:
    """Train a UniWhisper, or resume a run. Under torchrun or accelerate launch every process runs this."""
    from uniwhisper.config import load_config
    from uniwhisper.sampling.prepare import prepare
    from uniwhisper.training.train import train as run

    if not data:
        raise UsageError("names no training rows", where="--data", remedy="make them with uniwhisper convert")
    configuration = load_config(config, overlay_of(settings or (), encoder=encoder, lm=lm))
    prepared = prepare(
        configuration,
        data,
        mixture=mixture,
        test_data=test_data or (),
        benchmark_data=benchmark_data,
        drop_leaks=drop_leaks,
        held_out=held_out or (),
    )
    result = run(
        configuration,
        prepared.batches,
        output,
        training_data=prepared.training_data,
        data_digest=prepared.digest,
        held_out=prepared.held_out,
        until=until,
    )
    if os.environ.get("RANK", "0") == "0":
        print(result.checkpoint)


def mix(
    mixture: Annotated[
        str | None, typer.Argument(help="candidate-38k, candidate-38k-strict, mini, or a YAML file.")
    ] = None,
    data: Data = None,
    write: Annotated[
        Path | None, typer.Option("--write", help="Write a mixture of the datasets in --data to this YAML file.")
    ] = None,
    config: Annotated[
        str | None, typer.Option("--config", help="Plan this configuration's steps; default: one pass over the data.")
    ] = None,
    settings: Overlay = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print a mixture: hours, licences, target shares of audio-seconds, and with --data the shares of a plan."""
    from uniwhisper.config import load_config
    from uniwhisper.data.mixture import load_mixture
    from uniwhisper.sampling.own_mixture import mixture_of_data, write_mixture
    from uniwhisper.sampling.prepare import describe_mixture

    known = None if mixture is None else load_mixture(mixture)
    if write is not None:
        if not data:
            raise UsageError("names no training rows", where="--data", remedy="make them with uniwhisper convert")
        loaded = mixture_of_data(data, write.stem, known)
        write_mixture(loaded, write)
    elif known is not None:
        loaded = known
    else:
        raise UsageError("names no mixture", where="mix", remedy="give a name, a file, or --data FOLDER --write FILE")
    report = describe_mixture(loaded, data or (), load_config(config, overlay_of(settings or ())) if config else None)
    if as_json:
        print(json.dumps({"name": loaded.name, "hours": loaded.hours, **asdict(report)}, indent=2, sort_keys=True))
    else:
        for line in mix_table(loaded, report):
            print(line)


def mix_table(mixture: Mixture, report: MixReport) -> list[str]:
    """Return the lines that `mix` prints: one per dataset, one per domain, and the total."""
    from uniwhisper.data.mixture import by_domain

    planned = report.seconds is not None
    head = f"{'dataset':<22} {'domain':<15} {'hours':>9} {'target':>7}"
    lines = [head + (f" {'at hand':>9} {'plan':>7}" if planned else "") + "  available  licence"]

    verified = {entry.name: (entry.hours_verified, entry.licence_verified) for entry in mixture.datasets}

    def cells(hours: float, at_hand: float | None, target: float | None, realised: float | None) -> str:
        shown = f"{_hours(hours):>9} {_share(target):>7}"
        return shown + (f" {_hours(at_hand):>9} {_share(realised):>7}" if planned else "")

    for row in report.rows:
        numbers = cells(row.hours, row.at_hand, row.target, row.realised)
        hours_verified, licence_verified = verified[row.name]
        about = "" if hours_verified else "hours (unverified); "
        about += row.licence if licence_verified else f"{row.licence} (unverified)"
        lines.append(f"{row.name:<22} {row.domain:<15} {numbers}  {row.available:<10} {about}")
    lines.append("")
    sums = [
        by_domain(mixture, {row.name: getattr(row, field) or 0.0 for row in report.rows})
        for field in ("hours", "at_hand", "target", "realised")
    ]
    for domain in sums[0]:
        hours, at_hand, target, realised = (values[domain] for values in sums)
        lines.append(f"{'':<22} {domain:<15} {cells(hours, at_hand, target, realised)}")
    hours, at_hand, target, realised = (sum(values.values()) for values in sums)
    lines.append(f"{'total':<22} {'':<15} {cells(hours, at_hand, target, realised)}")
    if report.seconds is not None:
        lines.append(f"{report.steps} steps use {report.seconds / 3600:,.2f} h")
    if report.strangers:
        lines.append(f"not in the mixture, and not used: {', '.join(report.strangers)}")
    if report.too_long:
        lines.append(f"{report.too_long} rows are left out: a transcript of more than 30 s cannot be cropped")
    return lines


def _hours(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:,.2f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def leakage(
    test_data: Annotated[list[str], typer.Argument(help="TASK[:PARTS], a manifest, or a cache's clip table.")],
    data: Data = None,
    mixture: MixtureFile = None,
    benchmark_data: BenchmarkData = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare training rows with test clips by bytes, samples and source ids; exit with 1 if any match."""
    from uniwhisper.data.leakage import find_leaks, leak_table, open_test_set
    from uniwhisper.data.mixture import load_mixture
    from uniwhisper.data.rows import open_rows

    if not data:
        raise UsageError("names no training rows", where="--data")
    tests = [open_test_set(spec, data=benchmark_data) for spec in test_data]
    leaks = find_leaks(open_rows(data), tests, load_mixture(mixture) if mixture else None)
    if as_json:
        print(json.dumps([asdict(leak) for leak in leaks], indent=2))
    else:
        for line in leak_table(leaks, tests):
            print(line)
    if leaks:
        raise typer.Exit(1)
