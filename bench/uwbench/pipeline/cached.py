"""Cached embeddings of the models and tasks that are asked for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from uwbench.encoders.base import Encoder
from uwbench.errors import StoreError, UsageError
from uwbench.options import Folders, TaskSpec
from uwbench.pipeline.tasks import open_dataset, refuse_repeated, scan_tasks
from uwbench.progress import Reporter

if TYPE_CHECKING:
    from uwbench.cache.clip_table import ClipTable
    from uwbench.cache.store import EncoderStore
    from uwbench.cards.card import Card
    from uwbench.sources.dataset import Dataset


def find_cached(model: str | Encoder, task: TaskSpec | Dataset, cache: Path) -> tuple[EncoderStore, ClipTable]:
    """Return the one encoder in the cache that `model` names, and its clip table of a task.

    Raises UsageError if it names several, StoreError if the task was not extracted.
    """
    from uwbench.cache.choose import choose_stores
    from uwbench.cache.clip_table import read_table
    from uwbench.cache.store import open_encoders

    stores = open_encoders(cache)[0]
    chosen = choose_stores(stores, names_in_cache(model, stores, cache), cache)
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


def names_in_cache(model: str | Encoder, stores: Sequence[EncoderStore], cache: Path) -> list[str]:
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


def by_model(stores: Sequence[EncoderStore]) -> list[list[EncoderStore]]:
    """Return the stores of each model together: they differ in the layers that are stored, and give one result."""
    models: dict[str, list[EncoderStore]] = {}
    for store in stores:
        models.setdefault(store.record.model_fingerprint, []).append(store)
    return list(models.values())


def most_complete(stores: Sequence[EncoderStore], task: str, cache: Path) -> EncoderStore:
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


@dataclass(frozen=True, slots=True)
class CachedTasks:
    """Names of tasks to score from the cache, and what could not be opened."""

    names: tuple[str, ...]
    missing: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()


def choose_tasks(
    stores: Sequence[EncoderStore],
    tasks: Sequence[TaskSpec | Dataset],
    suite: str | None,
    folders: Folders,
    reporter: Reporter,
) -> CachedTasks:
    """Return the tasks to probe; one given by its path is read again, so that changed labels count."""
    from uwbench.cache.clip_table import write_table
    from uwbench.cards.find import find_suite

    cached = sorted({name for store in stores for name in store.tasks()})
    if not tasks:
        return CachedTasks(
            tuple(name for name in find_suite(suite).tasks if name in cached) if suite else tuple(cached)
        )
    names, missing, failures = [], [], []
    for task in tasks:
        if isinstance(task, TaskSpec) and task.source in cached:
            names.append(str(task.source))
            continue
        scan = scan_tasks([task], None, folders, None, reporter)
        missing += scan.missing
        failures += scan.failures
        for scanned in scan.tasks:
            name = scanned.card.name
            names.append(name)
            for store in stores:
                if store.manifest(name) is not None:
                    store.set_table(name, write_table(folders.cache, scanned.table))
    refuse_repeated(names)
    return CachedTasks(tuple(names), tuple(missing), tuple(failures))


def current_table(cache: Path, name: str, task: str) -> ClipTable:
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
