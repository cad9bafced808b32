"""The stages in order: open tasks, scan their audio, plan, extract, probe, write results, collect failures.

An error of one task under one model is caught in `_run_one` and nowhere below: the other tasks go on, the failure is
kept in a result file and reported at the end.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from uwbench.base.disk import disk_error
from uwbench.errors import DataError, EncoderError, StoreError, UsageError, UwbenchError
from uwbench.methods import METHODS
from uwbench.options import Engine, ExtractOptions, Folders, ProbeOptions, TaskSpec
from uwbench.progress import SCAN, Reporter

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType

    from uwbench.audio.corruption import Corruption
    from uwbench.cache.clip_table import ClipTable
    from uwbench.cache.records import EncoderRecord
    from uwbench.cache.store import EncoderStore
    from uwbench.cards.card import Card
    from uwbench.cards.protocol import Protocol as ProtocolCard
    from uwbench.encoders.base import Encoder, ModelSpec, TextTower
    from uwbench.extraction.extract import Extraction
    from uwbench.extraction.plan import Plan
    from uwbench.extraction.task import Task
    from uwbench.results.record import Result
    from uwbench.sources.dataset import Dataset

DEFAULT_SUITE = "uniwhisper-20"


@dataclass(frozen=True, slots=True)
class TaskRun:
    """One task under one model: what was extracted, the result with its file, and what failed."""

    model: str
    task: str
    extracted: bool = False
    extraction: Extraction | None = None  # None although extracted: everything was cached
    result: tuple[Path, Result] | None = None
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # methods that do not apply to the task


@dataclass(frozen=True, slots=True)
class Results:
    """The outcome of a run: results by model and task, what failed, and which tasks were not at hand."""

    runs: tuple[TaskRun, ...] = ()
    missing: tuple[str, ...] = ()  # tasks whose data is not at hand, with the reason
    refused: tuple[str, ...] = ()  # tasks and cached encoders that could not be opened at all, with the reason
    suite: str | None = None
    caveats: tuple[str, ...] = ()  # of the protocol

    @property
    def results(self) -> list[tuple[Path, Result]]:
        """Each result with the path of its file."""
        return [run.result for run in self.runs if run.result is not None]

    @property
    def extractions(self) -> list[tuple[str, str, Extraction | None]]:
        """Model, task and extraction of each task whose embeddings are in the cache; None: all were cached before."""
        return [(run.model, run.task, run.extraction) for run in self.runs if run.extracted]

    @property
    def failures(self) -> list[str]:
        """One line for each failure."""
        return [*self.refused, *(failure for run in self.runs for failure in run.failures)]

    @property
    def notes(self) -> list[str]:
        """One line for each method that was asked for and does not apply to a task."""
        return list(dict.fromkeys(note for run in self.runs for note in run.notes))

    @property
    def exit_code(self) -> int:
        """1 if anything failed, else 0."""
        return 1 if self.failures else 0

    def to_frame(self) -> pd.DataFrame:
        """Return one row per score: model, task, method, score, low, high, n, status, contamination.

        `low` and `high` bound the 95 % interval. A task that failed has one row, without method and score.
        """
        import pandas as pd

        labels = self._labels()
        rows = [row for _, result in self.results for row in _frame_rows(result, labels[result.model.fingerprint])]
        columns = ["model", "task", "method", "score", "low", "high", "n", "status", "contamination"]
        return pd.DataFrame(rows, columns=columns)

    def predictions_frame(self) -> pd.DataFrame:
        """Return one row per prediction: model, task, method, seed, fold, id, group, truth, prediction.

        Truth and prediction are a label, or a list of labels if the task gives a clip several.
        """
        import pandas as pd

        from uwbench.base.json_text import parse_json
        from uwbench.results.record import read_predictions

        columns = ["method", "seed", "fold", "id", "group", "truth", "prediction"]
        frames, labels = [], self._labels()
        for path, result in self.results:
            if result.scores:
                frame = read_predictions(path, columns).to_pandas()
                for column in ("truth", "prediction"):
                    frame[column] = [text and parse_json(text) for text in frame[column]]
                frame.insert(0, "task", result.task.name)
                frame.insert(0, "model", labels[result.model.fingerprint])
                frames.append(frame)
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["model", "task", *columns])

    def _labels(self) -> dict[str, str]:
        """Return what tables call each model, by its fingerprint."""
        from uwbench.report.labels import labels_of

        return labels_of({result.model.fingerprint: result.model for _, result in self.results})

    def __repr__(self) -> str:
        missing, failed = (f"missing: {line}" for line in self.missing), (f"failed: {line}" for line in self.failures)
        return "\n".join([repr(self.to_frame()), *missing, *failed])

    def view(self, *, verbose: bool = False) -> RenderableType:
        """Return the tables for a terminal: one per model, the averages, and where the results are.

        Tables have the columns that fit into the terminal; with `verbose` all, also what the probes chose.
        """
        from rich.console import Group

        from uwbench.cards.find import find_suite
        from uwbench.report.board import suite_of
        from uwbench.report.table import run_view

        results = [result for _, result in self.results]
        if not results:
            return Group()
        suite = find_suite(self.suite) if self.suite else suite_of([result.task.name for result in results])
        paths = [path.parent for path, _ in self.results]
        return run_view(results, suite, paths=paths, caveats=self.caveats, verbose=verbose)

    def __rich__(self) -> RenderableType:
        return self.view()

    def _repr_html_(self) -> str:
        frame = self.to_frame()
        notes = [*(f"failed: {line}" for line in self.failures), *(f"not at hand: {line}" for line in self.missing)]
        notes += self.caveats
        return "".join([frame.to_html(index=False, na_rep="", float_format="{:.3f}".format), *map(_paragraph, notes)])


def _frame_rows(result: Result, label: str) -> Iterator[dict[str, object]]:
    common = {
        "model": label,
        "task": result.task.name,
        "n": result.task.n,
        "status": result.status,
        "contamination": result.contamination.flag if result.contamination else None,
    }
    if not result.scores:
        yield common
    for method, score in result.scores.items():
        low, high = score.ci95 or (None, None)
        yield {**common, "method": method, "score": score.main_score, "low": low, "high": high}


def _paragraph(text: str) -> str:
    import html

    return f"<p>{html.escape(text)}</p>"


@dataclass(slots=True)
class Model:
    """An encoder of a run, whose weights are loaded when its first clip is encoded."""

    encoder: Encoder
    spec: ModelSpec | None  # None: the caller made the encoder
    load_s: float | None = None  # None: not loaded
    texts: TextTower | None = None  # opened if a method needs it
    no_texts: str | None = None  # why, if it has none

    def load(self, plan: Plan, options: ExtractOptions, device: str, reporter: Reporter) -> None:
        """Load the weights unless they are; below fp32, measure and report how far from fp32 the encoder is."""
        if self.load_s is not None:
            return
        started = time.perf_counter()
        reporter.note(f"loading {self.encoder.info.name} on {device} in {options.dtype}")
        if options.dtype == "fp32":
            self.encoder.load(device, options.dtype)
        else:
            from uwbench.extraction.extract import settings_for
            from uwbench.extraction.precision import measure_parity

            settings = settings_for(device, options.batch_seconds, options.workers)
            reporter.note(f"{options.dtype} {measure_parity(self.encoder, plan, settings, options.dtype)}")
        self.load_s = time.perf_counter() - started


@dataclass(frozen=True, slots=True)
class Scoring:
    """How tasks are scored, and the folder that results go to."""

    protocol: ProtocolCard
    methods: tuple[str, ...]
    options: ProbeOptions
    results: Path
    named: frozenset[str] = frozenset()  # the methods that were asked for by their own names: it fails without one


def run(
    models: Sequence[Model],
    tasks: Sequence[TaskSpec | Dataset],
    folders: Folders,
    *,
    suite: str | None,
    device: str,
    options: ExtractOptions,
    scoring: Scoring | None,
    reporter: Reporter,
) -> Results:
    """Extract every task with every model and, with `scoring`, score it.

    Without `tasks`, every task of `suite` whose data is at hand is taken. Raises UsageError or InputError for a
    request that cannot be carried out at all; what fails later is in the results.
    """
    from uwbench.audio.corruption import parse_corruptions
    from uwbench.base.device import pick_device

    options, scoring = _with_same_corruptions(options, scoring)
    corruptions = parse_corruptions(options.corruptions)
    if scoring is not None:
        _require_use(scoring)
    if scoring is not None and _needing_texts(scoring.methods):
        _open_texts(models, scoring.named, options.layers)
    scan = _scan(tasks, suite, folders, options.limit, reporter)
    planned, refused = _plan(models, scan.tasks, folders.cache, options, corruptions, scoring, device, reporter)
    reporter.planned([plan for _, plan in planned], scan.missing, folders)
    _require_space([plan for _, plan in planned], folders.cache)
    if scoring is not None or any(part.parts for _, plan in planned for part in (plan, *plan.corrupted)):
        device = pick_device(device)
    runs = tuple(_run_one(model, plan, options, device, scoring, reporter) for model, plan in planned)
    return Results(runs, scan.missing, (*scan.failures, *refused), suite, scoring.protocol.caveats if scoring else ())


def _with_same_corruptions(options: ExtractOptions, scoring: Scoring | None) -> tuple[ExtractOptions, Scoring | None]:
    """Return both halves of a run with the corruptions that either of them names."""
    if scoring is None:
        return options, None
    names = tuple(dict.fromkeys((*options.corruptions, *scoring.options.corruptions)))
    return replace(options, corruptions=names), replace(scoring, options=replace(scoring.options, corruptions=names))


def _require_use(scoring: Scoring) -> None:
    """Raise UsageError if the protocol runs none of the methods asked for, and for corruptions that test no method."""
    from uwbench.cards.find import find_protocol, names_of

    rules = scoring.protocol
    if not any(map(rules.runs, scoring.methods)):
        name = scoring.methods[0]
        others = [other for other in names_of("protocol") if find_protocol(other).runs(name)]
        runs = ", ".join(method for method in METHODS if rules.runs(method))
        remedy = f"add --protocol {others[0]}" if others else f"{rules.name} runs {runs}"
        raise UsageError(f"the protocol {rules.name} does not run it", where=f"--method {name}", remedy=remedy)
    tested = [name for name, info in METHODS.items() if info.corruptible and rules.runs(name)]
    if scoring.options.corruptions and not set(tested) & set(scoring.methods):
        remedy = f"add --method {','.join(tested)}" if tested else f"leave it out: {rules.name} tests none so"
        raise UsageError("no method asked for is tested on corrupted clips", where="--corrupt", remedy=remedy)


def _needing_texts(methods: Iterable[str]) -> list[str]:
    """Return the methods that take only encoders with a text tower."""
    return [name for name in methods if METHODS[name].needs_texts]


def _open_texts(models: Sequence[Model], named: Iterable[str], layers: str) -> None:
    """Give each model its text tower, or the reason why it has none; raise UsageError if none has what was asked for.

    If no method that needs one is among the `named`, as under `--method all`, models without one get a note.
    """
    from uwbench.encoders.text_towers import text_tower_of
    from uwbench.extraction.identity import layer_indices

    for model in models:
        info = model.encoder.info
        try:
            tower = text_tower_of(model.encoder)
        except EncoderError as error:
            model.no_texts = str(error)
            continue
        if info.layers.index(tower.layer) > layer_indices(info, layers)[-1]:
            what = f"its clips meet texts in the layer {tower.layer!r}, which is not among --layers {layers}"
            model.no_texts = f"{info.name}: {what}"
            continue
        model.texts = tower
    _require_texts([model.no_texts for model in models if model.no_texts is not None], len(models), named)


def _require_texts(reasons: Sequence[str], models: int, named: Iterable[str]) -> None:
    """Raise UsageError with the first reason if no model has a text tower and a method was named that needs one."""
    needing = _needing_texts(named)
    if needing and reasons and len(reasons) == models:
        remedy = "name a model with a text tower, such as CLAP, or an encoder of yours that defines encode_text"
        raise UsageError(reasons[0], where=f"--method {needing[0]}", remedy=remedy)


def probe_cached(
    models: Sequence[str | Encoder],
    tasks: Sequence[TaskSpec | Dataset],
    folders: Folders,
    *,
    suite: str | None,
    device: str,
    scoring: Scoring,
    reporter: Reporter,
) -> Results:
    """Score tasks from the cache alone, for the models named (name, slug or folder in the cache) or for all."""
    from uwbench.audio.corruption import parse_corruptions
    from uwbench.base.device import pick_device
    from uwbench.cache.choose import choose_stores
    from uwbench.cache.store import open_encoders

    _require_use(scoring)
    stores, problems = open_encoders(folders.cache)
    if problems and not stores:  # the cache is not empty, it is damaged
        return Results(refused=tuple(problems), suite=suite)
    names = [name for model in models for name in _cached_names(model, stores, folders.cache)]
    chosen = choose_stores(stores, names, folders.cache)
    corruptions = parse_corruptions(scoring.options.corruptions)  # refuses a wrong name before any task is scored
    if _needing_texts(scoring.methods):
        from uwbench.probes.joint import read_texts, without_texts

        reasons = [without_texts(store.record) for store in chosen if read_texts(store) is None]
        _require_texts(reasons, len(chosen), scoring.named)
    scan = _cached_tasks(chosen, tasks, suite, folders, reporter)
    device = pick_device(device)
    runs = []
    for settings in _by_model(chosen):
        for task in scan.names:
            holding = [store for store in settings if store.manifest(task) is not None]
            if holding:
                store = _most_complete(holding, task, folders.cache)
                runs.append(_probe_cached_one(store, task, folders.cache, scoring, corruptions, device, reporter))
            elif models:  # a model that was named; others in the cache need not hold every task
                name = settings[0].record.name
                runs.append(TaskRun(name, task, failures=(f"{name}, {task}: not extracted",)))
    return Results(tuple(runs), scan.missing, (*problems, *scan.failures), suite, scoring.protocol.caveats)


def _by_model(stores: Sequence[EncoderStore]) -> list[list[EncoderStore]]:
    """Return the stores of each model together: they differ in the layers that are stored, and give one result."""
    models: dict[str, list[EncoderStore]] = {}
    for store in stores:
        models.setdefault(store.record.model_fingerprint, []).append(store)
    return list(models.values())


def _most_complete(stores: Sequence[EncoderStore], task: str, cache: Path) -> EncoderStore:
    """Return the store with the most layers of those that lack the fewest clips of a task."""
    from uwbench.cache.clip_table import read_table

    def lacks(store: EncoderStore) -> tuple[int, int]:
        try:
            manifest = store.manifest(task)
            assert manifest is not None
            table = read_table(cache, manifest.table)
            vectors = store.open_task(task, table.keys, needs_frames=table.needs_frames)
        except StoreError:  # damaged; probing reports it if no other store is there
            return sys.maxsize, 0
        return len(vectors.missing), -len(store.record.layers)

    return stores[0] if len(stores) == 1 else min(stores, key=lacks)


def find_cached(model: str | Encoder, task: TaskSpec | Dataset, cache: Path) -> tuple[EncoderStore, ClipTable]:
    """Return the one encoder in the cache that `model` names, and its clip table of a task.

    Raises UsageError if it names several, StoreError if the task was not extracted.
    """
    from uwbench.cache.choose import choose_stores
    from uwbench.cache.clip_table import read_table
    from uwbench.cache.store import open_encoders

    stores = open_encoders(cache)[0]
    chosen = choose_stores(stores, _cached_names(model, stores, cache), cache)
    cached = {name for store in chosen for name in store.tasks()}
    name = str(task.source) if task.source in cached else open_dataset(task, None).card.name
    holding = [store for store in chosen if name in store.tasks()]
    if not holding:
        command = f"uwbench extract --model {chosen[0].record.name} --task {task.source}"
        remedy = f"run: {command if isinstance(task, TaskSpec) else 'uwbench.extract(encoder, task)'}"
        raise StoreError(f"holds no embeddings of {name} under {chosen[0].record.name}", where=cache, remedy=remedy)
    if len(holding) > 1:
        remedy = f"name one of {', '.join(store.record.folder for store in holding)}"
        raise UsageError(f"{holding[0].record.name} is in the cache with several settings", where=cache, remedy=remedy)
    manifest = holding[0].manifest(name)
    assert manifest is not None
    return holding[0], read_table(cache, manifest.table)


def load_rules(protocol: str) -> ProtocolCard:
    """Return a protocol by name or file; raise UsageError if embeddings are not resampled as it asks."""
    from uwbench.cards.find import find_protocol
    from uwbench.extraction.identity import RESAMPLER

    card = find_protocol(protocol)
    if card.resampler != RESAMPLER:
        what = f"asks for the resampler {card.resampler}; embeddings are made with {RESAMPLER}"
        raise UsageError(what, where=f"--protocol {card.name}")
    return card


def open_dataset(task: TaskSpec | Dataset, data: Path | None) -> Dataset:
    """Open a task's clips; what is open already is returned as it is."""
    from uwbench.sources.resolve import open_task, with_name

    return open_task(with_name(task), data) if isinstance(task, TaskSpec) else task


