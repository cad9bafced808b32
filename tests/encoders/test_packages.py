"""Models of packages: what the catalogue says of them holds, and what is missing is said with the command that helps.

The packages are not here; `benchmarks/packages.py` makes an environment of each and runs every wrapper.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from conftest import ROOT, Command
from uwbench.api import EncoderError, ModelSpec, UsageError
from uwbench.encoders.catalogue import CATALOGUE
from uwbench.encoders.packages import WRAPPERS, packaged
from uwbench.encoders.resolve import open_encoder

PACKAGED = [entry for entry in CATALOGUE if entry.wrapper is not None]


def module_at(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"of_test_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def cases() -> list[str]:
    """The models that the benchmark runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        return [case.model for case in module_at(ROOT / "benchmarks" / "packages.py").CASES]


def test_the_verified_column_is_what_the_benchmark_runs(cases: list[str]) -> None:
    run = {entry.wrapper: entry.verified for entry in PACKAGED if entry.name in cases}
    for entry in PACKAGED:
        if entry.verified == "not run":
            assert entry.name not in cases
        elif entry.weights is None:
            assert entry.name in cases
            assert entry.verified == "weights"
        else:
            assert entry.verified == run[entry.wrapper] == "random", entry.name
    assert set(cases) <= {entry.name for entry in PACKAGED}


@pytest.mark.parametrize("entry", PACKAGED, ids=lambda entry: entry.name)
def test_a_wrapper_is_short_stands_alone_and_defines_its_class(entry: Any) -> None:
    assert "==" in entry.package
    assert entry.code is not None
    file, _, name = entry.wrapper.partition(":")
    text = (WRAPPERS / file).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 80
    tree = ast.parse(text, feature_version=(3, 8))  # workers run on Python 3.8 and later
    assert name in {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    imported = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert imported <= {"pathlib", "shared", "uwbench.encoders.base", "uwbench.errors"}
    # Its package must not be hidden by a file of ours, as the wrappers' folder comes first on the worker's path.
    ours = {path.stem for path in WRAPPERS.glob("*.py")}
    assert not ours & {entry.package.partition("==")[0], entry.code.partition(".")[0]}


def test_what_is_missing_is_said_with_what_helps(tmp_path: Path, uwbench: Command) -> None:
    with pytest.raises(UsageError, match=r"openbeats==0\.1\.1; then --python env/bin/python --weights PATH, "):
        open_encoder(ModelSpec("openbeats-large"))
    with pytest.raises(UsageError, match="needs its weights; --weights PATH, the folder of `hf download shikhar7ssu"):
        open_encoder(ModelSpec("openbeats-large", python=sys.executable))
    with pytest.raises(UsageError, match=r"there is no nowhere\.pt; dasheng_base\.pt of https://zenodo"):
        open_encoder(ModelSpec("dasheng-base", python=sys.executable, weights="nowhere.pt"))
    with pytest.raises(UsageError, match="has its weights in its package; drop --weights"):
        open_encoder(ModelSpec("crepe-tiny", python=sys.executable, weights=str(tmp_path)))
    (tmp_path / "weights.pt").write_bytes(b"")
    done = uwbench("models", "check", "beats-iter3", "--python", sys.executable, "--weights", tmp_path / "weights.pt")
    assert done.code == 1
    assert f"{sys.executable} -m pip install openbeats==0.1.1" in done.err
    (tmp_path / "mine.yaml").write_text(f"model: crepe-tiny\npython: {sys.executable}\n")
    with pytest.raises(EncoderError, match=r"pip install torchcrepe==0\.0\.24"):
        open_encoder(ModelSpec(str(tmp_path / "mine.yaml")))


def test_a_checkpoint_that_lacks_tensors_is_refused() -> None:
    shared = module_at(WRAPPERS / "shared.py")
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    tensors = model.state_dict()
    assert shared.fill(model, tensors, "here") is model
    del tensors["1.bias"]
    with pytest.raises(UsageError, match=r"here lacks 1 tensors of the model, the first is '1\.bias'"):
        shared.fill(model, tensors, "here")
    assert shared.fill(model, tensors, "here", computed=("1.",)) is model
    with pytest.raises(UsageError, match=r"needs --weights, a file; there is no None"):
        shared.given_weights(ModelSpec("x"), "a file")


def test_the_states_of_blocks_are_those_of_every_pass() -> None:
    shared = module_at(WRAPPERS / "shared.py")
    blocks = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    inputs = torch.randn(2, 4, 3)
    output, states = shared.block_states(blocks, lambda: torch.cat([blocks(part) for part in inputs]))
    assert [len(passes) for passes in states] == [2, 2, 2]
    assert torch.equal(torch.stack(states[0]), inputs)
    assert torch.equal(torch.stack(states[1]), blocks[0](inputs))
    assert torch.equal(torch.cat(states[2]), output)
    blocks(inputs)
    assert [len(passes) for passes in states] == [2, 2, 2]


def test_a_packaged_model_is_known_by_its_name_alone() -> None:
    assert packaged("openbeats-large") is not None
    assert packaged("whisper-tiny") is None


def test_a_model_without_a_wrapper_is_refused_with_what_one_needs() -> None:
    wanting = [entry for entry in CATALOGUE if entry.needs is not None]
    for entry in wanting:
        assert entry.verified == "not run"
        assert entry.wrapper is None
        assert entry.code is not None
        with pytest.raises(
            UsageError, match=r"no wrapper for it is here; write one \(docs/adding-an-encoder\.md\) around "
        ):
            open_encoder(ModelSpec(entry.name))
    assert "m2d-base" in {entry.name for entry in wanting}
