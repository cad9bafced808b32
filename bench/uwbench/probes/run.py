"""The probes of one task under one encoder: choose, train, find neighbours, score, and keep every prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
    """Scores by method, without intervals, and the predictions from which they can be recomputed."""

    scores: dict[Method, Score]
    predictions: pa.Table


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
    scores: dict[Method, Score] = {}
    tables: list[pa.Table] = []
    if not kind.has_classes:
        _require_own_rules(protocol, data)
    if "mlp" in methods:
        scores["mlp"], rows = mlp_score(task)
        tables.extend(rows)
    if "knn" in methods and kind.has_classes and (protocol.knn.similarity != "xares" or data.card.xares.knn):
        scores["knn"], rows = knn_score(task)
        tables.extend(rows)
    if not scores:
        raise ProbeError(f"{protocol.name} runs none of {', '.join(methods)} on it", where=data.card.name)
    from uwbench.probes.predictions import join_rows

    return ProbeOutcome(scores, join_rows(tables, kind.classes))


def mlp_score(task: ProbeRun) -> tuple[Score, list[pa.Table]]:
    """Return the MLP probe's score on the last layer, and its predictions; with several layers, their curve too."""
    last = len(task.data.layers) - 1
    outcomes, chosen, validation = _mlp(task, task.inputs(last), task.protocol.mlp.seeds)
    chosen = {"layer": task.data.layers[last], **chosen}
    if task.data.text is not None:
        chosen["text_encoder"] = task.data.text.encoder
    score = _score(task, outcomes, task.protocol.mlp.metric_of_folds, chosen)
    if last > 0 and task.data.frames is None and task.kind.has_classes:
        score = _sweep(task, score, validation)
    return score, _rows(task, "mlp", outcomes)


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


def _mlp(task: ProbeRun, inputs: Inputs, seeds: Sequence[int]) -> tuple[Outcomes, dict[str, Any], float]:
    """Return test predictions, what was chosen, and the mean validation metric of the choices."""
    search = make_search(task, inputs)
    choices = search.choose(task.folds)
    outcomes: Outcomes = {}
    epochs: dict[int, list[int]] = {index: [] for index in range(len(task.folds))}
    for trained in search.train(task.folds, choices, seeds):
        outcomes[trained.seed, trained.fold] = trained.predicted
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


def make_search(task: ProbeRun, inputs: Inputs) -> Search:
    """Return the grid search of a task over `inputs`."""
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
    )


def knn_score(task: ProbeRun) -> tuple[Score, list[pa.Table]]:
    """Return the kNN score on the last layer, and its predictions."""
    settings = task.protocol.knn
    inputs = task.inputs(len(task.data.layers) - 1)
    ks = sorted({*settings.ks, settings.k})
    by_k = _knn(task, inputs, ks, standardised=False)
    score = _score(task, by_k[settings.k], settings.metric_of_folds, {"layer": task.data.layers[-1], "k": settings.k})
    raw = {f"k={k}": _main(task, by_k[k], settings.metric_of_folds) for k in ks}
    if settings.standardised_too:
        by_k_too = _knn(task, inputs, ks, standardised=True)
        raw |= {f"standardised k={k}": _main(task, by_k_too[k], settings.metric_of_folds) for k in ks}
        raw["standardised"] = raw[f"standardised k={settings.k}"]
    return score.model_copy(update={"raw": {**score.raw, **raw}}), _rows(task, "knn", by_k[settings.k])


def _knn(task: ProbeRun, inputs: Inputs, ks: Sequence[int], *, standardised: bool) -> dict[int, Outcomes]:
    by_k: dict[int, Outcomes] = {k: {} for k in ks}
    for index, fold in enumerate(task.folds):
        for k, predicted in _knn_fold(task, inputs, fold, ks, standardised=standardised).items():
            by_k[k][0, index] = predicted
    return by_k


def _knn_fold(
    task: ProbeRun, inputs: Inputs, fold: Fold, ks: Sequence[int], *, standardised: bool
) -> dict[int, Predicted]:
    """Return each k's predictions of a fold's test clips; validation clips that were carved out are in the bank."""
    from uwbench.probes import knn

    settings: KnnSettings = task.protocol.knn
    kind = task.kind
    bank_limit, query_limit = kind.knn_limits(settings)
    items, tested = kind.thin(fold.all_train, bank_limit), kind.sample(fold.test, query_limit)
    bank, queries = inputs(items), inputs(tested)
    if standardised:
        centre, scale = statistics(inputs, items)
        for part in (bank, queries):  # in place: the bank of NSynth takes 1.5 GB
            np.subtract(part, centre, out=part)
            np.multiply(part, scale, out=part)
    bank = knn.xares_bank(bank) if settings.similarity == "xares" else knn.unit_rows(bank, out=bank)
    decimals = 9 if settings.similarity == "xares" else 6  # X-ARES's similarities shrink with the bank
    nearest = knn.neighbours(bank, knn.unit_rows(queries, out=queries), max(ks), decimals=decimals)
    targets = kind.targets(items)
    out = {}
    for k in ks:
        if isinstance(kind, SingleLabel):
            out[k] = kind.from_codes(knn.elect(nearest, targets, k, settings.temperature))
        else:
            votes = knn.class_scores(nearest, targets, k, settings.temperature)
            out[k] = kind.predict(votes, tested, fold.test)
    return out


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