@dataclass(frozen=True, slots=True)
class _Scan:
    """Tasks whose audio was scanned, those whose data is not at hand, and those that failed."""

    tasks: tuple[Task, ...] = ()
    missing: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()


def _scan(
    tasks: Sequence[TaskSpec | Dataset], suite: str | None, folders: Folders, limit: int | None, reporter: Reporter
) -> _Scan:
    """Open and hash the tasks; one that was named must be at hand, one of a suite may be missing."""
    from uwbench.cards.find import find_suite
    from uwbench.results.contamination import require_known

    chosen = tasks or [TaskSpec(name) for name in find_suite(suite or DEFAULT_SUITE).tasks]
    scanned: list[Task] = []
    missing, failures = [], []
    for task in chosen:
        try:
            dataset = open_dataset(task, folders.data)
        except DataError as error:
            line = f"{task.source}: {error}"
            missing.append(line)
            failures += [line] if tasks else []
            continue
        require_known(dataset.card.taken_from)
        reporter.started(SCAN, dataset.card.name, len(dataset.clips))
        try:
            scanned.append(_scan_one(dataset, folders.cache, limit, reporter))
        except DataError as error:
            failures.append(str(error))
        finally:
            reporter.finished()
    _refuse_repeated([task.card.name for task in scanned])
    return _Scan(tuple(scanned), tuple(missing), tuple(failures))


