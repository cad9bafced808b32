"""Prepare a training run from folders and files: rows, mixture, plan, and their record in checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uniwhisper.config import Augment, Config
from uniwhisper.data.convert import read_classes
from uniwhisper.data.leakage import check_leaks
from uniwhisper.data.mixture import Mixture, changed, load_mixture, target_shares
from uniwhisper.data.rows import RowTable, open_rows
from uniwhisper.data.templates import templates
from uniwhisper.sampling.augment import NAMING_TASKS, STRETCH_TASKS
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
    """Batches, their list of training data for the export, their digest for resuming, and held-out clips."""

    batches: PlannedBatches
    training_data: list[dict[str, Any]]
    digest: str
    held_out: HeldOut | None


def sizes_of(config: Config) -> Sizes:
    """Return a configuration's batch sizes."""
    run, data = config.run, config.data
    return Sizes(run.batch_s, run.micro_batch_s, data.bins, data.together, data.qa_per_audio, data.pad30_prob)


def mixture_of(config: Config, mixture: str | None) -> Mixture:
    """Return the mixture named by the command, or by the configuration; raise UsageError without one."""
    name = mixture or config.data.mixture
    if name is None:
        raise UsageError("no mixture is named", where="data.mixture", remedy="give --mixture FILE")
    return load_mixture(name)


def _asked(config: Config) -> tuple[str, ...]:
    """Return the tasks to ask, empty for all; raise UsageError for a task without template."""
    for task in config.data.tasks:
        if task not in templates():
            raise UsageError(f"no task {task!r}", where="data.tasks", remedy=suggestion(task, templates()))
    return config.data.tasks


def options_of(folders: Sequence[Path]) -> Options:
    """Return the possible answers per dataset and question, for those with few enough to list."""
    options: dict[tuple[str, str], set[str]] = {}
    for folder in folders:
        for dataset, questions in read_classes(folder).items():
            for question, answers in questions.items():
                options.setdefault((dataset, question), set()).update(answers)
    return {key: tuple(sorted(answers)) for key, answers in options.items() if len(answers) <= _MOST_OPTIONS}


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

    Held-out clips for the monitor come from the folders `held_out`, or from the other splits of `data`. A shard that is
    missing or too short raises InputError, and so do rows that are in `test_data` (see `leakage`), unless `drop_leaks`
    leaves them out.
    """
    table, chosen = open_rows(data), mixture_of(config, mixture)
    table.require_shards()
    without = check_leaks(table, test_data, chosen, data=benchmark_data, drop=drop_leaks) if test_data else None
    units = units_of(table, without=without, tasks=_asked(config))
    chosen = changed(chosen, config.data, units.hours())
    steps = config.stages.bridge + config.stages.joint
    planner = Planner(units, chosen, sizes_of(config), steps=steps, seed=config.run.seed)
    dropped = "" if without is None else digest([int(row) for row in without.nonzero()[0]])
    identity = digest([table.sha256(), chosen.model_dump(mode="json"), dropped])
    examples = None
    if config.run.monitor_every is not None:
        other = open_rows(held_out) if held_out else table
        other.require_shards()
        examples = hold_out(other, config.run.monitor_clips, all_splits=bool(held_out), wording=config.data.wording)
    options = options_of(data) if config.data.wording.options_prob else {}
    _require_effect(config.data.augment, table, units)
    batches = PlannedBatches(table, planner, config.data.wording, options, config.data.augment)
    return Prepared(batches, training_list(table, chosen, units), identity, examples)


def _require_effect(augment: Augment, table: RowTable, units: Units) -> None:
    """Raise UsageError for a kind of augmentation that no question of the data allows."""
    task, names = table.codes("task")
    asked = {names[code] for code in set(task[units.rows].tolist())}
    for key, is_on, needed in (
        ("mix_prob", augment.mix_prob > 0, NAMING_TASKS),
        ("crop_share", augment.crop_share < 1, STRETCH_TASKS),
    ):
        if is_on and not asked & needed:
            remedy = f"leave it out, or ask one of the tasks {', '.join(sorted(needed))}"
            raise UsageError("changes nothing: no question allows it", where=f"data.augment.{key}", remedy=remedy)


def training_list(table: RowTable, mixture: Mixture, units: Units) -> list[dict[str, Any]]:
    """Return `{dataset, split, licence}` of all training data, including benchmark tasks that are part of it."""
    dataset, names = table.codes("dataset")
    licence, licences = table.codes("licence")
    entries = {entry.name: entry for entry in mixture.datasets}
    pairs = sorted(set(zip(dataset[units.rows].tolist(), licence[units.rows].tolist(), strict=True)))
    listed = set()
    for code, terms in pairs:
        if (entry := entries.get(names[code])) is not None:
            listed |= {(name, licences[terms]) for name in (entry.name, *entry.overlaps)}
    return [{"dataset": name, "split": TRAINED, "licence": terms} for name, terms in sorted(listed)]


@dataclass(frozen=True, slots=True)
class MixRow:
    """One dataset of a mixture in numbers; None without rows."""

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
    """A mixture in numbers. `seconds` is the audio used by the plan's steps; None without rows."""

    rows: tuple[MixRow, ...]
    steps: int | None
    seconds: float | None
    strangers: tuple[str, ...]
    too_long: int


def describe_mixture(mixture: Mixture, data: Sequence[Path], config: Config | None, seed: int = 0) -> MixReport:
    """Return a mixture's hours and target shares; with rows, what a plan over them gives each dataset.

    The plan has the configuration's steps and sizes, or is one pass over the available data; the configuration's `data`
    is applied to the mixture.
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
