"""Call the stages in order: resolve names, look at the audio, plan, extract, probe, write results, collect failures.

Errors of one task under one model are caught here and nowhere below: the rest goes on, the failure is kept in a
result file and reported at the end.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from uwbench.base.device import pick_device
from uwbench.errors import DataError, StoreError, UsageError, UwbenchError, disk_error
from uwbench.options import Folders, Options

if TYPE_CHECKING:
    from uwbench.cache.clip_table import ClipTable
    from uwbench.cache.records import EncoderRecord
    from uwbench.cache.store import EncoderStore
    from uwbench.cards.card import Card
    from uwbench.cards.protocol import Protocol as ProtocolCard
    from uwbench.encoders.base import Encoder, ModelSpec
    from uwbench.extraction.extract import Extraction
    from uwbench.extraction.plan import Plan
    from uwbench.extraction.task import Task
    from uwbench.results.record import Result


class Reporter(Protocol):
    """What a run says while it works; the command line draws it."""

    def note(self, text: str) -> None: ...

    def planned(self, plans: Sequence[Plan], missing: Sequence[str], folders: Folders) -> None: ...

    def started(self, model: str, task: str, clips: int) -> None: ...

    def advanced(self, clips: int, audio_s: float) -> None: ...

    def finished(self) -> None: ...


class Silent:
    """A reporter that says nothing."""

    def note(self, text: str) -> None: ...

    def planned(self, plans: Sequence[Plan], missing: Sequence[str], folders: Folders) -> None: ...

    def started(self, model: str, task: str, clips: int) -> None: ...

    def advanced(self, clips: int, audio_s: float) -> None: ...

    def finished(self) -> None: ...


@dataclass(slots=True)
class Report:
    """What a run did: results by model and task, what failed, what was not there."""

    results: list[tuple[Path, Result]] = field(default_factory=list)
    extractions: list[tuple[str, str, Extraction | None]] = field(default_factory=list)  # model, task; None: all cached
    failures: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        return 1 if self.failures else 0


def run(
    models: Sequence[ModelSpec],
    tasks: Sequence[str],
    folders: Folders,
    options: Options,
    *,
    suite: str | None = None,
    probe: bool = True,
    reporter: Reporter | None = None,
) -> Report:
    """Extract every task with every model and, with `probe`, score it under the protocol.

    Without `tasks`, every task of `suite` whose data is at hand is taken. Raises UsageError or InputError for a
    request that cannot be carried out at all; what fails later is in the report.
    """
    from uwbench.encoders.resolve import open_encoder

    say = reporter or Silent()
    report = Report()
    protocol = _protocol(options) if probe else None
    looked = _look_at(tasks, suite, folders, options, report)
    encoders = [open_encoder(spec) for spec in models]
    planned = _plan(encoders, looked, folders, options, report)
    say.planned([plan for _, plan in planned], report.missing, folders)
    _require_space(planned, folders)
    for spec, encoder in zip(models, encoders, strict=True):
        mine = [plan for other, plan in planned if other is encoder]
        _run_model(encoder, spec, mine, protocol, folders, options, say, report)
    return report


def probe_cached(
    tasks: Sequence[str],
    models: Sequence[str],
    folders: Folders,
    options: Options,
    *,
    suite: str | None = None,
    reporter: Reporter | None = None,
) -> Report:
    """Score tasks from the cache alone, for the models named (name, slug or folder in the cache) or for all."""
    from uwbench.cache.store import open_encoders
    from uwbench.probes.score_task import probe_task

    say = reporter or Silent()
    report = Report()
    protocol = _protocol(options)
    stores, problems = open_encoders(folders.cache)
    report.failures.extend(problems)
    if problems and not stores:
        return report  # the cache is not empty: what it holds is damaged, and that is said
    chosen = choose_stores(stores, models, folders.cache)
    names = _cached_tasks(chosen, tasks, suite, folders, options, report)
    for store in chosen:
        for name in names:
            manifest = store.manifest(name)
            if manifest is None:
                if models:  # a model that was asked for; others in the cache need not hold every task
                    report.failures.append(f"{store.record.name}, {name}: not extracted")
                continue
            say.started(store.record.name, f"{name} (probe)", 0)
            try:
                table = _cached_table(folders.cache, manifest.table, name)
                result = probe_task(store, table, protocol, folders.results, options)
                report.results.append(result)
            except UwbenchError as error:
                report.failures.append(f"{store.record.name}, {name}: {error}")
            except OSError as error:
                report.failures.append(f"{store.record.name}, {name}: {disk_error(error)}")
            say.finished()
    return report


def _protocol(options: Options) -> ProtocolCard:
    from uwbench.cards.find import find_protocol
    from uwbench.extraction.identity import RESAMPLER

    protocol = find_protocol(options.protocol)
    if protocol.resampler != RESAMPLER:
        what = f"asks for the resampler {protocol.resampler}; embeddings are made with {RESAMPLER}"
        raise UsageError(what, where=f"--protocol {protocol.name}")
    return protocol


def _look_at(tasks: Sequence[str], suite: str | None, folders: Folders, options: Options, report: Report) -> list[Task]:
    """Open and hash the tasks; one named on the command line must be there, one of a suite may be missing."""
    from uwbench.cards.find import find_suite
    from uwbench.extraction.task import scan_task
    from uwbench.sources.resolve import is_own_data, open_task

    named = bool(tasks)
    wanted = list(tasks) or list(find_suite(suite or "uniwhisper-20").tasks)
    looked: list[Task] = []
    for task in wanted:
        try:
            own = options.own_data() if is_own_data(task) else {}
            dataset = open_task(task, data=folders.data, **own)
        except DataError as error:
            report.missing.append(f"{task}: {error}")
            if named:
                report.failures.append(f"{task}: {error}")
            continue
        try:
            looked.append(
                scan_task(dataset.card, dataset.clips, dataset.source, dataset.problems, folders.cache, options.limit)
            )
        except DataError as error:
            report.failures.append(str(error))
    names = [task.card.name for task in looked]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"two tasks are called {twice[0]!r}", remedy="give one of them another name with --name")
    return looked


def _plan(
    encoders: Sequence[Encoder], looked: Sequence[Task], folders: Folders, options: Options, report: Report
) -> list[tuple[Encoder, Plan]]:
    from uwbench.extraction.identity import describe_encoder
    from uwbench.extraction.plan import make_plan, share_of

    planned = []
    for encoder in encoders:
        record = describe_encoder(encoder.info, layers=options.layers, poolings=options.poolings, dtype=options.dtype)
        for task in looked:
            try:
                plan = make_plan(task, record, folders.cache, force=options.force)
            except StoreError as error:
                report.failures.append(f"{record.name}, {task.card.name}: {error}")
                continue
            planned.append((encoder, plan if options.part is None else share_of(plan, *options.part)))
    return planned


def _require_space(planned: Sequence[tuple[Encoder, Plan]], folders: Folders) -> None:
    from uwbench.cache.store import free_bytes

    needed = sum(plan.forecast_bytes() for _, plan in planned)
    free = free_bytes(folders.cache)
    if needed > free:
        what = f"the embeddings need {needed / 1e9:.1f} GB and the disk has {free / 1e9:.1f} GB free"
        raise StoreError(what, where=folders.cache, remedy="free some space, use another --cache, or take fewer layers")


def _run_model(
    encoder: Encoder,
    spec: ModelSpec,
    plans: Sequence[Plan],
    protocol: ProtocolCard | None,
    folders: Folders,
    options: Options,
    say: Reporter,
    report: Report,
) -> None:
    """Extract and score one model's tasks; the weights are read when the first clip needs them."""
    from uwbench.probes.score_task import probe_task, write_failure

    load_s: float | None = None
    for plan in plans:
        name, task = encoder.info.name, plan.task.card.name
        extraction, encode_s = None, 0.0
        try:
            if plan.parts:
                if load_s is None and (options.engine == "local" or options.dtype != "fp32"):
                    load_s = _load(encoder, plan, options, say)
                extraction = _extract(encoder, spec, plan, options, say)
                encode_s = extraction.seconds
            if not plan.task.table.limited or plan.store.manifest(task) is None:
                plan.store.create()
                plan.store.set_table(task, plan.table_name)
            report.extractions.append((name, task, extraction))
            unread = [*plan.task.table.unreadable, *(map(str, extraction.unreadable) if extraction else ())]
            report.failures.extend(f"{task}: {error}" for error in unread[options.allow_missing :] if protocol is None)
            if protocol is not None and options.part is None:
                say.started(name, f"{task} (probe)", 0)
                seconds = {"load": load_s or 0.0, "encode": encode_s}
                speed = _speed(extraction)
                done = probe_task(
                    plan.store,
                    plan.task.table,
                    protocol,
                    folders.results,
                    options,
                    seconds=seconds,
                    speed=speed,
                    unread=unread,
                )
                report.results.append(done)
                say.finished()
        except OSError as error:
            # No failed result: the disk may not take it, and a score that is there is still true.
            say.finished()
            report.failures.append(f"{name}, {task}: {disk_error(error)}")
        except UwbenchError as error:
            say.finished()
            report.failures.append(f"{name}, {task}: {error}")
            if protocol is not None:
                report.results.append(
                    write_failure(plan.store.record, plan.task.table, protocol, folders.results, options, error)
                )


