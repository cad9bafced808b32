"""The wheel, installed outside the checkout, does what the README's quick start says."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from conftest import ROOT, missing

pytestmark = pytest.mark.slow

NUMBER = re.compile(r"\d\.\d+")


def run(*words: object, folder: Path) -> str:
    """Run a program in a folder, without this checkout on its path; return what it printed."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "UWBENCH"))}
    env |= {"COLUMNS": "80", "XDG_CACHE_HOME": str(folder / "home")}
    ended = subprocess.run([*map(str, words)], cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"{words}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    if importlib.util.find_spec("hatchling") is None:
        missing("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, folder=folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a fresh environment with the wheel, which borrows this one's other packages."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder, folder=folder)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index"]
    run(*pip, wheel, folder=folder)
    packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=folder).strip())
    # A path file within these folders, as that of an editable install, is not read.
    borrowed = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "borrowed.pth").write_text("\n".join(borrowed), encoding="utf-8")
    return folder / "bin"


def test_it_holds_the_cards_the_published_results_and_no_tests(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, packed in (("tasks", "uwbench/_tasks"), ("results/reference", "uwbench/_reference")):
        files = [path for path in (ROOT / folder).rglob("*") if path.is_file() and path.name[0] != "."]
        assert files
        assert {f"{packed}/{path.relative_to(ROOT / folder)}" for path in files} <= names
    configs = {f"uniwhisper/configs/{path.name}" for path in (ROOT / "bench/uniwhisper/configs").glob("*.yaml")}
    assert configs <= names
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"uwbench", "uniwhisper"}


def test_its_programs_start_and_know_their_data(programs: Path, tmp_path: Path) -> None:
    where = run(programs / "python", "-c", "import uwbench; print(uwbench.__file__)", folder=tmp_path)
    assert where.startswith(str(programs.parent))
    assert "esc50" in run(programs / "uwbench", "tasks", folder=tmp_path)
    assert "full" in run(programs / "uniwhisper", "plan", "full", folder=tmp_path)


def test_the_quick_start_prints_what_the_readme_says(programs: Path, tmp_path: Path) -> None:
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Quick start")[2]
    (command,) = re.search(r"```sh\n(.*?)```", section, re.S)[1].splitlines()  # type: ignore[index]
    promised = re.search(r"```text\n(.*?)```", section, re.S)[1].splitlines()  # type: ignore[index]
    program, *words = command.split()
    printed = [line.split() for line in run(programs / program, *words, folder=tmp_path).splitlines()]
    shapes = [[NUMBER.sub("0", word) for word in line] for line in printed]
    for line in filter(None, map(str.split, promised)):
        at = shapes.index([NUMBER.sub("0", word) for word in line])
        numbers = zip(NUMBER.findall(" ".join(line)), NUMBER.findall(" ".join(printed[at])), strict=True)
        assert all(abs(float(said) - float(got)) < 0.02 for said, got in numbers), (line, printed[at])
        shapes[at] = []  # each line once
    board = run(programs / "uwbench", "leaderboard", "-s", "xares-22", "--format", "md", folder=tmp_path)
    assert "| X-ARES README v0.1.3 | whisper-base | mlp |" in board
