"""A run: every task extracted with every model and, if asked for, scored.

An error of one task under one model is caught in `_run_one` and nowhere below: the other tasks go on, the failure is
kept in a result file and reported at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from uwbench.base.disk import disk_error
from uwbench.errors import UwbenchError
from uwbench.methods import needing_texts
from uwbench.options import ExtractOptions, Folders, TaskSpec
from uwbench.pipeline.encode import extract_corrupted, extract_task
from uwbench.pipeline.model import Model
from uwbench.pipeline.outcome import Results, TaskRun, report_notes
from uwbench.pipeline.plan import make_plans, require_space
from uwbench.pipeline.probe import choose_methods, failed_result, score_task
from uwbench.pipeline.scoring import Scoring, require_use, with_same_corruptions
from uwbench.pipeline.tasks import scan_tasks
from uwbench.pipeline.texts import embed_task_texts, open_texts
from uwbench.progress import Reporter

if TYPE_CHECKING:
    from uwbench.extraction.extract import Extraction
    from uwbench.extraction.plan import Plan
    from uwbench.sources.dataset import Dataset


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
    refused: Sequence[str] = (),
) -> Results:
    """Extract every task with every model and, with `scoring`, score it.

    Without `tasks`, every task of `suite` whose data is at hand is taken. `refused` has an error line for each model
    that could not be opened. Raises UsageError or InputError for a request that cannot be carried out at all; what
    fails later is in the results.
    """
    from uwbench.audio.corruption import parse_corruptions
    from uwbench.base.device import pick_device

    options, scoring = with_same_corruptions(options, scoring)
    corruptions = parse_corruptions(options.corruptions)
    if scoring is not None:
        require_use(scoring)
    if scoring is not None and needing_texts(scoring.methods):
        open_texts(models, scoring.named, options.layers)
    scan = scan_tasks(tasks, suite, folders, options.limit, reporter)
    planned, unplanned = make_plans(models, scan.tasks, folders.cache, options, corruptions, scoring, device, reporter)
    reporter.planned([plan for _, plan in planned], scan.missing, folders)
    require_space([plan for _, plan in planned], folders.cache)
    if scoring is not None or any(part.parts for _, plan in planned for part in (plan, *plan.corrupted)):
        device = pick_device(device)
    runs = tuple(_run_one(model, plan, options, device, scoring, reporter) for model, plan in planned)
    report_notes(runs, reporter)
    caveats, methods = (scoring.protocol.caveats, scoring.methods) if scoring else ((), ())
    return Results(runs, scan.missing, (*refused, *scan.failures, *unplanned), suite, caveats, methods)


def _run_one(
    model: Model, plan: Plan, options: ExtractOptions, device: str, scoring: Scoring | None, reporter: Reporter
) -> TaskRun:
    """Extract and score one task under one model; a failure is part of the record, and a result file."""
    name, task = model.encoder.info.name, plan.task.card.name
    run = TaskRun(name, task)
    try:
        extraction = extract_task(model, plan, options, device, reporter)
        unread = [str(error) for error in extraction.unreadable] if extraction else []
        failures = () if scoring else tuple(f"{task}: {line}" for line in [*plan.task.table.unreadable, *unread])
        run = replace(run, extracted=True, extraction=extraction, failures=failures)
        seconds = {"load": model.load_s or 0.0, "encode": extraction.seconds if extraction else 0.0}
        corruptions, encode_s, problems = extract_corrupted(model, plan, options, device, reporter)
        if scoring is None or options.part is not None:
            return replace(run, failures=(*failures, *problems))
        table = plan.task.table
        seconds |= {"encode corrupted": encode_s} if encode_s else {}
        methods, notes, lacking = choose_methods(scoring, plan.store, table, model.no_texts)
        methods, unembedded = embed_task_texts(model, plan, scoring, methods, device)
        run = replace(run, failures=(*problems, *lacking, *unembedded), notes=notes)
        if not methods:
            return run
        reporter.started(name, f"{task} (probe)", 0)
        speed = _speed(extraction)
        result = score_task(plan.store, table, scoring, methods, device, corruptions, seconds, speed, unread)
        return replace(run, result=result)
    except OSError as error:
        # No failed result: the disk may not take it, and a score that is there is still true.
        return replace(run, failures=(f"{name}, {task}: {disk_error(error)}",))
    except UwbenchError as error:
        result = failed_result(plan, scoring, device, error) if scoring else None
        return replace(run, result=result, failures=(*run.failures, f"{name}, {task}: {error}"))
    finally:
        reporter.finished()


def _speed(extraction: Extraction | None) -> dict[str, float] | None:
    if extraction is None or extraction.audio_s == 0:
        return None
    return {
        "clips_per_s": extraction.encoded / extraction.seconds,
        "audio_s_per_s": extraction.audio_s / extraction.seconds,
    }
