"""The probes of one task under one encoder: choose, train, find neighbours, score, and keep every prediction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from uwbench.cards.protocol import KnnSettings, Protocol
from uwbench.errors import ProbeError, UsageError
from uwbench.probes.data import Inputs, TaskData, statistics
from uwbench.probes.kinds import kind_of
from uwbench.probes.kinds.base import Kind, Predicted, joined
from uwbench.probes.kinds.frames import FrameLabels
from uwbench.probes.kinds.labels import SingleLabel
from uwbench.probes.splits import Fold, plan_folds
from uwbench.results import metrics
from uwbench.results.record import Method, Score

if TYPE_CHECKING:
    import pyarrow as pa

    from uwbench.probes.search import Search


@dataclass(frozen=True, slots=True)
class ProbeOutcome:
    """Scores by method, without intervals, and the predictions from which they can be recomputed.

    `corrupted` has the predictions of the same test clips by the same probes under each corruption.
    """

    scores: dict[Method, Score]
    predictions: pa.Table
    corrupted: dict[str, pa.Table]


@dataclass(frozen=True, slots=True)
class Scored:
    """One method's score, and its rows of predictions: of the test clips, and of the same under each corruption."""

    score: Score
    rows: list[pa.Table]
    corrupted: dict[str, list[pa.Table]]


@dataclass(frozen=True, slots=True)
class ProbeRun:
    """One task under one encoder with its kind and folds, as both methods use it."""

    data: TaskData
    kind: Kind
    protocol: Protocol
    folds: list[Fold]
    seed: int
    device: str

    def inputs(self, layer: int) -> Inputs:
        """Return the function from item rows to float32 vectors `(rows, dim)` of one layer."""
        if self.data.frames is not None:
            return self.data.frames.rows
        pooled = self.data.pooled[:, layer]
        return lambda rows: pooled[rows]


# Test predictions, (seed, fold index) -> prediction; kNN has the seed 0 alone.
Outcomes = dict[tuple[int, int], Predicted]


def run_probes(
    data: TaskData, protocol: Protocol, *, methods: Sequence[str] = ("mlp", "knn"), seed: int = 0, device: str = "cpu"
) -> ProbeOutcome:
    """Score one task under one encoder by `protocol`.

    `methods` are `mlp` and `knn`; a method that the protocol does not run on the task is left out. `seed` moves every
    random choice of the probes; `device` is torch's. Raises ProbeError if the data cannot be probed.
    """
    unknown = [name for name in methods if name not in ("mlp", "knn")]
    if unknown or not methods:
        what = f"unknown probe {unknown[0]!r}" if unknown else "no probe is asked for"
        raise UsageError(what, remedy="known: mlp, knn")
    _require_finite(data)
    kind = kind_of(data)
    if protocol.mlp.selection == "xares" and data.card.name == "maestro" and isinstance(kind, FrameLabels):
        kind.positive_weight = 10.0  # X-ARES weighs the positives of MAESTRO, its only task trained clip by clip
    task = ProbeRun(data, kind, protocol, plan_folds(data, protocol.mlp, kind.strata(), seed), seed, device)
    scored: dict[Method, Scored] = {}
    if not kind.has_classes:
        _require_own_rules(protocol, data)
    if "mlp" in methods:
        scored["mlp"] = mlp_score(task)
    if "knn" in methods and kind.has_classes and (protocol.knn.similarity != "xares" or data.card.xares.knn):
        scored["knn"] = knn_score(task)
    if not scored:
        raise ProbeError(f"{protocol.name} runs none of {', '.join(methods)} on it", where=data.card.name)
    from uwbench.probes.predictions import join_rows

    of_methods = scored.values()
    corrupted = {
        name: join_rows([table for method in of_methods for table in method.corrupted[name]], kind.classes)
        for name in data.corrupted
    }
    return ProbeOutcome(
        {name: method.score for name, method in scored.items()},
        join_rows([table for method in of_methods for table in method.rows], kind.classes),
        corrupted,
    )


def mlp_score(task: ProbeRun) -> Scored:
    """Return the MLP probe's score on the last layer, and its predictions; with several layers, their curve too."""
    last = len(task.data.layers) - 1
    corrupted: dict[str, Outcomes] = {name: {} for name in task.data.corrupted}
    outcomes, chosen, validation = _mlp(task, task.inputs(last), task.protocol.mlp.seeds, corrupted)
    chosen = {"layer": task.data.layers[last], **chosen}
    if task.data.text is not None:
        chosen["text_encoder"] = task.data.text.encoder
    score = _score(task, outcomes, task.protocol.mlp.metric_of_folds, chosen)
    if last > 0 and task.data.frames is None and task.kind.has_classes:
        score = _sweep(task, score, validation)
    return _scored(task, "mlp", score, outcomes, corrupted)


