"""The command line as users meet it: the mini suite end to end, own data, errors, exit codes."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from conftest import ROOT, Command
from uwbench import load_embeddings

CLASSES = {"high": 3000.0, "low": 300.0, "noise": 0.0}


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A manifest of 45 short clips of three classes."""
    folder = tmp_path / "beeps"
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for name, pitch in CLASSES.items():
        for take in range(15):
            seconds = np.arange(4000) / 16_000
            noise = rng.standard_normal(4000)
            sound = 0.3 * np.sin(2 * np.pi * pitch * seconds + rng.uniform(0, 6)) + (0.02 if pitch else 0.2) * noise
            path = folder / f"{name}{take}.wav"
            soundfile.write(path, sound, 16_000)
            rows.append((path.name, name, ("train", "train", "valid", "test", "test")[take % 5]))
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    return folder / "manifest.csv"


def test_the_main_job_on_the_mini_suite(uwbench: Command, tmp_path: Path) -> None:
    done = uwbench("run", "-m", "logmel", "-m", "mfcc", "-s", "mini")
    assert done.code == 0, done.err
    for word in ("mini_speech", "mini_sound", "mini_music", "logmel", "mfcc", "3 of 3"):
        assert word in done.out
    assert "120 to encode" in done.err
    board = json.loads(uwbench("leaderboard", "-s", "mini", "--json").out)
    scores = {(row["model"], row["task"], row["method"]): row for row in board["scores"]}
    assert len(scores) == 12
    assert all(row["low"] <= row["score"] <= row["high"] for row in scores.values())
    assert {(row["model"], row["method"], row["average"]) for row in board["averages"]} >= {
        (model, method, average)
        for model in ("logmel", "mfcc")
        for method in ("mlp", "knn")
        for average in ("weighted", "domain", "task", "chance")
    }
    again = uwbench("run", "-m", "logmel", "-m", "mfcc", "-s", "mini")
    assert "to encode" not in again.err
    assert json.loads(uwbench("leaderboard", "-s", "mini", "--json").out) == board
    for form in ("csv", "md", "html"):
        path = tmp_path / f"board.{form}"
        assert uwbench("leaderboard", "-s", "mini", "--output", path).code == 0
        assert "logmel" in path.read_text()
    assert uwbench("compare", "logmel", "mfcc", "-s", "mini").code == 0
    assert "Borda" in uwbench("sensitivity", "-s", "mini").out
    (row, _) = json.loads(uwbench("inflation", "-t", "mini_sound", "--seeds", 3, "--json").out)
    assert row["difference"] == pytest.approx(row["on_test"] - row["on_validation"])
    assert row["difference"] > -0.05
    assert uwbench("inflation", "-t", "mini_music").code == 2, "X-ARES would select on its validation part"
    assert uwbench("figures", "-s", "mini", "--output", tmp_path / "figures", "--format", "svg").code == 0
    assert (tmp_path / "figures" / "board.tex").is_file()
    assert "model-index" in uwbench("card", "mfcc", "-s", "mini").out
    result = next((tmp_path / "results").glob("logmel/*/uwbench-1/mini_sound.json"))
    reproduced = uwbench("reproduce", result)
    assert (reproduced.code, reproduced.out) == (0, "logmel, mini_sound: equal\n")


def test_own_data_as_manifest_and_as_folder(uwbench: Command, dataset: Path, tmp_path: Path) -> None:
    done = uwbench("run", "-m", "logmel", "-t", dataset, "--json")
    assert done.code == 0, done.err
    (result,) = json.loads(done.out)
    assert (result["task"]["name"], result["task"]["n"], result["status"]) == ("beeps", 18, "ok")
    assert result["scores"]["knn"]["main_score"] > 0.9
    tree = tmp_path / "by_class"
    for path in dataset.parent.glob("*.wav"):
        target = tree / path.stem.rstrip("0123456789") / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    other = uwbench("run", "-m", "logmel", "-t", tree, "--json")
    assert other.code == 0, other.err
    assert json.loads(other.out)[0]["task"]["name"] == "by_class"
    assert "45 of 45 clips cached" in other.err, "the same bytes under other names are not encoded again"


def test_two_manifests_of_one_command_have_labels_of_their_own(uwbench: Command, dataset: Path) -> None:
    rows = list(csv.DictReader(dataset.open()))
    pairs = dataset.parent / "pairs.csv"
    with pairs.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "pitched", "split"])
        writer.writerows([row["path"], "no" if row["label"] == "noise" else "yes", row["split"]] for row in rows)
    pitched = f"{pairs}[label=pitched,name=pitched,domain=music]"
    done = uwbench("run", "-m", "logmel", "-t", dataset, "-t", pitched, "--method", "knn", "--json")
    assert done.code == 0, done.err
    tasks = [result["task"] for result in json.loads(done.out)]
    assert [(task["name"], task["domain"]) for task in tasks] == [("beeps", "sound"), ("pitched", "music")]
    assert set(load_embeddings("logmel", "beeps").labels) == set(CLASSES)
    assert set(load_embeddings("logmel", "pitched").labels) == {"yes", "no"}
    refused = uwbench("run", "-m", "logmel", "-t", "mini_music[label=pitched]")
    assert refused.code == 2
    assert "mini_music" in refused.err


