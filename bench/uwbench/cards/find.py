"""Find and read cards, suites and protocols by name or path.

The built-in ones are in `tasks/` (`uwbench/_tasks` in the wheel). Plug-ins add folders of cards through the entry-point
group `uwbench.cards`.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import importlib.resources
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ValidationError

from uwbench.base.registry import suggestion
from uwbench.base.yaml_text import read_yaml_file
from uwbench.cards.card import Card
from uwbench.cards.protocol import Protocol
from uwbench.cards.suite import Suite
from uwbench.errors import InputError, UsageError

Model = TypeVar("Model", bound=BaseModel)


def tasks_folder() -> Path:
    """Return the folder of built-in cards: the one in the installed package, or `tasks/` in a checkout."""
    packaged = Path(str(importlib.resources.files("uwbench"))) / "_tasks"
    checkout = Path(__file__).resolve().parents[3] / "tasks"
    for folder in (packaged, checkout):
        if (folder / "suites").is_dir():
            return folder
    raise InputError(f"no built-in task cards in {packaged} or {checkout}", remedy="reinstall uwbench")


def load_card(path: Path) -> Card:
    """Read a task card; raise InputError with the file and every invalid field."""
    return read_yaml(path, Card)


def load_suite(path: Path) -> Suite:
    """Read a suite; raise InputError with the file and every invalid field."""
    return read_yaml(path, Suite)


def load_protocol(path: Path) -> Protocol:
    """Read a protocol; raise InputError with the file and every invalid field."""
    return read_yaml(path, Protocol)


@lru_cache(maxsize=1)
def plugin_card_folders() -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Return the plug-ins' folders of cards, and one error line per broken plug-in.

    An entry point of the group `uwbench.cards` names a package that contains cards.
    """
    folders, errors = [], []
    for point in importlib.metadata.entry_points(group="uwbench.cards"):
        try:
            folders.append(Path(str(importlib.resources.files(point.value))))
        except (ImportError, TypeError) as error:
            errors.append(f"{point.name} ({point.value}): cannot find the plug-in's cards: {error}")
    return tuple(folders), tuple(errors)


def find_cards() -> tuple[dict[str, Card], list[str]]:
    """Return all cards by name, and one error line for each plug-in card that was skipped.

    A broken built-in card raises InputError, since suites would otherwise lose a task silently.
    """
    cards = {card.name: card for card in (load_card(path) for path in sorted(tasks_folder().glob("*.yaml")))}
    folders, errors = plugin_card_folders()
    skipped = list(errors)
    for folder in folders:
        for path in sorted(folder.glob("*.yaml")):
            try:
                card = load_card(path)
                if card.name in cards:
                    raise InputError(f"another card is already named {card.name!r}", where=path)
                cards[card.name] = card
            except InputError as error:
                skipped.append(str(error))
    return cards, skipped


def find_card(name: str) -> Card:
    """Return the card called `name`; raise UsageError with suggestions if there is none."""
    built_in = tasks_folder() / f"{name}.yaml"
    if re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", name) and built_in.is_file():
        return load_card(built_in)
    cards, _ = find_cards()
    if name not in cards:
        raise UsageError(f"unknown task {name!r}", remedy=suggestion(name, cards))
    return cards[name]


def find_suite(name: str) -> Suite:
    """Return a suite by name or path."""
    return _find(name, "suite", load_suite)


def find_protocol(name: str) -> Protocol:
    """Return a protocol by name or path."""
    return _find(name, "protocol", load_protocol)


def names_of(what: Literal["suite", "protocol"]) -> list[str]:
    """Return the names of the built-in suites or protocols."""
    return sorted(path.stem for path in (tasks_folder() / f"{what}s").glob("*.yaml"))


def load_vocabulary(name: str) -> tuple[str, ...]:
    """Return the classes in `tasks/labels/<name>.txt`, which has one per line, in order."""
    path = tasks_folder() / "labels" / f"{name}.txt"
    try:
        labels = tuple(line for line in path.read_text(encoding="utf-8").splitlines() if line)
    except OSError as error:
        raise InputError(f"cannot read the label list ({error.strerror})", where=path) from error
    if len(set(labels)) < len(labels):
        raise InputError("a label is listed twice", where=path)
    return labels


def _find(name: str, what: Literal["suite", "protocol"], load: Callable[[Path], Model]) -> Model:
    if name.endswith((".yaml", ".yml")):
        return load(Path(name))
    path = tasks_folder() / f"{what}s" / f"{name}.yaml"
    if name not in names_of(what):
        raise UsageError(f"unknown {what} {name!r}", remedy=suggestion(name, names_of(what)))
    return load(path)


def read_yaml(path: Path, model: type[Model]) -> Model:
    """Read a YAML file as `model`; raise InputError with the file and every invalid field."""
    data = read_yaml_file(path)
    if not isinstance(data, dict):
        raise InputError("contains no fields", where=path)
    try:
        loaded = model.model_validate(data)
    except ValidationError as error:
        raise InputError("; ".join(_explain(error)), where=path) from error
    if getattr(loaded, "name", path.stem) != path.stem:
        raise InputError(f"name: must be the same as the file name, {path.stem!r}", where=path)
    return loaded


def _explain(error: ValidationError) -> Iterator[str]:
    """Yield one readable phrase for each of pydantic's errors."""
    for item in error.errors(include_url=False):
        field = ".".join(str(part) for part in item["loc"])
        value = item["input"]
        if item["type"] == "literal_error":
            allowed = re.findall(r"'([^']*)'", item.get("ctx", {}).get("expected", ""))
            close = difflib.get_close_matches(str(value), allowed, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            yield f"{field}: {value!r} is not one of {', '.join(allowed)}{hint}"
        elif item["type"] == "extra_forbidden":
            yield f"{field}: unknown field"
        elif item["type"] == "missing":
            yield f"{field}: missing"
        elif item["type"] == "value_error":
            yield str(item.get("ctx", {}).get("error", item["msg"]))
        else:
            yield f"{field}: {item['msg'][0].lower()}{item['msg'][1:]}, got {value!r}"
