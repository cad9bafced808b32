"""k-means on the test clips, with as many clusters as classes: do classes form clusters without any label?"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from uwbench.probes.data import statistics
from uwbench.probes.kinds.base import Predicted
from uwbench.probes.knn import unit_rows
from uwbench.probes.methods.base import ProbeRun, Scored, Settings, settings_of
from uwbench.probes.methods.clips import block_counts, blocks_of, clusters, jackknife, tested
from uwbench.probes.predictions import prediction_rows
from uwbench.probes.splits import random_numbers
from uwbench.results import metrics
from uwbench.results.record import Score

if TYPE_CHECKING:
    import pyarrow as pa

_SHUFFLES = 20  # random clusterings that the chance level is the mean of


class ClusteringSettings(Settings):
    """Settings of the clustering."""

    seeds: tuple[int, ...] = Field(min_length=1)  # of the first centres
    iterations: int = Field(gt=0)  # of Lloyd's algorithm, at most
    blocks: int = Field(gt=1)  # of groups of clips, left out one at a time for the interval
    clips: int = Field(gt=1)  # at most so many are clustered, class by class


def score(task: ProbeRun) -> Scored:
    """Return the V-measure of clusters of all test clips, on vectors of length 1; standardised ones stand beside it.

    Clips of all folds are clustered together: nothing is trained, so that no fold has to be kept out.
    """
    settings = settings_of(task.protocol, "clustering", ClusteringSettings)
    parts = tested(task, settings.clips)
    clips = np.concatenate(parts)
    codes = np.unique(task.kind.targets(clips), return_inverse=True)[1]
    blocks = blocks_of(clusters(task)[clips], settings.blocks)
    vectors = task.last_layer(clips)
    unit = unit_rows(vectors)
    clusterings = {seed: _cluster(unit, codes, settings, task.seed, seed) for seed in settings.seeds}
    labels = {seed: of_seed for seed, (of_seed, _) in clusterings.items()}
    values = pseudo_values(unit, codes, list(clusterings.values()), blocks, settings.iterations)
    mean, scale = statistics(lambda rows: vectors[rows], np.arange(len(vectors)))
    unit = unit_rows((vectors - mean) * scale)
    standardised = [_cluster(unit, codes, settings, task.seed, seed)[0] for seed in settings.seeds]
    per_seed = tuple(_v_measure(codes, of_seed) for of_seed in labels.values())
    return Scored(
        Score(
            metric="v-measure",
            main_score=metrics.mean(per_seed),
            ci95=None,
            per_seed=per_seed,
            per_fold={},
            raw=_further(codes, list(labels.values()))
            | {f"standardised {name}": value for name, value in _further(codes, standardised).items()},
            chosen={"layer": task.data.layers[-1], "clusters": int(codes.max()) + 1, "clips": len(clips)},
            chance=chance_level(codes),
        ),
        [
            table
            for (seed, of_seed), of_blocks in zip(labels.items(), values, strict=True)
            for table in _rows(task, parts, seed, codes, of_seed, of_blocks[blocks], blocks)
        ],
    )


def _cluster(
    vectors: np.ndarray, codes: np.ndarray, settings: ClusteringSettings, base_seed: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return each clip's cluster and the clusters' centres."""
    count = min(int(codes.max()) + 1, len(np.unique(vectors, axis=0)))
    state = int(random_numbers("clustering", base_seed, seed).integers(2**31))
    return _k_means(vectors, count, "k-means++", settings.iterations, state)


def _k_means(
    vectors: np.ndarray, count: int, first: str | np.ndarray, iterations: int, state: int
) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.cluster import KMeans

    model: Any = KMeans(count, init=first, n_init=1, max_iter=iterations, random_state=state)  # type: ignore[arg-type]
    return model.fit_predict(vectors).astype(np.int64), model.cluster_centers_