def _load(encoder: Encoder, plan: Plan, options: Options, say: Reporter) -> float:
    """Read the weights; below fp32, say how far from it the encoder is."""
    started = time.perf_counter()
    device = pick_device(options.device)
    say.note(f"loading {encoder.info.name} on {device} in {options.dtype}")
    if options.dtype == "fp32":
        encoder.load(device, options.dtype)
    else:
        from uwbench.extraction.extract import settings_for
        from uwbench.extraction.precision import measure_parity

        settings = settings_for(device, options.batch_seconds, options.workers)
        say.note(f"{options.dtype} {measure_parity(encoder, plan, settings, options.dtype)}")
    return time.perf_counter() - started


def _extract(encoder: Encoder, spec: ModelSpec, plan: Plan, options: Options, say: Reporter) -> Extraction:
    from uwbench.extraction.extract import extract, settings_for

    settings = settings_for(pick_device(options.device), options.batch_seconds, options.workers)
    say.started(encoder.info.name, plan.task.card.name, plan.to_encode)
    try:
        if options.engine == "ray":
            from uwbench.extraction.ray import extract_on_ray

            return extract_on_ray(plan, spec, settings, options.dtype, say.advanced)
        return extract(plan, encoder, settings, say.advanced)
    finally:
        say.finished()


