"""The shell completes names: asked as bash asks, through the environment."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from conftest import ROOT

PROGRAM = (
    "import sys\n"
    "from uwbench.cli.main import main\n"
    "sys.argv = ['uwbench']\n"
    "try:\n    main()\n"
    "finally:\n"
    "    heavy = {'torch', 'transformers', 'datasets', 'faiss', 'sklearn', 'pandas', 'numpy'} & set(sys.modules)\n"
    "    assert not heavy, heavy\n"
)


def complete(*words: str) -> list[str]:
    """Return what a shell offers for the last of some words of a command."""
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "bench"),
        "_UWBENCH_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, env=env)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    return ended.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["lea"], ["leaderboard"]),
        (["run", "-m", "logm"], ["logmel"]),
        (["run", "--model", "logmel,mf"], ["logmel,mfcc"]),
        (["extract", "-t", "mini_s"], ["mini_sound", "mini_speech"]),
        (["leaderboard", "-s", "mi"], ["mini"]),
        (["run", "--protocol", "xar"], ["xares-0.1.3"]),
        (["probe", "--method", "mlp,kn"], ["mlp,knn"]),
        (["tasks", "esc"], ["esc50"]),
        (["models", "check", "distil-s"], ["distil-small.en"]),
    ],
    ids=" ".join,
)
def test_names_are_completed_without_loading_anything_heavy(words: list[str], offered: list[str]) -> None:
    assert complete("uwbench", *words) == offered


def test_the_script_for_each_shell_calls_the_program() -> None:
    for shell in ("bash", "zsh", "fish"):
        env = {**os.environ, "PYTHONPATH": str(ROOT / "bench"), "_UWBENCH_COMPLETE": f"source_{shell}"}
        ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, env=env)
        assert "_UWBENCH_COMPLETE=complete_" in ended.stdout
