"""AudioPairClassification: pairs of clips of one class or of two, told apart by four similarities of their vectors."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from pydantic import Field

from uwbench.errors import ProbeError
from uwbench.probes.methods.base import ProbeRun, Scored, settings_of
from uwbench.probes.mteb.parts import MtebSettings, tested_part
from uwbench.probes.predictions import pair_rows
from uwbench.probes.splits import random_numbers
from uwbench.results.record import Score

METHOD = "mteb-pairs"
SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")  # distances are negated


class PairSettings(MtebSettings):
    """Settings of the pairs, which mteb's data lists and other data does not."""

    pairs: int = Field(gt=1)  # at most; otherwise as many as clips


class Thresholds(NamedTuple):
    """The best accuracy and F1 over thresholds between two different similarities, and the accuracy's threshold."""

    accuracy: float
    f1: float
    threshold: float


def score(task: ProbeRun) -> Scored:
    """Return the highest average precision of four similarities over the pairs, mteb's `max_ap`.

    Raises ProbeError if the tested clips are of one class, or no class has two of them.
    """
    from sklearn.metrics import average_precision_score

    settings = settings_of(task.protocol, METHOD, PairSettings)
    clips = tested_part(task, settings)
    first, second, target = draw_pairs(task.kind.targets(clips), settings.pairs, settings.seed)
    if target.all() or not target.any():
        raise ProbeError("the tested clips have no pairs of one class, or none of two", where=task.data.card.name)
    values = similarities(task.last_layer(clips), first, second)
    precision = {
        name: float(average_precision_score(target, column))
        for name, column in zip(SIMILARITIES, values.T, strict=True)
    }
    best = {name: best_thresholds(column, target) for name, column in zip(SIMILARITIES, values.T, strict=True)}
    main = max(precision.values())
    return Scored(
        Score(
            metric="max-ap",
            main_score=main,
            ci95=None,
            per_seed=(main,),
            per_fold={},
            raw={f"{name} ap": value for name, value in precision.items()}
            | {f"{name} accuracy": of_name.accuracy for name, of_name in best.items()}
            | {f"{name} f1": of_name.f1 for name, of_name in best.items()}
            | {"max accuracy": max(of_name.accuracy for of_name in best.values())}
            | {"max f1": max(of_name.f1 for of_name in best.values())},
            chosen={"layer": task.data.layers[-1], "pairs": len(target), "of_one_class": int(target.sum())},
            chance=float(target.mean()),
        ),
        [pair_rows(task.data, METHOD, None, clips[first], clips[second], target, values, best["cosine"].threshold)],
    )


def draw_pairs(codes: np.ndarray, limit: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the places of the clips of each pair, and if both are of one class; all `(pairs,)`.

    As in mteb's data there are as many pairs as clips, at most `limit`, half of them of one class. Each clip is the
    first of one pair; the second is drawn from its class, or from the others.
    """
    rng = random_numbers("mteb-pairs", seed, len(codes))
    first = rng.permutation(len(codes))[:limit]
    wanted = np.arange(len(first)) % 2 == 0
    order = np.argsort(codes, kind="stable")
    starts, ends = (np.searchsorted(codes[order], codes, side=side) for side in ("left", "right"))
    place = np.empty(len(codes), np.int64)
    place[order] = np.arange(len(codes))
    draws, sizes = rng.random(len(first)), (ends - starts)[first]
    possible = np.where(wanted, sizes > 1, sizes < len(codes))
    step = np.where(wanted, 1 + np.floor(draws * (sizes - 1)), np.floor(draws * (len(codes) - sizes))).astype(np.int64)
    inside = starts[first] + (place[first] - starts[first] + step) % np.maximum(sizes, 1)
    outside = (ends[first] + step) % len(codes)
    second = order[np.where(wanted, inside, outside)]
    keep = possible & (first != second)
    return first[keep], second[keep], wanted[keep]


def similarities(vectors: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the similarities of pairs of vectors, float32 `(pairs, 4)` in the order of `SIMILARITIES`."""
    from sklearn.metrics.pairwise import paired_cosine_distances, paired_euclidean_distances, paired_manhattan_distances

    out = np.empty((len(first), len(SIMILARITIES)), np.float32)
    step = 8192
    for start in range(0, len(first), step):
        one, two = vectors[first[start : start + step]], vectors[second[start : start + step]]
        columns = (
            1 - paired_cosine_distances(one, two),
            np.einsum("pd,pd->p", one, two),
            -paired_euclidean_distances(one, two),
            -paired_manhattan_distances(one, two),
        )
        out[start : start + step] = np.stack(columns, axis=1)
    return out


def best_thresholds(similarity: np.ndarray, target: np.ndarray) -> Thresholds:
    """Return the best accuracy and F1 of answers by a threshold; `(pairs,)` both.

    A threshold lies between two different similarities, so that neither all nor none of the pairs are accepted.
    """
    order = np.argsort(-similarity, kind="stable")
    ranked, hits = similarity[order].astype(np.float64), np.cumsum(target[order])[:-1]
    between = np.flatnonzero(ranked[:-1] != ranked[1:])
    if len(between) == 0:
        return Thresholds(0.0, 0.0, float(ranked[0]))
    accepted, positives = between + 1, int(target.sum())
    accuracy = (2 * hits[between] - accepted + len(target) - positives) / len(target)
    f1 = 2 * hits[between] / (accepted + positives)
    at = between[accuracy.argmax()]
    return Thresholds(float(accuracy.max()), float(f1.max()), float((ranked[at] + ranked[at + 1]) / 2))