def _scored(task: ProbeRun, method: Method, score: Score, outcomes: Outcomes, corrupted: dict[str, Outcomes]) -> Scored:
    under = {name: _rows(task, method, of_corruption) for name, of_corruption in corrupted.items()}
    return Scored(score, _rows(task, method, outcomes), under)


def _require_own_rules(protocol: Protocol, data: TaskData) -> None:
    """Refuse X-ARES's rules for captions and texts: its own text encoder and decoder are not reproduced here."""
    if protocol.mlp.selection == "xares":
        what = f"{protocol.name} does not reproduce how X-ARES scores {data.card.kind} tasks"
        raise ProbeError(what, where=data.card.name, remedy="use --protocol uwbench-1")


def _sweep(task: ProbeRun, score: Score, validation: float) -> Score:
    """Add the other layers under the first seed, the layer that validation prefers under all seeds, and a trained sum.

    Each layer searches the whole grid; `validation` is the last layer's validation metric.
    """
    settings, names = task.protocol.mlp, task.data.layers
    curve, on_validation = {names[-1]: score.per_seed[0]}, {names[-1]: validation}
    for layer, name in enumerate(names[:-1]):
        outcomes, _, on_validation[name] = _mlp(task, task.inputs(layer), settings.seeds[:1])
        curve[name] = _main(task, outcomes, settings.metric_of_folds)
    best = max(reversed(names), key=lambda name: on_validation[name])  # the later layer of equals
    of_best = score.main_score
    if best != names[-1]:
        outcomes, _, _ = _mlp(task, task.inputs(names.index(best)), settings.seeds)
        of_best = _main(task, outcomes, settings.metric_of_folds)
    outcomes, _, _ = _mlp(task, lambda rows: task.data.pooled[rows], settings.seeds)
    raw = {"best layer": of_best, "weighted layers": _main(task, outcomes, settings.metric_of_folds)}
    changed = {
        "layers": {name: curve[name] for name in names},
        "raw": score.raw | raw,
        "chosen": score.chosen | {"best_layer": best, "layers_on_validation": {n: on_validation[n] for n in names}},
    }
    return score.model_copy(update=changed)


def _mlp(
    task: ProbeRun, inputs: Inputs, seeds: Sequence[int], corrupted: Mapping[str, Outcomes] = MappingProxyType({})
) -> tuple[Outcomes, dict[str, Any], float]:
    """Return test predictions, what was chosen, and the mean validation metric of the choices.

    The predictions of the same probes under the corruptions of the task that `corrupted` names are added to it.
    """
    search = make_search(task, inputs, {name: task.data.corrupted[name] for name in corrupted})
    choices = search.choose(task.folds)
    outcomes: Outcomes = {}
    epochs: dict[int, list[int]] = {index: [] for index in range(len(task.folds))}
    for trained in search.train(task.folds, choices, seeds):
        outcomes[trained.seed, trained.fold] = trained.predicted
        for name, predicted in trained.corrupted.items():
            corrupted[name][trained.seed, trained.fold] = predicted
        epochs[trained.fold].append(trained.epochs)
    chosen = [
        {
            **({} if fold.name is None else {"fold": fold.name}),
            "width": choice.point.width,
            "learning_rate": choice.point.learning_rate,
            "weight_decay": choice.point.weight_decay,
            "epochs": epochs[index],
            "validation": fold.validation,
            "validation_clips": len(fold.valid),
            "validation_metric": choice.metric,
            "trained_on": len(fold.all_train if search.refits(fold) else fold.train),
        }
        for index, (fold, choice) in enumerate(zip(task.folds, choices, strict=True))
    ]
    return outcomes, {"folds": chosen}, metrics.mean([choice.metric for choice in choices])


def make_search(task: ProbeRun, inputs: Inputs, corrupted: Mapping[str, Inputs] | None = None) -> Search:
    """Return the grid search of a task over `inputs`; test clips are predicted from `corrupted` inputs too."""
    from uwbench.probes.search import Search

    data, settings = task.data, task.protocol.mlp
    frames_per_clip = 1.0 if data.frames is None else len(data.frames.values) / len(data.ids)
    return Search(
        task.kind,
        settings,
        data.card.xares,
        inputs,
        seed=task.seed,
        device=task.device,
        frames_per_clip=frames_per_clip,
        corrupted=corrupted,
    )


