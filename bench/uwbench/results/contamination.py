"""Contamination: how much of a task an encoder was trained on.

The facts are data: `tasks/lineage/datasets.yaml` says where recordings come from, `tasks/lineage/models.yaml` what
public models were trained on. Weights that come with their own list (`training_data.json` of an export) are judged by
that list.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import Field

from uwbench.base.registry import suggestion
from uwbench.base.schema import Closed
from uwbench.cards.find import read_yaml, tasks_folder
from uwbench.errors import UsageError
from uwbench.results.record import Contamination, Flag

# From least to most contaminated. `--contaminated drop` drops the last three from the board.
FLAGS: tuple[Flag, ...] = ("clean", "unknown", "same source", "trained on train", "trained on test")
SEEN: tuple[Flag, ...] = FLAGS[2:]
OWN = "own"  # the origin of recordings that were never published
_WEB = "web"  # a source that may hold whatever was published
MEANINGS: dict[Flag, str] = {
    "clean": "what the encoder was trained on is known, and shares no recordings' source with the task",
    "unknown": "what the encoder was trained on is not public, or where it comes from is not known",
    "same source": "trained on recordings out of the same collection, among which the task's may be",
    "trained on train": "trained on the task's training or validation part, perhaps without its labels",
    "trained on test": "trained on clips that the task is scored on; in a k-fold task every clip is",
}


class TrainingSet(Closed):
    """A dataset that a model was trained on; `sources` says where it comes from, for one that `datasets.yaml` lacks."""

    dataset: str
    split: str = "unknown"  # the publisher's name for it, or train, test, all
    sources: tuple[str, ...] | None = None


class Training(Closed):
    """The training data of the models called `names`; `complete` if they saw no other audio."""

    names: tuple[str, ...] = ()
    data: tuple[TrainingSet, ...]
    complete: bool
    source: str


class _Dataset(Closed):
    sources: tuple[str, ...] = Field(default=(), alias="from")
    names: tuple[str, ...] = ()
    holds: tuple[str, ...] = ()
    splits: dict[str, str] = Field(default_factory=dict)
    generated: bool = False


class _Datasets(Closed):
    broad: tuple[str, ...]
    datasets: dict[str, _Dataset]


class _Models(Closed):
    models: tuple[Training, ...]


@dataclass(frozen=True, slots=True)
class Lineage:
    """The known facts about datasets and models."""

    datasets: Mapping[str, _Dataset]
    broad: frozenset[str]
    models: Mapping[str, Training]
    spellings: Mapping[str, str]  # a name reduced to lower-case letters and digits -> key of a dataset or collection

    def find(self, name: str) -> str | None:
        """Return the key of the dataset that a dataset or task is called after; None if it is not known."""
        return self.spellings.get(_plain(name)) or self.spellings.get(_plain(name.rpartition("/")[2]))

    def origins(self, key: str) -> set[str]:
        """Return a dataset and everything that its recordings were taken from."""
        return self._reachable(key, lambda dataset: dataset.sources)

    def origins_of(self, names: Sequence[str]) -> set[str]:
        """Return the datasets and collections of these names, and everything that they were taken from."""
        return set().union(*(self.origins(self.find(name) or name) for name in names))

    def parts(self, key: str) -> set[str]:
        """Return a dataset and the datasets that it contains."""
        return self._reachable(key, lambda dataset: dataset.holds)

    def _reachable(self, key: str, neighbours: Callable[[_Dataset], tuple[str, ...]]) -> set[str]:
        reached: set[str] = set()
        queue = [key]
        while queue:
            name = queue.pop()
            if name not in reached:
                reached.add(name)
                queue += neighbours(self.datasets[name]) if name in self.datasets else ()
        return reached


@lru_cache(maxsize=4)
def read_lineage(folder: Path | None = None) -> Lineage:
    """Read the facts in `folder`, by default the built-in ones; raise InputError if a file is not valid."""
    folder = folder or tasks_folder() / "lineage"
    facts = read_yaml(folder / "datasets.yaml", _Datasets)
    models = read_yaml(folder / "models.yaml", _Models)
    # Collections that are not datasets, such as freesound, have names too.
    spellings = {_plain(name): name for dataset in facts.datasets.values() for name in dataset.sources}
    spellings |= {_plain(name): key for key, dataset in facts.datasets.items() for name in (key, *dataset.names)}
    by_name = {name: training for training in models.models for name in training.names}
    return Lineage(facts.datasets, frozenset(facts.broad), by_name, spellings)


def training_of(model: str, lineage: Lineage) -> Training | None:
    """Return the training data of a public model by its name, its hub id, or the name of the folder it is in."""
    if model in lineage.models or "/" in model:
        return lineage.models.get(model)
    return next((data for name, data in lineage.models.items() if name.rpartition("/")[2] == model), None)


def stated(listed: Sequence[Mapping[str, Any]]) -> Training:
    """Return an encoder's own list of `{dataset, split}`, some with `sources`, which is taken to be complete."""
    sets = [
        TrainingSet(
            dataset=str(item.get("dataset") or item.get("name") or "a dataset without a name"),
            split=str(item.get("split", "unknown")),
            sources=None if item.get("sources") is None else tuple(map(str, item["sources"])),
        )
        for item in listed
    ]
    return Training(data=tuple(sets), complete=True, source="the encoder's own list")


