"""The commands `convert`, `check` and `templates`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from uwbench.api import InputError, UsageError

if TYPE_CHECKING:
    from uniwhisper.data.convert import Conversion
    from uniwhisper.data.shards import Packed
    from uniwhisper.data.templates import Form
    from uniwhisper.data.validate import Check

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_NAMED = 5


def add_to(app: typer.Typer) -> None:
    """Add this module's commands to the command line."""
    for command in (convert, check, templates):
        app.command()(command)


def convert(
    source: Annotated[str, typer.Argument(help="A task card's name, a manifest, or a folder.")],
    output: Annotated[Path, typer.Option("--output", help="The folder of shards to write or resume.")],
    label: Annotated[
        list[str] | None,
        typer.Option(
            "--label",
            help="A column of answers, with its question as COLUMN:TASK or in --task; repeats. Default: known ones.",
        ),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option("--task", help="The question about a --label, TASK or TASK/FORM (uniwhisper templates); repeats."),
    ] = None,
    split: Annotated[
        list[str] | None, typer.Option("--split", help="A split to convert; repeats. Default: train.")
    ] = None,
    fold: Annotated[
        list[str] | None, typer.Option("--fold", help="A fold to convert; repeats, or with commas.")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option("--exclude", help="Leave out clips with this COLUMN=LABEL; repeats.")
    ] = None,
    slot: Annotated[
        list[str] | None,
        typer.Option("--slot", help="TASK.SLOT=TEXT or TASK.SLOT=@COLUMN, for example asr.language=fr."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="The folder of the cards' data.", envvar="UWBENCH_DATA")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="The dataset's name in the rows.")] = None,
    domain: Annotated[
        str | None, typer.Option("--domain", help="speech, paralinguistic, sound or music; default: the known one.")
    ] = None,
    licence: Annotated[str | None, typer.Option("--licence", help="The licence of the clips.")] = None,
    recording: Annotated[
        str | None,
        typer.Option("--recording", help="The publisher's id of a clip: `group`, or a pattern with one group."),
    ] = None,
    ontology: Annotated[
        Path | None,
        typer.Option("--ontology", help="AudioSet's ontology.json; labels implied by other labels are removed."),
    ] = None,
    allow_test: Annotated[bool, typer.Option("--allow-test", help="Convert test clips too.")] = False,
    allow_outside: Annotated[
        bool, typer.Option("--allow-outside", help="Allow paths that leave the manifest's folder.")
    ] = False,
    shard_mb: Annotated[float, typer.Option("--shard-mb", help="Shard size in MB.")] = 1000.0,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Decoding threads.")] = 2,
    as_json: AsJson = False,
) -> None:
    """Make training data, questions and 16 kHz FLAC shards, from a benchmark source. Resumes if interrupted."""
    from uniwhisper.data.convert import Request
    from uniwhisper.data.convert import convert as run

    request = Request(
        source=source,
        data=data,
        ask=_asked(label or (), task or ()),
        splits=_listed(split) or ("train",),
        folds=_listed(fold),
        exclude=tuple(exclude or ()),
        slots=tuple(slot or ()),
        name=name,
        domain=domain,
        licence=licence,
        recording=recording,
        allow_test=allow_test,
        ontology=ontology,
        allow_outside=allow_outside,
    )
    if shard_mb <= 0:
        raise UsageError(f"{shard_mb} is no size", where="--shard-mb")
    planned, packed = run(
        request,
        output,
        shard_bytes=round(shard_mb * 1e6),
        workers=workers,
        progress=_bar if sys.stderr.isatty() else None,
    )
    _report(planned, packed, as_json)
    if packed.refused:
        raise SystemExit(1)