def test_probe_needs_neither_audio_nor_encoder(uwbench: Command, dataset: Path) -> None:
    assert uwbench("extract", "-m", "logmel", "-t", dataset).code == 0
    for path in dataset.parent.iterdir():
        path.unlink()
    done = uwbench("probe", "-t", "beeps", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)[0]["scores"]["mlp"]["main_score"] > 0.9


def test_results_of_both_protocols_stay_apart(uwbench: Command, dataset: Path) -> None:
    for protocol in ("uwbench-1", "xares-0.1.3"):
        assert uwbench("run", "-m", "logmel", "-t", dataset, "--protocol", protocol).code == 0
    for protocol in ("uwbench-1", "xares-0.1.3"):
        board = json.loads(uwbench("leaderboard", "--protocol", protocol, "--json").out)
        assert {row["protocol"] for row in board["scores"]} == {protocol}


def test_an_unreadable_clip_stops_the_score_and_nothing_else(uwbench: Command, dataset: Path) -> None:
    (dataset.parent / "low3.wav").write_bytes(b"no audio")
    done = uwbench("run", "-m", "logmel", "-t", dataset, "-t", "mini_music")
    assert done.code == 1
    assert "low3.wav" in done.err
    assert "--allow-missing 1" in done.err
    assert "mini_music" in done.out
    allowed = uwbench("run", "-m", "logmel", "-t", dataset, "--allow-missing", 1, "--json")
    assert allowed.code == 0
    (result,) = json.loads(allowed.out)
    assert (result["status"], result["counts"]) == ("partial", {"clips": 44, "missing": 1, "chunked": 0})


