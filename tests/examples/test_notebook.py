"""The notebook runs from start to end, and is committed with the outputs of such a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from conftest import ROOT

NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"


def outputs(notebook: Any) -> list[list[tuple[str, ...]]]:
    """Return the kinds of output of each cell of code: ("text/html", "text/plain"), ("image/png", ...), ..."""
    cells = (cell for cell in notebook.cells if cell.cell_type == "code")
    return [[tuple(sorted(output.get("data", [output.output_type]))) for output in cell.outputs] for cell in cells]


class Watcher(NotebookClient):
    """A client that keeps every HTML that a cell shows, also what is drawn over later."""

    shown: list[str]

    def process_message(self, msg: Any, *others: Any) -> Any:
        self.shown.append(msg["content"].get("data", {}).get("text/html", ""))
        return super().process_message(msg, *others)


@pytest.mark.slow
def test_the_notebook_runs_and_shows_what_was_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "bench"))
    committed = nbformat.read(NOTEBOOK, as_version=4)
    fresh = nbformat.read(NOTEBOOK, as_version=4)
    client = Watcher(fresh, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}})
    client.shown = []
    client.execute()
    assert any("<progress value='0.0000'></progress> logmel  calls  0/" in html for html in client.shown)
    assert not any("<progress" in str(cell.outputs) for cell in fresh.cells if cell.cell_type == "code")
    assert outputs(fresh) == outputs(committed)
    shown = [kind for cell in outputs(committed) for output in cell for kind in output]
    assert shown.count("image/png") == 4
    assert shown.count("text/html") == 8
    assert "error" not in shown


def test_the_committed_notebook_is_small_and_names_no_folder_of_its_maker() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < 300_000
    notebook = nbformat.reads(text, as_version=4)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            words = str([value for kind, value in output.get("data", {}).items() if kind != "image/png"])
            assert not any(part in words + output.get("text", "") for part in ("/tmp", "/home", "/root", "Path("))