def knn_score(task: ProbeRun) -> Scored:
    """Return the kNN score on the last layer, and its predictions."""
    settings = task.protocol.knn
    inputs = task.inputs(len(task.data.layers) - 1)
    ks = sorted({*settings.ks, settings.k})
    corrupted: dict[str, Outcomes] = {name: {} for name in task.data.corrupted}
    by_k = _knn(task, inputs, ks, standardised=False, corrupted=corrupted)
    score = _score(task, by_k[settings.k], settings.metric_of_folds, {"layer": task.data.layers[-1], "k": settings.k})
    raw = {f"k={k}": _main(task, by_k[k], settings.metric_of_folds) for k in ks}
    if settings.standardised_too:
        by_k_too = _knn(task, inputs, ks, standardised=True)
        raw |= {f"standardised k={k}": _main(task, by_k_too[k], settings.metric_of_folds) for k in ks}
        raw["standardised"] = raw[f"standardised k={settings.k}"]
    score = score.model_copy(update={"raw": {**score.raw, **raw}})
    return _scored(task, "knn", score, by_k[settings.k], corrupted)


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


def _score(task: ProbeRun, outcomes: Outcomes, of_folds: str, chosen: dict[str, Any]) -> Score:
    """Return the score of the main metric: the mean over seeds of the pooled test clips, or of the folds' means."""
    seeds = sorted({seed for seed, _ in outcomes})
    per_seed = tuple(_seed_score(task, outcomes, seed, of_folds) for seed in seeds)
    per_fold = {}
    for index, fold in enumerate(task.folds):
        if fold.name is not None:
            values = [task.kind.measure(outcomes[seed, index], fold.test) for seed in seeds]
            per_fold[fold.name] = metrics.mean(values)
    further: dict[str, list[float]] = {}
    for seed in seeds:
        clips, predicted = _pool(task, outcomes, seed)
        for name, value in task.kind.further(predicted, clips).items():
            further.setdefault(name, []).append(value)
    return Score(
        metric=task.data.card.metric,
        main_score=metrics.mean(per_seed),
        ci95=None,
        per_seed=per_seed,
        per_fold=per_fold,
        raw={name: metrics.mean(values) for name, values in further.items()},
        chosen=chosen,
    )


def _main(task: ProbeRun, outcomes: Outcomes, of_folds: str) -> float:
    return metrics.mean([_seed_score(task, outcomes, seed, of_folds) for seed in {seed for seed, _ in outcomes}])


def _seed_score(task: ProbeRun, outcomes: Outcomes, seed: int, of_folds: str) -> float:
    if of_folds == "mean":
        folds = enumerate(task.folds)
        return metrics.mean([task.kind.measure(outcomes[seed, index], fold.test) for index, fold in folds])
    clips, predicted = _pool(task, outcomes, seed)
    return task.kind.measure(predicted, clips)


def _pool(task: ProbeRun, outcomes: Outcomes, seed: int) -> tuple[np.ndarray, Predicted]:
    """Put the folds' test clips and predictions end to end."""
    predicted = joined([outcomes[seed, index] for index in range(len(task.folds))])
    return np.concatenate([fold.test for fold in task.folds]), predicted


def _rows(task: ProbeRun, method: Method, outcomes: Outcomes) -> list[pa.Table]:
    from uwbench.probes.predictions import prediction_rows

    return [
        prediction_rows(task.data, method, seed, fold, task.kind.truths(fold.test), predicted)
        for (seed, index), predicted in sorted(outcomes.items(), key=lambda entry: entry[0])
        for fold in (task.folds[index],)
    ]


def _require_finite(data: TaskData) -> None:
    """Raise ProbeError naming the first clip whose vector is not finite, or a table without clips."""
    if len(data.ids) == 0:
        raise ProbeError("holds no clips", where=data.card.name, remedy="run uwbench extract")
    for start in range(0, len(data.pooled), 4096):
        bad = ~np.isfinite(data.pooled[start : start + 4096]).all(axis=(1, 2))
        if bad.any():
            where = str(data.ids[start + int(np.flatnonzero(bad)[0])])
            raise ProbeError("its embedding holds NaN or Inf", where=where, remedy="extract it again")
