"""A mixture of the data at hand: made from the rows of folders, written as a file to edit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from uniwhisper.data.mixture import Mixture
from uniwhisper.data.rows import open_rows
from uniwhisper.sampling.clips import units_of
from uwbench.api import InputError, UsageError
from uwbench.base.atomic import write_atomically
from uwbench.base.schema import Closed

_OWN_EPOCHS = 60  # own data are often an hour or less, and a short run repeats them
_MIXTURE_HEAD = """\
# Shares of audio-seconds: those of domains are fixed, and go to the others where a domain has no data. Within a
# domain, a dataset's share grows with weight * hours ** alpha. No dataset is heard more often than caps.epochs times,
# or caps.small_epochs below caps.small_hours; datasets with a task of replay.tasks have at least replay.share together.
"""


def mixture_of_data(data: Sequence[Path], name: str, known: Mixture | None = None) -> Mixture:
    """Return a mixture of the datasets in folders, with what their rows say of each.

    Entries of `known` are taken as they are: they also say what the benchmark has of a dataset. Raises InputError for
    folders without rows of split `train`.
    """
    table = open_rows(data)
    units = units_of(table)
    entries = {entry.name: entry for entry in known.datasets} if known is not None else {}
    columns = {column: table.codes(column) for column in ("dataset", "task", "domain", "licence")}
    codes, names = columns["dataset"]
    folders = {name: folder for folder in data for name in open_rows([folder]).codes("dataset")[1]}
    datasets = []
    for code, hours in enumerate(units.hours().values()):
        of_dataset = units.rows[codes[units.rows] == code]
        if not len(of_dataset):
            continue
        if names[code] in entries:
            datasets.append(entries[names[code]])
            continue
        told = {
            column: sorted({values[index] for index in numbers[of_dataset].tolist()})
            for column, (numbers, values) in columns.items()
        }
        if len(told["domain"]) > 1:
            what = f"the dataset {names[code]} has the domains {', '.join(told['domain'])}"
            raise InputError(what, where="--data", remedy="convert them under different names (--name)")
        datasets.append(
            {
                "name": names[code],
                "title": names[code],
                "domain": told["domain"][0],
                "hours": max(round(hours, 3), 0.001),
                "tasks": told["task"],
                "licence": "; ".join(told["licence"]),
                "where": str(folders[names[code]]),
                "available": "own",
                "hours_verified": True,
                "licence_verified": False,
            }
        )
    if not datasets:
        raise InputError("no rows are of the split train", where="--data", remedy="convert training clips")
    values = {"name": name, "caps": {"small_epochs": _OWN_EPOCHS}, "datasets": datasets}
    return Mixture.model_validate(values)


def write_mixture(mixture: Mixture, path: Path) -> Path:
    """Write a mixture as a file to edit; raise UsageError if the file is there."""
    if path.exists():
        raise UsageError("is there already", where=path, remedy="name a new file, or edit that one")
    values = mixture.model_dump(mode="json", exclude_defaults=True)
    # What one may want to change is written out even where it is the default.
    shown = {"alpha": mixture.alpha, "caps": mixture.caps, "domains": mixture.domains, "replay": mixture.replay}
    shares = {name: part.model_dump(mode="json") if isinstance(part, Closed) else part for name, part in shown.items()}
    text = yaml.safe_dump({"name": mixture.name, **shares, "datasets": values["datasets"]}, sort_keys=False)
    write_atomically(path, (_MIXTURE_HEAD + text).encode())
    return path
