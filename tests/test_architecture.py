"""The house holds: modules import downward only, and light commands load nothing heavy."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import uwbench

PACKAGE = Path(uwbench.__file__).parent

# A module may import from its own layer's folder and from layers below; `stages` never import each other.
LAYERS = {
    "errors": 0,
    "clip": 0,
    "registry": 0,
    "fingerprint": 0,
    "files": 0,
    "json_text": 0,
    "yaml_text": 0,
    "card": 0,
    "audio": 0,
    "metrics": 0,
    "result": 0,
    "provenance": 0,
    "options": 0,
    "device": 0,
    "stopping": 0,
    "bootstrap": 1,
    "score": 1,
    "clip_table": 1,
    "mapped": 0,
    "part_files": 0,
    "store_records": 0,
    "store": 1,
    "scan": 1,
    "pool": 1,
    "sources": 1,
    "encoders": 1,
    "contamination": 1,
    "forward": 2,
    "plan": 2,
    "extract": 3,
    "extract_ray": 4,
    "parity": 4,
    "probes": 2,
    "probing": 3,
    "report": 3,
    "upkeep": 2,
    "doctor": 2,
    "reproduce": 4,
    "inflation": 4,
    "run": 5,
    "api": 6,
    "console": 6,
    "cli_options": 7,
    "cli_board": 8,
    "cli_listings": 8,
    "cli": 9,
    "__main__": 10,
}
STAGES = {
    "extract": {"probes", "probing", "report"},
    "probing": {"extract", "plan", "report"},
    "report": {"extract", "probing"},
}
# Read where a name is needed at run time only: the public functions of the layer above.
CALLS_UP = {("__init__", "api")}


def python(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a fresh interpreter."""
    env = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=env)


def modules() -> list[tuple[str, Path]]:
    return [(path.relative_to(PACKAGE).parts[0].removesuffix(".py"), path) for path in sorted(PACKAGE.rglob("*.py"))]


def imported(path: Path) -> set[str]:
    """Return the names of this package's modules that a file imports anywhere, for typing too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = (
                [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "uwbench" else [node.module]
            )
        found |= {name.split(".")[1] for name in names if name.startswith("uwbench.")}
    return found


def test_every_module_has_a_layer() -> None:
    assert {name for name, _ in modules()} - {"__init__"} == set(LAYERS)


@pytest.mark.parametrize(("name", "path"), modules(), ids=lambda value: str(value).rpartition("/")[2])
def test_imports_go_downward(name: str, path: Path) -> None:
    for other in imported(path) - {name, "__version__"}:
        if (name, other) in CALLS_UP:
            continue
        assert LAYERS.get(name, 99) > LAYERS[other] or LAYERS.get(name) == LAYERS[other] < 2, f"{path} imports {other}"
        assert other not in STAGES.get(name, set()), f"{path}: stages meet on disk, {name} imports {other}"


def test_uwbench_never_imports_the_companion() -> None:
    assert not [path for _, path in modules() if "uniwhisper" in {n.split(".")[0] for n in _all_imports(path)}]


def _all_imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    froms = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return froms | {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}


@pytest.mark.parametrize(
    "words", [["--help"], ["tasks"], ["protocols"], ["models"], ["leaderboard"], ["cache", "ls"]], ids=" ".join
)
def test_light_commands_load_nothing_heavy(words: list[str]) -> None:
    program = (
        "import sys\n"
        "from uwbench.cli import main\n"
        f"sys.argv = ['uwbench', *{words!r}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'torch', 'transformers', 'datasets', 'faiss', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = python(program)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_imports_none_of_its_modules() -> None:
    program = "import sys, uwbench; print([name for name in sys.modules if name.startswith('uwbench.')])"
    done = python(program)
    assert done.stdout.strip() == "[]"


# The companion: its data side is below its model, and both below training; each module imports lower ones only.
COMPANION_LAYERS = {
    "config": 0,
    "draws": 0,
    "examples": 0,
    "ontology": 0,
    "export": 0,
    "wording": 0,
    "answers": 1,
    "facts": 1,
    "mixture": 1,
    "rows": 1,
    "adapter": 1,
    "plan": 1,
    "text": 1,
    "shards": 2,
    "templates": 2,
    "units": 2,
    "features": 2,
    "convert": 3,
    "leakage": 3,
    "planner": 3,
    "model": 3,
    "reader": 4,
    "validate": 4,
    "decoders": 4,
    "generate": 4,
    "optim": 4,
    "parallel": 4,
    "checkpoint": 4,
    "log": 4,
    "held_out": 5,
    "ema": 5,
    "prepare": 6,
    "monitor": 6,
    "train": 7,
    "evaluate": 8,
    "ablate": 8,
    "experiment_tasks": 8,
    "experiment_speech": 8,
    "experiment_jobs": 8,
    "experiment": 9,
    "experiment_page": 10,
    "cli_data": 11,
    "cli_train": 11,
    "cli_experiment": 12,
    "cli": 13,
    "__main__": 14,
}
COMPANION = PACKAGE.parent / "uniwhisper"


def _from_package(path: Path, package: str) -> set[str]:
    """Return the modules of a package that a file imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{a.name}" for a in node.names} if node.module == package else {node.module}
    return {name.split(".")[1] for name in found if name.startswith(f"{package}.")}


def test_the_companion_imports_downward_and_the_public_functions_only() -> None:
    seen = set()
    for path in sorted(COMPANION.rglob("*.py")):
        name = path.relative_to(COMPANION).parts[0].removesuffix(".py")
        assert _from_package(path, "uwbench") <= {"api"}, f"{path} imports more of uwbench than its api"
        if name in {"__init__", "configs", "mixtures", "ablations"}:  # files of data
            continue
        seen.add(name)
        for other in _from_package(path, "uniwhisper") - {name}:
            assert COMPANION_LAYERS[name] > COMPANION_LAYERS[other], f"{path} imports {other}"
    assert seen == set(COMPANION_LAYERS)


@pytest.mark.parametrize("words", [["--help"], ["mix", "candidate-38k"], ["plan", "full"]], ids=" ".join)
def test_the_companions_light_commands_load_no_model(words: list[str]) -> None:
    program = (
        "import sys\n"
        "from uniwhisper.cli import main\n"
        f"sys.argv = ['uniwhisper', *{words!r}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'torch', 'transformers', 'datasets', 'faiss', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = python(program)
    assert done.returncode == 0, done.stderr
