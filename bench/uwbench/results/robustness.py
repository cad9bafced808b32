"""Robustness: what corruptions of the tested clips cost a score, and the noise at which 5 points are lost."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from uwbench.cards.protocol import Bootstrap
from uwbench.results.bootstrap import difference_interval, generator, paired_replicates, resamples_for, seed_scores
from uwbench.results.items import Items
from uwbench.results.record import CorruptedScore, NoiseLimit

LOST = 0.05  # the drop of a score that `noise_limit` looks for


def score_corrupted(
    clean: Items, corrupted: Mapping[str, Items], bootstrap: Bootstrap, *, of_folds: str = "pooled"
) -> dict[str, CorruptedScore]:
    """Return a method's score under each corruption and its drop from the clean clips, with a paired interval.

    `clean` and `corrupted` are predictions of the same clips by the same probes. A resample draws the same groups of
    clips and the same probe seeds for all of them. Raises InputError if they are not of the same items.
    """
    rivals = [clean, *corrupted.values()]
    rng, seed_rngs = generator("items", bootstrap.seed), [generator("seeds", bootstrap.seed) for _ in rivals]
    resamples = resamples_for(clean, bootstrap.resamples)
    of_clean, *draws = paired_replicates(rivals, resamples, rng, seed_rngs, of_folds=of_folds)
    before, *after = (float(seed_scores(items, of_folds=of_folds).mean()) for items in rivals)
    scores = {}
    for name, score, drawn in zip(corrupted, after, draws, strict=True):
        variances = [float(np.var(of_clean - drawn))]
        interval = difference_interval(before - score, variances, [clean.n_clusters], bootstrap.level)
        scores[name] = CorruptedScore(score=score, drop=before - score, ci95=interval)
    return scores


def noise_limit(drops: Mapping[str, Mapping[float, float]]) -> NoiseLimit | None:
    """Return the signal-to-noise ratio at which 5 points are lost; None without two levels of one colour.

    `drops` is colour -> ratio in dB -> drop. The colour with the most levels counts, the first one of equals. From the
    least noise on, the first pair of neighbouring levels between which the drop reaches 5 points is interpolated.
    """
    colour, levels = max(drops.items(), key=lambda entry: len(entry[1]), default=("", {}))
    if len(levels) < 2:
        return None
    ratios = sorted(levels, reverse=True)
    if levels[ratios[0]] >= LOST:
        return NoiseLimit(colour=colour, snr_db=ratios[0], bound="above")
    for quieter, louder in pairwise(ratios):
        if levels[louder] >= LOST:
            share = (LOST - levels[quieter]) / (levels[louder] - levels[quieter])
            return NoiseLimit(colour=colour, snr_db=quieter + share * (louder - quieter), bound="at")
    return NoiseLimit(colour=colour, snr_db=ratios[-1], bound="below")


def limit_text(limit: NoiseLimit) -> str:
    """Return a limit in words: `5 points lost at 12.3 dB of white noise`."""
    noise = f"{limit.snr_db:.3g} dB of {limit.colour} noise"
    match limit.bound:
        case "above":
            return f"5 points lost at {noise} already, the least that was tried"
        case "below":
            return f"5 points not lost at {noise}, the most that was tried"
        case _:
            return f"5 points lost at {noise}"


def mean_cosine(clean: np.ndarray, corrupted: np.ndarray) -> float:
    """Return the mean cosine between clean and corrupted vectors, both `(clips, dim)`; 0 for a vector of zeros."""
    products = np.einsum("nd,nd->n", clean, corrupted, dtype=np.float64)
    sizes = np.linalg.norm(clean, axis=1).astype(np.float64) * np.linalg.norm(corrupted, axis=1)
    return float(np.divide(products, sizes, out=np.zeros(len(sizes)), where=sizes > 0).mean())
