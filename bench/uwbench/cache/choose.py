"""Encoders in the cache, found by what a user calls them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from uwbench.base.registry import suggestion
from uwbench.cache.records import EncoderRecord
from uwbench.cache.store import EncoderStore
from uwbench.errors import StoreError, UsageError


def choose_stores(stores: Sequence[EncoderStore], models: Sequence[str], cache: Path) -> list[EncoderStore]:
    """Return the encoders that `models` name, or all; raise an error that says what the cache holds."""
    if not stores:
        raise StoreError("holds no embeddings", where=cache, remedy="run uwbench extract first")
    if not models:
        return list(stores)
    chosen: list[EncoderStore] = []
    for model in models:
        matches = [store for store in stores if model_matches(store.record, model)]
        if not matches:
            remedy = suggestion(model, {store.record.name for store in stores})
            raise UsageError(f"no embeddings of {model!r} are in {cache}", where="--model", remedy=remedy)
        chosen.extend(store for store in matches if store not in chosen)
    return chosen


def model_matches(record: EncoderRecord, model: str) -> bool:
    """Return True if `model` is the encoder's name, slug, folder in the cache, fingerprint, or a path to it."""
    names = {record.name, record.slug, record.folder, record.fingerprint, record.fingerprint[:8]}
    return model in names or Path(model).name == record.name
