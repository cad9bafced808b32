"""uwbench against mteb and X-ARES, each run as its users run it, alternating, on the same clips and the same Whisper.

    python benchmarks/peers.py --data DATA --model FOLDER [--clips 100] [--rounds 1] [--scratch DIR]

DATA holds `esc10/manifest.csv` (path, label, fold) and `fsdd/manifest.csv` (path, digit, speaker, split); FOLDER is a
Whisper checkpoint. The first run makes one environment per peer in `--scratch` with pip, which takes minutes.

Every job is a process of its own. The protocols differ: the MLP grid of uwbench with five seeds, X-ARES's MLP of ten
epochs with its kNN, mteb's logistic regression on eight clips per class. The table says what each waits for.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import time
import venv
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from machine import print_machine

HERE = Path(__file__).resolve().parent
SCRIPTS = HERE / "peers"  # they run in the peers' environments

PEERS = {"mteb": "mteb[audio]==2.26.24", "xares": "xares==0.1.3"}
PATCHES = """Patches without which the peers do not run here:
  mteb, X-ARES: the compiled library of torchaudio is removed, since it does not load beside the CPU build of torch
  mteb: clips are read by soundfile, since datasets decodes by torchcodec, which needs FFmpeg
  X-ARES: torchaudio.load reads by soundfile, for the same reason; --max-jobs 0, as it divides by the number of GPUs"""
STEPS = {
    "esc10": "first score, ESC-10",
    "probe": "second probe on ESC-10",
    "digit": "first score, FSDD digit",
    "speaker": "second task on the same clips, FSDD speaker",
}


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one job: wall and CPU seconds, and the largest process in MB."""

    wall_s: float
    cpu_s: float
    peak_mb: float


Job = Callable[[str], list[str | Path] | None]  # step -> command; None: an earlier step did it already


def main() -> None:
    """Make the environments, run all jobs in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=100, help="clips of ESC-10; three times as many of FSDD")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--scratch", type=Path, default=Path("build/peers"))
    options = parser.parse_args()
    scratch = options.scratch.resolve()
    pythons = {name: environment(scratch / name, requirement) for name, requirement in PEERS.items()}
    print_machine("uwbench", "torch", "transformers")
    for name, python in pythons.items():
        print(f"  {name}: {versions(python)}")
    print(PATCHES, flush=True)
    tables = write_tables(options.data.resolve(), scratch, options.clips)
    costs: dict[tuple[str, str], list[Cost]] = {}
    sizes: dict[str, float] = {}
    for round_number in range(options.rounds):
        work = scratch / "work"
        shutil.rmtree(work, ignore_errors=True)
        tools = jobs(tables, options.model.resolve(), work, pythons)
        names = list(tools)
        for step in STEPS:
            for name in names[round_number % len(names) :] + names[: round_number % len(names)]:
                command = tools[name](step)
                if command is not None:
                    costs.setdefault((name, step), []).append(timed(command, work / name, options.model.resolve()))
        sizes = {name: megabytes(work / name) for name in tools}
    report(costs, sizes, list(sizes))


def environment(folder: Path, requirement: str) -> Path:
    """Return the Python of an environment with the peer, made if it is not there."""
    python, complete = folder / "bin/python", folder / ".complete"
    if not complete.exists():
        venv.create(folder, with_pip=True, clear=True)
        constraints = HERE.parent / "constraints.txt"
        install = [python, "-m", "pip", "install", "--quiet", "--constraint", constraints, requirement, "soundfile"]
        subprocess.run(install, check=True)
        for library in folder.glob("lib/python*/site-packages/torchaudio/lib/*.so"):
            library.unlink()
        complete.touch()
    return python


def versions(python: Path) -> str:
    """Return the versions of the packages that matter in an environment."""
    code = (
        "import importlib.metadata as m; print(', '.join(f'{n} {m.version(n)}' for n in"
        " ('mteb', 'xares', 'torch', 'torchaudio', 'transformers') if any(m.distributions(name=n))))"
    )
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def write_tables(data: Path, scratch: Path, clips: int) -> dict[str, Path]:
    """Write a manifest of ESC-10 and one of FSDD with the first clips of each class, paths absolute."""
    plans = {"esc10": (("fold", "label"), 50, clips), "fsdd": (("split", "digit", "speaker"), 180, 3 * clips)}
    tables = {}
    for name, (strata, n_strata, limit) in plans.items():
        with (data / name / "manifest.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        taken: Counter[tuple[str, ...]] = Counter()
        chosen = []
        for row in rows:
            stratum = tuple(row[column] for column in strata)
            if taken[stratum] < max(1, limit // n_strata):
                taken[stratum] += 1
                chosen.append(row | {"path": str(data / name / row["path"])})
        tables[name] = scratch / f"{name}.csv"
        with tables[name].open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, chosen[0])
            writer.writeheader()
            writer.writerows(chosen)
        print(f"  {name}: {len(chosen)} clips")
    return tables


def jobs(tables: dict[str, Path], model: Path, work: Path, pythons: dict[str, Path]) -> dict[str, Job]:
    """Return each tool's command per step, in a folder of its own under `work`."""
    for name in ("uwbench", "uwbench trimmed", "mteb", "xares"):
        (work / name).mkdir(parents=True)
    pack_xares(tables, work / "xares")

    def ours(context: str, folder: Path) -> Job:
        def command(step: str) -> list[str | Path]:
            name, label = ("esc10", "label") if step in ("esc10", "probe") else ("fsdd", step)
            method = "knn" if step == "probe" else "mlp"
            options = ["--cache", folder / "cache", "--results", folder / "results", "--allow-outside"]
            words: list[str | Path] = [sys.executable, "-m", "uwbench", "run", "-m", model, "-t", tables[name]]
            return [*words, "--label", label, "--method", method, "--context", context, *options]

        return command

    def mteb(step: str) -> list[str | Path]:
        name, label = ("esc10", "label") if step in ("esc10", "probe") else ("fsdd", step)
        task, probe = ("esc10", "knn") if step == "probe" else (step, "logistic")
        script = SCRIPTS / "run_mteb.py"
        return [pythons["mteb"], script, model, tables[name], label, task, probe, work / "mteb" / "cache"]

    def xares(step: str) -> list[str | Path] | None:
        if step == "probe":
            return None
        return [pythons["xares"], SCRIPTS / "run_xares.py", "whisper_encoder.py", f"{step}_task.py", "--max-jobs", "0"]

    return {
        "uwbench": ours("full", work / "uwbench"),
        "uwbench trimmed": ours("trimmed", work / "uwbench trimmed"),
        "mteb": mteb,
        "xares": xares,
    }


