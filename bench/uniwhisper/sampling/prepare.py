"""What a training run is made of, from folders and files: rows, mixture, plan, and what the checkpoint says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uniwhisper.config import Config
from uniwhisper.data.convert import read_classes
from uniwhisper.data.leakage import check_leaks
from uniwhisper.data.mixture import Mixture, changed, load_mixture, target_shares
from uniwhisper.data.rows import RowTable, open_rows
from uniwhisper.data.templates import templates
from uniwhisper.sampling.batches import Options, PlannedBatches
from uniwhisper.sampling.clips import TRAINED, Units, units_of
from uniwhisper.sampling.held_out import HeldOut, hold_out
from uniwhisper.sampling.schedule import Planner, Sizes
from uwbench.api import UsageError
from uwbench.base.hashing import digest
from uwbench.base.registry import suggestion

_MOST_OPTIONS = 50  # possible answers that an instruction may list


@dataclass(frozen=True)
class Prepared:
    """Batches with what identifies them: the list for the export, and the digest for resuming; and held-out clips."""

    batches: PlannedBatches
    training_data: list[dict[str, Any]]
    digest: str
    held_out: HeldOut | None


def sizes_of(config: Config) -> Sizes:
    """Return the sizes of batches that a configuration asks for."""
    run, data = config.run, config.data
    return Sizes(run.batch_s, run.micro_batch_s, data.bins, data.together, data.qa_per_audio, data.pad30_prob)


def mixture_of(config: Config, mixture: str | None) -> Mixture:
    """Return the mixture that the command or else the configuration names; raise UsageError without one."""
    name = mixture or config.data.mixture
    if name is None:
        raise UsageError("no mixture is named", where="data.mixture", remedy="give --mixture FILE")
    return load_mixture(name)


def _asked(config: Config) -> tuple[str, ...]:
    """Return the tasks that alone are asked, none where all are; raise UsageError for one that no template knows."""
    for task in config.data.tasks:
        if task not in templates():
            raise UsageError(f"no task {task!r}", where="data.tasks", remedy=suggestion(task, templates()))
    return config.data.tasks


def options_of(folders: Sequence[Path]) -> Options:
    """Return the possible answers to each question of the folders' datasets, where they are few enough to be listed."""
    found: dict[tuple[str, str], set[str]] = {}
    for folder in folders:
        for dataset, questions in read_classes(folder).items():
            for question, answers in questions.items():
                found.setdefault((dataset, question), set()).update(answers)
    return {key: tuple(sorted(answers)) for key, answers in found.items() if len(answers) <= _MOST_OPTIONS}


def prepare(
    config: Config,
    data: Sequence[Path],
    *,
    mixture: str | None = None,
    test_data: Sequence[str] = (),
    benchmark_data: Path | None = None,
    drop_leaks: bool = False,
    held_out: Sequence[Path] = (),
) -> Prepared:
    """Return the batches of a run over the rows of split `train` in folders `data`.

    What the configuration's monitor looks at are rows of the folders `held_out`, or else of `data`'s other splits.

    A shard that is missing or too short raises InputError.
    Rows that are also in the `test_data` (see `leakage`) raise DataError, or are left out with `drop_leaks`.
    """
    table, found = open_rows(data), mixture_of(config, mixture)
    table.require_shards()
    without = check_leaks(table, test_data, found, data=benchmark_data, drop=drop_leaks) if test_data else None
    units = units_of(table, without=without, tasks=_asked(config))
    found = changed(found, config.data, units.hours())
    steps = config.stages.bridge + config.stages.joint
    planner = Planner(units, found, sizes_of(config), steps=steps, seed=config.run.seed)
    dropped = "" if without is None else digest([int(row) for row in without.nonzero()[0]])
    identity = digest([table.sha256(), found.model_dump(mode="json"), dropped])
    kept = None
    if config.run.monitor_every is not None:
        other = open_rows(held_out) if held_out else table
        other.require_shards()
        kept = hold_out(other, config.run.monitor_clips, all_splits=bool(held_out), wording=config.data.wording)
    options = options_of(data) if config.data.wording.options_prob else {}
    batches = PlannedBatches(table, planner, config.data.wording, options)
    return Prepared(batches, training_list(table, found, units), identity, kept)


