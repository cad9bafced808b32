"""Pseudo-random numbers and permutations computed from names, without state."""

from __future__ import annotations

import hashlib

import numpy as np

_ROUNDS = 4  # of the Feistel network; Luby and Rackoff (1988): four make a strong pseudo-random permutation


def seed_of(*parts: object) -> int:
    """Return a 64-bit hash of `parts`."""
    hashed = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return int.from_bytes(hashed[:8], "big")


def uniform(*parts: object) -> float:
    """Return a number in [0, 1) determined by `parts`."""
    return seed_of(*parts) / 2**64


def pick(count: int, *parts: object) -> int:
    """Return an index below `count` determined by `parts`."""
    return seed_of(*parts) % count


def mixed(values: np.ndarray, seed: int) -> np.ndarray:
    """Return uint64 hashes of integers under a seed: the finaliser of SplitMix64 (Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        x = values.astype(np.uint64) + np.uint64(seed & (2**64 - 1)) * np.uint64(0x9E3779B97F4A7C15)
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def permuted(positions: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Apply a pseudo-random permutation of `range(size)` to `positions`, without computing the rest of it.

    A Feistel network over the next even number of bits; what falls outside walks on until it is inside.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = np.uint64(2**half - 1)

    def step(x: np.ndarray) -> np.ndarray:
        left, right = x >> np.uint64(half), x & mask
        for number in range(_ROUNDS):
            left, right = right, left ^ (mixed(right, seed + number) & mask)
        return left << np.uint64(half) | right

    places = step(positions.astype(np.uint64))
    while (outside := places >= np.uint64(size)).any():
        places[outside] = step(places[outside])
    return places.astype(np.int64)
