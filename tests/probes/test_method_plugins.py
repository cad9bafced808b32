"""Methods of other packages: found by their entry points, run, shown, and refused with the reason."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from conftest import ROOT
from uwbench.cards.find import find_card, find_protocol
from uwbench.errors import UsageError
from uwbench.methods import BUILTIN_METHODS, Methods
from uwbench.probes.run import applicable

PAGE = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8").partition("### In a package of its own")[2]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)


def install(folder: Path, module: str, code: str, points: dict[str, str]) -> None:
    """Write a module and the metadata that an installed distribution with these entry points has."""
    folder.mkdir(exist_ok=True)
    (folder / f"{module}.py").write_text(code, encoding="utf-8")
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n", encoding="utf-8")
    lines = ["[uwbench.methods]", *(f"{name} = {target}" for name, target in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_the_package_of_the_page_is_scored_and_shown(tmp_path: Path) -> None:
    (toml,), (code,) = blocks("toml"), blocks("python")
    points = tomllib.loads(toml)["project"]["entry-points"]["uwbench.methods"]
    install(tmp_path / "packages", "nearest_mean", code, points)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path / "packages"), str(ROOT / "bench")])}

    def uwbench(*words: str) -> str:
        command = [sys.executable, "-m", "uwbench", *words]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    uwbench("run", "-m", "mfcc", "-t", "mini_sound", "--method", "nearest-mean,linear")
    cells = {cell["method"]: cell for cell in json.loads(uwbench("leaderboard", "--json"))["scores"]}
    assert list(cells) == ["linear", "nearest-mean"]
    mean = cells["nearest-mean"]
    assert 0.3 < mean["low"] < mean["score"] < mean["high"] <= 1


BROKEN = """
from uwbench.methods import MethodInfo

def made(name="broken", **more):
    return MethodInfo(name, name, name, "?", ("single-label",), "broken:score", **more)

OTHER_NAME = made("other", settings={"version": 1})
NO_SETTINGS = made()
NO_VERSION = made(settings={"clips": 3})
HEADLINE = made(settings={"version": 1}, headline=True)
MLP = made("mlp", settings={"version": 1})
GOOD = made(settings={"version": 1})
TEXT = "broken"
"""


@pytest.mark.parametrize(
    ("name", "target", "complaint"),
    [
        ("broken", "TEXT", "'broken' .broken:TEXT. is no MethodInfo"),
        ("broken", "OTHER_NAME", "is no MethodInfo of the name 'broken'"),
        ("broken", "NO_SETTINGS", "has no settings with a version"),
        ("broken", "NO_VERSION", "has no settings with a version"),
        ("broken", "HEADLINE", "is of the headline"),
        ("broken", "MISSING", "cannot be imported"),
        ("mlp", "MLP", "takes a name of uwbench's"),
    ],
)
def test_a_broken_plugin_is_named(
    name: str, target: str, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "packages", "broken", BROKEN, {name: f"broken:{target}"})
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    with pytest.raises(UsageError, match=complaint):
        list(Methods())


def test_plugins_come_after_the_methods_that_uwbench_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "packages", "broken", BROKEN, {"broken": "broken:GOOD"})
    monkeypatch.syspath_prepend(tmp_path / "packages")
    methods = Methods()
    assert list(methods) == [*BUILTIN_METHODS, "broken"]
    assert len(methods) == len(BUILTIN_METHODS) + 1
    monkeypatch.setattr("uwbench.probes.run.METHODS", methods)
    monkeypatch.setattr("uwbench.cards.protocol.METHODS", methods)
    runs, _ = applicable(["broken"], find_protocol("uwbench-1"), find_card("esc50"))
    assert runs == ["broken"]
    none, notes = applicable(["broken"], find_protocol("xares-0.1.3"), find_card("esc50"))
    assert (none, notes) == ([], ["esc50: not scored by broken, which xares-0.1.3 does not run"])
