"""A model card: a small YAML file that describes a model, its environment and its training data.

    model: my_encoder.py:MyEncoder      # what -m takes; paths start from the card's folder
    python: envs/mine/bin/python        # the interpreter it runs in; without it, this one
    weights: weights.pt
    training_data: [{dataset: fsd50k, split: train}]

Results call the model after the file.
"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from uwbench.base.schema import Closed
from uwbench.cards.find import read_yaml
from uwbench.encoders.base import EncoderInfo, ModelSpec
from uwbench.encoders.own_code import training_data_in
from uwbench.errors import InputError, UsageError

SUFFIXES = (".yaml", ".yml")
_Text = Annotated[str, Field(min_length=1, max_length=1000)]


class ModelCard(Closed):
    """The content of a model card."""

    model: _Text
    python: _Text | None = None
    timeout_s: Annotated[float, Field(gt=0)] | None = None
    weights: _Text | None = None
    context: Literal["full", "trimmed"] | None = None
    revision: _Text | None = None
    licence: _Text | None = None
    training_data: tuple[str | dict[str, Any], ...] | None = None


def read_card(path: Path) -> ModelCard:
    """Read a model card; raise UsageError if there is none, InputError naming the field if it is not valid."""
    if not path.is_file():
        raise UsageError("there is no such model card", where=f"-m {path}")
    return read_yaml(path, ModelCard)


def spec_of(card: ModelCard, path: Path, spec: ModelSpec) -> ModelSpec:
    """Return the model that a card names; options that the caller gave come first."""
    if card.model.endswith(SUFFIXES):
        raise InputError("model: names another model card", where=path)
    stated = {
        "weights": _place(card.weights, path),
        "python": _place(card.python, path),
        "revision": card.revision,
        "context": card.context,
        "timeout_s": card.timeout_s,
    }
    defaults = {field.name: field.default for field in fields(ModelSpec)}
    unset = {name: value for name, value in stated.items() if getattr(spec, name) == defaults[name]}
    chosen: dict[str, Any] = {name: value for name, value in unset.items() if value is not None}
    return replace(spec, name=_place(card.model, path), **chosen)


def with_facts(info: EncoderInfo, card: ModelCard, path: Path) -> EncoderInfo:
    """Return an encoder's facts with those that its card states."""
    trained_on = training_data_in(None if card.training_data is None else list(card.training_data), str(path))
    return replace(
        info,
        name=path.stem,
        licence=card.licence or info.licence,
        training_data=info.training_data if trained_on is None else trained_on,
    )


def _place(text: str | None, card: Path) -> Any:
    """Return a path from the card's folder if there is one, else the text."""
    if text is None:
        return None
    file, mark, name = text.rpartition(":") if ".py:" in text else (text, "", "")
    beside = card.parent / file
    return f"{beside}{mark}{name}" if beside.exists() else text
