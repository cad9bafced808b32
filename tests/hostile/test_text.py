"""YAML from users and datasets yields plain values: no depth, alias, repeated key or odd value ends in a traceback."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniwhisper.ablate import find_arm
from uniwhisper.config import load_config
from uniwhisper.data.mixture import load_mixture
from uniwhisper.export import read_training_data
from uwbench.base.yaml_text import parse_yaml
from uwbench.cards.find import load_card, load_protocol, load_suite
from uwbench.errors import InputError

BOMB = "a: &a [x, x, x]\nb: &b [*a, *a, *a]\nc: [*b, *b, *b]\n"
HOSTILE = {
    "deep": "[" * 5000,
    "aliases": BOMB,
    "twice": "name: a\nname: b\n",
    "impossible date": "name: 2024-13-45\n",
    "code": "!!python/object/apply:os.system ['touch ran']\n",
    "large": "name: " + "x" * 5_000_000,
    "a key that is a list": "? [1, 2]\n: 3\n",
    "control characters": "name: a\x07\n",
    "not UTF-8": b"name: \xff\xfe\n",
    "nothing": "",
}
READERS: dict[str, Callable[[Path], Any]] = {
    "card": load_card,
    "suite": load_suite,
    "protocol": load_protocol,
    "configuration": lambda path: load_config(str(path)),
    "mixture": lambda path: load_mixture(str(path)),
    "arm": lambda path: find_arm(str(path)),
    "training data": read_training_data,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", HOSTILE)
def test_no_yaml_is_more_than_values(name: str, reader: str, tmp_path: Path) -> None:
    path = tmp_path / "name.yaml"
    text = HOSTILE[name]
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=r"name\.yaml"):
        READERS[reader](path)
    assert not (tmp_path / "ran").exists()


@given(st.text(alphabet="{}[]:,-&*!|>'\"#%@?\n\t ab0.\x00", max_size=60))
def test_any_text_is_a_value_or_our_error(text: str) -> None:
    with suppress(InputError):
        parse_yaml(text, "here")
