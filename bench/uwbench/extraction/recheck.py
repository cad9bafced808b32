"""The check of an own encoder's cached vectors: one cached clip is encoded again and compared before any is used.

A fingerprint holds the code, weights and state of such an encoder, but code can still change its answers in other ways:
an environment variable, a file it opens, randomness.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from uwbench.audio.decode import chunks, samples_in
from uwbench.cache.records import EncoderRecord
from uwbench.cache.store import EncoderStore
from uwbench.encoders.base import Encoder
from uwbench.encoders.conformance import BATCH_TOLERANCE
from uwbench.errors import EncoderError
from uwbench.extraction.encode import decode_clip
from uwbench.extraction.forward import Forward, Settings
from uwbench.extraction.pooling import merge
from uwbench.extraction.task import Task

# Vectors in the cache were encoded in batches, perhaps on another device.
_TOLERANCE = {"fp32": 10 * BATCH_TOLERANCE, "bf16": 0.05}


def current_record(
    encoder: Encoder,
    describe: Callable[[int], EncoderRecord],
    tasks: Sequence[Task],
    cache: Path,
    settings: Settings,
    note: Callable[[str], None],
) -> EncoderRecord:
    """Return the record whose cached vectors the encoder still gives, or one that has none yet.

    `describe(generation)` makes a record; each generation has its own fingerprint. Loads the encoder if there is a clip
    to compare. Raises EncoderError if the encoder gives different vectors for one clip.
    """
    fresh: dict[bytes, np.ndarray] = {}
    for generation in itertools.count():
        record = describe(generation)
        cached = _cached_clip(EncoderStore(cache, record), tasks)
        if cached is None:
            return record
        task, row, vector = cached
        key = task.table.keys[row]
        if key not in fresh:
            fresh[key] = _encode(encoder, record, task, row, settings)
        if _difference(vector, fresh[key]) <= _TOLERANCE[record.dtype]:
            return record
        again = _encode(encoder, record, task, row, settings)
        if _difference(fresh[key], again) > _TOLERANCE[record.dtype]:
            what = f"returns different vectors for the clip {task.table.ids[row]} each time it is loaded"
            raise EncoderError(what, where=record.name, remedy="seed its random numbers and weights")
        note(
            f"{record.name} no longer returns the vectors in the cache (clip {task.table.ids[row]} of {task.card.name} "
            f"differs by {_difference(vector, fresh[key]):.2g}): all clips are encoded again under a new fingerprint"
        )
    raise AssertionError("generations do not end")


def _cached_clip(store: EncoderStore, tasks: Sequence[Task]) -> tuple[Task, int, np.ndarray] | None:
    """Return the shortest clip of the tasks that has a vector, `(layers, dim)`."""
    for task in tasks:
        vectors = store.open_task(task.card.name, task.table.keys)
        present = np.flatnonzero(vectors.rows >= 0)
        if len(present):
            row = int(min(present, key=lambda index: task.table.durations_s[index]))
            return task, row, vectors.keep([row]).pooled(store.record.poolings[0])[0]
    return None


def _encode(encoder: Encoder, record: EncoderRecord, task: Task, row: int, settings: Settings) -> np.ndarray:
    encoder.load(settings.device, record.dtype)
    info = encoder.info
    pooling = record.poolings[0]
    layers = [info.layers.index(name) for name in record.layers]
    forward = Forward(encoder, layers, (pooling,), settings, needs_frames=False)
    samples = decode_clip(task.clips[row], task.hashes[row], info.sample_rate)
    pieces = chunks(samples, None if info.context_s is None else samples_in(info.context_s, info.sample_rate))
    return merge([window.pooled for window in forward(pieces, [task.table.ids[row]] * len(pieces))])[pooling]


def _difference(expected: np.ndarray, actual: np.ndarray) -> float:
    """Return the largest relative distance over layers."""
    distance = np.linalg.norm(expected.astype(np.float64) - actual, axis=-1)
    return float((distance / np.maximum(np.linalg.norm(expected.astype(np.float64), axis=-1), 1e-12)).max())
