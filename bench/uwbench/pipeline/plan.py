"""Plans of a run, one per model and task, and whether the disk has room for their embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from uwbench.errors import EncoderError, StoreError
from uwbench.methods import METHODS
from uwbench.options import ExtractOptions
from uwbench.pipeline.model import Model
from uwbench.pipeline.scoring import Scoring
from uwbench.progress import Reporter

if TYPE_CHECKING:
    from uwbench.audio.corruption import Corruption
    from uwbench.cache.clip_table import ClipTable
    from uwbench.cache.records import EncoderRecord
    from uwbench.extraction.plan import Plan
    from uwbench.extraction.task import Task


def make_plans(
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


def require_space(plans: Sequence[Plan], cache: Path) -> None:
    """Raise StoreError if the disk of the cache has no room for what is planned."""
    from uwbench.cache.store import free_bytes

    needed = sum(plan.forecast_bytes() for plan in plans)
    free = free_bytes(cache)
    if needed > free:
        what = f"the embeddings need {needed / 1e9:.1f} GB and the disk has {free / 1e9:.1f} GB free"
        raise StoreError(what, where=cache, remedy="free some space, use another --cache, or take fewer layers")
