"""Parse untrusted YAML: plain values, of bounded size and depth."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

from uwbench.errors import InputError

# Where PyYAML has libyaml, that splits the text into events, which takes most of the time; nodes are composed below.
_Events: Any = importlib.import_module("yaml.cyaml").CParser if yaml.__with_libyaml__ else object

_LARGEST = 1 << 20  # characters; real files have a few thousand


class _Plain(Composer, SafeConstructor, Resolver):
    """Safe YAML without repeated keys, and without aliases, which can expand to any size."""

    check_event: Any

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"{key!r} is given twice")
        return super().construct_mapping(node, deep)


class _LoaderInC(_Plain, _Events):
    """Events from libyaml."""

    def __init__(self, text: str) -> None:
        _Events.__init__(self, text)
        Composer.__init__(self)
        SafeConstructor.__init__(self)
        Resolver.__init__(self)


class _LoaderInPython(_Plain, yaml.SafeLoader):
    """Events from PyYAML."""


def parse_yaml(text: str, where: str | Path) -> Any:
    """Return the value of a YAML text; raise InputError naming `where` if it is not plain YAML."""
    if len(text) > _LARGEST:
        raise InputError(f"larger than {_LARGEST:,} characters", where=where)
    try:
        return yaml.load(text, _LoaderInC if yaml.__with_libyaml__ else _LoaderInPython)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        what = " ".join(str(error).split()) or "nested too deeply"
        raise InputError(f"is not valid YAML: {what}", where=where) from error


def read_yaml_file(path: Path) -> Any:
    """Return the value of a YAML file; raise InputError naming the file if it cannot be read."""
    try:
        if path.stat().st_size > 4 * _LARGEST:  # UTF-8: at most four bytes per character
            raise InputError(f"larger than {_LARGEST:,} characters", where=path)
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=path) from error
    except UnicodeDecodeError as error:
        raise InputError(f"is not valid YAML: {' '.join(str(error).split())}", where=path) from error
    return parse_yaml(text, path)
