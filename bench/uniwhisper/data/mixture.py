"""Mixtures: which datasets a run hears, and how much of each.

A dataset's share of audio-seconds is proportional to `weight * hours ** alpha` within its domain, the domains' shares
are fixed after that, and no dataset is heard more often than its cap. What a capped dataset cannot take goes to the
others of its domain, and what a whole domain cannot take to the other domains.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from uniwhisper.config import DOMAINS, Closed, Data, Domain, Share, validated
from uwbench.api import InputError, UsageError
from uwbench.base.registry import suggestion
from uwbench.base.yaml_text import parse_yaml, read_yaml_file

_TOLERANCE = 1e-9


class DatasetEntry(Closed):
    """A dataset of a mixture: what is used of it, of how much, and how sure that is.

    `quota` fixes its share of all audio-seconds; `weight` scales the share that its hours give. `overlaps` names the
    benchmark's tasks that are a part of it, of which only the training split may be used, `shares_source` those whose
    clips come from the same place. `verified` fields say whether the value was read at its publisher's or in a report,
    or is general knowledge.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    title: str
    domain: Domain
    hours: Annotated[float, Field(gt=0)]
    total_hours: Annotated[float, Field(gt=0)] | None = None
    tasks: tuple[str, ...] = Field(min_length=1)
    licence: str
    where: str
    available: Literal["open", "gated", "request", "links", "generated"]
    hours_verified: bool
    licence_verified: bool
    overlaps: tuple[str, ...] = ()
    shares_source: tuple[str, ...] = ()
    note: str | None = None
    weight: Annotated[float, Field(gt=0)] = 1.0
    quota: Annotated[float, Field(gt=0, lt=1)] | None = None


class Caps(Closed):
    """How often a run may hear a dataset: `epochs` times, `small_epochs` where it has less than `small_hours`."""

    epochs: Annotated[float, Field(gt=0)] = 4.0
    small_epochs: Annotated[float, Field(gt=0)] = 8.0
    small_hours: Annotated[float, Field(ge=0)] = 50.0

    def of(self, hours: float) -> float:
        """Return the hours that a dataset of `hours` may give to a run."""
        return hours * (self.small_epochs if hours < self.small_hours else self.epochs)


class Replay(Closed):
    """The least share of audio-seconds from datasets with one of `tasks`, which keeps the speech an encoder knows."""

    tasks: tuple[str, ...] = ("asr", "st")
    share: Share = 0.4


class DomainShares(Closed):
    """Shares of audio-seconds; those of domains without data go to the others in proportion."""

    speech: Share = 0.45
    paralinguistic: Share = 0.15
    sound: Share = 0.22
    music: Share = 0.18


class Mixture(Closed):
    """A mixture file."""

    name: str
    datasets: tuple[DatasetEntry, ...] = Field(min_length=1)
    alpha: Share = 0.5
    caps: Caps = Caps()
    domains: DomainShares = DomainShares()
    replay: Replay = Replay()

    @model_validator(mode="after")
    def _names_are_unique(self) -> Mixture:
        names = [entry.name for entry in self.datasets]
        if len(set(names)) < len(names):
            raise ValueError(f"datasets named twice: {', '.join(sorted({n for n in names if names.count(n) > 1}))}")
        return self

    @property
    def hours(self) -> float:
        """The hours used of all datasets."""
        return sum(entry.hours for entry in self.datasets)

    def hours_of_domain(self, domain: Domain) -> float:
        """Return the hours used of a domain."""
        return sum(entry.hours for entry in self.datasets if entry.domain == domain)


def shipped_mixtures() -> list[str]:
    """Return the names of the mixtures that come with the package."""
    files = importlib.resources.files("uniwhisper.mixtures").iterdir()
    return sorted(path.name.removesuffix(".yaml") for path in files if path.name.endswith(".yaml"))


def load_mixture(name: str) -> Mixture:
    """Return a shipped mixture by its name, or one by its path.

    Raises InputError for a file that cannot be read or holds what it should not, UsageError for an unknown name.
    """
    if name in shipped_mixtures():
        text = (importlib.resources.files("uniwhisper.mixtures") / f"{name}.yaml").read_text(encoding="utf-8")
    elif name.endswith((".yaml", ".yml")):
        return parse_mixture(read_yaml_file(Path(name)), where=name)
    else:
        raise UsageError(f"unknown mixture {name!r}", remedy=suggestion(name, shipped_mixtures()))
    return parse_mixture(parse_yaml(text, name), where=name)


def parse_mixture(values: Any, *, where: str | None = None) -> Mixture:
    """Return the mixture that plain values describe; raise InputError naming the first field that is wrong.

    A file with `base` is that shipped mixture without the datasets that `without` lists.
    """
    if isinstance(values, Mapping) and "base" in values:
        values = _derived(values, where)
    return validated(Mixture, values, where)


def _derived(values: Mapping[str, Any], where: str | None) -> dict[str, Any]:
    known = {"base", "without", *Mixture.model_fields} - {"datasets"}
    if unknown := sorted(set(values) - known):
        raise InputError(f"{unknown[0]}: is not a key of a mixture with a base", where=where)
    base = load_mixture(str(values["base"])).model_dump()
    without = values.get("without") or []
    names = [entry["name"] for entry in base["datasets"]]
    if missing := [name for name in without if name not in names]:
        raise InputError(
            f"without: {missing[0]!r} is not in {values['base']}", where=where, remedy=suggestion(missing[0], names)
        )
    kept = [entry for entry in base["datasets"] if entry["name"] not in without]
    own = {key: value for key, value in values.items() if key not in {"base", "without"}}
    return {**base, **own, "datasets": kept}


