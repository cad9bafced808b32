"""The closed pydantic base of cards, results and cache records, and what is wrong with data that does not fit."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, ValidationError


class Closed(BaseModel):
    """A frozen model that refuses unknown fields, NaN and infinities."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def first_fault(error: ValidationError) -> tuple[str, str]:
    """Return the first wrong field, as `model.layers.0`, and what is wrong with it."""
    first = error.errors(include_url=False, include_input=False)[0]
    return ".".join(map(str, first["loc"])), str(first["msg"]).removeprefix("Value error, ")