def test_limited_results_stay_off_the_board(uwbench: Command, dataset: Path) -> None:
    done = uwbench("run", "-m", "logmel", "-t", dataset, "--limit", 6, "--json")
    assert json.loads(done.out)[0]["status"] == "limited"
    assert json.loads(uwbench("leaderboard", "--json").out)["scores"] == []


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["run", "-m", "logmel", "-t", "esc5O"], 2, "did you mean esc50"),
        (["run", "-m", "logmell", "-t", "mini_music"], 2, "logmel"),
        (["run", "-m", "logmel", "esc50"], 2, "did you mean -t esc50?"),
        (["run", "-s", "mini"], 2, "no model was named"),
        (["run", "-m", "uniwhisper", "-t", "mini_music"], 2, "--weights"),
        (["run", "-m", "logmel", "-s", "mini", "--protocol", "uwbench"], 2, "did you mean uwbench-1"),
        (["run", "-m", "logmel", "-t", "mini_music", "--layers", "3"], 2, "--layers"),
        (["run", "-m", "logmel", "-s", "mini", "--dtype", "fp16"], 2, "--dtype"),
        (["run", "-m", "logmel", "-t", "mini_music", "--device", "tpu9"], 2, "--device"),
        (["run", "-m", "logmel", "-t", "nowhere/manifest.csv"], 2, "nowhere/manifest.csv"),
        (["run", "-m", "logmel", "-t", "esc50"], 1, "esc50"),
        (["extract", "-m", "logmel", "-s", "mini", "--part", "3/2"], 2, "--part"),
        (["probe", "-t", "mini_music"], 1, "run uwbench extract first"),
        (["leaderboard", "--format", "pdf"], 2, "'csv', 'md', 'html'"),
        (["reproduce", "nothing.json"], 2, "nothing.json"),
        (["tasks", "esc51"], 2, "did you mean esc50"),
        (["protocols", "xares"], 2, "xares-0.1.3"),
        (["no-such-command"], 2, "No such command"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_bad_request_names_its_fault_and_exits_with_its_code(
    uwbench: Command, words: list[str], code: int, message: str
) -> None:
    done = uwbench(*words)
    assert done.code == code, done.err
    assert message in done.err
    assert "Traceback" not in done.err


def test_without_arguments_it_says_how_to_start(uwbench: Command) -> None:
    done = uwbench()
    assert done.code == 0
    for command in ("uwbench run -m logmel -s mini", "uwbench leaderboard", "uwbench doctor", "uwbench --help"):
        assert command in done.out
    assert all(len(line) <= 80 for line in done.out.splitlines())


def test_listings(uwbench: Command) -> None:
    assert "mini_speech" in uwbench("tasks").out
    assert "whisper-large-v3" in uwbench("models").out
    assert "name: mini_speech" in uwbench("tasks", "mini_speech").out
    assert "learning_rates" in uwbench("protocols", "uwbench-1").out
    assert uwbench("tasks", "check", ROOT / "tasks" / "esc50.yaml").code == 0


def test_cache_commands(uwbench: Command, dataset: Path, tmp_path: Path) -> None:
    assert uwbench("extract", "-m", "logmel", "-t", dataset).code == 0
    (row,) = json.loads(uwbench("cache", "ls", "--json").out)
    assert (row["task"], row["clips"], row["encoder"]) == ("beeps", 45, "logmel")
    assert uwbench("cache", "verify").code == 0
    part = next((tmp_path / "cache").glob("logmel-*/beeps/pooled-*.arrow"))
    part.write_bytes(part.read_bytes()[:-3])
    damaged = uwbench("cache", "verify")
    assert damaged.code == 1
    assert part.name in damaged.out
    refused = uwbench("probe", "-t", "beeps")
    assert refused.code == 1
    assert "then extract again" in refused.err
    healed = uwbench("run", "-m", "logmel", "-t", dataset)
    assert healed.code == 0
    assert part.name in healed.err
    (part.parent / "pooled-00099.arrow").write_bytes(b"left by a writer that was killed")
    assert "pooled-00099.arrow" in uwbench("cache", "prune", "--dry-run").out
    assert uwbench("cache", "prune").code == 0
    assert not (part.parent / "pooled-00099.arrow").exists()
    assert uwbench("cache", "verify").code == 0


def test_an_encoder_of_the_users_own_file(uwbench: Command, dataset: Path, tmp_path: Path) -> None:
    source = (ROOT / "tests" / "spectrum_encoder.py").read_text()
    path = tmp_path / "mine.py"
    path.write_text(source)
    done = uwbench("run", "-m", f"{path}:SpectrumEncoder", "-t", dataset, "--layers", "all", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)[0]["scores"]["knn"]["main_score"] > 0.9


def test_a_terminated_run_keeps_finished_work_and_resumes(uwbench: Command, tmp_path: Path, shared_data: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT / "bench")}
    words = ["extract", "-m", "logmel", "-t", str(shared_data / "fsdd" / "manifest.csv"), "--batch-seconds", "2"]
    words += ["--limit", "200"]  # of each split: 19 parts
    command = [sys.executable, "-m", "uwbench", *words]

    def parts(cache: str) -> list[Path]:
        return sorted(Path(cache).glob("logmel-*/fsdd/pooled-*.arrow"))

    for number in (signal.SIGTERM, signal.SIGKILL):
        cache = str(tmp_path / number.name)
        process = subprocess.Popen([*command, "--cache", cache], env=env, stderr=subprocess.PIPE, text=True)
        while len(parts(cache)) < 5 and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(number)
        sent = time.monotonic()
        _, err = process.communicate(timeout=20)
        assert time.monotonic() - sent < 5
        assert process.returncode != 0, "the run was over before the signal"
        assert number == signal.SIGKILL or "run the same command again" in err
        kept = len(parts(cache))
        assert 5 <= kept < 19
        assert uwbench(*words, "--cache", cache).code == 0
    assert uwbench(*words, "--cache", tmp_path / "whole").code == 0
    whole = {path.name: path.read_bytes() for path in parts(str(tmp_path / "whole"))}
    manifest = next((tmp_path / "whole").glob("logmel-*/fsdd/manifest.json")).read_bytes()
    for number in (signal.SIGTERM, signal.SIGKILL):
        cache = tmp_path / number.name
        assert {path.name: path.read_bytes() for path in parts(str(cache))} == whole
        assert next(cache.glob("logmel-*/fsdd/manifest.json")).read_bytes() == manifest


@pytest.mark.slow
def test_processes_share_one_cache(uwbench: Command, tmp_path: Path, shared_data: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT / "bench"), "OMP_NUM_THREADS": "1"}
    words = [
        "extract",
        "-m",
        "logmel",
        "-t",
        str(shared_data / "esc10" / "manifest.csv"),
        "--cache",
        str(tmp_path / "c"),
        "--limit",
        "20",
    ]
    command = [sys.executable, "-m", "uwbench", *words]
    racing = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3)]
    errors = [process.communicate(timeout=120)[1].decode() for process in racing]
    assert [process.returncode for process in racing] == [0, 0, 0], errors
    after = uwbench(*words)
    assert after.code == 0
    assert "everything was cached" in after.out


def test_scoring_one_method_keeps_the_other(uwbench: Command, dataset: Path, tmp_path: Path) -> None:
    assert uwbench("run", "-m", "logmel", "-t", dataset).code == 0
    path = next((tmp_path / "results").glob("logmel/*/uwbench-1/beeps.json"))
    before = json.loads(path.read_text())
    assert uwbench("probe", "-t", "beeps", "--method", "knn").code == 0
    after = json.loads(path.read_text())
    assert after["scores"] == before["scores"]
    assert uwbench("compare", "logmel", "logmel", "--method", "mlp").code == 0
    assert uwbench("probe", "-t", "beeps", "--method", "knn", "--seed", 1).code == 0
    assert list(json.loads(path.read_text())["scores"]) == ["knn"], "numbers of another seed are not mixed in"