def changed(mixture: Mixture, data: Data, hours: Mapping[str, float]) -> Mixture:
    """Return a mixture as a configuration's `speech_share` and `without_domains` change it, given the `hours` at hand.

    Raises UsageError where no dataset is left.
    """
    out = {*data.without_domains, *(("speech",) if data.speech_share == 0 else ())}
    if out:
        kept = tuple(entry for entry in mixture.datasets if entry.domain not in out)
        if not kept:
            raise UsageError("leaves no dataset", where="data.without_domains")
        mixture = mixture.model_copy(update={"datasets": kept})
    if not data.speech_share:
        return mixture
    own = mixture.domains.model_dump()
    there = {entry.domain for entry in mixture.datasets if hours.get(entry.name, 0.0) > 0}
    if "speech" not in there:
        raise UsageError("no dataset of speech is at hand", where="data.speech_share")
    others = sum(own[domain] for domain in there if domain != "speech")
    if others == 0 and data.speech_share < 1:
        raise UsageError("there is nothing but speech to hear", where="data.speech_share")
    shares = {domain: own[domain] / others * (1 - data.speech_share) if others else 0.0 for domain in own}
    domains = DomainShares(**(shares | {"speech": data.speech_share}))
    return mixture.model_copy(update={"domains": domains, "replay": Replay(share=0.0)})


def target_shares(mixture: Mixture, hours: Mapping[str, float], budget: float) -> dict[str, float]:
    """Return each dataset's share of audio-seconds in a run of `budget` hours, given the `hours` at hand.

    Datasets of the mixture without hours are absent; the shares of the others sum to 1. Raises UsageError where the
    caps let the data give less than the budget.
    """
    present = [entry for entry in mixture.datasets if hours.get(entry.name, 0.0) > 0]
    if not present:
        raise UsageError("none of its datasets is at hand", where=f"mixture {mixture.name}")
    caps = [mixture.caps.of(hours[entry.name]) / budget for entry in present]
    if sum(caps) < 1 - _TOLERANCE:
        raise UsageError(
            f"the run hears {budget:.2f} h, and the caps allow {sum(caps) * budget:.2f} h of the data at hand",
            where=f"mixture {mixture.name}",
            remedy="take fewer steps, add data or raise caps",
        )
    wishes = _within_domains(mixture, present, [hours[entry.name] for entry in present], caps)
    wishes = _with_replay(mixture, present, wishes)
    return dict(zip((entry.name for entry in present), fill(wishes, caps, 1.0), strict=True))


def _within_domains(
    mixture: Mixture, present: Sequence[DatasetEntry], hours: Sequence[float], caps: Sequence[float]
) -> list[float]:
    shares = mixture.domains.model_dump()
    there = [domain for domain in DOMAINS if any(e.domain == domain for e in present)]
    total = sum(shares[domain] for domain in there)
    wishes = [0.0] * len(present)
    for domain in there:
        share = shares[domain] / total if total else 1 / len(there)
        own = [index for index, entry in enumerate(present) if entry.domain == domain]
        fixed = {index: quota for index in own if (quota := present[index].quota) is not None}
        free = [index for index in own if index not in fixed]
        weights = [present[index].weight * hours[index] ** mixture.alpha for index in free]
        room = min(max(share - sum(fixed.values()), 0.0), sum(caps[index] for index in free))
        for index, value in zip(free, fill(weights, [caps[i] for i in free], room), strict=True):
            wishes[index] = value
        for index, quota in fixed.items():
            wishes[index] = quota
    return wishes


def _with_replay(mixture: Mixture, present: Sequence[DatasetEntry], wishes: Sequence[float]) -> list[float]:
    replayed = [bool(set(entry.tasks) & set(mixture.replay.tasks)) for entry in present]
    total = sum(wishes)
    heard = sum(value for value, yes in zip(wishes, replayed, strict=True) if yes) / total
    wanted = mixture.replay.share
    if heard >= wanted or not any(replayed) or heard == 0:
        return list(wishes)
    up, down = wanted / heard, (1 - wanted) / (1 - heard)
    return [value * (up if yes else down) for value, yes in zip(wishes, replayed, strict=True)]


def fill(weights: Sequence[float], caps: Sequence[float], total: float) -> list[float]:
    """Return `total` split in proportion to `weights`, none above its cap; the caps' sum is at least `total`.

    What the capped cannot take is split among the others again, so at most one round an entry.
    """
    amounts = [0.0] * len(weights)
    full: set[int] = set()
    while len(full) < len(weights):
        left = total - sum(caps[index] for index in full)
        sum_of_weights = sum(value for index, value in enumerate(weights) if index not in full)
        if sum_of_weights <= 0:
            break
        over = set()
        for index, weight in enumerate(weights):
            if index not in full:
                amounts[index] = left * weight / sum_of_weights
                if amounts[index] > caps[index]:
                    over.add(index)
        if not over:
            break
        full |= over
        for index in over:
            amounts[index] = caps[index]
    return amounts


def by_domain(mixture: Mixture, values: Mapping[str, float]) -> dict[Domain, float]:
    """Return the sums of datasets' values a domain, in the mixture's order of domains."""
    return {
        domain: sum(values.get(entry.name, 0.0) for entry in mixture.datasets if entry.domain == domain)
        for domain in DOMAINS
    }
