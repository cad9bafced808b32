"""Known facts about datasets: spelling of labels, questions, licence, ids of the publisher."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from pydantic import Field, model_validator

from uniwhisper.config import validated
from uniwhisper.data.wording import read_wording
from uwbench.base.schema import Closed


class Facts(Closed):
    """The facts about one dataset in `wording/datasets.yaml`; unknown ones are empty."""

    ask: tuple[str, ...] = ()
    labels: dict[str, str] = Field(default_factory=dict)
    columns: dict[str, dict[str, str]] = Field(default_factory=dict)
    source: str | None = None
    licence: str | None = None
    domain: str | None = None

    @model_validator(mode="after")
    def _spelt_once(self) -> Facts:
        for names in (self.labels, *self.columns.values()):
            moved = [value for value in names.values() if names.get(value, value) != value]
            if moved:
                raise ValueError(f"the word {moved[0]!r} is itself spelled another way")
        return self

    def names(self, column: str) -> dict[str, str]:
        """Return the words for a column's labels."""
        return {**self.labels, **self.columns.get(column, {})}

    def source_of(self, clip: str, group: str | None) -> str | None:
        """Return the publisher's id of a clip's recording, or None if unknown."""
        if self.source is None or self.source == "group":
            return group if self.source else None
        match = re.search(self.source, clip)
        return match[1] if match else None


@lru_cache(maxsize=1)
def _known() -> dict[str, Facts]:
    read: dict[str, Any] = read_wording("datasets")
    return {name: validated(Facts, fields, "wording/datasets.yaml") for name, fields in read.items()}


def facts_of(dataset: str) -> Facts:
    """Return the facts about a dataset by name; empty ones for an unknown dataset."""
    return _known().get(dataset, Facts())


@lru_cache(maxsize=1)
def language_names() -> dict[str, str]:
    """Return the English names of languages by ISO code."""
    return {str(code): str(name) for code, name in read_wording("languages").items()}