def check(
    folder: Annotated[list[Path], typer.Argument(help="Folders of training data.")],
    allow: Annotated[
        list[str] | None, typer.Option("--allow", help="A licence to accept, as spelled in the rows; repeats.")
    ] = None,
    config: Annotated[
        str | None, typer.Option("--config", help="The configuration whose tokenizer counts tokens of answers.")
    ] = None,
    decode: Annotated[bool, typer.Option("--decode", help="Decode every clip and check its samples.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check training data: audio, questions, answers, licences, closed sets, the same audio in two splits."""
    from uniwhisper.data.validate import validate

    tokens = None if config is None else _counter(config)
    checks = validate(folder, allow=allow or (), tokens=tokens, decode=decode)
    if as_json:
        print(json.dumps([asdict(check) for check in checks], ensure_ascii=False, indent=2))
    else:
        _print_checks(checks)
    if any(check.faults for check in checks):
        raise SystemExit(1)


def templates(
    task: Annotated[str | None, typer.Argument(help="TASK or TASK/FORM; without it, list the tasks.")] = None,
    slot: Annotated[list[str] | None, typer.Option("--slot", help="NAME=TEXT to fill a blank; repeats.")] = None,
    draws: Annotated[int, typer.Option("--draws", min=0, help="Print the questions of this many epochs.")] = 0,
    seed: Annotated[int, typer.Option("--seed", help="The seed of the draws.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Print question templates: all tasks, the phrases of one task, or drawn questions."""
    from uniwhisper.data.templates import find_form
    from uniwhisper.data.templates import templates as load

    if task is None:
        _print_tasks(as_json)
        return
    name, _, form = task.partition("/")
    template = find_form(name, form or None)
    if draws:
        slots = dict(_pair(text) for text in slot or ()) | ({"form": form} if form else {})
        _print_draws(name, slots, draws, seed, as_json)
        return
    if as_json:
        shown = template if form else load()[name]
        print(json.dumps(shown.model_dump(), ensure_ascii=False, indent=2))
        return
    _print_form(template)
    for other, inner in {} if form else load()[name].forms.items():
        print(f"\n{name}/{other}")
        _print_form(inner)


def _counter(config: str) -> Callable[[str], int]:
    from uniwhisper.config import load_config
    from uniwhisper.model.tokens import open_text

    text = open_text(load_config(config))
    return lambda answer: len(text.encode(answer))


def _asked(labels: Sequence[str], tasks: Sequence[str]) -> tuple[str, ...]:
    """Return `COLUMN:TASK` for each question; without tasks of their own, labels name theirs."""
    if not tasks:
        for label in labels:
            if ":" not in label:
                remedy = f"give --label {label} --task TASK; `uniwhisper templates` lists the tasks"
                raise UsageError(f"{label!r} has no question", where="--label", remedy=remedy)
        return tuple(labels)
    if len(labels) != len(tasks):
        what = f"{len(tasks)} tasks for {len(labels)} labels"
        raise UsageError(what, where="--task", remedy="give each --label its --task")
    return tuple(f"{label}:{task}" for label, task in zip(labels, tasks, strict=True))


def _listed(texts: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(part.strip() for text in texts or () for part in text.split(",") if part.strip())


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise UsageError(f"{text!r} is not NAME=TEXT", where="--slot")
    return name, value


def _bar(done: int, total: int) -> None:
    print(f"\r{done}/{total} clips", end="\n" if done == total else "", file=sys.stderr, flush=True)


def _report(planned: Conversion, packed: Packed, as_json: bool) -> None:
    from uniwhisper.data.convert import count_tasks

    counts = count_tasks(planned.items)
    if as_json:
        known: dict[str, Any] = {
            "dataset": planned.dataset,
            "clips": packed.clips,
            "rows": packed.rows,
            "hours": packed.seconds / 3600,
            "tasks": [{"task": task, "rows": rows, "answers": answers} for task, rows, answers in counts],
            "excluded": planned.excluded,
            "unasked": planned.unasked,
            "refused": [{"clip": clip, "why": why} for clip, why in packed.refused],
            "limited_samples": packed.limited,
            "shards": [str(path) for path in packed.shards],
        }
        print(json.dumps(known, ensure_ascii=False, indent=2))
        return
    print(f"{'task':<28} {'rows':>9} {'answers':>8}")
    for task, rows, answers in counts:
        print(f"{task:<28} {rows:>9,} {answers:>8,}")
    print(f"{planned.dataset}: {packed.clips:,} clips, {packed.rows:,} rows, {packed.seconds / 3600:.2f} h")
    for count, what in (
        (planned.excluded, "clips left out by --exclude"),
        (planned.unasked, "clips without a usable label"),
        (packed.limited, "samples cut off at full scale"),
        (len(packed.refused), "clips that could not be decoded"),
    ):
        if count:
            print(f"{count:,} {what}")
    for clip, why in packed.refused[:_NAMED]:
        print(f"uniwhisper: {clip}: {why}", file=sys.stderr)
    for path in packed.shards:
        print(path)


def _print_checks(checks: Sequence[Check]) -> None:
    print(f"{'check':<20} {'looked at':>10} {'at fault':>9}")
    for check in checks:
        print(f"{check.name:<20} {check.seen:>10,} {check.faults:>9,}")
    for check in checks:
        for example in check.examples:
            print(f"{check.name}: {example}")
        if check.faults > len(check.examples):
            print(f"{check.name}: and {check.faults - len(check.examples):,} more")


def _print_tasks(as_json: bool) -> None:
    from uniwhisper.data.templates import templates as load

    if as_json:
        print(json.dumps({task: one.model_dump() for task, one in load().items()}, ensure_ascii=False, indent=2))
        return
    print(f"{'task':<24} {'answer':<11} {'phrases':>7} {'bare':>5}  canonical")
    for task, template in load().items():
        forms: dict[str, Form] = {task: template, **{f"{task}/{name}": form for name, form in template.forms.items()}}
        for name, form in forms.items():
            print(f"{name:<24} {form.answer:<11} {len(form.phrases):>7} {len(form.bare):>5}  {form.phrases[0]}")


def _print_form(form: Form) -> None:
    print(f"answer: {form.answer}")
    for phrase in form.phrases:
        print(f"  {phrase}")
    for line in form.bare:
        print(f"  {line}  (bare)")


def _print_draws(task: str, slots: dict[str, str], draws: int, seed: int, as_json: bool) -> None:
    from uniwhisper.data.templates import draw

    try:
        drawn = [draw(task, slots, seed, epoch, "preview") for epoch in range(draws)]
    except InputError as error:
        raise UsageError(error.what, where="--slot", remedy="fill it with --slot NAME=TEXT") from error
    if as_json:
        print(json.dumps(drawn, ensure_ascii=False, indent=2))
        return
    print("\n".join(drawn))
