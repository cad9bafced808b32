"""A run that starts from the cache: tasks are scored without audio or encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from uwbench.base.disk import disk_error
from uwbench.encoders.base import Encoder
from uwbench.errors import UwbenchError
from uwbench.methods import needing_texts
from uwbench.options import Folders, TaskSpec
from uwbench.pipeline.cached import by_model, choose_tasks, current_table, most_complete, names_in_cache
from uwbench.pipeline.outcome import Results, TaskRun, report_notes
from uwbench.pipeline.probe import choose_methods, score_task
from uwbench.pipeline.scoring import Scoring, require_use
from uwbench.pipeline.texts import require_texts, why_no_texts
from uwbench.progress import Reporter

if TYPE_CHECKING:
    from uwbench.audio.corruption import Corruption
    from uwbench.cache.store import EncoderStore
    from uwbench.sources.dataset import Dataset


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

    require_use(scoring)
    stores, problems = open_encoders(folders.cache)
    if problems and not stores:  # the cache is not empty, it is damaged
        return Results(refused=tuple(problems), suite=suite)
    names = [name for model in models for name in names_in_cache(model, stores, folders.cache)]
    chosen = choose_stores(stores, names, folders.cache)
    corruptions = parse_corruptions(scoring.options.corruptions)  # refuses a wrong name before any task is scored
    if needing_texts(scoring.methods):
        from uwbench.probes.joint import read_texts, without_texts

        reasons = [without_texts(store.record) for store in chosen if read_texts(store) is None]
        require_texts(reasons, len(chosen), scoring.named)
    scan = choose_tasks(chosen, tasks, suite, folders, reporter)
    device = pick_device(device)
    runs = []
    for settings in by_model(chosen):
        for task in scan.names:
            holding = [store for store in settings if store.manifest(task) is not None]
            if holding:
                store = most_complete(holding, task, folders.cache)
                runs.append(_probe_one(store, task, folders.cache, scoring, corruptions, device, reporter))
            elif models:  # a model that was named; others in the cache need not hold every task
                name = settings[0].record.name
                runs.append(TaskRun(name, task, failures=(f"{name}, {task}: not extracted",)))
    report_notes(runs, reporter)
    failures = (*problems, *scan.failures)
    return Results(tuple(runs), scan.missing, failures, suite, scoring.protocol.caveats, scoring.methods)


def _probe_one(
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
        table = current_table(cache, manifest.table, task)
        under = () if table.needs_frames else corruptions
        no_texts = why_no_texts(store, table, scoring)
        methods, notes, lacking = choose_methods(scoring, store, table, no_texts)
        run = TaskRun(name, task, failures=lacking, notes=notes)
        return replace(run, result=score_task(store, table, scoring, methods, device, under)) if methods else run
    except UwbenchError as error:
        return TaskRun(name, task, failures=(f"{name}, {task}: {error}",))
    except OSError as error:
        return TaskRun(name, task, failures=(f"{name}, {task}: {disk_error(error)}",))
    finally:
        reporter.finished()
