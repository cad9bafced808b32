"""Suites: lists of tasks to average over."""

from __future__ import annotations

from pydantic import Field

from uwbench.base.schema import Closed
from uwbench.cards.card import Name, Text


class Suite(Closed):
    """An ordered list of tasks to average over."""

    name: Name
    version: int = Field(gt=0)
    title: Text
    tasks: tuple[Name, ...] = Field(min_length=1)
    note: str = ""
