"""Mixtures: the datasets of a training run and their shares.

Within its domain, a dataset's share of audio-seconds is proportional to `weight * hours ** alpha`. The shares of
domains are fixed. No dataset is repeated more often than its cap allows: what it cannot take goes to the other datasets
of its domain, and what a whole domain cannot take goes to the other domains.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from uniwhisper.config import DOMAINS, Data, Domain, Share, validated
from uwbench.api import InputError, UsageError
from uwbench.base.registry import suggestion
from uwbench.base.schema import Closed
from uwbench.base.yaml_text import parse_yaml, read_yaml_file

_TOLERANCE = 1e-9


class DatasetEntry(Closed):
    """One dataset of a mixture.

    `hours` are those used. `quota` fixes its share of all audio-seconds; `weight` scales the share that its hours give.
    `overlaps` names benchmark tasks that are part of it, of which only the training split may be used; `shares_source`
    names tasks whose clips come from the same source. The `verified` fields are true if the value comes from the
    publisher or a report, false for general knowledge.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9_-]+$")]
    title: str
    domain: Domain
    hours: Annotated[float, Field(gt=0)]
    tasks: tuple[str, ...] = Field(min_length=1)
    licence: str
    where: str
    available: Literal["open", "gated", "request", "links", "generated", "own"]
    hours_verified: bool
    licence_verified: bool
    overlaps: tuple[str, ...] = ()
    shares_source: tuple[str, ...] = ()
    note: str | None = None
    weight: Annotated[float, Field(gt=0)] = 1.0
    quota: Annotated[float, Field(gt=0, lt=1)] | None = None


class Caps(Closed):
    """How often a run may repeat a dataset: `epochs` times, or `small_epochs` if it has less than `small_hours`."""

    epochs: Annotated[float, Field(gt=0)] = 4.0
    small_epochs: Annotated[float, Field(gt=0)] = 8.0
    small_hours: Annotated[float, Field(ge=0)] = 50.0

    def of(self, hours: float) -> float:
        """Return the most hours that a run may take from a dataset of `hours`."""
        return hours * (self.small_epochs if hours < self.small_hours else self.epochs)


class Replay(Closed):
    """The minimum share of datasets with one of `tasks`, so that the encoder does not forget speech."""

    tasks: tuple[str, ...] = ("asr", "st")
    share: Share = 0.4


class DomainShares(Closed):
    """Shares of audio-seconds per domain; the share of a domain without data goes to the others in proportion."""

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
        """The hours of all datasets together."""
        return sum(entry.hours for entry in self.datasets)


def shipped_mixtures() -> list[str]:
    """Return the names of the mixtures in the package."""
    files = importlib.resources.files("uniwhisper.mixtures").iterdir()
    return sorted(path.name.removesuffix(".yaml") for path in files if path.name.endswith(".yaml"))


def load_mixture(name: str) -> Mixture:
    """Load a mixture of the package by name, or a YAML file by path.

    Raises InputError for a file that is unreadable or invalid, UsageError for an unknown name.
    """
    if name in shipped_mixtures():
        text = (importlib.resources.files("uniwhisper.mixtures") / f"{name}.yaml").read_text(encoding="utf-8")
    elif name.endswith((".yaml", ".yml")):
        return parse_mixture(read_yaml_file(Path(name)), where=name)
    else:
        raise UsageError(f"unknown mixture {name!r}", remedy=suggestion(name, shipped_mixtures()))
    return parse_mixture(parse_yaml(text, name), where=name)


