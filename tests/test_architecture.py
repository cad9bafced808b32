"""The house stands: packages import downward, no modules import in a circle, light commands load nothing heavy."""

from __future__ import annotations

import ast
import graphlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import uwbench

BENCH = Path(uwbench.__file__).parents[1]

# A package may import from packages on lower floors only, so packages on one floor never import each other.
UWBENCH = {
    "errors": 0,
    "base": 1,
    "methods": 2,
    "audio": 3,
    "cards": 3,
    "options": 3,
    "sources": 4,
    "encoders": 4,
    "cache": 4,
    "results": 4,
    "extraction": 5,
    "probes": 5,
    "report": 5,
    "folders": 5,
    "progress": 6,
    "bundles": 6,
    "pipeline": 7,
    "inputs": 8,
    "api": 9,
    "cli": 10,
    "__main__": 11,
}
UNIWHISPER = {
    "config": 0,
    "language_model": 1,
    "cost": 2,
    "export": 1,
    "data": 1,
    "sampling": 2,
    "model": 3,
    "training": 4,
    "evaluate": 5,
    "ablate": 5,
    "cli": 7,
    "__main__": 8,
}
# Files of data beside the code.
DATA_ONLY = {"configs", "mixtures", "ablations", "wrappers"}


def module_of(path: Path, root: Path) -> str:
    """Return a file's dotted module name, for a package folder `root`."""
    parts = (root.name, *path.relative_to(root).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules_in(root: Path) -> dict[str, Path]:
    """Return the modules below a package folder by their dotted names."""
    return {module_of(path, root): path for path in sorted(root.rglob("*.py"))}


def _import_nodes(tree: ast.AST, *, typing_too: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and getattr(node.test, "id", None) == "TYPE_CHECKING" and not typing_too:
            continue
        else:
            yield from _import_nodes(node, typing_too=typing_too)


def imports_of(path: Path, known: set[str], *, typing_too: bool = True) -> set[str]:
    """Return which of the `known` modules a file imports anywhere, inside functions too."""
    names = set()
    for node in _import_nodes(ast.parse(path.read_text(encoding="utf-8")), typing_too=typing_too):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        else:
            assert node.level == 0, f"{path}: imports are absolute here"
            for alias in node.names:
                member = f"{node.module}.{alias.name}"
                names.add(member if member in known else str(node.module))
    return names & known


def upward_imports(root: Path, floors: dict[str, int]) -> list[str]:
    """Return a line for each import of a package on the same floor or above."""
    modules = modules_in(root)
    lines = []
    for name, path in modules.items():
        package = name.split(".")[1] if "." in name else "__init__"
        if package == "__init__":  # offers the public names when asked for one; imports nothing by itself
            continue
        for imported in sorted(imports_of(path, set(modules))):
            other = imported.split(".")[1] if "." in imported else "__init__"
            if other in {package, "__init__"}:
                continue
            if floors[other] >= floors[package]:
                lines.append(f"{name} imports {imported}")
    return lines


def circle_in(root: Path) -> list[str]:
    """Return the modules of a circle of imports, or nothing."""
    modules = modules_in(root)
    graph = {
        name: imports_of(path, set(modules)) - {name, root.name} for name, path in modules.items() if name != root.name
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


@pytest.mark.parametrize(("package", "floors"), [("uwbench", UWBENCH), ("uniwhisper", UNIWHISPER)])
def test_every_package_has_a_floor(package: str, floors: dict[str, int]) -> None:
    there = {name.split(".")[1] for name in modules_in(BENCH / package) if "." in name}
    assert there - DATA_ONLY == set(floors)


@pytest.mark.parametrize(("package", "floors"), [("uwbench", UWBENCH), ("uniwhisper", UNIWHISPER)])
def test_packages_import_downward(package: str, floors: dict[str, int]) -> None:
    assert upward_imports(BENCH / package, floors) == []


@pytest.mark.parametrize("package", ["uwbench", "uniwhisper"])
def test_no_modules_import_in_a_circle(package: str) -> None:
    assert circle_in(BENCH / package) == []


def test_the_command_line_calls_the_public_functions_only() -> None:
    modules = modules_in(BENCH / "uwbench")
    for name, path in modules.items():
        if name.startswith("uwbench.cli"):
            imported = imports_of(path, set(modules), typing_too=False) - {"uwbench"}
            beyond = {other for other in imported if other != "uwbench.api" and not other.startswith("uwbench.cli")}
            assert not beyond, f"{path} imports {sorted(beyond)}"


def test_uwbench_never_imports_the_companion() -> None:
    known = set(modules_in(BENCH / "uniwhisper"))
    assert not [path for path in (BENCH / "uwbench").rglob("*.py") if imports_of(path, known)]


def test_the_companion_uses_public_names_and_base() -> None:
    known = set(modules_in(BENCH / "uwbench"))
    for path in (BENCH / "uniwhisper").rglob("*.py"):
        beyond = {
            name
            for name in imports_of(path, known)
            if name not in {"uwbench", "uwbench.api", "uwbench.errors"} and not name.startswith("uwbench.base")
        }
        assert not beyond, f"{path} imports {sorted(beyond)}"


def _plant(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / "house" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(text)
    (root / "house" / "__init__.py").touch()
    return root / "house"


def test_a_planted_upward_import_is_seen(tmp_path: Path) -> None:
    house = _plant(tmp_path, {"low/a.py": "def f():\n    from house.high import b\n", "high/b.py": ""})
    assert upward_imports(house, {"low": 0, "high": 1}) == ["house.low.a imports house.high.b"]
    assert upward_imports(house, {"low": 1, "high": 0}) == []


def test_a_planted_import_between_packages_of_one_floor_is_seen(tmp_path: Path) -> None:
    house = _plant(tmp_path, {"left/a.py": "import house.right.b\n", "right/b.py": ""})
    assert upward_imports(house, {"left": 1, "right": 1}) == ["house.left.a imports house.right.b"]


def test_a_planted_circle_inside_a_package_is_seen(tmp_path: Path) -> None:
    files = {"p/a.py": "from house.p import b\n", "p/b.py": "from house.p.c import x\n", "p/c.py": ""}
    house = _plant(tmp_path, files)
    assert circle_in(house) == []
    (house / "p" / "c.py").write_text("def f():\n    import house.p.a\n")
    assert set(circle_in(house)) == {"house.p.a", "house.p.b", "house.p.c"}


def _python(program: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(BENCH)}
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=env)


LIGHT = (
    "import sys\n"
    "from {package}.cli.main import main\n"
    "sys.argv = ['{package}', *{words!r}]\n"
    "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
    "heavy = {{'torch', 'transformers', 'datasets', 'faiss', 'sklearn', 'pandas'}} & set(sys.modules)\n"
    "assert not heavy, heavy\n"
)


@pytest.mark.parametrize(
    "words", [["--help"], ["tasks"], ["protocols"], ["models"], ["leaderboard"], ["cache", "ls"]], ids=" ".join
)
def test_light_commands_load_nothing_heavy(words: list[str]) -> None:
    ended = _python(LIGHT.format(package="uwbench", words=words))
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("words", [["--help"], ["mix", "candidate-38k"], ["ablate", "list"]], ids=" ".join)
def test_the_companions_light_commands_load_no_model(words: list[str]) -> None:
    ended = _python(LIGHT.format(package="uniwhisper", words=words))
    assert ended.returncode == 0, ended.stderr


def test_importing_the_package_imports_none_of_its_modules() -> None:
    ended = _python("import sys, uwbench; print([name for name in sys.modules if name.startswith('uwbench.')])")
    assert ended.stdout.strip() == "[]", ended.stderr
