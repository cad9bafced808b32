"""kNN: exact nearest neighbours by inner product, and their weighted vote.

Candidates come from torch where its products are the faster ones (CUDA, or oneDNN with AVX-512, which FAISS leaves
idle), else from FAISS. Which of them makes no difference: what counts are similarities in float64.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from uwbench.probes.products import products, use_avx512

_SPARE = 12  # neighbours fetched beyond k, to see whether the last place is tied
_QUERIES = 4096  # queries searched at once
_EXACT = 16  # queries whose candidates are compared in float64 at once: 32 x 1,280 x 8 bytes each, 5 MB in all
_BANK = 16_384  # bank rows compared with a block of queries at once: 270 MB of similarities
_NEAR = 2e-6  # similarities nearer than this cannot be told apart in float32


SearchFunction = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The nearest bank rows of each query, nearest first: `similarity` float64, `index` int64, `(queries, k)`."""

    similarity: np.ndarray
    index: np.ndarray


def unit_rows(values: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Return vectors `(n, dim)` scaled to length 1, float32, in `out` where given; a zero vector stays zero."""
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


def neighbours(
    bank: np.ndarray,
    queries: np.ndarray,
    k: int,
    *,
    engine: Literal["auto", "faiss", "torch"] = "auto",
    device: str = "cpu",
    decimals: int = 6,
) -> Neighbours:
    """Return the `k` rows of `bank` with the largest inner product with each query, float32 `(n, dim)` both.

    Similarities are computed in float64 for the candidates and rounded to `decimals`; equal ones are taken in the order
    of the bank. A tie that reaches beyond the candidates is settled by computing all similarities of that query. Where
    `k` exceeds the bank, all of it is returned.
    """
    if engine == "auto":
        slow = device == "cpu" and not use_avx512()
        engine = "faiss" if slow and importlib.util.find_spec("faiss") is not None else "torch"
    k = min(k, len(bank))
    wanted = min(k + _SPARE, len(bank))
    search = _faiss(bank) if engine == "faiss" else _torch(bank, device)
    parts = []
    for start in range(0, len(queries), _QUERIES):
        block = np.ascontiguousarray(queries[start : start + _QUERIES], dtype=np.float32)
        rough, index = search(block, wanted)
        # At least k candidates have an exact similarity of rough[k - 1] - _NEAR: one further below is none of the k.
        near = (rough >= rough[:, k - 1 : k] - 2 * _NEAR - 10.0**-decimals).sum(axis=1)
        similarity = _exact(bank, block, index, near).round(decimals)
        similarity, index = _sort(similarity, index)
        if wanted < len(bank):
            open_end = np.flatnonzero(rough[:, -1] + _NEAR + 10.0**-decimals >= similarity[:, k - 1])
            for rows, values, places in _settle(bank, block, open_end, k, decimals):
                similarity[rows, :k], index[rows, :k] = values, places
        parts.append((similarity[:, :k], index[:, :k]))
    return Neighbours(np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts]))


def vote(found: Neighbours, k: int, temperature: float) -> np.ndarray:
    """Return the weights `(queries, k)` of the nearest k: softmax of similarity / temperature over them."""
    logits = found.similarity[:, :k] / temperature
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def elect(found: Neighbours, codes: np.ndarray, k: int, temperature: float) -> np.ndarray:
    """Return the class with most votes `(queries,)`, `codes[i]` being bank row i's.

    Votes equal to nine decimals are tied, and the class of the nearer neighbour wins.
    """
    weights = vote(found, k, temperature)
    near = codes[found.index[:, : weights.shape[1]]]
    out = np.empty(len(near), codes.dtype)
    for start in range(0, len(near), _QUERIES):
        part = near[start : start + _QUERIES]
        votes = ((part[:, :, None] == part[:, None, :]) * weights[start : start + _QUERIES, None, :]).sum(axis=2)
        out[start : start + _QUERIES] = part[np.arange(len(part)), votes.round(9).argmax(axis=1)]
    return out


def class_scores(found: Neighbours, targets: np.ndarray, k: int, temperature: float) -> np.ndarray:
    """Return the weighted share of neighbours of each class, float32 `(queries, C)`, for bank targets `(bank, C)`."""
    weights = vote(found, k, temperature)
    index = found.index[:, : weights.shape[1]]
    out = np.zeros((len(index), targets.shape[1]), np.float64)
    for place in range(index.shape[1]):
        out += weights[:, place, None] * targets[index[:, place]]
    return out.astype(np.float32)


def _faiss(bank: np.ndarray) -> SearchFunction:
    import faiss

    index = faiss.IndexFlatIP(bank.shape[1])
    index.add(np.ascontiguousarray(bank, dtype=np.float32))
    return index.search


def _torch(bank: np.ndarray, device: str) -> SearchFunction:
    import torch

    held = torch.from_numpy(np.ascontiguousarray(bank, dtype=np.float32)).to(device)

    def search(block: np.ndarray, wanted: int) -> tuple[np.ndarray, np.ndarray]:
        queries = torch.from_numpy(block).to(device)[None, None]
        values, places = [], []
        for start in range(0, len(held), _BANK):
            part = held[start : start + _BANK]
            found = torch.topk(products(queries, part.T[None, None])[0, 0], min(wanted, len(part)), dim=1)
            values.append(found.values)
            places.append(found.indices + start)
        best = torch.topk(torch.cat(values, dim=1), wanted, dim=1)
        return best.values.cpu().numpy(), torch.cat(places, dim=1).gather(1, best.indices).cpu().numpy()

    return search


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


def _sort(similarity: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.lexsort((index, -similarity), axis=1)
    return np.take_along_axis(similarity, order, axis=1), np.take_along_axis(index, order, axis=1)


def _settle(
    bank: np.ndarray, block: np.ndarray, rows: np.ndarray, k: int, decimals: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield some of `rows` with their nearest k, from all similarities, with memory for 64 queries at a time."""
    held = bank.astype(np.float64) if len(rows) else bank
    for start in range(0, len(rows), 64):
        part = rows[start : start + 64]
        similarity = (block[part].astype(np.float64) @ held.T).round(decimals)
        index = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        yield part, np.take_along_axis(similarity, index, axis=1), index
