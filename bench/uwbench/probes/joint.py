"""The space that clips and texts share: a clip's vector from the cache through the head, a text's from the text tower.

What the text tower gave is cached, so that scoring again needs no encoder: `texts/<slug>-<hash>.npz` has the sha256 and
the vector of each text, the head, and the pooling that it maps.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from uwbench.base.atomic import write_atomically
from uwbench.base.hashing import SHORT, digest, sha256_bytes
from uwbench.cache.records import EncoderRecord
from uwbench.cache.store import EncoderStore
from uwbench.encoders.base import Head, TextTower
from uwbench.errors import StoreError
from uwbench.probes.knn import unit_rows

_AT_ONCE = 256  # texts that a tower is given
_CLIPS = 16_384  # clips whose vectors go through the head at once


@dataclass(slots=True)
class Texts:
    """The texts that an encoder embedded: vectors by the sha256 of the text, float32 `(dim,)`, and the clips' head.

    `tower` is the hash of the text tower's identity.
    """

    tower: str
    layer: str
    pooling: str
    head: Head | None
    vectors: dict[str, np.ndarray]


class JointSpace:
    """The clips of a task under one encoder, and texts that were embedded, as vectors of length 1 in one space."""

    def __init__(self, store: EncoderStore, task: str, keys: Sequence[bytes]) -> None:
        """Read the encoder's texts; `keys` are those of the clips. Raises StoreError if the cache holds none."""
        cached = read_texts(store)
        if cached is None:
            raise StoreError(without_texts(store.record, task), where=store.root)
        self._store, self._task, self._keys, self._texts = store, task, keys, cached

    def clips(self) -> np.ndarray:
        """Return float32 `(n, dim)`; raise StoreError, with the command to run, if the cache lacks the layer."""
        head, store = self._texts.head, self._store_of(self._texts.layer)
        layer = store.record.layers.index(self._texts.layer)
        pooled = store.open_task(self._task, self._keys).pooled(self._texts.pooling)[:, layer]
        if head is None:
            return unit_rows(pooled)
        out = np.empty((len(pooled), len(head.biases[-1])), np.float32)
        for start in range(0, len(pooled), _CLIPS):
            out[start : start + _CLIPS] = head(pooled[start : start + _CLIPS])
        return unit_rows(out, out)

    def texts(self, texts: Sequence[str], /) -> np.ndarray:
        """Return float32 `(len(texts), dim)`; raise StoreError, with the command to run, if the cache lacks one."""
        vectors = self._texts.vectors
        if any(_key(text) not in vectors for text in texts):
            raise StoreError(without_texts(self._store.record, self._task), where=texts_path(self._store))
        return unit_rows(np.stack([vectors[_key(text)] for text in texts]))

    def tower_hash(self) -> str:
        """Return the start of the hash of the text tower's identity."""
        return self._texts.tower[:SHORT]

    def _store_of(self, layer: str) -> EncoderStore:
        """Return the store that holds a layer: this one, or one with more layers of the same encoder."""
        for store in (self._store, *self._store.wider()):
            if layer in store.record.layers:
                return store
        what = f"holds no layer {layer!r} of {self._store.record.name}, from which its clips meet texts"
        remedy = f"run: {_command(self._store.record, self._task)}"
        raise StoreError(what, where=self._store.folder, remedy=remedy)


def embed_texts(store: EncoderStore, tower: TextTower, texts: Sequence[str], device: str) -> None:
    """Embed those of `texts` that the cache lacks, and add them to it with the head that maps the clips."""
    identity = digest(dict(tower.identity))
    known = read_texts(store)
    if known is None or known.tower != identity:
        known = Texts(identity, tower.layer, tower.pooling, tower.head(), {})
    fresh = list(dict.fromkeys(text for text in texts if _key(text) not in known.vectors))
    for start in range(0, len(fresh), _AT_ONCE):
        block = fresh[start : start + _AT_ONCE]
        known.vectors.update(zip(map(_key, block), tower.embed(block, device), strict=True))
    if fresh:
        _write(store, known)


def texts_path(store: EncoderStore) -> Path:
    """Return the file of an encoder's texts, the same whatever layers and poolings of it are stored."""
    return store.root / "texts" / f"{store.record.slug}-{store.record.computation[:SHORT]}.npz"


def read_texts(store: EncoderStore) -> Texts | None:
    """Return what the cache holds of an encoder's texts; None if there is no file that can be read."""
    path = texts_path(store)
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as cached:
            if str(cached["encoder"]) != store.record.computation:
                return None
            weights = tuple(cached[name] for name in sorted(cached.files) if name.startswith("weight"))
            biases = tuple(cached[name] for name in sorted(cached.files) if name.startswith("bias"))
            head = Head(weights, biases) if weights else None
            vectors = dict(zip(map(str, cached["keys"]), cached["vectors"], strict=True))
            return Texts(str(cached["tower"]), str(cached["layer"]), str(cached["pooling"]), head, vectors)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None


def _write(store: EncoderStore, texts: Texts) -> None:
    arrays: dict[str, Any] = {
        "encoder": np.array(store.record.computation),
        "tower": np.array(texts.tower),
        "layer": np.array(texts.layer),
        "pooling": np.array(texts.pooling),
        "keys": np.array(list(texts.vectors)),
        "vectors": np.stack(list(texts.vectors.values())),
    }
    if texts.head is not None:
        arrays |= {f"weight{number}": weight for number, weight in enumerate(texts.head.weights)}
        arrays |= {f"bias{number}": bias for number, bias in enumerate(texts.head.biases)}
    sink = io.BytesIO()
    np.savez(sink, **arrays)
    write_atomically(texts_path(store), sink.getvalue())


def lacking(store: EncoderStore, task: str, texts: Sequence[str]) -> str | None:
    """Return what the cache lacks to compare a task's clips with `texts`, and the command that adds it; else None."""
    cached = read_texts(store)
    if cached is not None and all(_key(text) in cached.vectors for text in texts):
        return None
    return without_texts(store.record, task)


def without_texts(record: EncoderRecord, task: str = "TASK") -> str:
    """Return the sentence that says that the cache lacks texts of an encoder, and the command that embeds them."""
    return f"the cache holds no texts of {record.name} ({_command(record, task)} embeds them, if it has a text tower)"


def _command(record: EncoderRecord, task: str) -> str:
    return f"uwbench run -m {record.name} -t {task} --method zero-shot"


def _key(text: str) -> str:
    return sha256_bytes(text.encode())
