"""Zero-shot: a clip has the class whose words, put into a template, lie nearest to it in the space of clips and texts.

No label is learnt from. The template is one of a published list: which one matters, so the score is that of the
template that validation prefers, beside the median and the spread over all of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field, field_validator

from uwbench.cache.clip_table import ClipTable
from uwbench.cards.card import Card, Domain, Name, Text
from uwbench.cards.protocol import Protocol
from uwbench.errors import ProbeError
from uwbench.probes.data import TaskData
from uwbench.probes.kinds import kind_of
from uwbench.probes.kinds.base import Predicted, joined, present
from uwbench.probes.kinds.labels import SingleLabel
from uwbench.probes.methods.base import Outcomes, ProbeRun, Scored, Settings, score_of, scored, settings_of
from uwbench.probes.methods.clips import clusters
from uwbench.probes.splits import Fold
from uwbench.results.bootstrap import cluster_counts, generator, resamples_for, score_interval, score_weighted
from uwbench.results.items import Items

_AT_ONCE = 100  # resamples


class ZeroShotSettings(Settings):
    """Settings of the prompts: templates by the domain of the task, each with one `{}` for a class in words."""

    templates: dict[Domain, tuple[Text, ...]] = Field(min_length=3)
    # For labels that are codes, by the card's list of labels.
    words: dict[Name, dict[str, Text]] = Field(default_factory=dict)

    @field_validator("templates")
    @classmethod
    def _each_has_one_place(cls, templates: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for domain, texts in templates.items():
            wrong = [text for text in texts if text.count("{}") != 1]
            if wrong or not texts:
                raise ValueError(f"{domain}: {wrong[0] if wrong else 'an empty list'!r} has not one {{}}")
        return templates


class Spread(NamedTuple):
    """The main metric of each template on the test clips, the figures of their spread, the interval of the median."""

    values: list[float]
    figures: dict[str, float]
    interval: tuple[float, float]


def words(label: str) -> str:
    """Return a class in words: its label with underscores and runs of spaces as one space."""
    return re.sub(r"[\s_]+", " ", label).strip() or label


class Prompts(NamedTuple):
    """The prompts of a task: its templates, and its classes in words."""

    templates: tuple[str, ...]
    words: tuple[str, ...]

    def texts(self) -> list[str]:
        """Return the texts of all classes under the first template, then those under the second, and so on."""
        return [template.replace("{}", name) for template in self.templates for name in self.words]


def prompts_for(protocol: Protocol, card: Card, classes: Sequence[str]) -> Prompts:
    """Return the prompts of a task by the protocol's settings."""
    settings = settings_of(protocol, "zero-shot", ZeroShotSettings)
    codes = settings.words.get(card.vocabulary or "", {})
    return Prompts(settings.templates[card.domain], tuple(codes.get(label) or words(label) for label in classes))


def texts_of(table: ClipTable, protocol: Protocol) -> list[str]:
    """Return the texts that a task's clips are compared with; raise ProbeError for labels that its card forbids."""
    splits = [split for split in table.splits if split is not None]
    nothing = TaskData(
        card=table.card,
        ids=table.ids,
        labels=table.labels,
        splits=splits if len(splits) == len(table.ids) else None,
        folds=None,
        groups=table.groups,
        durations_s=np.zeros(0),
        layers=(),
        pooled=np.zeros((0, 0, 0)),
    )
    return prompts_for(protocol, table.card, kind_of(nothing).classes).texts()


