"""A planned task put into the cache: its clips, and its tested clips under each corruption."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from uwbench.base.disk import disk_error
from uwbench.errors import EncoderError, UsageError, UwbenchError
from uwbench.options import Engine, ExtractOptions
from uwbench.pipeline.model import Model
from uwbench.progress import Reporter

if TYPE_CHECKING:
    from uwbench.audio.corruption import Corruption
    from uwbench.extraction.extract import Extraction
    from uwbench.extraction.plan import Plan


def extract_task(
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


def extract_corrupted(
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
