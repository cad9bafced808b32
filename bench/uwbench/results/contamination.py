"""What of a task an encoder was trained on: the flag of each cell of the board.

The facts are data: `tasks/lineage/datasets.yaml` says where recordings come from, `tasks/lineage/models.yaml` what
public models were trained on. Weights that carry a list of their own (an export, `training_data.json`) go by that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from uwbench.cards.find import read_yaml, tasks_folder
from uwbench.results.record import Contamination, Flag

# From the least to the most that a model has seen of a task. The last three leave the board with `--contaminated drop`.
FLAGS: tuple[Flag, ...] = ("clean", "unknown", "same source", "trained on train", "trained on test")
SEEN: tuple[Flag, ...] = FLAGS[2:]
_WEB = "web"  # a source that may hold whatever was published
MEANINGS: dict[Flag, str] = {
    "clean": "what the encoder was trained on is known, and shares no recordings' source with the task",
    "unknown": "what the encoder was trained on is not public, or where it comes from is not known",
    "same source": "trained on recordings out of the same collection, among which the task's may be",
    "trained on train": "trained on the task's training or validation part, perhaps without its labels",
    "trained on test": "trained on clips that the task is scored on; in a k-fold task every clip is",
}


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Entry(_Closed):
    """A dataset that a model was trained on. `sources` says where it comes from, for one that is not listed here."""

    dataset: str
    split: str = "unknown"  # the publisher's name of it, or train, test, all
    sources: tuple[str, ...] | None = None


class Training(_Closed):
    """What models were trained on. `complete`: and on nothing else that holds audio."""

    names: tuple[str, ...] = ()
    data: tuple[Entry, ...]
    complete: bool
    source: str


class _Dataset(_Closed):
    sources: tuple[str, ...] = Field(default=(), alias="from")
    names: tuple[str, ...] = ()
    holds: tuple[str, ...] = ()
    splits: dict[str, str] = {}
    generated: bool = False


class _Datasets(_Closed):
    broad: tuple[str, ...]
    datasets: dict[str, _Dataset]


class _Models(_Closed):
    models: tuple[Training, ...]


@dataclass(frozen=True, slots=True)
class Lineage:
    """What is known of datasets and of models."""

    datasets: Mapping[str, _Dataset]
    broad: frozenset[str]
    models: Mapping[str, Training]
    spellings: Mapping[str, str]  # a name in small letters and digits alone -> the dataset's or collection's key

    def find(self, name: str) -> str | None:
        """Return the key of a dataset or of the dataset that a task is made of; None where nothing is known of it."""
        return self.spellings.get(_plain(name)) or self.spellings.get(_plain(name.rpartition("/")[2]))

    def origins(self, key: str) -> set[str]:
        """Return a dataset and all that its recordings were taken out of."""
        found, left = set(), [key]
        while left:
            name = left.pop()
            if name not in found:
                found.add(name)
                left += self.datasets[name].sources if name in self.datasets else ()
        return found

    def parts(self, key: str) -> set[str]:
        """Return a dataset and those that it holds."""
        found, left = set(), [key]
        while left:
            name = left.pop()
            found.add(name)
            left += self.datasets[name].holds if name in self.datasets else ()
        return found


@lru_cache(maxsize=4)
def read_lineage(folder: Path | None = None) -> Lineage:
    """Read the facts in `folder`, the built-in ones without; raise InputError where they do not hold together."""
    place = folder or tasks_folder() / "lineage"
    listed = read_yaml(place / "datasets.yaml", _Datasets)
    models = read_yaml(place / "models.yaml", _Models)
    # Collections that are no dataset (freesound) may be named too.
    spellings = {_plain(name): name for dataset in listed.datasets.values() for name in dataset.sources}
    spellings |= {_plain(name): key for key, dataset in listed.datasets.items() for name in (key, *dataset.names)}
    named = {name: training for training in models.models for name in training.names}
    return Lineage(listed.datasets, frozenset(listed.broad), named, spellings)


def training_of(model: str, lineage: Lineage) -> Training | None:
    """Return what a public model was trained on, by its name, its hub id, or the name of a folder that holds it."""
    if model in lineage.models or "/" in model:
        return lineage.models.get(model)
    return next((found for name, found in lineage.models.items() if name.rpartition("/")[2] == model), None)


def stated(listed: Sequence[Mapping[str, Any]]) -> Training:
    """Return what an encoder's own list says, taken as complete: `{dataset, split}`, some with `sources`."""
    entries = [
        Entry(
            dataset=str(item.get("dataset") or item.get("name") or "a dataset without a name"),
            split=str(item.get("split", "unknown")),
            sources=None if item.get("sources") is None else tuple(map(str, item["sources"])),
        )
        for item in listed
    ]
    return Training(data=tuple(entries), complete=True, source="the encoder's own list")


