"""The MLP probe: chosen on validation over the protocol's grid, trained under several seeds; a curve over layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from uwbench.probes.data import Inputs
from uwbench.probes.methods.base import Outcomes, ProbeRun, Scored, main_metric, score_of, scored
from uwbench.results import metrics
from uwbench.results.record import Score

if TYPE_CHECKING:
    from uwbench.probes.search import Search


def score(task: ProbeRun) -> Scored:
    """Return the MLP probe's score on the last layer, and its predictions; with several layers, their curve too."""
    last = len(task.data.layers) - 1
    corrupted: dict[str, Outcomes] = {name: {} for name in task.data.corrupted}
    outcomes, chosen, validation = _mlp(task, task.inputs(last), task.protocol.mlp.seeds, corrupted)
    chosen = {"layer": task.data.layers[last], **chosen}
    if task.data.text is not None:
        chosen["text_encoder"] = task.data.text.encoder
    result = score_of(task, outcomes, task.protocol.mlp.metric_of_folds, chosen)
    if last > 0 and task.data.frames is None and task.kind.has_classes:
        result = _sweep(task, result, validation)
    return scored(task, "mlp", result, outcomes, corrupted)


def _sweep(task: ProbeRun, score: Score, validation: float) -> Score:
    """Add the other layers under the first seed, the layer that validation prefers under all seeds, and a trained sum.

    Each layer searches the whole grid; `validation` is the last layer's validation metric.
    """
    settings, names = task.protocol.mlp, task.data.layers
    curve, on_validation = {names[-1]: score.per_seed[0]}, {names[-1]: validation}
    for layer, name in enumerate(names[:-1]):
        outcomes, _, on_validation[name] = _mlp(task, task.inputs(layer), settings.seeds[:1])
        curve[name] = main_metric(task, outcomes, settings.metric_of_folds)
    best = max(reversed(names), key=lambda name: on_validation[name])  # the later layer of equals
    of_best = score.main_score
    if best != names[-1]:
        outcomes, _, _ = _mlp(task, task.inputs(names.index(best)), settings.seeds)
        of_best = main_metric(task, outcomes, settings.metric_of_folds)
    outcomes, _, _ = _mlp(task, lambda rows: task.data.pooled[rows], settings.seeds)
    raw = {"best layer": of_best, "weighted layers": main_metric(task, outcomes, settings.metric_of_folds)}
    changed = {
        "layers": {name: curve[name] for name in names},
        "raw": score.raw | raw,
        "chosen": score.chosen | {"best_layer": best, "layers_on_validation": {n: on_validation[n] for n in names}},
    }
    return score.model_copy(update=changed)


def _mlp(
    task: ProbeRun, inputs: Inputs, seeds: Sequence[int], corrupted: Mapping[str, Outcomes] = MappingProxyType({})
) -> tuple[Outcomes, dict[str, Any], float]:
    """Return what `choose_and_train` does for the protocol's grid over `inputs`."""
    search = make_search(task, inputs, {name: task.data.corrupted[name] for name in corrupted})
    return choose_and_train(task, search, seeds, corrupted)


def choose_and_train(
    task: ProbeRun, search: Search, seeds: Sequence[int], corrupted: Mapping[str, Outcomes] = MappingProxyType({})
) -> tuple[Outcomes, dict[str, Any], float]:
    """Return test predictions, what was chosen, and the mean validation metric of the choices.

    The predictions of the same probes under the corruptions of the task that `corrupted` names are added to it.
    """
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
            "trained_on": search.trained_on(fold),
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