def training_list(table: RowTable, mixture: Mixture, units: Units) -> list[dict[str, Any]]:
    """Return `{dataset, split, licence}` of what is trained on, with the benchmark's tasks that it is a part of."""
    dataset, names = table.codes("dataset")
    licence, licences = table.codes("licence")
    own = {entry.name: entry for entry in mixture.datasets}
    pairs = sorted(set(zip(dataset[units.rows].tolist(), licence[units.rows].tolist(), strict=True)))
    found = set()
    for code, terms in pairs:
        if (entry := own.get(names[code])) is not None:
            found |= {(name, licences[terms]) for name in (entry.name, *entry.overlaps)}
    return [{"dataset": name, "split": TRAINED, "licence": terms} for name, terms in sorted(found)]


@dataclass(frozen=True, slots=True)
class MixRow:
    """A dataset of a mixture in numbers; None where there are no rows."""

    name: str
    domain: str
    hours: float
    licence: str
    available: str
    at_hand: float | None
    target: float | None
    realised: float | None


@dataclass(frozen=True, slots=True)
class MixReport:
    """A mixture in numbers. `seconds` are of the audio that the plan's steps hear; None without rows."""

    rows: tuple[MixRow, ...]
    steps: int | None
    seconds: float | None
    strangers: tuple[str, ...]
    too_long: int


def describe_mixture(mixture: Mixture, data: Sequence[Path], config: Config | None, seed: int = 0) -> MixReport:
    """Return a mixture's hours and target shares; with rows, what a plan over them gives each dataset.

    The plan is of the configuration's steps and sizes, or else of one pass over what is at hand; the mixture is as the
    configuration's `data` changes it.
    """
    if not data:
        hours = {entry.name: entry.hours for entry in mixture.datasets}
        mixture = mixture if config is None else changed(mixture, config.data, hours)
        hours = {entry.name: hours[entry.name] for entry in mixture.datasets}
        target = target_shares(mixture, hours, mixture.hours)
        return MixReport(_mix_rows(mixture, {}, target, {}), None, None, (), 0)
    units = units_of(open_rows(data), tasks=() if config is None else _asked(config))
    hours = units.hours()
    mixture = mixture if config is None else changed(mixture, config.data, hours)
    known = {entry.name for entry in mixture.datasets}
    if config is None:
        sizes = Sizes(batch_s=960.0, micro_batch_s=240.0, together=1)
        heard = sum(value for name, value in hours.items() if name in known)
        steps = max(1, round(heard * 3600 / sizes.batch_s))
    else:
        sizes, steps = sizes_of(config), config.stages.bridge + config.stages.joint
    planner = Planner(units, mixture, sizes, steps=steps, seed=seed if config is None else config.run.seed)
    seconds = planner.realised()
    total = sum(seconds.values())
    realised = {name: value / total for name, value in seconds.items()}
    strangers = tuple(name for name, value in hours.items() if value and name not in known)
    rows = _mix_rows(mixture, hours, planner.shares, realised)
    return MixReport(rows, steps, total, strangers, units.too_long)


def _mix_rows(
    mixture: Mixture, hours: dict[str, float], target: dict[str, float], realised: dict[str, float]
) -> tuple[MixRow, ...]:
    return tuple(
        MixRow(
            name=entry.name,
            domain=entry.domain,
            hours=entry.hours,
            licence=entry.licence,
            available=entry.available,
            at_hand=hours.get(entry.name),
            target=target.get(entry.name),
            realised=realised.get(entry.name),
        )
        for entry in mixture.datasets
    )