def pack_xares(tables: dict[str, Path], folder: Path) -> None:
    """Write X-ARES's tars of audio and labels, its task files and the encoder file, as its README asks for them."""
    shutil.copy(SCRIPTS / "xares_encoder.py", folder / "whisper_encoder.py")
    for task, (table, label) in {
        "esc10": ("esc10", "label"),
        "digit": ("fsdd", "digit"),
        "speaker": ("fsdd", "speaker"),
    }.items():
        with tables[table].open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        part = "fold" if "fold" in rows[0] else "split"
        classes = sorted({row[label] for row in rows})
        audio = folder / "env" / task
        audio.mkdir(parents=True)
        for value in sorted({row[part] for row in rows}):
            stem = f"wds-audio-fold-{value}-0" if part == "fold" else f"{value}-0"
            pack(audio / f"{stem}.tar", [row for row in rows if row[part] == value], label, classes)
        (audio / ".audio_tar_ready").touch()
        folds = "k_fold_splits=[1, 2, 3, 4, 5], " if part == "fold" else ""
        (folder / f"{task}_task.py").write_text(
            "from xares.task import TaskConfig\n\n\n"
            f"def {task}_config(encoder):\n"
            f"    return TaskConfig(encoder=encoder, name={task!r}, {folds}output_dim={len(classes)},\n"
            '                      label_processor=lambda row: row["label"], eval_weight=1)\n',
            encoding="utf-8",
        )


def pack(path: Path, rows: Iterable[dict[str, str]], label: str, classes: Sequence[str]) -> None:
    """Write one tar of audio files, each with its label as JSON beside it."""
    with tarfile.open(path, "w") as tar:
        for number, row in enumerate(rows):
            tar.add(row["path"], f"{number:05d}{Path(row['path']).suffix}")
            data = json.dumps({"label": classes.index(row[label])}).encode()
            entry = tarfile.TarInfo(f"{number:05d}.json")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


def timed(command: Sequence[str | Path], folder: Path, model: Path) -> Cost:
    """Run a job to its end and return its cost; stop with its output if it fails."""
    environ = os.environ | {"HF_HUB_OFFLINE": "1", "WHISPER_FOLDER": str(model)}
    with (folder / "log.txt").open("w", encoding="utf-8") as log:
        started = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, env=environ, stdout=log, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        tail = (folder / "log.txt").read_text(encoding="utf-8")[-2000:]
        sys.exit(f"{' '.join(map(str, command))} failed ({process.returncode}):\n{tail}")
    cost = Cost(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
    print(f"  {folder.name}: {cost.wall_s:.1f} s, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
    return cost


def megabytes(folder: Path) -> float:
    """Return what a tool left on disk, in MB, beside the audio that it was given."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "log.txt"]
    return sum(path.stat().st_size for path in files if path.parent.parent.name != "env") / 1e6


def report(costs: dict[tuple[str, str], list[Cost]], sizes: dict[str, float], tools: Sequence[str]) -> None:
    """Print the table: medians over the rounds, and ratios to uwbench."""
    print("\n| | " + " | ".join(tools) + " |\n| --- |" + " --- |" * len(tools))
    for step, title in STEPS.items():
        ours = statistics.median(cost.wall_s for cost in costs["uwbench", step])
        cells = []
        for tool in tools:
            runs = costs.get((tool, step))
            if runs is None:
                cells.append("in the first")
                continue
            wall = statistics.median(cost.wall_s for cost in runs)
            cpu = statistics.median(cost.cpu_s for cost in runs)
            cells.append(f"{wall:.1f} s ({cpu:.0f} s CPU), x {wall / ours:.2f}")
        print(f"| {title} | " + " | ".join(cells) + " |")
    peaks = {
        tool: max(cost.peak_mb for key, runs in costs.items() if key[0] == tool for cost in runs) for tool in tools
    }
    print("| largest process | " + " | ".join(f"{peaks[tool]:,.0f} MB" for tool in tools) + " |")
    print("| left on disk | " + " | ".join(f"{sizes[tool]:.1f} MB" for tool in tools) + " |")


if __name__ == "__main__":
    main()