def require_known(taken_from: Sequence[str]) -> None:
    """Raise UsageError for an origin of own data that no fact is known about, as it could only be called clean."""
    for name in taken_from:
        known = read_lineage()
        if name != OWN and known.find(name) is None:
            names = {*known.datasets, *known.spellings.values(), OWN}
            remedy = f"{suggestion(name, names)}; {OWN!r} is for recordings that were never published"
            raise UsageError(
                f"{name!r} is no dataset or collection that uwbench knows", where="--source", remedy=remedy
            )


def judge(
    task: str,
    model: str,
    listed: Sequence[Mapping[str, Any]] | None,
    *,
    folds: bool,
    taken_from: Sequence[str] = (),
    lineage: Lineage | None = None,
) -> Contamination:
    """Return the flag of `task` for `model`, and the reasons.

    `listed` is the encoder's own list of training data; without one, the facts about the public model of that name
    count. `folds` says that the task is cross-validated, so that every clip is scored. `taken_from` names the datasets
    or collections that own data is from.
    """
    known = lineage or read_lineage()
    key = known.find(task)
    if key is not None and key in known.datasets and known.datasets[key].generated:
        return Contamination(flag="clean", because=("its clips are computed on the spot",))
    training = stated(listed) if listed is not None else training_of(model, known)
    if training is None:
        return Contamination(flag="unknown", because=("what it was trained on is not known",))
    origins = known.origins_of([*taken_from, *([] if key is None else [key])])
    findings = [_relation(training_set, task, key, origins, folds, known) for training_set in training.data]
    if not training.complete:
        findings.append(("unknown", "not all that it was trained on is public"))
    worst: Flag = FLAGS[max((FLAGS.index(flag) for flag, _ in findings), default=0)]
    reasons = () if worst == "clean" else tuple(dict.fromkeys(text for flag, text in findings if flag == worst))
    return Contamination(flag=worst, because=reasons)


def _relation(
    trained_on: TrainingSet, task: str, task_key: str | None, task_origins: set[str], folds: bool, known: Lineage
) -> tuple[Flag, str]:
    """Return the flag and reason that one training set gives a task made of the dataset `task_key`."""
    name = trained_on.dataset
    key = known.find(name)
    if _plain(name) == _plain(task) or (key is not None and key == task_key):
        return _trained(trained_on, task_key, folds, known, "")
    if task_key is not None and key is not None:
        if task_key in known.parts(key):
            return _trained(trained_on, task_key, folds, known, ", which holds it")
        if key in known.parts(task_key):
            return _trained(trained_on, task_key, folds, known, ", a part of it")
    return _origin(trained_on, key, task_origins, known)


def _origin(trained_on: TrainingSet, key: str | None, task_origins: set[str], known: Lineage) -> tuple[Flag, str]:
    """Return the flag and reason that follow from the origins of both sets of recordings."""
    if trained_on.sources == ():
        return "clean", ""
    if key is None and trained_on.sources is None:
        return "unknown", f"where {trained_on.dataset} comes from is not known"
    if not task_origins:
        return "unknown", "where the task's recordings come from is not known"
    origins = known.origins_of([*([] if key is None else [key]), *(trained_on.sources or ())])
    shared = origins & task_origins
    if shared - known.broad:
        return "same source", f"{trained_on.dataset} shares {', '.join(sorted(shared - known.broad))}"
    if shared or _WEB in origins:
        return "unknown", f"{trained_on.dataset} is so broad that it may hold the task's recordings"
    return "clean", ""


def _trained(
    trained_on: TrainingSet, task_key: str | None, folds: bool, known: Lineage, relation: str
) -> tuple[Flag, str]:
    """Return the flag and reason for a training set that overlaps with the task's dataset."""
    names = known.datasets[task_key].splits if task_key is not None and task_key in known.datasets else {}
    split = names.get(trained_on.split, trained_on.split).lower()
    named = trained_on.split != "unknown"
    reason = f"{trained_on.dataset}{f' ({trained_on.split})' if named else ''}{relation}"
    if folds:
        return "trained on test", f"{reason}; every clip of a k-fold task is scored"
    if split == "all" or "test" in split or "eval" in split:
        return "trained on test", reason
    return "trained on train", reason if named else f"{reason}; which split is not said"


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
