"""Encoders in the cache, found by what a user calls them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from uwbench.base.hashing import SHORT, digest
from uwbench.base.registry import suggestion
from uwbench.cache.records import EncoderRecord
from uwbench.cache.store import EncoderStore
from uwbench.errors import StoreError, UsageError


def choose_stores(stores: Sequence[EncoderStore], models: Sequence[str], cache: Path) -> list[EncoderStore]:
    """Return the encoders that `models` name, or all; raise an error that says what the cache holds.

    Of an own encoder whose answers changed, only the last generation counts, unless another is named by its folder or
    fingerprint.
    """
    if not stores:
        raise StoreError("holds no embeddings", where=cache, remedy="run uwbench extract first")
    latest = _latest(stores)
    if not models:
        return latest
    chosen: list[EncoderStore] = []
    for model in models:
        matches = [store for store in latest if model_matches(store.record, model)]
        matches = matches or [store for store in stores if model_matches(store.record, model)]
        if not matches:
            remedy = suggestion(model, {store.record.name for store in stores})
            raise UsageError(f"no embeddings of {model!r} are in {cache}", where="--model", remedy=remedy)
        chosen.extend(store for store in matches if store not in chosen)
    return chosen


def _latest(stores: Sequence[EncoderStore]) -> list[EncoderStore]:
    """Return the encoders without those that a later generation of the same encoder replaces."""
    last: dict[str, int] = {}
    for store in stores:
        identity = dict(store.record.identity)
        generation = identity.pop("generation", 0)
        last[digest(identity)] = max(last.get(digest(identity), 0), generation)
    return [
        store
        for store in stores
        if store.record.identity.get("generation", 0)
        == last[digest({name: part for name, part in store.record.identity.items() if name != "generation"})]
    ]


def model_matches(record: EncoderRecord, model: str) -> bool:
    """Return True if `model` is the encoder's name, slug, folder in the cache, fingerprint, or a path to it.

    The fingerprint may be that of its results, whatever layers are stored.
    """
    fingerprints = (record.fingerprint, record.model_fingerprint)
    names = {record.name, record.slug, record.folder, *fingerprints, *(fp[:SHORT] for fp in fingerprints)}
    return model in names or Path(model).name == record.name