def score(task: ProbeRun) -> Scored:
    """Return the score of the template that is best on validation, the first of equals, and its predictions."""
    space, protocol = task.data.joint, task.protocol
    if space is None:
        raise ProbeError("zero-shot needs an encoder that embeds texts", where=task.data.card.name)
    prompts = prompts_for(protocol, task.data.card, task.kind.classes)
    templates, clips = prompts.templates, space.clips()
    of_texts = space.texts(prompts.texts())
    of_templates = of_texts.reshape(len(templates), len(task.kind.classes), -1)

    def predict(template: int, rows: np.ndarray) -> Predicted:
        # Rounded, so that equal cosines tie on every machine and the first class is taken.
        return _predicted(task, (clips[rows] @ of_templates[template].T).round(6), rows)

    outcomes: Outcomes = {}
    folds = []
    for index, fold in enumerate(task.folds):
        values = [task.kind.measure(predict(number, fold.valid), fold.valid) for number in range(len(templates))]
        best = int(np.argmax(values))
        outcomes[0, index] = predict(best, fold.test)
        folds.append(_record(fold, templates[best], values[best]))
    tested = [joined([predict(number, fold.test) for fold in task.folds]) for number in range(len(templates))]
    spread = _over_templates(task, tested)
    chosen = {
        "folds": folds,
        "text_tower": space.tower_hash(),
        "median_ci95": spread.interval,
        "templates": dict(zip(templates, spread.values, strict=True)),
    }
    result = score_of(task, outcomes, "pooled", chosen)
    further = result.raw if isinstance(task.kind, SingleLabel) else {}  # F1 needs a threshold, and there is none
    return scored(task, "zero-shot", result.model_copy(update={"raw": {**further, **spread.figures}}), outcomes, {})


def _predicted(task: ProbeRun, similarity: np.ndarray, rows: np.ndarray) -> Predicted:
    """Return predictions from cosines `(rows, C)`; where a clip has several labels, the nearest class is written."""
    if isinstance(task.kind, SingleLabel):
        return task.kind.predict(similarity, rows, rows)
    nearest = [task.kind.classes[code] for code in similarity.argmax(axis=1).tolist()]
    return Predicted([json.dumps([name], ensure_ascii=False) for name in nearest], scores=similarity)


def _record(fold: Fold, template: str, metric: float) -> dict[str, Any]:
    return {
        **({} if fold.name is None else {"fold": fold.name}),
        "template": template,
        "validation": fold.validation,
        "validation_clips": len(fold.valid),
        "validation_metric": metric,
    }


def _over_templates(task: ProbeRun, tested: Sequence[Predicted]) -> Spread:
    """Return the main metric of each template on the test clips, its spread, and the interval of the median.

    The interval draws groups of test clips; the templates are a list and not a sample, so they are not drawn.
    """
    clips = np.concatenate([fold.test for fold in task.folds])
    values = [task.kind.measure(predicted, clips) for predicted in tested]
    items = _items(task, tested, clips)
    bootstrap = task.protocol.bootstrap
    resamples, rng = resamples_for(items, bootstrap.resamples), generator("items", bootstrap.seed)
    medians = [
        np.median(
            score_weighted(items, cluster_counts(items.n_clusters, min(_AT_ONCE, resamples - start), rng)), axis=1
        )
        for start in range(0, resamples, _AT_ONCE)
    ]
    median = float(np.median(values))
    interval = score_interval(median, np.concatenate(medians), bootstrap.level, items.n_clusters)
    low, high = (float(value) for value in np.quantile(values, [0.25, 0.75]))
    figures = {
        "median of templates": median,
        "lowest template": min(values),
        "lower quartile of templates": low,
        "upper quartile of templates": high,
        "highest template": max(values),
    }
    return Spread(values, figures, interval)


def _items(task: ProbeRun, tested: Sequence[Predicted], clips: np.ndarray) -> Items:
    """Return the predictions under all templates, each in the place of a seed."""
    items = Items(
        metric=task.data.card.metric,
        ids=clips,
        clusters=np.unique(clusters(task)[clips], return_inverse=True)[1],
        folds=np.zeros(len(clips), np.int64),
        seeds=tuple(range(len(tested))),
        classes=len(task.kind.classes),
    )
    if isinstance(task.kind, SingleLabel):
        codes = np.stack([present(predicted.codes, clips) for predicted in tested])
        return replace(items, truth=task.kind.codes[clips], predicted=codes)
    scores = np.stack([present(predicted.scores, clips) for predicted in tested])
    return replace(items, relevant=task.kind.targets(clips) > 0, scores=scores)
