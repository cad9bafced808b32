"""A store of small parts: row i of the store holds the value i."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from spectrum_encoder import DIM, SpectrumEncoder
from uwbench.cache.parts import PooledRows
from uwbench.cache.store import EncoderStore
from uwbench.extraction.identity import describe_encoder

ROWS = 5  # per part


def open_store(root: Path) -> EncoderStore:
    return EncoderStore(root, describe_encoder(SpectrumEncoder().info, poolings=("mean",)))


def key(index: int) -> bytes:
    return index.to_bytes(32, "big")


def write(store: EncoderStore, number: int, rows: Sequence[int] | None = None) -> None:
    """Write part `number` and enter it."""
    values = list(rows if rows is not None else range(ROWS * number, ROWS * (number + 1)))
    vectors = np.repeat(np.array(values, np.float32), DIM).reshape(-1, 1, DIM)
    ones = np.ones(len(values), np.int32)
    pooled = PooledRows([key(index) for index in values], {"mean": vectors}, ones, ones)
    store.enter("task", "table", [store.write_part("task", f"{number:05d}", pooled)])
