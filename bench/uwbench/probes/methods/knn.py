"""kNN: the nearest training clips vote, by several k, on the vectors as they are and standardised."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from uwbench.cards.protocol import KnnSettings
from uwbench.probes.data import Inputs, statistics
from uwbench.probes.kinds.base import Predicted
from uwbench.probes.kinds.labels import SingleLabel
from uwbench.probes.methods.base import Outcomes, ProbeRun, Scored, main_metric, score_of, scored
from uwbench.probes.splits import Fold


def score(task: ProbeRun) -> Scored:
    """Return the kNN score on the last layer, and its predictions."""
    settings = task.protocol.knn
    inputs = task.last_layer
    ks = sorted({*settings.ks, settings.k})
    corrupted: dict[str, Outcomes] = {name: {} for name in task.data.corrupted}
    by_k = _knn(task, inputs, ks, standardised=False, corrupted=corrupted)
    result = score_of(
        task, by_k[settings.k], settings.metric_of_folds, {"layer": task.data.layers[-1], "k": settings.k}
    )
    raw = {f"k={k}": main_metric(task, by_k[k], settings.metric_of_folds) for k in ks}
    if settings.standardised_too:
        by_k_too = _knn(task, inputs, ks, standardised=True)
        raw |= {f"standardised k={k}": main_metric(task, by_k_too[k], settings.metric_of_folds) for k in ks}
        raw["standardised"] = raw[f"standardised k={settings.k}"]
    result = result.model_copy(update={"raw": {**result.raw, **raw}})
    return scored(task, "knn", result, by_k[settings.k], corrupted)


def _knn(
    task: ProbeRun,
    inputs: Inputs,
    ks: Sequence[int],
    *,
    standardised: bool,
    corrupted: Mapping[str, Outcomes] = MappingProxyType({}),
) -> dict[int, Outcomes]:
    """Return each k's test predictions; those of the protocol's k under corruptions are added to `corrupted`."""
    by_k: dict[int, Outcomes] = {k: {} for k in ks}
    k_alone = [task.protocol.knn.k]
    for index, fold in enumerate(task.folds):
        vote = _bank(task, inputs, fold, standardised=standardised)
        for k, predicted in vote(inputs, ks).items():
            by_k[k][0, index] = predicted
        for name, outcomes in corrupted.items():
            outcomes[0, index] = vote(task.data.corrupted[name], k_alone)[k_alone[0]]
    return by_k


def _bank(
    task: ProbeRun, inputs: Inputs, fold: Fold, *, standardised: bool
) -> Callable[[Inputs, Sequence[int]], dict[int, Predicted]]:
    """Return the function that predicts a fold's test clips, given their inputs, by several k.

    Validation clips that were carved out are in the bank.
    """
    from uwbench.probes import knn

    settings: KnnSettings = task.protocol.knn
    kind = task.kind
    bank_limit, query_limit = kind.knn_limits(settings)
    items, tested = kind.thin(fold.all_train, bank_limit), kind.sample(fold.test, query_limit)
    bank, moments = inputs(items), statistics(inputs, items) if standardised else None
    _standardise(bank, moments)
    bank = knn.xares_bank(bank) if settings.similarity == "xares" else knn.unit_rows(bank, out=bank)
    decimals = 9 if settings.similarity == "xares" else 6  # X-ARES's similarities shrink with the bank
    targets = kind.targets(items)

    def vote(query_inputs: Inputs, ks: Sequence[int]) -> dict[int, Predicted]:
        queries = query_inputs(tested)
        _standardise(queries, moments)
        nearest = knn.neighbours(bank, knn.unit_rows(queries, out=queries), max(ks), decimals=decimals)
        out = {}
        for k in ks:
            if isinstance(kind, SingleLabel):
                out[k] = kind.from_codes(knn.elect(nearest, targets, k, settings.temperature))
            else:
                votes = knn.class_scores(nearest, targets, k, settings.temperature)
                out[k] = kind.predict(votes, tested, fold.test)
        return out

    return vote


def _standardise(vectors: np.ndarray, moments: tuple[np.ndarray, np.ndarray] | None) -> None:
    """Centre and scale vectors in place (the bank of NSynth takes 1.5 GB), if there are moments."""
    if moments is not None:
        np.subtract(vectors, moments[0], out=vectors)
        np.multiply(vectors, moments[1], out=vectors)