def _speed(extraction: Extraction | None) -> dict[str, float] | None:
    if extraction is None or extraction.encoded == 0:
        return None
    return {
        "clips_per_s": extraction.encoded / extraction.seconds,
        "audio_s_per_s": extraction.audio_s / extraction.seconds,
    }


def choose_stores(stores: Sequence[EncoderStore], models: Sequence[str], cache: Path) -> list[EncoderStore]:
    """Return the encoders of the cache that `models` name, or all; raise an error that says what is there."""
    from uwbench.base.registry import suggestion

    if not stores:
        raise StoreError("holds no embeddings", where=cache, remedy="run uwbench extract first")
    if not models:
        return list(stores)
    chosen = []
    for model in models:
        found = [store for store in stores if model_matches(store.record, model)]
        if not found:
            remedy = suggestion(model, {store.record.name for store in stores})
            raise UsageError(f"no embeddings of {model!r} are in {cache}", where="--model", remedy=remedy)
        chosen.extend(store for store in found if store not in chosen)
    return chosen


def model_matches(record: EncoderRecord, model: str) -> bool:
    """Whether `model` names this encoder: its name, slug, folder in the cache, fingerprint, or a path to it."""
    names = {record.name, record.slug, record.folder, record.fingerprint, record.fingerprint[:8]}
    return model in names or Path(model).name == record.name


def _cached_tasks(
    stores: Sequence[EncoderStore],
    tasks: Sequence[str],
    suite: str | None,
    folders: Folders,
    options: Options,
    report: Report,
) -> list[str]:
    """Return the names of the tasks to probe; a task given by its path is looked at, so that mended labels count."""
    from uwbench.cards.find import find_suite

    cached = sorted({name for store in stores for name in store.tasks()})
    if not tasks:
        return [name for name in find_suite(suite).tasks if name in cached] if suite else cached
    names = []
    for task in tasks:
        if task in cached:
            names.append(task)
            continue
        for looked in _look_at([task], None, folders, options, report):
            names.append(looked.card.name)
            for store in stores:
                if store.manifest(looked.card.name) is not None:
                    from uwbench.cache.clip_table import write_table

                    store.set_table(looked.card.name, write_table(folders.cache, looked.table))
    return names


def _cached_table(cache: Path, name: str, task: str) -> ClipTable:
    """Read a clip table and put today's card in it, where its labels are still what the card means."""
    from uwbench.cache.clip_table import read_table
    from uwbench.cards.find import find_card

    table = read_table(cache, name)
    card: Card
    try:
        card = find_card(task)
    except UsageError:
        return table  # own data: its card is in the table
    if card.version != table.card.version:
        what = f"was extracted for version {table.card.version} of the card, which is now {card.version}"
        raise StoreError(
            what, where=task, remedy=f"run uwbench extract --task {task}; what is unchanged is not encoded"
        )
    return replace(table, card=card)
