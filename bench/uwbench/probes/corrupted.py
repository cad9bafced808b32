"""Corrupted test clips: their vectors from the cache, and what they cost each method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from uwbench.audio.corruption import VERSION, Corruption, parse_corruptions
from uwbench.errors import StoreError
from uwbench.methods import METHODS
from uwbench.probes.data import CorruptedVectors, TaskData
from uwbench.results.items import read_items
from uwbench.results.record import Corrupted, CorruptedScore, Method, NoiseLimit, Result, Robustness
from uwbench.results.robustness import mean_cosine, noise_limit, score_corrupted

if TYPE_CHECKING:
    from uwbench.cache.clip_table import ClipTable
    from uwbench.cache.store import EncoderStore
    from uwbench.cards.protocol import Protocol
    from uwbench.probes.run import ProbeOutcome


def read_corrupted(
    store: EncoderStore, table: ClipTable, corruptions: Sequence[Corruption], pooling: str
) -> dict[str, CorruptedVectors]:
    """Return the last layer's vectors of the tested clips under each corruption, by its name.

    Raises StoreError, with the command to run, if the cache lacks one.
    """
    tested, task, vectors_of = np.array(table.tested), table.card.name, {}
    for corruption in corruptions:
        vectors = store.open_task(task, table.corrupted(corruption).keys, corruption=corruption)
        if len(vectors.missing):
            what = f"{len(vectors.missing):,} of {len(tested):,} tested clips of {task} have no embedding under"
            command = f"uwbench extract --model {store.record.name} --task {task} --corrupt {corruption.name}"
            raise StoreError(f"{what} {corruption.name}", where=store.folder, remedy=f"run: {command}")
        vectors_of[corruption.name] = CorruptedVectors(tested, vectors.pooled(pooling)[:, -1].copy())
    return vectors_of


def robustness_of(outcome: ProbeOutcome, data: TaskData, protocol: Protocol) -> Robustness | None:
    """Return what each corruption costs each method, and how far it moves the vectors; None without corruptions."""
    if not data.corrupted:
        return None
    by_method: dict[Method, dict[str, CorruptedScore]] = {}
    for method in outcome.scores:
        if METHODS[method].corruptible:
            clean, *corrupted = (
                read_items(rows, method, data.card.metric)
                for rows in (outcome.predictions, *(outcome.corrupted[name] for name in data.corrupted))
            )
            by_method[method] = score_corrupted(
                clean,
                dict(zip(data.corrupted, corrupted, strict=True)),
                protocol.bootstrap,
                of_folds=protocol.metric_of_folds(method),
            )
    corruptions = {}
    for name, vectors in data.corrupted.items():
        cosine = mean_cosine(data.pooled[vectors.tested, -1], vectors.values)
        scores = {method: of_method[name] for method, of_method in by_method.items()}
        corruptions[name] = Corrupted(cosine=cosine, scores=scores)
    clips = len(next(iter(data.corrupted.values())).tested)
    return Robustness(version=VERSION, clips=clips, corruptions=corruptions, five_points=_limits(corruptions))


def with_earlier(result: Result, before: Result) -> Robustness | None:
    """Return a result's robustness with the corruptions and methods that only an earlier result of the task has.

    A method's earlier drops count only if its clean score is still the same.
    """
    new, old = result.robustness, before.robustness
    if old is None or old.version != VERSION or (new is not None and new.clips != old.clips):
        return new
    same = {m for m, score in before.scores.items() if m not in result.scores or result.scores[m] == score}
    merged = dict(new.corruptions) if new is not None else {}
    for name, corrupted in old.corruptions.items():
        scores = {method: score for method, score in corrupted.scores.items() if method in same}
        newest = merged.get(name, corrupted)
        if scores:
            merged[name] = newest.model_copy(
                update={"scores": {**scores, **newest.scores}} if name in merged else {"scores": scores}
            )
    return (
        Robustness(version=VERSION, clips=old.clips, corruptions=merged, five_points=_limits(merged))
        if merged
        else None
    )


def _limits(corruptions: Mapping[str, Corrupted]) -> dict[Method, NoiseLimit]:
    """Return each method's limit from its drops under noise."""
    drops: dict[Method, dict[str, dict[float, float]]] = {}
    for corruption in parse_corruptions(corruptions):
        if corruption.kind == "noise":
            for method, score in corruptions[corruption.name].scores.items():
                of_colour = drops.setdefault(method, {}).setdefault(corruption.variant or "white", {})
                of_colour[corruption.amount] = score.drop
    limits: dict[Method, NoiseLimit] = {}
    for method, of_method in drops.items():
        if (limit := noise_limit(of_method)) is not None:
            limits[method] = limit
    return limits
