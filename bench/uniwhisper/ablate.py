"""Ablations: arms that each change one setting of a configuration."""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from uniwhisper.config import Config, leaves, load_config, overlaid
from uwbench.api import InputError, UsageError
from uwbench.base.registry import suggestion
from uwbench.base.schema import Closed, first_fault
from uwbench.base.yaml_text import parse_yaml, read_yaml_file


class _File(Closed):
    title: str
    change: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Arm:
    """A named overlay of a configuration."""

    name: str
    title: str
    change: dict[str, Any]


def arms() -> list[Arm]:
    """Return the arms in the package."""
    files = [path for path in importlib.resources.files("uniwhisper.ablations").iterdir() if _is_yaml(path.name)]
    return [
        _arm(path.name.removesuffix(".yaml"), parse_yaml(path.read_text(encoding="utf-8"), path.name), path.name)
        for path in sorted(files, key=lambda path: path.name)
    ]


def find_arm(name: str) -> Arm:
    """Load an arm by name or from a YAML file; raise UsageError with suggestions, or InputError."""
    if _is_yaml(name):
        return _arm(Path(name).stem, read_yaml_file(Path(name)), name)
    known = {arm.name: arm for arm in arms()}
    if name not in known:
        raise UsageError(f"unknown arm {name!r}", remedy=suggestion(name, list(known)))
    return known[name]


def changes(arm: Arm, config: str, base: Mapping[str, Any] | None = None) -> dict[str, tuple[Any, Any]]:
    """Return the values before and after of each key that an arm changes in a configuration with `base`."""
    before = leaves(load_config(config, base))
    after = leaves(_with(arm, config, base))
    keys = {**before, **after}
    return {key: (before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)}


def run_arm(
    arm: Arm,
    config: str,
    data: Sequence[Path],
    output: Path,
    *,
    base: Mapping[str, Any] | None = None,
    mixture: str | None = None,
    allow_several: bool = False,
) -> Path:
    """Train an arm on folders of rows, resuming from `output`, and return its last checkpoint.

    Raises UsageError for an arm that changes nothing here, or more than one key without `allow_several`: what two
    changes do together says nothing of either.
    """
    from uniwhisper.sampling.prepare import prepare
    from uniwhisper.training.train import train

    changed = changes(arm, config, base)
    if not changed:
        raise UsageError(f"changes nothing of {config}", where=arm.name)
    if len(changed) > 1 and not allow_several:
        remedy = "make an arm of each, or give --allow-several"
        raise UsageError(f"changes {len(changed)} things: {', '.join(changed)}", where=arm.name, remedy=remedy)
    settings = _with(arm, config, base)
    prepared = prepare(settings, data, mixture=mixture)
    result = train(
        settings,
        prepared.batches,
        output,
        training_data=prepared.training_data,
        data_digest=prepared.digest,
        held_out=prepared.held_out,
    )
    return result.checkpoint


def _with(arm: Arm, config: str, base: Mapping[str, Any] | None) -> Config:
    return load_config(config, overlaid(base or {}, arm.change))


def _is_yaml(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def _arm(name: str, values: Any, where: str) -> Arm:
    try:
        file = _File.model_validate(values)
    except ValidationError as error:
        field, what = first_fault(error)
        raise InputError(f"is no arm of `title` and `change` ({field}: {what})", where=where) from error
    return Arm(name, file.title, file.change)
