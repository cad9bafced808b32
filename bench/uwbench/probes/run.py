"""The methods of one task under one encoder: which apply, their scores, and every prediction."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from uwbench.cards.card import Card
from uwbench.cards.protocol import Protocol
from uwbench.errors import ProbeError, UsageError
from uwbench.methods import HEADLINE, METHODS
from uwbench.probes.data import TaskData
from uwbench.probes.kinds import kind_of
from uwbench.probes.kinds.frames import FrameLabels
from uwbench.probes.methods.base import ProbeRun, Scored, settings_on_record
from uwbench.probes.splits import plan_folds
from uwbench.results.record import Method, Score

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class ProbeOutcome:
    """Scores by method, without intervals, and the predictions from which they can be recomputed.

    `corrupted` has the predictions of the same test clips by the same probes under each corruption, for the methods
    that are tested so.
    """

    scores: dict[Method, Score]
    predictions: pa.Table
    corrupted: dict[str, pa.Table]


def applicable(methods: Sequence[str], protocol: Protocol, card: Card) -> tuple[list[str], list[str]]:
    """Return which of `methods` the protocol runs on a task, and for each of the others a line that says why not."""
    runs, notes = [], []
    for name in methods:
        info = METHODS[name]
        if card.kind not in info.kinds:
            notes.append(f"{card.name}: not scored by {name}, which takes {' and '.join(info.kinds)} tasks")
        elif not protocol.runs(name):
            notes.append(f"{card.name}: not scored by {name}, which {protocol.name} does not run")
        elif name == "knn" and protocol.knn.similarity == "xares" and not card.xares.knn:
            notes.append(f"{card.name}: not scored by {name}, which X-ARES does not run on it")
        else:
            runs.append(name)
    return runs, notes


def run_probes(
    data: TaskData, protocol: Protocol, *, methods: Sequence[str] = HEADLINE, seed: int = 0, device: str = "cpu"
) -> ProbeOutcome:
    """Score one task under one encoder by `protocol`.

    `methods` are names in `uwbench.methods`; one that does not apply to the task is left out. `seed` moves every
    random choice of the probes; `device` is torch's. Raises ProbeError if the data cannot be probed, or no method
    applies.
    """
    unknown = [name for name in methods if name not in METHODS]
    if unknown or not methods:
        what = f"unknown method {unknown[0]!r}" if unknown else "no method is asked for"
        raise UsageError(what, remedy=f"known: {', '.join(METHODS)}")
    _require_finite(data)
    kind = kind_of(data)
    if _by_xares(protocol) and data.card.name == "maestro" and isinstance(kind, FrameLabels):
        kind.positive_weight = 10.0  # X-ARES weighs the positives of MAESTRO, its only task trained clip by clip
    selection = protocol.mlp if protocol.runs("mlp") else None
    task = ProbeRun(data, kind, protocol, plan_folds(data, selection, kind.strata(), seed), seed, device)
    if not kind.has_classes:
        _require_own_rules(protocol, data)
    names, _ = applicable(methods, protocol, data.card)
    if not names:
        raise ProbeError(f"{protocol.name} runs none of {', '.join(methods)} on it", where=data.card.name)
    outcomes = {name: _run(name, task) for name in names}
    from uwbench.probes.predictions import join_rows

    corrupted = {
        name: [table for outcome in outcomes.values() for table in outcome.corrupted.get(name, ())]
        for name in data.corrupted
    }
    return ProbeOutcome(
        {name: outcome.score for name, outcome in outcomes.items()},
        join_rows([table for outcome in outcomes.values() for table in outcome.rows], kind.classes),
        {name: join_rows(tables, kind.classes) for name, tables in corrupted.items() if tables},
    )


def _run(method: str, task: ProbeRun) -> Scored:
    module, _, function = METHODS[method].run.partition(":")
    try:
        run = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"the method {method!r} ({METHODS[method].run}) cannot be imported: {error}") from error
    outcome: Scored = run(task)
    if METHODS[method].headline:
        return outcome
    settings = settings_on_record(task.protocol, method)
    return replace(outcome, score=outcome.score.model_copy(update={"settings": settings}))


def _by_xares(protocol: Protocol) -> bool:
    return protocol.runs("mlp") and protocol.mlp.selection == "xares"


def _require_own_rules(protocol: Protocol, data: TaskData) -> None:
    """Refuse X-ARES's rules for captions and texts: its own text encoder and decoder are not reproduced here."""
    if _by_xares(protocol):
        what = f"{protocol.name} does not reproduce how X-ARES scores {data.card.kind} tasks"
        raise ProbeError(what, where=data.card.name, remedy="use --protocol uwbench-1")


def _require_finite(data: TaskData) -> None:
    """Raise ProbeError naming the first clip whose vector is not finite, or a table without clips."""
    if len(data.ids) == 0:
        raise ProbeError("holds no clips", where=data.card.name, remedy="run uwbench extract")
    for start in range(0, len(data.pooled), 4096):
        bad = ~np.isfinite(data.pooled[start : start + 4096]).all(axis=(1, 2))
        if bad.any():
            where = str(data.ids[start + int(np.flatnonzero(bad)[0])])
            raise ProbeError("its embedding holds NaN or Inf", where=where, remedy="extract it again")
