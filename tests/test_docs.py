"""The documentation is true: generated pages are current, the README's commands run, links lead somewhere."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import shlex
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile

from conftest import ROOT, Command
from uwbench import __all__ as public_names
from uwbench.cards.find import find_protocol


def generator() -> ModuleType:
    """Return the module docs/generate.py."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_command_line_page_is_current() -> None:
    module = generator()
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == module.render(), "run make docs"


def test_the_page_on_python_is_current_and_has_every_public_name() -> None:
    module = generator()
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert page == module.render_api(), "run make docs"
    assert not [name for name in public_names if f"\n### {name}\n" not in page and f"| `{name}` |" not in page]


def test_the_tables_of_the_readme_are_current() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert generator().with_tables(readme) == readme, "run make docs"


def python_of(page: str) -> list[str]:
    """Return the blocks of Python on a page."""
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.M | re.S)


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(python_of("README.md")[0], "README.md", "exec"), names)
    assert len(names["scores"]) == 4  # type: ignore[arg-type]
    assert (tmp_path / "board.html").stat().st_size > 100_000


def test_the_notebooks_cells_of_the_readme_run(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(workplace)  # a class in a cell has its source, as one in a file does
    names: dict[str, Any] = {}
    exec("import uwbench; from voice import Voice", names)
    exec(compile(python_of("README.md")[2], "README.md", "exec"), names)
    assert names["results"].failures == []
    assert set(names["results"].to_frame()["model"]) == {"voice", "logmel"}


def commands_of(page: str) -> list[list[str]]:
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines() if line.strip()]
    return [shlex.split(line, comments=True) for line in lines]


def run_commands(page: str, uwbench: Command) -> tuple[str, str]:
    """Run every command of a page, none of which may fail; return what they printed and what they reported."""
    out = err = ""
    for words in commands_of(page):
        done = uwbench(*words[1:])
        assert done.code == 0, f"{shlex.join(words)}\n{done.out}\n{done.err}"
        out, err = out + done.out, err + done.err
    return out, err


@pytest.fixture
def workplace(tmp_path: Path, small_whisper: Path) -> Path:
    """The files that the README's commands name: a model folder, an encoder file, a manifest with speakers."""
    shutil.copytree(small_whisper, tmp_path / "my_model")
    (tmp_path / "my_encoder.py").write_text(python_of("docs/adding-an-encoder.md")[0])
    (tmp_path / "voice.py").write_text(python_of("README.md")[1])
    data = tmp_path / "my_data"
    data.mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for index in range(40):
        path = data / f"{index:02d}.wav"
        pitch = 300 if index % 2 else 2000
        tone = np.sin(2 * np.pi * pitch * np.arange(4000) / 16_000)
        soundfile.write(path, 0.3 * tone + 0.05 * rng.standard_normal(4000), 16_000)
        split = ("train", "train", "valid", "test")[index // 2 % 4]
        rows.append((path.name, "low" if index % 2 else "high", split, f"speaker{index // 8}"))
    with (data / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split", "speaker"), *rows])
    return tmp_path


def test_every_command_of_the_readme_runs(workplace: Path, uwbench: Command) -> None:
    commands = commands_of("README.md")
    assert len(commands) > 15
    for words in commands:
        assert words[0] == "uwbench"
        done = uwbench(*words[1:])
        assert done.code == 0, f"{shlex.join(words)}\n{done.out}\n{done.err}"
    assert (workplace / "board.html").is_file()


def test_the_encoder_of_its_page_passes_the_check(workplace: Path, uwbench: Command) -> None:
    done = uwbench("models", "check", workplace / "my_encoder.py:BandEnergies")
    assert done.code == 0, done.out
    assert "hop              20 ms (20 ms declared)" in done.out


def test_the_encoder_of_texts_on_its_page_is_scored(workplace: Path, uwbench: Command) -> None:
    (workplace / "pitched.py").write_text(python_of("docs/adding-an-encoder.md")[2])
    done = uwbench("run", "-m", "pitched.py:Pitched", "-t", "my_data", "--method", "zero-shot,knn")
    assert done.code == 0, done.err
    (path,) = (workplace / "results").rglob("my_data.json")
    scores = json.loads(path.read_text())["scores"]
    assert scores["zero-shot"]["main_score"] == 1.0
    assert scores["zero-shot"]["raw"]["lowest template"] == 1.0


def test_the_page_on_methods_has_the_templates_of_the_protocol() -> None:
    page = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    templates = find_protocol("uwbench-1").methods["zero-shot"]["templates"]
    for row in zip(*(templates[domain] for domain in ("sound", "music", "speech")), strict=True):
        assert f"| {' | '.join(row)} |" in page


def test_every_command_on_robustness_runs(workplace: Path, uwbench: Command) -> None:
    printed, _ = run_commands("docs/robustness.md", uwbench)
    assert "my_data, corrupted (kNN)" in printed
    assert "| 5 points lost at |" in printed


def test_every_command_on_methods_runs(workplace: Path, uwbench: Command) -> None:
    printed, _ = run_commands("docs/methods.md", uwbench)
    assert re.search(r"my_data: (logmel|mfcc) is ahead", printed)


def test_every_command_on_maeb_runs(uwbench: Command) -> None:
    printed, _ = run_commands("docs/maeb.md", uwbench)
    assert "mteb pair classification" in printed


def test_the_segments_of_the_page_on_models_are_stored_and_loaded(workplace: Path, uwbench: Command) -> None:
    printed = "".join(run_commands("docs/models.md", uwbench))
    assert "40 to encode with segments" in printed
    assert "mean,mean-all,segments" in printed
    names: dict[str, Any] = {}
    exec(compile("import uwbench\n" + python_of("docs/models.md")[0], "docs/models.md", "exec"), names)
    assert names["segments"].vectors.shape[:3] == (40, 1, 15)


def test_every_command_on_the_certainty_of_ranks_runs(uwbench: Command) -> None:
    printed, _ = run_commands("docs/leaderboard.md", uwbench)
    assert "practically equal, with a margin of 0.5 points" in printed
    assert "To tell A and B apart" in printed


def test_every_command_on_bundles_runs_and_so_does_its_python(tmp_path: Path, uwbench: Command) -> None:
    printed, _ = run_commands("docs/bundles.md", uwbench)
    assert "mfcc, mini_music: equal" in printed
    (block,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "bundles.md").read_text("utf-8"), re.M | re.S)
    names: dict[str, Any] = {}
    exec(compile(block, "docs/bundles.md", "exec"), names)
    assert names["verified"].equal
    assert list(names["board"].to_frame()["model"]) == ["mfcc"]


def test_the_site_lists_every_page() -> None:
    listed = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert not [page.name for page in (ROOT / "docs").glob("*.md") if f": docs/{page.name}\n" not in listed]


def test_links_of_the_documentation_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
            assert "://" in target or (page.parent / target).exists(), f"{page.name} links to {target}"
