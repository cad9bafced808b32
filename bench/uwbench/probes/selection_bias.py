"""Measure how much choosing on test data inflates a score: same embeddings, same probe, two rules of selection.

X-ARES 0.1.3 keeps the checkpoint that scores best on the data it then reports. Here its probe is trained twice on the
same vectors: once by that rule, and once choosing the epoch on validation clips of the training part, by group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uwbench.cache.choose import choose_stores
from uwbench.cache.clip_table import ClipTable, read_table
from uwbench.cache.store import EncoderStore, open_encoders
from uwbench.cards.find import find_protocol
from uwbench.cards.protocol import Protocol
from uwbench.errors import UsageError
from uwbench.probes.score_task import load_task_data

XARES = "xares-0.1.3"


@dataclass(frozen=True, slots=True)
class Inflation:
    """Mean scores over probe seeds under both rules.

    `difference` is what choosing on test data adds; `low` and `high` bound the central 95 % of it over the seeds.
    """

    model: str
    task: str
    seeds: int
    on_test: float
    on_validation: float
    difference: float
    low: float
    high: float


def measure_cached(
    cache: Path, tasks: Sequence[str], models: Sequence[str], *, seeds: Sequence[int], device: str
) -> list[Inflation]:
    """Measure the inflation of X-ARES's probe on every task and model in the cache, or on those named.

    Without `tasks`, on tasks with folds. Raises UsageError if no such task is in the cache.
    """
    stores = choose_stores(open_encoders(cache)[0], models, cache)
    protocol = find_protocol(XARES)
    rows = []
    for store in stores:
        for task in tasks or store.tasks():
            manifest = store.manifest(task)
            if manifest is None:
                continue
            table = read_table(cache, manifest.table)
            if tasks or table.card.folds is not None:
                rows.append(measure_inflation(store, table, protocol, seeds=seeds, device=device))
    if not rows:
        raise UsageError("no k-fold task is in the cache", remedy="run uwbench extract first, and name tasks with -t")
    return rows


def measure_inflation(
    store: EncoderStore, table: ClipTable, protocol: Protocol, *, seeds: Sequence[int], device: str
) -> Inflation:
    """Train the probe of `protocol`, which selects as X-ARES does, by its own rule and by validation data.

    All else is the same: vectors, optimiser, epochs, seeds. Raises UsageError for a protocol that selects on
    validation data anyway, or a task on which X-ARES does.
    """
    from uwbench.probes.run import run_probes

    if protocol.mlp.selection != "xares":
        raise UsageError("never selects on test data", where=protocol.name, remedy=f"use {XARES}")
    if table.card.folds is None and not table.card.xares.selects_on_test:
        raise UsageError("has a validation part, on which X-ARES selects too", where=table.card.name)
    data = load_task_data(store, table, protocol.pooling)
    scores = []
    for selection in ("xares", "validation"):
        mlp = protocol.mlp.model_copy(update={"selection": selection, "seeds": tuple(seeds)})
        rules = protocol.model_copy(update={"mlp": mlp})
        outcome = run_probes(data, rules, methods=["mlp"], seed=0, device=device)
        scores.append(np.array(outcome.scores["mlp"].per_seed))
    on_test, on_validation = scores
    low, high = np.percentile(on_test - on_validation, [2.5, 97.5])
    means = float(on_test.mean()), float(on_validation.mean())
    return Inflation(
        store.record.name, table.card.name, len(seeds), *means, means[0] - means[1], float(low), float(high)
    )