def pseudo_values(
    vectors: np.ndarray,
    codes: np.ndarray,
    clusterings: Sequence[tuple[np.ndarray, np.ndarray]],
    blocks: np.ndarray,
    iterations: int,
) -> np.ndarray:
    """Return a value per seed and block of clips, `(seeds, blocks)`: a seed's V-measure plus the block's influence.

    `clusterings` are the seeds' clusters and centres, from which k-means goes on without a block: clustering and
    measure are resampled together. Drawing clips under fixed clusters would miss that other clips have other clusters.

    A block's influence, as `jackknife` has it, is that on the mean over seeds. What it has under one seed alone is
    mostly a jump of k-means, and drawing both blocks and seeds counts that three times (Owen 2007, "The pigeonhole
    bootstrap").
    """
    of_seeds = np.array([_v_measure(codes, labels) for labels, _ in clusterings])

    def without(rest: np.ndarray) -> float:
        measures = []
        for whole, (_, centres) in zip(of_seeds, clusterings, strict=True):
            if len(centres) > rest.sum():
                measures.append(whole)
                continue
            of_rest, _ = _k_means(vectors[rest], len(centres), centres, iterations, 0)
            measures.append(_v_measure(codes[rest], of_rest))
        return float(np.mean(measures))

    mean = float(of_seeds.mean())
    return of_seeds[:, None] + jackknife(mean, blocks, without, smooth=False) - mean


def _v_measure(codes: np.ndarray, labels: np.ndarray) -> float:
    """Return the V-measure (Rosenberg and Hirschberg 2007), which is the NMI with the arithmetic mean."""
    from sklearn.metrics import v_measure_score

    return float(v_measure_score(codes, labels))


def _further(codes: np.ndarray, labels: Sequence[np.ndarray]) -> dict[str, float]:
    from sklearn.metrics import (
        adjusted_mutual_info_score,
        adjusted_rand_score,
        completeness_score,
        homogeneity_score,
        normalized_mutual_info_score,
    )

    measures = {
        "nmi": normalized_mutual_info_score,
        "ari": adjusted_rand_score,
        "ami": adjusted_mutual_info_score,
        "homogeneity": homogeneity_score,
        "completeness": completeness_score,
    }
    return {
        name: metrics.mean([float(measure(codes, of_seed)) for of_seed in labels]) for name, measure in measures.items()
    }


def chance_level(codes: np.ndarray) -> float:
    """Return the mean V-measure of random clusters: it grows with their number, and depends on the labels alone."""
    rng = random_numbers("chance", len(codes))
    size = int(codes.max()) + 1
    draws = [_v_measure(codes, rng.integers(0, size, len(codes))) for _ in range(_SHUFFLES)]
    return min(metrics.mean(draws), 0.999)


def _rows(
    task: ProbeRun,
    parts: Sequence[np.ndarray],
    seed: int,
    codes: np.ndarray,
    labels: np.ndarray,
    values: np.ndarray,
    blocks: np.ndarray,
) -> list[pa.Table]:
    """Return the predictions of one seed: the commonest class of a clip's cluster.

    Counts are the cluster and those of blocks (see `block_counts`).
    """
    classes = np.unique(task.kind.targets(np.concatenate(parts)))
    table = np.zeros((int(labels.max()) + 1, len(classes)), np.int64)
    np.add.at(table, (labels, codes), 1)
    names = task.kind.truths(np.concatenate(parts))
    name_of = dict(zip(codes.tolist(), names, strict=True))
    texts = [name_of[code] for code in table.argmax(axis=1)[labels].tolist()]
    counts = np.column_stack([labels.astype(np.float32), block_counts(values, blocks)])
    starts = np.cumsum([0, *map(len, parts)])
    return [
        prediction_rows(
            task.data,
            "clustering",
            seed,
            fold.name,
            part,
            names[start:end],
            Predicted(texts[start:end], counts=counts[start:end]),
        )
        for fold, part, (start, end) in zip(task.folds, parts, pairwise(starts), strict=True)
    ]
