"""Two encoders never share a fingerprint: code, modules beside it, weights, arguments and state all count."""

from __future__ import annotations

import linecache
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from uwbench.encoders.base import Encoded, EncoderInfo, ModelSpec
from uwbench.encoders.own_code import instance_identity, local_sources
from uwbench.encoders.resolve import open_encoder
from uwbench.errors import EncoderError

TWO = """
import torch
from uwbench.encoders.base import Encoded, EncoderInfo


class A:
    def __init__(self, spec):
        self.scale = 1.0
        self.info = EncoderInfo("own", "own", 16000, 4, ("last",), 0.02, None, identity={"version": 1})

    def load(self, device, dtype):
        pass

    def encode(self, waveforms, lengths, layers):
        count = -(-waveforms.shape[1] // 320)
        frames = torch.full((len(waveforms), len(layers), count, 4), self.scale)
        return Encoded(frames, (-(-lengths // 320)).clamp(min=1))


class B(A):
    def encode(self, waveforms, lengths, layers):
        encoded = super().encode(waveforms, lengths, layers)
        return Encoded(encoded.frames * 0, encoded.valid)
"""


def identity(path: Path, name: str = "A", **options: Any) -> dict[str, Any]:
    return dict(open_encoder(ModelSpec(f"{path}:{name}", **options)).info.identity)


def test_two_classes_of_one_file_differ(tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(TWO)
    assert identity(tmp_path / "two.py", "A") == identity(tmp_path / "two.py", "A")
    assert identity(tmp_path / "two.py", "A") != identity(tmp_path / "two.py", "B")


def test_weights_count_by_content_and_not_by_name(tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(TWO)
    for name, content in (("one.bin", b"1"), ("same.bin", b"1"), ("other.bin", b"2")):
        (tmp_path / name).write_bytes(content)
        (tmp_path / f"folder-{name}").mkdir()
        (tmp_path / f"folder-{name}" / "w").write_bytes(content)
    of = {
        name: identity(tmp_path / "two.py", weights=str(tmp_path / name))
        for name in ("one.bin", "same.bin", "other.bin")
    }
    assert of["one.bin"] == of["same.bin"] != of["other.bin"]
    first = identity(tmp_path / "two.py", weights=str(tmp_path / "folder-one.bin"))
    assert first == identity(tmp_path / "two.py", weights=str(tmp_path / "folder-same.bin"))
    assert first != identity(tmp_path / "two.py", weights=str(tmp_path / "folder-other.bin"))
    assert identity(tmp_path / "two.py", context="trimmed") != identity(tmp_path / "two.py")
    assert identity(tmp_path / "two.py", revision="main") != identity(tmp_path / "two.py")


@pytest.mark.parametrize(
    "importing",
    ["import helper", "from helper import SCALE", "from parts import deep", "from parts.deep import SCALE"],
)
def test_modules_beside_the_file_count(tmp_path: Path, importing: str) -> None:
    (tmp_path / "two.py").write_text(f"def late():\n    {importing}\n{TWO}")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "__init__.py").write_text("from .inner import x\n")
    (tmp_path / "parts" / "inner.py").write_text("x = 1\n")
    (tmp_path / "parts" / "deep.py").write_text("import helper\nSCALE = helper.SCALE\n")
    (tmp_path / "helper.py").write_text("SCALE = 1.0\n")
    (tmp_path / "unused.py").write_text("x = 1\n")
    before = identity(tmp_path / "two.py")
    (tmp_path / "unused.py").write_text("x = 2\n")
    assert identity(tmp_path / "two.py") == before
    (tmp_path / "helper.py").write_text("SCALE = 2.0\n")
    assert identity(tmp_path / "two.py") != before
    if "parts" in importing:
        between = identity(tmp_path / "two.py")
        (tmp_path / "parts" / "inner.py").write_text("x = 2\n")
        assert identity(tmp_path / "two.py") != between
    assert "unused" not in local_sources(tmp_path / "two.py")


def test_two_folders_with_helpers_of_one_name_run_their_own(tmp_path: Path) -> None:
    encoders = []
    for scale in (2.0, 3.0):
        folder = tmp_path / f"at{scale:.0f}"
        folder.mkdir()
        (folder / "helper.py").write_text(f"SCALE = {scale}\n")
        source = TWO.replace("self.scale = 1.0", "import helper\n        self.scale = helper.SCALE")
        source = source.replace("        pass\n", "        import helper\n        self.loaded = helper.SCALE\n")
        (folder / "two.py").write_text(source)
        encoders.append(open_encoder(ModelSpec(f"{folder}/two.py:A")))
    for encoder, scale in zip([*encoders, encoders[0]], (2.0, 3.0, 2.0), strict=True):
        encoder.load("cpu", "fp32")
        assert encoder.encode(torch.zeros(1, 320), torch.tensor([320]), [0]).frames.unique().item() == scale
        assert encoder._inner.loaded == scale  # type: ignore[attr-defined]


class Scaled:
    """An encoder defined in a program."""

    def __init__(self, scale: Any, dim: int = 4) -> None:
        self.scale = scale
        self.info = EncoderInfo("scaled", "own", 16_000, dim, ("last",), 0.02, None)

    def load(self, device: str, dtype: str) -> None: ...

    def encode(self, waveforms: torch.Tensor, lengths: torch.Tensor, layers: list[int]) -> Encoded:
        raise AssertionError


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (1.0, 2.0),
        (np.zeros(3), np.ones(3)),
        (torch.zeros(3), torch.ones(3)),
        ({"a": [1, 2]}, {"a": [1, 3]}),
        (lambda x: x + 1, lambda x: x + 2),
        (torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 2, bias=True)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_instance_is_known_by_its_state(first: Any, second: Any) -> None:
    assert instance_identity(Scaled(first)) == instance_identity(Scaled(first))
    assert instance_identity(Scaled(first)) != instance_identity(Scaled(second))


def test_equal_modules_with_other_weights_differ() -> None:
    torch.manual_seed(0)
    first, second = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    assert instance_identity(Scaled(first)) != instance_identity(Scaled(second))
    second.load_state_dict(first.state_dict())
    assert instance_identity(Scaled(first)) == instance_identity(Scaled(second))


def test_what_cannot_be_hashed_is_refused_by_name(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file, pytest.raises(EncoderError, match="attribute scale is a TextIOWrapper"):
        instance_identity(Scaled(file))
    namespace: dict[str, Any] = {}
    exec(TWO.replace("self, spec", "self"), namespace)
    with pytest.raises(EncoderError, match="has no source to identify it by"):
        instance_identity(namespace["A"]())


def from_cell(cell: str) -> Any:
    """Return an encoder of the class `A` that a notebook's cell defines."""
    name = f"/tmp/ipykernel_1/{len(linecache.cache)}.py"
    linecache.cache[name] = (len(cell), None, cell.splitlines(keepends=True), name)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
        exec(compile(cell, name, "exec"), namespace)
        return instance_identity(namespace["A"]())


def test_a_class_in_a_notebooks_cell_is_known_by_its_source() -> None:
    cell = TWO.replace("self, spec", "self").replace("    def encode", "    @torch.no_grad()\n    def encode")
    assert from_cell(cell) == from_cell("x = 1\n" + cell)
    assert from_cell(cell) != from_cell(cell.replace("1.0", "2.0"))
    both = cell + cell.replace("1.0", "2.0")
    assert from_cell(both) == from_cell(cell.replace("1.0", "2.0")), "the last of two classes of one name counts"
