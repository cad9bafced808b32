"""Data files about wording: templates, languages, facts about datasets."""

from __future__ import annotations

import importlib.resources
from typing import Any

from uwbench.api import InputError
from uwbench.base.yaml_text import parse_yaml


def read_wording(name: str) -> dict[str, Any]:
    """Return a file of this folder; raise InputError if it is not a YAML mapping."""
    text = (importlib.resources.files(__name__) / f"{name}.yaml").read_text(encoding="utf-8")
    read = parse_yaml(text, f"{name}.yaml")
    if not isinstance(read, dict):
        raise InputError("is not a mapping", where=f"{name}.yaml")
    return read
