"""Tables of what there is: tasks with what is at hand of each, and everything known about a model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from uwbench.cards.card import Card
from uwbench.cards.find import find_cards
from uwbench.encoders.base import ModelSpec
from uwbench.methods import metric_name
from uwbench.options import Folders


@dataclass(frozen=True, slots=True)
class TaskRow:
    """One task: its card's main facts, where its data are, and how many models it is cached for and scored with."""

    name: str
    title: str
    domain: str
    kind: str
    metric: str
    version: int
    clips: int | None  # as its publisher states it
    data: str | None  # where its audio is; None: not at hand
    cached: int
    scored: int

    @property
    def metric_name(self) -> str:
        """The metric's name for readers."""
        return metric_name(self.metric)


def list_tasks(folders: Folders) -> tuple[list[TaskRow], list[str]]:
    """Return a row per task card, by name, and an error line for each plug-in card that was skipped."""
    cards, problems = find_cards()
    return [_task_row(card, folders) for card in cards.values()], problems


def _task_row(card: Card, folders: Folders) -> TaskRow:
    from uwbench.sources.resolve import describe_source

    return TaskRow(
        name=card.name,
        title=card.title,
        domain=card.domain,
        kind=card.kind,
        metric=card.metric,
        version=card.version,
        clips=card.size.clips if card.size else None,
        data=describe_source(card, folders.data),
        cached=len(list(folders.cache.glob(f"*/{card.name}/manifest.json"))),
        scored=len(list(folders.results.glob(f"*/*/*/{card.name}.json"))),
    )


def describe_model(model: str | ModelSpec) -> dict[str, Any]:
    """Return the facts of a model, what it was trained on, and its contamination flag for every task.

    A name or hub id of the catalogue needs no weights; anything else that `load_encoder` takes is opened, and raises
    its errors.
    """
    from uwbench.encoders.catalogue import CATALOGUE, hub_page
    from uwbench.results.contamination import FLAGS, judge, read_lineage, stated, training_of

    spec = ModelSpec(model) if isinstance(model, str) else model
    entries = {key: entry for entry in CATALOGUE for key in (entry.name, entry.hub_id) if key}
    training_data = None
    if spec == ModelSpec(spec.name) and spec.name in entries:
        entry = entries[spec.name]
        facts: dict[str, Any] = {**asdict(entry), "layers": entry.layers or None}
        facts |= {} if entry.hub_id is None else {"page": hub_page(entry.hub_id)}
    else:
        facts, training_data = _own_facts(spec)
    name = facts["name"]
    training = stated(training_data) if training_data is not None else training_of(name, read_lineage())
    if training is not None:
        facts["trained_on"] = training.model_dump(mode="json", exclude={"names"}, exclude_none=True)
    flags = {
        card.name: judge(card.name, name, training_data, folds=card.folds is not None, taken_from=card.taken_from).flag
        for card in find_cards()[0].values()
    }
    by_flag = {flag: [task for task, flagged in flags.items() if flagged == flag] for flag in reversed(FLAGS)}
    facts["contamination"] = {flag: tasks for flag, tasks in by_flag.items() if tasks}
    return facts


def _own_facts(spec: ModelSpec) -> tuple[dict[str, Any], tuple[dict[str, Any], ...] | None]:
    """Return what an encoder says of itself, and its own list of training data."""
    from uwbench.encoders.resolve import open_encoder

    info = open_encoder(spec).info
    fields = ("name", "family", "parameters", "sample_rate", "context_s", "hop_s", "licence")
    return {**{field: getattr(info, field) for field in fields}, "layers": len(info.layers)}, info.training_data
