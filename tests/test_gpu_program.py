"""`benchmarks/gpu.py`: the clock ends a part and the page says so; a wrong archive of packages is refused."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def run(program: str, *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / program), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_part_that_runs_out_of_time_is_ended_and_the_page_says_so(tmp_path: Path) -> None:
    done = run("gpu.py", "--device", "cpu", "--only", "decode", "--minutes", 0.001, "--output", tmp_path)
    assert done.returncode == 1, done.stderr
    assert "Decoding alone" in done.stdout
    assert "out of time" in done.stdout
    page = json.loads((tmp_path / "gpu.json").read_text())
    assert page["parts"]["decode"]["status"] == "out of time"
    assert page["parts"]["decode"]["seconds"] < 5
    assert page["machine"]["versions"]["torch"]


def test_an_archive_is_unpacked_only_if_its_sum_is_right(tmp_path: Path) -> None:
    import hashlib

    (tmp_path / "module.py").write_text("VALUE = 1\n")
    archive = tmp_path / "packages.tar.xz"
    with tarfile.open(archive, "w:xz") as tar:
        tar.add(tmp_path / "module.py", "module.py")
    lacking = run("gpu_wheels.py", archive, "--unpack", tmp_path / "site")
    assert lacking.returncode == 1
    assert "packages.tar.xz.sha256" in lacking.stderr
    sums = tmp_path / "packages.tar.xz.sha256"
    sums.write_text(f"{hashlib.sha256(archive.read_bytes()).hexdigest()}  {archive.name}\n")
    assert run("gpu_wheels.py", archive, "--unpack", tmp_path / "site").returncode == 0
    assert (tmp_path / "site" / "module.py").read_text() == "VALUE = 1\n"
    archive.write_bytes(archive.read_bytes()[:-1] + b"x")
    wrong = run("gpu_wheels.py", archive, "--unpack", tmp_path / "other")
    assert wrong.returncode == 1
    assert "does not have the SHA-256" in wrong.stderr
    assert not (tmp_path / "other").exists()
