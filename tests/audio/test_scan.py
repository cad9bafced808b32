"""Hashes are remembered as long as a file does not change."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from uwbench.audio import scan
from uwbench.audio.clip import AudioFile, AudioMember, Clip
from uwbench.audio.scan import Scanned, scan_clips


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.linspace(-0.5, 0.5, 8000), 16_000)
    past = time.time() - 60
    os.utime(path, (past, past))
    return path


def clip_of(path: Path, start_s: float | None = None, end_s: float | None = None) -> Clip:
    return Clip(path.name, AudioFile(path), "x", split="train", start_s=start_s, end_s=end_s)


def first_of(scans: list) -> Scanned:
    assert isinstance(scans[0], Scanned), scans[0]
    return scans[0]


def test_a_file_at_rest_is_hashed_once(wav: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "_AT_REST_NS", -1)
    memory = tmp_path / "m.parquet"
    first = first_of(scan_clips([clip_of(wav)], memory))
    monkeypatch.setattr(scan, "read_bytes", lambda audio: pytest.fail("was read again"))
    assert first_of(scan_clips([clip_of(wav)], memory)) == first
    assert first.duration_s == 0.5


def test_a_change_that_keeps_size_and_mtime_is_noticed(wav: Path, tmp_path: Path) -> None:
    memory = tmp_path / "m.parquet"
    first = first_of(scan_clips([clip_of(wav)], memory))
    status = wav.stat()
    data = bytearray(wav.read_bytes())
    data[-1] ^= 1
    wav.write_bytes(data)
    os.utime(wav, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert first_of(scan_clips([clip_of(wav)], memory)).sha256 != first.sha256


def test_a_file_that_was_just_written_is_hashed_again(tmp_path: Path) -> None:
    path, memory = tmp_path / "new.wav", tmp_path / "m.parquet"
    soundfile.write(path, np.zeros(100), 16_000)
    before = path.stat()
    first = first_of(scan_clips([clip_of(path)], memory))
    soundfile.write(path, np.full(100, 0.5), 16_000)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert first_of(scan_clips([clip_of(path)], memory)).sha256 != first.sha256


def test_a_damaged_memory_is_no_memory(wav: Path, tmp_path: Path) -> None:
    memory = tmp_path / "m.parquet"
    memory.write_bytes(b"PAR1 not really")
    assert first_of(scan_clips([clip_of(wav)], memory)).duration_s == 0.5


def test_stretches_of_one_file_have_different_keys(wav: Path) -> None:
    scans = scan_clips([clip_of(wav), clip_of(wav, start_s=0.1), clip_of(wav, start_s=0.1, end_s=0.2)], None)
    keys = {scan.key for scan in scans if isinstance(scan, Scanned)}
    assert len(keys) == 3
    assert [round(scan.duration_s, 6) for scan in scans if isinstance(scan, Scanned)] == [0.5, 0.4, 0.1]


def test_a_member_of_an_archive_has_the_key_of_the_same_file(wav: Path, tmp_path: Path) -> None:
    data = wav.read_bytes()
    archive = tmp_path / "all.tar"
    archive.write_bytes(b"x" * 512 + data + b"y" * 100)
    member = Clip("m", AudioMember(archive, 512, len(data), "a.wav"), "x", split="train")
    assert first_of(scan_clips([member], None)).key == first_of(scan_clips([clip_of(wav)], None)).key


def test_a_stretch_beyond_the_end_is_an_error(wav: Path) -> None:
    assert "the clip starts later" in str(scan_clips([clip_of(wav, start_s=2.0)], None)[0])
