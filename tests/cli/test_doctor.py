"""`uwbench doctor` names each fault of a machine and its remedy; it never ends in a traceback."""

from __future__ import annotations

import http.server
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conftest import ROOT, Command
from uwbench.cli import doctor
from uwbench.cli.doctor import Diagnosis, examine
from uwbench.options import Folders


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(cache=tmp_path / "cache", data=None, results=tmp_path / "results")


def of(subject: str, folders: Folders) -> Diagnosis:
    return next(diagnosis for diagnosis in examine(folders) if diagnosis.subject == subject)


def test_the_command_reports_every_subject(uwbench: Command) -> None:
    done = uwbench("doctor", "--json")
    rows = json.loads(done.out)
    subjects = ["torch", "faiss", "audio", "threads", "memory", "cache", "results", "data", "hub"]
    assert [row["subject"] for row in rows if row["subject"] != "memory"] == [s for s in subjects if s != "memory"]
    assert all(row["text"] and (row["ok"] or row["remedy"]) for row in rows)
    assert done.code == (0 if all(row["ok"] for row in rows) else 1)
    plain = uwbench("doctor")
    assert plain.code == done.code
    for row in rows:
        verdict = "ok  " if row["ok"] else "FAIL"
        assert any(line.startswith(f"{verdict}  {row['subject']} ") for line in plain.out.splitlines())


@pytest.mark.parametrize(
    ("module", "text", "subject"),
    [
        ("torch", "raise ImportError('no torch here')", "torch"),
        ("torch", "raise OSError('libcudart.so.13: cannot open shared object file')", "torch"),
        ("torch", "", "torch"),
        ("faiss", "raise ImportError('undefined symbol')", "faiss"),
        ("faiss", "", "faiss"),
        ("torchaudio", "raise OSError('libtorchaudio.so: undefined symbol')", "torchaudio"),
        ("torchcodec", "raise RuntimeError('Could not load libtorchcodec')", "torchcodec"),
        ("torchcodec", "import no_such_module", "torchcodec"),
        ("soundfile", "raise OSError('sndfile library not found')", "audio"),
    ],
    ids=[
        "no torch",
        "torch without a library",
        "another torch",
        "faiss broken",
        "another faiss",
        "another torchaudio",
        "no FFmpeg",
        "half torchcodec",
        "no libsndfile",
    ],
)
def test_a_package_that_does_not_work_is_named(module: str, text: str, subject: str, tmp_path: Path) -> None:
    shadow = tmp_path / "shadow"
    shadow.mkdir()
    (shadow / f"{module}.py").write_text(text + "\n")
    paths = os.pathsep.join([str(shadow), str(ROOT / "bench")])
    done = subprocess.run(
        [sys.executable, "-m", "uwbench", "doctor"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr + done.stdout
    line = next(line for line in done.stdout.splitlines() if line.split()[:1] == [subject] or f" {subject} " in line)
    assert "cannot be imported" in line
    assert "pip install --force-reinstall" in done.stdout


def test_two_builds_of_faiss_shadow_each_other(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    class Build:
        def __init__(self, name: str) -> None:
            self.metadata = {"Name": name}

    assert of("faiss", folders).ok
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: [Build("faiss-cpu"), Build("faiss-gpu")])
    diagnosis = of("faiss", folders)
    assert not diagnosis.ok
    assert "shadow each other" in diagnosis.text
    assert "pip uninstall" in diagnosis.remedy


def test_a_full_disk_and_a_network_drive_are_reported(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert of("cache", folders).ok
    drive = tmp_path / "my drive"
    drive.mkdir()
    mounts = f"disk / ext4 rw 0 0\nserver:/x {str(drive).replace(' ', chr(92) + '040')} nfs4 rw 0 0\n"
    monkeypatch.setattr(doctor, "_MOUNTS", tmp_path / "mounts")
    (tmp_path / "mounts").write_text(mounts)
    network = of("cache", Folders(cache=drive / "cache", data=None, results=tmp_path))
    assert not network.ok
    assert "network drive (nfs4)" in network.text
    assert of("cache", folders).ok
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5e8))
    small = of("cache", folders)
    assert not small.ok
    assert "0.50 GB free" in small.text


def test_the_memory_limit_of_a_container_counts(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("3000000000\n")
    (tmp_path / "memory.current").write_text("2500000000\n")
    (tmp_path / "memory.stat").write_text("anon 2000000000\ninactive_file 400000000\n")
    assert doctor.group_memory(tmp_path) == 900_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert doctor.group_memory(tmp_path) is None
    older = tmp_path / "memory"
    older.mkdir()
    (older / "memory.limit_in_bytes").write_text("1000\n")
    (older / "memory.usage_in_bytes").write_text("400\n")
    (older / "memory.stat").write_text("cache 100\ninactive_file 0\n")
    assert doctor.group_memory(tmp_path) == 600


def test_more_threads_than_cores_are_reported(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.delenv(variable, raising=False)
    assert of("threads", folders).ok
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "4096")
    diagnosis = of("threads", folders)
    assert not diagnosis.ok
    assert "OPENBLAS_NUM_THREADS=4096" in diagnosis.text


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    diagnosis = of("cache", Folders(cache=blocked / "cache", data=None, results=tmp_path))
    assert not diagnosis.ok
    assert "cannot be written" in diagnosis.text


def test_a_hub_that_does_not_answer_is_reported(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "not checked" in of("hub", folders).text  # the tests run offline
    monkeypatch.delenv("HF_HUB_OFFLINE")

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("HF_ENDPOINT", address)
    assert of("hub", folders).text == f"{address} answers"
    server.shutdown()
    server.server_close()
    diagnosis = of("hub", folders)
    assert not diagnosis.ok
    assert "cannot be reached" in diagnosis.text
    assert "HF_ENDPOINT" in diagnosis.remedy