def _scan_one(dataset: Dataset, cache: Path, limit: int | None, reporter: Reporter) -> Task:
    from uwbench.extraction.task import scan_task

    clips, problems = dataset.clips, dataset.problems
    return scan_task(
        dataset.card, clips, dataset.source, problems, cache, limit, progress=lambda: reporter.advanced(1, 0.0)
    )


def _refuse_repeated(names: Sequence[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        remedy = "give one of them another name, as in -t OTHER=PATH or load_task(..., name=OTHER)"
        raise UsageError(f"two tasks are called {repeated[0]!r}", remedy=remedy)


def _plan(
    models: Sequence[Model],
    tasks: Sequence[Task],
    cache: Path,
    options: ExtractOptions,
    corruptions: Sequence[Corruption],
    scoring: Scoring | None,
    device: str,
    reporter: Reporter,
) -> tuple[list[tuple[Model, Plan]], list[str]]:
    """Return what each model has to encode, task by task, and an error line for each plan that cannot be made."""
    from uwbench.encoders.base import IMPORTED
    from uwbench.extraction.plan import make_plan, share_of

    planned, failures = [], []
    for task in tasks:
        if task.table.needs_frames and corruptions:
            reporter.note(f"note: {task.card.name} is scored by frames; its clips are not corrupted")
        if task.table.needs_frames and options.segments:
            reporter.note(f"note: {task.card.name} is scored by frames; it gets no segments")
    for model in models:
        try:
            record = _record(model, tasks, cache, options, device, reporter)
        except EncoderError as error:
            failures.append(str(error))
            continue
        if record.family == IMPORTED and options.segments:
            reporter.note(f"note: {record.name} has one ready vector per clip; it gets no segments")
        for task in tasks:
            try:
                under = () if task.table.needs_frames else corruptions
                segments = record.family != IMPORTED and _takes_segments(task.table, options, scoring)
                plan = make_plan(task, record, cache, corruptions=under, segments=segments, force=options.force)
            except StoreError as error:
                failures.append(f"{record.name}, {task.card.name}: {error}")
                continue
            planned.append((model, plan if options.part is None else share_of(plan, *options.part)))
    return planned, failures


def _takes_segments(table: ClipTable, options: ExtractOptions, scoring: Scoring | None) -> bool:
    """Return True if a task's clips get segments: by the option, or for a method that reads them."""
    from uwbench.probes.run import applicable

    if table.needs_frames:
        return False
    methods = applicable(scoring.methods, scoring.protocol, table.card)[0] if scoring else ()
    return options.segments or any(METHODS[method].segments for method in methods)


def _record(
    model: Model, tasks: Sequence[Task], cache: Path, options: ExtractOptions, device: str, reporter: Reporter
) -> EncoderRecord:
    """Return the encoder's record; an own encoder first encodes a cached clip again, if there is one."""
    from uwbench.extraction.identity import describe_encoder

    for line in model.encoder.info.notes:
        reporter.note(f"note: {line}")
    layers = options.layers
    if model.texts is not None and layers != "all":
        layers = f"{layers},{model.texts.layer}"

    def describe(generation: int) -> EncoderRecord:
        return describe_encoder(
            model.encoder.info,
            layers=layers,
            poolings=options.poolings,
            dtype=str(options.dtype),
            generation=generation,
        )

    if not model.encoder.info.runs_own_code or options.force:
        return describe(0)
    from uwbench.base.device import pick_device
    from uwbench.extraction.extract import settings_for
    from uwbench.extraction.recheck import current_record

    settings = settings_for(pick_device(device), options.batch_seconds, options.workers)
    return current_record(model.encoder, describe, tasks, cache, settings, reporter.note)


def _require_space(plans: Sequence[Plan], cache: Path) -> None:
    from uwbench.cache.store import free_bytes

    needed = sum(plan.forecast_bytes() for plan in plans)
    free = free_bytes(cache)
    if needed > free:
        what = f"the embeddings need {needed / 1e9:.1f} GB and the disk has {free / 1e9:.1f} GB free"
        raise StoreError(what, where=cache, remedy="free some space, use another --cache, or take fewer layers")


def _run_one(
    model: Model, plan: Plan, options: ExtractOptions, device: str, scoring: Scoring | None, reporter: Reporter
) -> TaskRun:
    """Extract and score one task under one model; a failure is part of the record, and a result file."""
    name, task = model.encoder.info.name, plan.task.card.name
    run = TaskRun(name, task)
    try:
        extraction = _extract_one(model, plan, options, device, reporter)
        unread = [str(error) for error in extraction.unreadable] if extraction else []
        failures = () if scoring else tuple(f"{task}: {line}" for line in [*plan.task.table.unreadable, *unread])
        run = replace(run, extracted=True, extraction=extraction, failures=failures)
        seconds = {"load": model.load_s or 0.0, "encode": extraction.seconds if extraction else 0.0}
        corruptions, encode_s, problems = _extract_corrupted(model, plan, options, device, reporter)
        if scoring is None or options.part is not None:
            return replace(run, failures=(*failures, *problems))
        table = plan.task.table
        seconds |= {"encode corrupted": encode_s} if encode_s else {}
        methods, notes, lacking = _methods(scoring, plan.store, table, reporter, model.no_texts)
        methods, unembedded = _embed_texts(model, plan, scoring, methods, device)
        run = replace(run, failures=(*problems, *lacking, *unembedded), notes=notes)
        if not methods:
            return run
        reporter.started(name, f"{task} (probe)", 0)
        speed = _speed(extraction)
        result = _probe_one(plan.store, table, scoring, methods, device, corruptions, seconds, speed, unread)
        return replace(run, result=result)
    except OSError as error:
        # No failed result: the disk may not take it, and a score that is there is still true.
        return replace(run, failures=(f"{name}, {task}: {disk_error(error)}",))
    except UwbenchError as error:
        result = _failed(plan, scoring, device, error) if scoring else None
        return replace(run, result=result, failures=(*run.failures, f"{name}, {task}: {error}"))
    finally:
        reporter.finished()


def _extract_one(
    model: Model, plan: Plan, options: ExtractOptions, device: str, reporter: Reporter
) -> Extraction | None:
    """Encode what the plan lists, and note in the cache which clip table the vectors are for; None: all was cached."""
    from uwbench.encoders.vectors import ReadyVectors

    extraction = None
    if plan.parts and plan.needs_frames and model.encoder.info.hop_s == 0:
        what = f"has one vector per clip, and {plan.task.card.name} is scored on frames"
        raise EncoderError(what, where=model.encoder.info.name, remedy="leave the task out")
    if plan.parts and isinstance(model.encoder, ReadyVectors):
        from uwbench.extraction.imported import import_vectors

        extraction = import_vectors(plan, model.encoder, reporter.note)
    elif plan.parts:
        extraction = _encode(model, plan, options, device, reporter)
    task = plan.task.card.name
    if not plan.task.table.limited or plan.store.manifest(task) is None:
        plan.store.create()
        plan.store.set_table(task, plan.table_name)
    return extraction


def _extract_corrupted(
    model: Model, plan: Plan, options: ExtractOptions, device: str, reporter: Reporter
) -> tuple[list[Corruption], float, tuple[str, ...]]:
    """Encode the tested clips under each corruption; return those that are complete, the seconds, and what failed.

    A failure costs no score but those of its corruption.
    """
    complete: list[Corruption] = []
    failures: list[str] = []
    encode_s = 0.0
    for corrupted in plan.corrupted:
        corruption = corrupted.task.corruption
        assert corruption is not None
        where = f"{model.encoder.info.name}, {plan.task.card.name}, {corruption.name}"
        try:
            extraction = _encode(model, corrupted, options, device, reporter) if corrupted.parts else None
        except OSError as error:
            failures.append(f"{where}: {disk_error(error)}")
            continue
        except UwbenchError as error:
            failures.append(f"{where}: {error}")
            continue
        if extraction is not None and extraction.unreadable:
            failures.append(f"{where}: {len(extraction.unreadable)} clips failed, first: {extraction.unreadable[0]}")
            continue
        encode_s += extraction.seconds if extraction else 0.0
        complete.append(corruption)
    return complete, encode_s, tuple(failures)


def _embed_texts(
    model: Model, plan: Plan, scoring: Scoring, methods: list[str], device: str
) -> tuple[list[str], tuple[str, ...]]:
    """Put the texts that methods need into the cache; return the methods that can run, and what failed.

    A failure costs no score but those of these methods.
    """
    asking = _needing_texts(methods)
    if model.texts is None or not asking:
        return methods, ()
    from uwbench.probes.joint import embed_texts
    from uwbench.probes.methods.zero_shot import texts_of

    try:
        embed_texts(plan.store, model.texts, texts_of(plan.task.table, scoring.protocol), device)
    except EncoderError as error:
        where = f"{model.encoder.info.name}, {plan.task.card.name}, {asking[0]}"
        return [name for name in methods if name not in asking], (f"{where}: {error}",)
    return methods, ()


def _encode(model: Model, plan: Plan, options: ExtractOptions, device: str, reporter: Reporter) -> Extraction:
    from uwbench.extraction.batching import input_s
    from uwbench.extraction.extract import extract, settings_for

    if options.engine == Engine.LOCAL or options.dtype != "fp32":
        model.load(plan, options, device, reporter)
    settings = settings_for(device, options.batch_seconds, options.workers)
    under = f" {plan.task.corruption.name}" if plan.task.corruption else ""
    durations = plan.task.table.durations_s
    inputs = {row: input_s(durations[row], model.encoder.info) for part in plan.parts for row in part.rows}
    reporter.started(model.encoder.info.name, f"{plan.task.card.name}{under}", len(inputs), sum(inputs.values()))

    def advanced(rows: Sequence[int]) -> None:
        reporter.advanced(len(rows), sum(durations[row] for row in rows), sum(inputs[row] for row in rows))

    try:
        if options.engine == Engine.LOCAL:
            return extract(plan, model.encoder, settings, advanced)
        from uwbench.extraction.ray import extract_on_ray

        if model.spec is None:
            remedy = "put its class in a file and name it FILE.py:Class"
            raise UsageError(
                "an encoder made in this process cannot run elsewhere", where="--engine ray", remedy=remedy
            )
        return extract_on_ray(plan, model.spec, settings, str(options.dtype), advanced)
    finally:
        reporter.finished()


def _speed(extraction: Extraction | None) -> dict[str, float] | None:
    if extraction is None or extraction.audio_s == 0:
        return None
    return {
        "clips_per_s": extraction.encoded / extraction.seconds,
        "audio_s_per_s": extraction.audio_s / extraction.seconds,
    }


def _probe_one(
    store: EncoderStore,
    table: ClipTable,
    scoring: Scoring,
    methods: Sequence[str],
    device: str,
    corruptions: Sequence[Corruption],
    seconds: Mapping[str, float] | None = None,
    speed: dict[str, float] | None = None,
    unread: Sequence[str] = (),
) -> tuple[Path, Result]:
    from uwbench.probes.score_task import probe_task

    return probe_task(
        store,
        table,
        scoring.protocol,
        scoring.results,
        methods=methods,
        device=device,
        options=scoring.options,
        corruptions=corruptions,
        seconds=seconds,
        speed=speed,
        unread=unread,
    )


def _methods(
    scoring: Scoring, store: EncoderStore, table: ClipTable, reporter: Reporter, no_texts: str | None
) -> tuple[list[str], tuple[str, ...], tuple[str, ...]]:
    """Return the methods that apply to a task, a note, reported too, for each of the others, and failures.

    `no_texts` says why the model embeds no texts, if it does not. A method that lacks segments is a failure if it was
    asked for by its name, and a note if a group named it.
    """
    from uwbench.probes.run import applicable
    from uwbench.probes.score_task import lacks_segments

    methods, notes = applicable(scoring.methods, scoring.protocol, table.card)
    for name in _needing_texts(methods) if no_texts is not None else ():
        methods.remove(name)
        notes.append(f"{table.card.name}: not scored by {name}: {no_texts}")
    failures = []
    reading = [method for method in methods if METHODS[method].segments]
    if reading and (reason := lacks_segments(store, table)) is not None:
        methods = [method for method in methods if method not in reading]
        for method in reading:
            line = f"{table.card.name}: not scored by {method}: {reason}"
            if method in scoring.named:
                failures.append(f"{store.record.name}, {line}")
            else:
                notes.append(line)
    for note in notes:
        reporter.note(f"note: {note}")
    return methods, tuple(notes), tuple(failures)


def _why_no_texts(store: EncoderStore, table: ClipTable, scoring: Scoring) -> str | None:
    """Return why the cache cannot tell how a model embeds the texts of a task, None if it can or no method asks."""
    from uwbench.probes.run import applicable

    methods, _ = applicable(_needing_texts(scoring.methods), scoring.protocol, table.card)
    if not methods:
        return None
    from uwbench.probes.joint import lacking
    from uwbench.probes.methods.zero_shot import texts_of

    return lacking(store, table.card.name, texts_of(table, scoring.protocol))


def _failed(plan: Plan, scoring: Scoring, device: str, error: UwbenchError) -> tuple[Path, Result]:
    from uwbench.probes.score_task import write_failure

    store, table = plan.store, plan.task.table
    return write_failure(store, table, scoring.protocol, scoring.results, error, device=device, options=scoring.options)


def _probe_cached_one(
    store: EncoderStore,
    task: str,
    cache: Path,
    scoring: Scoring,
    corruptions: Sequence[Corruption],
    device: str,
    reporter: Reporter,
) -> TaskRun:
    """Score one task from the cache; a failure is part of the record."""
    name = store.record.name
    manifest = store.manifest(task)
    assert manifest is not None
    reporter.started(name, f"{task} (probe)", 0)
    try:
        table = _cached_table(cache, manifest.table, task)
        under = () if table.needs_frames else corruptions
        no_texts = _why_no_texts(store, table, scoring)
        methods, notes, lacking = _methods(scoring, store, table, reporter, no_texts)
        run = TaskRun(name, task, failures=lacking, notes=notes)
        return replace(run, result=_probe_one(store, table, scoring, methods, device, under)) if methods else run
    except UwbenchError as error:
        return TaskRun(name, task, failures=(f"{name}, {task}: {error}",))
    except OSError as error:
        return TaskRun(name, task, failures=(f"{name}, {task}: {disk_error(error)}",))
    finally:
        reporter.finished()


def _cached_names(model: str | Encoder, stores: Sequence[EncoderStore], cache: Path) -> list[str]:
    """Return what finds a model in the cache: its name, or the fingerprints made from an encoder's identity."""
    if isinstance(model, str) or not stores:
        return [model if isinstance(model, str) else model.info.name]
    from uwbench.base.hashing import digest

    identity = digest(dict(model.info.identity))
    fingerprints = [
        store.record.fingerprint for store in stores if digest(store.record.identity["encoder"]) == identity
    ]
    if not fingerprints:
        what = f"no embeddings of {model.info.name!r} with this identity are in {cache}"
        raise UsageError(what, remedy="extract them first")
    return fingerprints


@dataclass(frozen=True, slots=True)
class _CachedTasks:
    """Names of tasks to score from the cache, and what could not be opened."""

    names: tuple[str, ...]
    missing: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()


def _cached_tasks(
    stores: Sequence[EncoderStore],
    tasks: Sequence[TaskSpec | Dataset],
    suite: str | None,
    folders: Folders,
    reporter: Reporter,
) -> _CachedTasks:
    """Return the tasks to probe; one given by its path is read again, so that changed labels count."""
    from uwbench.cache.clip_table import write_table
    from uwbench.cards.find import find_suite

    cached = sorted({name for store in stores for name in store.tasks()})
    if not tasks:
        return _CachedTasks(
            tuple(name for name in find_suite(suite).tasks if name in cached) if suite else tuple(cached)
        )
    names, missing, failures = [], [], []
    for task in tasks:
        if isinstance(task, TaskSpec) and task.source in cached:
            names.append(str(task.source))
            continue
        scan = _scan([task], None, folders, None, reporter)
        missing += scan.missing
        failures += scan.failures
        for scanned in scan.tasks:
            name = scanned.card.name
            names.append(name)
            for store in stores:
                if store.manifest(name) is not None:
                    store.set_table(name, write_table(folders.cache, scanned.table))
    _refuse_repeated(names)
    return _CachedTasks(tuple(names), tuple(missing), tuple(failures))


def _cached_table(cache: Path, name: str, task: str) -> ClipTable:
    """Read a clip table and put today's card in it, if its labels are still what the card means."""
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
            what, where=task, remedy=f"run uwbench extract --task {task}; clips that have not changed stay cached"
        )
    return replace(table, card=card)
