"""YAML that may come from anywhere: values alone, of bounded size and depth, or an InputError that names the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from uwbench.errors import InputError

_LARGEST = 1 << 20  # characters; the largest real file is some kilobytes


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice and aliases, which can blow up to any size."""

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


def parse_yaml(text: str, where: str | Path) -> Any:
    """Return the value that `text` holds; raise InputError naming `where` for what is not plain YAML."""
    if len(text) > _LARGEST:
        raise InputError(f"larger than {_LARGEST:,} characters", where=where)
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        what = " ".join(str(error).split()) or "nested too deeply"
        raise InputError(f"is not valid YAML: {what}", where=where) from error


def read_yaml_file(path: Path) -> Any:
    """Return the value that a file holds; raise InputError naming it."""
    try:
        if path.stat().st_size > 4 * _LARGEST:  # UTF-8: four bytes a character at most
            raise InputError(f"larger than {_LARGEST:,} characters", where=path)
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=path) from error
    except UnicodeDecodeError as error:
        raise InputError(f"is not valid YAML: {' '.join(str(error).split())}", where=path) from error
    return parse_yaml(text, path)