def judge(
    task: str,
    model: str,
    listed: Sequence[Mapping[str, Any]] | None,
    *,
    folds: bool,
    lineage: Lineage | None = None,
) -> Contamination:
    """Return the flag of `task` under `model`, and why.

    `listed` is the encoder's own list of training data; without one, the public model's of that name counts. `folds`:
    whether the task is cross-validated, so that every clip is scored.
    """
    known = lineage or read_lineage()
    key = known.find(task)
    if key is not None and key in known.datasets and known.datasets[key].generated:
        return Contamination(flag="clean", because=("its clips are computed on the spot",))
    training = stated(listed) if listed is not None else training_of(model, known)
    if training is None:
        return Contamination(flag="unknown", because=("what it was trained on is not known",))
    found = [_relation(entry, task, key, folds, known) for entry in training.data]
    if not training.complete:
        found.append(("unknown", "not all that it was trained on is public"))
    worst: Flag = FLAGS[max((FLAGS.index(flag) for flag, _ in found), default=0)]
    reasons = () if worst == "clean" else tuple(dict.fromkeys(text for flag, text in found if flag == worst))
    return Contamination(flag=worst, because=reasons)


def _relation(entry: Entry, task: str, key: str | None, folds: bool, known: Lineage) -> tuple[Flag, str]:
    """Return what one dataset of the training says about a task, whose own dataset is `key`."""
    name = entry.dataset
    other = known.find(name)
    if _plain(name) == _plain(task) or (other is not None and other == key):
        return _trained(entry, key, folds, known, "")
    if key is not None and other is not None and (key in known.parts(other) or other in known.parts(key)):
        return _trained(entry, key, folds, known, f", {'which holds' if key in known.parts(other) else 'a part of'} it")
    return _origin(entry, key, other, known)


def _origin(entry: Entry, key: str | None, other: str | None, known: Lineage) -> tuple[Flag, str]:
    """Return what follows from where both sets of recordings come from."""
    if entry.sources == ():
        return "clean", ""
    if other is None and entry.sources is None:
        return "unknown", f"where {entry.dataset} comes from is not known"
    if key is None:
        return "unknown", "where the task's recordings come from is not known"
    theirs = known.origins(other) if other is not None else set()
    for source in entry.sources or ():
        theirs |= known.origins(known.find(source) or source)
    shared = theirs & known.origins(key)
    if shared - known.broad:
        return "same source", f"{entry.dataset} shares {', '.join(sorted(shared - known.broad))}"
    broad = bool(shared) or _WEB in theirs
    return (
        ("unknown", f"{entry.dataset} is so broad that it may hold the task's recordings") if broad else ("clean", "")
    )


def _trained(entry: Entry, key: str | None, folds: bool, known: Lineage, how: str) -> tuple[Flag, str]:
    own = known.datasets[key].splits if key is not None and key in known.datasets else {}
    split = own.get(entry.split, entry.split).lower()
    what = f"{entry.dataset} ({entry.split}){how}" if entry.split != "unknown" else f"{entry.dataset}{how}"
    if folds:
        return "trained on test", f"{what}; every clip of a k-fold task is scored"
    if split == "all" or "test" in split or "eval" in split:
        return "trained on test", what
    return "trained on train", what if entry.split != "unknown" else f"{what}; which split is not said"


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
