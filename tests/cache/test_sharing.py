"""A cache that two users of one group share: new files follow the folder, and what is closed is named."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uwbench.base.atomic import make_folder, write_atomically

GROUP, ALICE, BOB = 54321, 54322, 54323  # numbers that no account of the machine needs to have
AS_USER = """
import os, sys
user, umask, group = int(sys.argv[1]), int(sys.argv[2], 8), int(sys.argv[3])
os.setgroups([group]); os.setgid(user); os.setuid(user); os.umask(umask)
sys.argv = ["uwbench", *sys.argv[4:]]
from uwbench.cli.main import main
main()
"""


def as_user(python: str, user: int, umask: str, group: int, *words: str) -> subprocess.CompletedProcess[str]:
    # The interpreter is of this version and brings its own standard library; the packages are this environment's.
    packages = [place for place in sys.path if "site-packages" in place or not place.startswith(sys.base_prefix)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("UWBENCH_")}
    environment |= {"PYTHONPATH": os.pathsep.join(filter(None, packages)), "HOME": "/nonexistent"}
    command = [python, "-c", AS_USER, str(user), umask, str(group), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", env=environment)


@pytest.fixture(scope="module")
def python() -> str:
    """An interpreter of this version that any user may run; this one may be in a home folder."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root can act as two users on Linux")
    for candidate in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        if Path(candidate).exists() and as_user(candidate, ALICE, "022", GROUP, "--version").returncode == 0:
            return candidate
    pytest.skip(f"no Python 3.{sys.version_info.minor} that other users may run")


@given(mode=st.integers(0, 0o77).map(lambda rest: 0o700 | rest), umask=st.sampled_from([0o022, 0o002, 0o077, 0o027]))
def test_new_files_and_folders_follow_the_folder(
    mode: int, umask: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shared = tmp_path_factory.mktemp("shared")
    shared.chmod(mode)
    before = os.umask(umask)
    try:
        write_atomically(shared / "a" / "b" / "file", b"x")
        make_folder(shared / "c")
    finally:
        os.umask(before)
    bits = mode & 0o775  # others never write
    assert [stat.S_IMODE((shared / name).stat().st_mode) for name in ("a", "a/b", "c")] == [bits] * 3
    assert stat.S_IMODE((shared / "a" / "b" / "file").stat().st_mode) == mode & 0o664


def test_in_a_folder_of_all_users_a_file_is_its_makers(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    write_atomically(tmp_path / "file", b"x")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that Alice made and shares with her group; Bob is of that group."""
    home = Path(tempfile.mkdtemp())  # not tmp_path, which is closed to other users
    home.chmod(0o755)
    folder = home / "shared"
    folder.mkdir()
    os.chown(folder, ALICE, GROUP)
    folder.chmod(0o2770)
    yield folder
    shutil.rmtree(home)


def run(python: str, user: int, umask: str, folder: Path, *, group: int = GROUP) -> subprocess.CompletedProcess[str]:
    places = ["--cache", f"{folder}/cache", "--results", f"{folder}/results"]
    words = ["run", "-m", "logmel", "-t", "mini_sound", "--method", "knn", "--quiet", *places]
    return as_user(python, user, umask, group, *words)


@pytest.mark.slow
@pytest.mark.parametrize("umask", ["022", "077"])
def test_two_users_of_one_group_share_a_cache(umask: str, python: str, shared: Path) -> None:
    first = run(python, ALICE, umask, shared)
    assert first.returncode == 0, first.stderr
    again = run(python, BOB, umask, shared)  # reads Alice's vectors and writes a result beside hers
    assert again.returncode == 0, again.stderr
    scores = [re.findall(r"mini_sound +144 .*(0\.\d+–0\.\d+)", printed.stdout) for printed in (first, again)]
    assert scores[0]
    assert scores[0] == scores[1]
    for words in (["cache", "ls"], ["cache", "verify"]):
        listed = as_user(python, BOB, umask, GROUP, *words, "--cache", f"{shared}/cache")
        assert listed.returncode == 0, listed.stdout + listed.stderr
    assert "ok    cache" in as_user(python, BOB, umask, GROUP, "doctor", "--cache", f"{shared}/cache").stdout
    files = [path for path in shared.rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) & 0o060 for path in files} == {0o060}
    assert {path.stat().st_gid for path in files} == {GROUP}


@pytest.mark.slow
def test_what_is_closed_is_named_with_the_remedy(python: str, shared: Path) -> None:
    assert run(python, ALICE, "022", shared).returncode == 0
    places = ["--cache", f"{shared}/cache"]
    encoder = next((shared / "cache").glob("logmel-*"))
    encoder.chmod(0o700)
    for words in (["cache", "ls"], ["cache", "verify"], ["cache", "prune"], ["doctor"]):
        seen = as_user(python, BOB, "077", GROUP, *words, *places)
        assert seen.returncode != 0, words
        text = seen.stdout + seen.stderr
        assert f"{encoder} is drwx------ {ALICE}:{GROUP}; you are {BOB}, umask 077" in text, text
        assert f"chmod -R g+rwX {shared}/cache" in text, text
    refused = run(python, BOB, "022", shared)
    assert (refused.returncode, "Traceback" in refused.stderr) == (1, False)
    assert "Permission denied" in refused.stderr
    assert "its owner can share it" in refused.stderr
    encoder.chmod(0o2750)
    doctor = as_user(python, BOB, "022", GROUP, "doctor", *places)
    assert "cannot be written by the group that shares it" in doctor.stdout
    stranger = run(python, BOB, "022", shared, group=BOB)
    assert stranger.returncode != 0
    assert "Traceback" not in stranger.stderr
