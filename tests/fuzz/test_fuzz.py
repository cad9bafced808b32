"""A few hundred inputs per reader, and tests of the trial itself; `make fuzz` gives a million."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.planted import TRIGGER
from fuzz.readers import READERS, Reader
from fuzz.run_fuzz import Bench, Tally, table, try_reader
from fuzz.trial import Trial, by_hypothesis, by_mutation

COMMAND = Path(__file__).with_name("run_fuzz.py")
FAST = 100  # the least number of inputs per reader


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_nothing_but_its_own_errors_comes_out_of_a_reader(
    reader: Reader, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # the trial sets one
    folder = tmp_path / "files"
    folder.mkdir()
    seeds = [path.read_bytes() for path in sorted((world / "seeds" / reader.name).iterdir())]
    trial = Trial(reader, folder, world, tmp_path / "crashes")
    by_mutation(trial, seeds, max(FAST, reader.inputs // 500), seed=1)
    if reader.strategy is not None:
        made = Trial(reader, folder, world, tmp_path / "crashes")
        by_hypothesis(made, seeds, 20, seed=1)
        assert made.inputs >= 10
    crashes = [path.read_text(encoding="utf-8") for path in sorted((tmp_path / "crashes").glob("*.txt"))]
    assert not crashes, "\n".join(crashes)
    assert trial.refused + trial.accepted == trial.inputs >= FAST
    assert trial.accepted > 0  # at least the seeds


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("raises", "KeyError"),
        ("names_nothing", "names no file"),
        ("dies", "died of SIGSEGV"),
        ("hangs", "took more than"),
        ("claims", "MemoryError"),
    ],
)
def test_every_kind_of_crash_is_found_saved_and_survived(name: str, what: str, tmp_path: Path) -> None:
    if name == "claims" and not Path("/proc/self/statm").exists():
        pytest.skip("the system does not say how much memory a process has, so that no limit is set")
    tally = _planted(name, tmp_path)
    assert tally.crashes >= 1
    assert tally.inputs >= 100  # the trial went on
    (saved, *_) = sorted((tmp_path / "crashes").glob("*.bin"))
    assert TRIGGER in saved.read_bytes()
    assert what in saved.with_suffix(".txt").read_text(encoding="utf-8")


def test_refusals_are_counted_and_are_no_crashes(tmp_path: Path) -> None:
    tally = _planted("refuses", tmp_path)
    assert (tally.refused > 0, tally.accepted > 0, tally.crashes) == (True, True, 0)
    assert tally.refused + tally.accepted == tally.inputs
    assert not (tmp_path / "crashes").exists()
    assert f"| all     |          | {tally.inputs:>6,} |" in table([tally])


def _planted(name: str, folder: Path) -> Tally:
    seeds = folder / "world" / "seeds" / name
    seeds.mkdir(parents=True)
    (seeds / "00").write_bytes(b"fine")
    (seeds / "01").write_bytes(b"fine too" + TRIGGER)
    bench = Bench(folder / "world", folder, folder / "crashes", "fuzz.planted", limit_s=1.0)
    return try_reader(bench, name, "mutation", 100, seed=0)


@pytest.mark.usefixtures("shared_data")
def test_the_command_prints_the_table_and_how_many() -> None:
    words = [sys.executable, COMMAND, "--only", "suite", "--inputs", "300", "--engine", "mutation"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split("|")[1:-1] == [" reader ", " by       ", " inputs ", " refused ", " accepted ", " crashes "]
    assert lines[-1].startswith("| all ")
    cells = [cell.strip() for cell in lines[2].split("|")[1:-1]]
    assert cells[:2] == ["suite", "mutation"]
    assert int(cells[2]) >= 300
    assert int(cells[3]) + int(cells[4]) == int(cells[2])
    assert cells[5] == "0"
