"""A task scored from the cache: the methods that apply to it, its result, or the result that says it failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from uwbench.errors import UwbenchError
from uwbench.methods import METHODS, needing_texts
from uwbench.pipeline.scoring import Scoring

if TYPE_CHECKING:
    from uwbench.audio.corruption import Corruption
    from uwbench.cache.clip_table import ClipTable
    from uwbench.cache.store import EncoderStore
    from uwbench.extraction.plan import Plan
    from uwbench.results.record import Result


def choose_methods(
    scoring: Scoring, store: EncoderStore, table: ClipTable, no_texts: str | None
) -> tuple[list[str], tuple[str, ...], tuple[str, ...]]:
    """Return the methods that apply to a task, a note for each of the others, and failures.

    `no_texts` says why the model embeds no texts, if it does not. A method that lacks segments is a failure if it was
    asked for by its name, and a note if a group named it.
    """
    from uwbench.probes.run import applicable
    from uwbench.probes.score_task import lacks_segments

    methods, notes = applicable(scoring.methods, scoring.protocol, table.card)
    for name in needing_texts(methods) if no_texts is not None else ():
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
    return methods, tuple(notes), tuple(failures)


def score_task(
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
    """Score a task by `methods` from its vectors in the cache; return the result and its file."""
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


def failed_result(plan: Plan, scoring: Scoring, device: str, error: UwbenchError) -> tuple[Path, Result]:
    """Write a result that says why a task has no score; return it and its file."""
    from uwbench.probes.score_task import write_failure

    store, table = plan.store, plan.task.table
    return write_failure(store, table, scoring.protocol, scoring.results, error, device=device, options=scoring.options)