def parse_mixture(values: Any, *, where: str | None = None) -> Mixture:
    """Return the mixture that plain values describe; raise InputError naming the first wrong field.

    Values with `base` are that mixture of the package without the datasets that `without` lists.
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
    datasets = [entry for entry in base["datasets"] if entry["name"] not in without]
    overrides = {key: value for key, value in values.items() if key not in {"base", "without"}}
    return {**base, **overrides, "datasets": datasets}


def changed(mixture: Mixture, data: Data, hours: Mapping[str, float]) -> Mixture:
    """Apply a configuration's `speech_share` and `without_domains` to a mixture, given the `hours` at hand.

    Raises UsageError if no dataset is left.
    """
    excluded = {*data.without_domains, *(("speech",) if data.speech_share == 0 else ())}
    if excluded:
        datasets = tuple(entry for entry in mixture.datasets if entry.domain not in excluded)
        if not datasets:
            raise UsageError("leaves no dataset", where="data.without_domains")
        mixture = mixture.model_copy(update={"datasets": datasets})
    if not data.speech_share:
        return mixture
    defaults = mixture.domains.model_dump()
    domains_at_hand = {entry.domain for entry in mixture.datasets if hours.get(entry.name, 0.0) > 0}
    if "speech" not in domains_at_hand:
        raise UsageError("no dataset of speech is at hand", where="data.speech_share")
    others = sum(defaults[domain] for domain in domains_at_hand if domain != "speech")
    if others == 0 and data.speech_share < 1:
        raise UsageError("there is only speech at hand", where="data.speech_share")
    shares = {domain: value / others * (1 - data.speech_share) if others else 0.0 for domain, value in defaults.items()}
    domains = DomainShares(**(shares | {"speech": data.speech_share}))
    return mixture.model_copy(update={"domains": domains, "replay": Replay(share=0.0)})


def target_shares(mixture: Mixture, hours: Mapping[str, float], budget: float) -> dict[str, float]:
    """Return each dataset's share of audio-seconds in a run of `budget` hours, given the `hours` at hand.

    Datasets without hours are left out; the shares sum to 1. Raises UsageError if the caps allow less than the budget.
    """
    present = [entry for entry in mixture.datasets if hours.get(entry.name, 0.0) > 0]
    if not present:
        raise _nothing_at_hand(mixture, [name for name, value in hours.items() if value > 0])
    caps = [mixture.caps.of(hours[entry.name]) / budget for entry in present]
    if sum(caps) < 1 - _TOLERANCE:
        raise UsageError(
            f"the run needs {budget:.2f} h and the caps allow {sum(caps) * budget:.2f} h of the data at hand",
            where=f"mixture {mixture.name}",
            remedy="take fewer steps, add data or raise the caps",
        )
    shares = _within_domains(mixture, present, [hours[entry.name] for entry in present], caps)
    shares = _with_replay(mixture, present, shares)
    return dict(zip((entry.name for entry in present), fill(shares, caps, 1.0), strict=True))


def _nothing_at_hand(mixture: Mixture, at_hand: Sequence[str]) -> UsageError:
    remedy = "check --data, data.tasks and data.without_domains"
    if at_hand:
        remedy = (
            f"the data hold {', '.join(at_hand)}: write a mixture of them with uniwhisper mix --data FOLDER "
            "--write my_mixture.yaml, and name it with --mixture"
        )
    return UsageError("none of its datasets is at hand", where=f"mixture {mixture.name}", remedy=remedy)


def _within_domains(
    mixture: Mixture, present: Sequence[DatasetEntry], hours: Sequence[float], caps: Sequence[float]
) -> list[float]:
    """Return each dataset's share before replay: its quota, or its part of what quotas leave of its domain's share.

    Example: sound has a share of 0.3 and three datasets, one with a quota of 0.1, the others with 100 h and 400 h.
    With `alpha` 0.5 and weight 1, the two weigh 10 and 20, so they divide the remaining 0.2 into 0.067 and 0.133.
    """
    domain_shares = mixture.domains.model_dump()
    domains = [domain for domain in DOMAINS if any(entry.domain == domain for entry in present)]
    total = sum(domain_shares[domain] for domain in domains)
    shares = [0.0 if entry.quota is None else entry.quota for entry in present]
    for domain in domains:
        domain_share = domain_shares[domain] / total if total else 1 / len(domains)
        members = [index for index, entry in enumerate(present) if entry.domain == domain]
        without_quota = [index for index in members if present[index].quota is None]
        quotas = sum(shares[index] for index in members)
        weights = [present[index].weight * hours[index] ** mixture.alpha for index in without_quota]
        member_caps = [caps[index] for index in without_quota]
        remaining = min(max(domain_share - quotas, 0.0), sum(member_caps))
        for index, share in zip(without_quota, fill(weights, member_caps, remaining), strict=True):
            shares[index] = share
    return shares


def _with_replay(mixture: Mixture, present: Sequence[DatasetEntry], shares: Sequence[float]) -> list[float]:
    """Scale shares so that datasets with a replay task together have at least the replay share."""
    is_replay = [bool(set(entry.tasks) & set(mixture.replay.tasks)) for entry in present]
    replay_share = sum(share for share, replay in zip(shares, is_replay, strict=True) if replay) / sum(shares)
    least = mixture.replay.share
    if replay_share >= least or replay_share == 0:
        return list(shares)
    up, down = least / replay_share, (1 - least) / (1 - replay_share)
    return [share * (up if replay else down) for share, replay in zip(shares, is_replay, strict=True)]


def fill(weights: Sequence[float], caps: Sequence[float], total: float) -> list[float]:
    """Split `total` in proportion to `weights` with no part above its cap; the caps must sum to at least `total`.

    What capped entries cannot take is split again among the others, in at most one round per entry.
    """
    amounts = [0.0] * len(weights)
    full: set[int] = set()
    while len(full) < len(weights):
        remaining = total - sum(caps[index] for index in full)
        sum_of_weights = sum(value for index, value in enumerate(weights) if index not in full)
        if sum_of_weights <= 0:
            break
        over = set()
        for index, weight in enumerate(weights):
            if index not in full:
                amounts[index] = remaining * weight / sum_of_weights
                if amounts[index] > caps[index]:
                    over.add(index)
        if not over:
            break
        full |= over
        for index in over:
            amounts[index] = caps[index]
    return amounts


def by_domain(mixture: Mixture, values: Mapping[str, float]) -> dict[Domain, float]:
    """Return the sum of datasets' values per domain."""
    return {
        domain: sum(values.get(entry.name, 0.0) for entry in mixture.datasets if entry.domain == domain)
        for domain in DOMAINS
    }
