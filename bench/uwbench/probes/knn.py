"""kNN: exact nearest neighbours by inner product, and their weighted vote.

FAISS finds candidates in float32; similarities in float64 and a fixed rule for ties decide among them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_SPARE = 12  # candidates beyond k, to see if the last place is tied
_QUERIES = 4096  # queries searched at once
_EXACT = 16  # queries whose candidates are compared in float64 at once: 32 x 1,280 x 8 bytes each, 5 MB in all
_FLOAT32_ERROR = 2e-6  # the error of a similarity in float32


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The nearest bank rows of each query, nearest first: `similarity` float64, `index` int64, `(queries, k)`."""

    similarity: np.ndarray
    index: np.ndarray


def unit_rows(values: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Return vectors `(n, dim)` scaled to length 1, float32, in `out` if given; a zero vector stays zero."""
    out = np.empty(values.shape, np.float32) if out is None else out
    for start in range(0, len(values), _QUERIES):
        part = values[start : start + _QUERIES].astype(np.float64)
        out[start : start + _QUERIES] = part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12)
    return out


def xares_bank(values: np.ndarray) -> np.ndarray:
    """Return X-ARES 0.1.3's training matrix: each dimension scaled to length 1 across the clips, no vector ever is."""
    squares = np.zeros(values.shape[1], np.float64)
    for start in range(0, len(values), _QUERIES):
        squares += np.square(values[start : start + _QUERIES], dtype=np.float64).sum(axis=0)
    return (values / np.maximum(np.sqrt(squares), 1e-12)).astype(np.float32)


def neighbours(bank: np.ndarray, queries: np.ndarray, k: int, *, decimals: int = 6) -> Neighbours:
    """Return the `k` rows of `bank` with the largest inner product with each query, float32 `(n, dim)` both.

    FAISS finds candidates; their similarities are computed in float64 and rounded to `decimals`. Equal ones are taken
    in the order of the bank. If a tie reaches beyond the candidates, all similarities of that query are computed. If
    `k` exceeds the bank, all of it is returned.
    """
    import faiss

    k = min(k, len(bank))
    candidates = min(k + _SPARE, len(bank))
    index = faiss.IndexFlatIP(bank.shape[1])
    index.add(np.ascontiguousarray(bank, dtype=np.float32))
    near, tie = 2 * _FLOAT32_ERROR + 10.0**-decimals, _FLOAT32_ERROR + 10.0**-decimals
    parts = []
    for start in range(0, len(queries), _QUERIES):
        block = np.ascontiguousarray(queries[start : start + _QUERIES], dtype=np.float32)
        rough, rows = index.search(block, candidates)
        # At least k candidates have an exact similarity of rough[k - 1] - error: one further below is none of the k.
        similarity = _exact(bank, block, rows, (rough >= rough[:, k - 1 : k] - near).sum(axis=1)).round(decimals)
        order = np.lexsort((rows, -similarity), axis=1)[:, :k]
        similarity, rows = (np.take_along_axis(values, order, axis=1) for values in (similarity, rows))
        if candidates < len(bank):
            tied = np.flatnonzero(rough[:, -1] + tie >= similarity[:, -1])
            for some, values, places in _search_all(bank, block, tied, k, decimals):
                similarity[some], rows[some] = values, places
        parts.append((similarity, rows))
    return Neighbours(np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts]))


def vote(nearest: Neighbours, k: int, temperature: float) -> np.ndarray:
    """Return the weights `(queries, k)` of the nearest k: softmax of similarity / temperature over them."""
    logits = nearest.similarity[:, :k] / temperature
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def elect(nearest: Neighbours, codes: np.ndarray, k: int, temperature: float) -> np.ndarray:
    """Return the class with most votes `(queries,)`, `codes[i]` being bank row i's.

    Votes equal to nine decimals are tied, and the class of the nearer neighbour wins.
    """
    weights = vote(nearest, k, temperature)
    near = codes[nearest.index[:, : weights.shape[1]]]
    out = np.empty(len(near), codes.dtype)
    for start in range(0, len(near), _QUERIES):
        part = near[start : start + _QUERIES]
        votes = ((part[:, :, None] == part[:, None, :]) * weights[start : start + _QUERIES, None, :]).sum(axis=2)
        out[start : start + _QUERIES] = part[np.arange(len(part)), votes.round(9).argmax(axis=1)]
    return out


def class_scores(nearest: Neighbours, targets: np.ndarray, k: int, temperature: float) -> np.ndarray:
    """Return the weighted share of neighbours of each class, float32 `(queries, C)`, for bank targets `(bank, C)`."""
    weights = vote(nearest, k, temperature)
    index = nearest.index[:, : weights.shape[1]]
    out = np.zeros((len(index), targets.shape[1]), np.float64)
    for place in range(index.shape[1]):
        out += weights[:, place, None] * targets[index[:, place]]
    return out.astype(np.float32)


def _exact(bank: np.ndarray, block: np.ndarray, index: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Return float64 inner products of each query with its first candidates, `near` of them at least, else -inf."""
    import torch

    out = np.full(index.shape, -np.inf)
    for start in range(0, len(block), _EXACT):
        part = index[start : start + _EXACT, : int(near[start : start + _EXACT].max())]
        rows = torch.from_numpy(bank[part.ravel()]).double().view(*part.shape, -1)
        queries = torch.from_numpy(block[start : start + _EXACT]).double()[:, :, None]
        out[start : start + _EXACT, : part.shape[1]] = torch.bmm(rows, queries)[:, :, 0].numpy()
    return out


def _search_all(
    bank: np.ndarray, block: np.ndarray, rows: np.ndarray, k: int, decimals: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield some of `rows` with their nearest k, from all similarities, with memory for 64 queries at a time."""
    exact = bank.astype(np.float64) if len(rows) else bank
    for start in range(0, len(rows), 64):
        part = rows[start : start + 64]
        similarity = (block[part].astype(np.float64) @ exact.T).round(decimals)
        index = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        yield part, np.take_along_axis(similarity, index, axis=1), index
