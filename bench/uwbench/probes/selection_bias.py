"""How much choosing on test data inflates a score: the same embeddings, the same probe, two rules of selection.

X-ARES 0.1.3 keeps the checkpoint that scores best on the data it then reports. Here its probe is trained twice on the
same vectors, once with that rule and once choosing the epoch on validation clips of the training part, by group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from uwbench.base.device import pick_device
from uwbench.cache.clip_table import ClipTable
from uwbench.cache.store import EncoderStore
from uwbench.cards.protocol import Protocol
from uwbench.errors import UsageError
from uwbench.probes.score_task import load_task_data


@dataclass(frozen=True, slots=True)
class Inflation:
    """Mean scores over seeds under both rules; `difference` is what the leak adds, `low`..`high` its spread."""

    model: str
    task: str
    seeds: int
    on_test: float
    on_validation: float
    difference: float
    low: float
    high: float


def measure_inflation(
    store: EncoderStore, table: ClipTable, protocol: Protocol, *, seeds: Sequence[int], device: str = "auto"
) -> Inflation:
    """Train the probe of `protocol`, one that selects as X-ARES does, under its rule and on validation data.

    Both keep all else: vectors, optimiser, epochs, seeds. The range is the central 95 % of the paired differences over
    `seeds`. Raises UsageError for a protocol that selects on validation anyway, or a task on which X-ARES has no leak.
    """
    from uwbench.probes.run import run_probes

    if protocol.mlp.selection != "xares":
        raise UsageError("never selects on test data", where=protocol.name, remedy="use --protocol xares-0.1.3")
    if table.card.folds is None and not table.card.xares.selects_on_test:
        raise UsageError("has a validation part, on which X-ARES selects too", where=table.card.name)
    data = load_task_data(store, table, protocol.pooling)
    scores = []
    for selection in ("xares", "validation"):
        mlp = protocol.mlp.model_copy(update={"selection": selection, "seeds": tuple(seeds)})
        rules = protocol.model_copy(update={"mlp": mlp})
        outcome = run_probes(data, rules, methods=["mlp"], seed=0, device=pick_device(device))
        scores.append(np.array(outcome.scores["mlp"].per_seed))
    on_test, on_validation = scores
    low, high = np.percentile(on_test - on_validation, [2.5, 97.5])
    means = float(on_test.mean()), float(on_validation.mean())
    return Inflation(
        store.record.name, table.card.name, len(seeds), *means, means[0] - means[1], float(low), float(high)
    )
