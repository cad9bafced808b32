"""Everything that needs a GPU, in eight minutes, without a network: one JSON file and one printed page.

    make gpu                  on an H100-class GPU
    make gpu DEVICE=cpu       tiny shapes on the CPU, so that the same code runs everywhere

Parts: the tests that are marked `gpu`; Whisper large-v3's shape; wav2vec 2.0's, AST's and Qwen2-Audio's; decoding;
probes and neighbours; the companion's training. Each is a process with a time limit, and what it measured until then is
kept. Weights are random. `--packages` takes the archive that `gpu_wheels.py` collects where there is a network.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine import processor

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """A part: its title, its program and arguments, and its seconds on a GPU; what one leaves, the next ones have."""

    name: str
    title: str
    words: tuple[str, ...]
    limit_s: float


PARTS = (
    Part("tests", "Tests on the device", ("gpu_tests.py",), 95),
    Part("whisper", "Whisper large-v3's shape, clips of 5 s", ("gpu_encoders.py", "whisper"), 120),
    Part("others", "Other shapes, clips of 5 s", ("gpu_encoders.py", "others"), 75),
    Part("decode", "Decoding alone, clips of 5 s at 44.1 kHz to 16 kHz", ("decode.py",), 30),
    Part("probes", "Probes of true-size tasks, embeddings of 1,280", ("gpu_probes.py",), 65),
    Part("companion", "The companion, configuration full", ("gpu_companion.py",), 90),
)
FACTS = """
import importlib.metadata as m, importlib.util as u, json, os, sys
names = {"torch": "torch", "transformers": "transformers", "pyarrow": "pyarrow", "soundfile": "soundfile",
         "soxr": "soxr", "pydantic": "pydantic", "faiss": "faiss-cpu", "sklearn": "scikit-learn", "scipy": "scipy",
         "pandas": "pandas", "filelock": "filelock", "xxhash": "xxhash", "platformdirs": "platformdirs",
         "pytest": "pytest", "hypothesis": "hypothesis", "yaml": "pyyaml"}
missing = [name for name in names if u.find_spec(name) is None]
versions = {p: m.version(p) for n, p in names.items() if n not in missing and any(m.distributions(name=p))}
facts = {"python": sys.version.split()[0], "cores": os.cpu_count(), "versions": versions, "missing": missing}
if "torch" not in missing:
    import torch
    if torch.cuda.is_available():
        device = torch.cuda.get_device_properties(0)
        facts["gpu"] = {"name": device.name, "memory_gb": device.total_memory / 1e9, "cuda": torch.version.cuda}
print(json.dumps(facts))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, help="limit of all parts together: 8 on a GPU, 40 on a CPU")
    parser.add_argument("--only", action="append", choices=[part.name for part in PARTS], help="repeats")
    parser.add_argument("--output", type=Path, default=Path("build/gpu"), help="folder of gpu.json and the logs")
    parser.add_argument("--packages", type=Path, help="archive of packages that this machine lacks")
    parser.add_argument("--data", type=Path, help="folder with esc10/manifest.csv or fsdd/manifest.csv")
    options = parser.parse_args()
    output = options.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    env = environment(output, options.packages)
    facts = json.loads(subprocess.run([sys.executable, "-c", FACTS], env=env, check=True, capture_output=True).stdout)
    if options.device != "cpu" and "gpu" not in facts:
        sys.exit("gpu.py: torch finds no GPU here; --device cpu (make gpu DEVICE=cpu) runs tiny shapes")
    data = options.data or next(
        (path for path in (ROOT / "shared/data", ROOT.parent / "shared/data") if path.is_dir()), None
    )
    page: dict[str, Any] = {"device": options.device, "machine": {"processor": processor(), **facts}, "parts": {}}
    chosen = [part for part in PARTS if options.only is None or part.name in options.only]
    # On a CPU the limits only end what hangs: nobody waits for it as for a lent GPU, and the machine may be busy.
    minutes = options.minutes or (40.0 if options.device == "cpu" else 8.0)
    scale = 60 * minutes / sum(part.limit_s for part in PARTS)
    ends = time.monotonic()
    for part in chosen:
        ends += scale * part.limit_s
        with tempfile.TemporaryDirectory(prefix=f"gpu-{part.name}-") as scratch:
            words = ["--scratch", scratch, *(["--data", str(data)] if data else [])]
            page["parts"][part.name] = run(part, options.device, words, ends - time.monotonic(), output, env)
        (output / "gpu.json").write_text(json.dumps(page, indent=1), encoding="utf-8")
    print("\n".join(lines(page)))
    print(f"\n{output / 'gpu.json'}")
    return int(any(run["status"] != "finished" for run in page["parts"].values()))


def environment(output: Path, packages: Path | None) -> dict[str, str]:
    """Return the environment of the parts; unpack the archive of packages if there is one."""
    paths = [str(ROOT / "bench"), str(HERE)]
    if packages is not None:
        from gpu_wheels import unpack

        site = output / "packages"
        shutil.rmtree(site, ignore_errors=True)
        unpack(packages, site)
        paths.append(str(site))
    known = os.environ.get("PYTHONPATH")
    paths += [known] if known else []
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"}


def run(
    part: Part, device: str, words: Sequence[str], limit_s: float, output: Path, env: Mapping[str, str]
) -> dict[str, Any]:
    """Run a part until it ends or its time is over, and return its status and its records."""
    record, log = output / f"{part.name}.jsonl", output / f"{part.name}.log"
    record.unlink(missing_ok=True)
    program, *own = part.words
    command = [sys.executable, str(HERE / program), *own, "--device", device, "--record", str(record), *words]
    command += ["--tiny"] if device == "cpu" else []
    print(f"{part.name}: at most {limit_s:.0f} s", file=sys.stderr, flush=True)
    started = time.monotonic()
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(command, env=env, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = process.wait(timeout=limit_s)
            status = "finished" if code == 0 else f"failed with {code}"
        except subprocess.TimeoutExpired:
            status = "out of time"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # and the processes that it started
                process.wait()
    outcome: dict[str, Any] = {"status": status, "seconds": time.monotonic() - started, "limit_s": limit_s}
    outcome["records"] = [json.loads(line) for line in record.read_text().splitlines()] if record.is_file() else []
    if status != "finished":
        outcome["log"] = log.read_text(encoding="utf-8", errors="replace")[-3000:]
    return outcome


def lines(page: Mapping[str, Any]) -> Iterator[str]:
    """Yield the page, line by line."""
    machine = page["machine"]
    gpu = machine.get("gpu")
    yield f"{gpu['name']}, {gpu['memory_gb']:.0f} GB, CUDA {gpu['cuda']}" if gpu else "no GPU: tiny shapes on the CPU"
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    yield f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}, {versions}"
    if machine["missing"]:
        yield f"missing here: {', '.join(machine['missing'])}"
    for part in PARTS:
        if part.name not in page["parts"]:
            continue
        outcome = page["parts"][part.name]
        yield f"\n{part.title}: {outcome['status']}, {outcome['seconds']:.0f} s of {outcome['limit_s']:.0f}"
        records = outcome["records"]
        yield from (f"  {line}" for line in SECTIONS[part.name](records))
        yield from (f"  failed: {name(record)}: {record['reason']}" for record in records if record["what"] == "failed")
        if outcome["status"].startswith("failed"):
            yield from (f"  | {line}" for line in outcome["log"].splitlines()[-8:])


def of(records: Iterable[Record], what: str) -> list[Record]:
    return [record for record in records if record["what"] == what]


def name(record: Record) -> str:
    return " ".join(str(record[key]) for key in ("name", "context", "dtype") if key in record)


def tests(records: list[Record]) -> Iterator[str]:
    ran = of(records, "test")
    yield f"{sum(test['outcome'] == 'passed' for test in ran)} of {len(ran)} passed"
    for dtype in ("fp32", "bf16"):
        apart = {test["name"]: test["apart"] for test in ran if "apart" in test and f"-{dtype}]" in test["name"]}
        if apart:
            worst = max(apart, key=apart.__getitem__)
            yield f"{dtype}: {len(apart)} families, at most {apart[worst]:.2g} from fp32 on the CPU ({between(worst)})"
    for test in ran:
        if test["outcome"] != "passed":
            yield f"{test['outcome']}: {test['name']}: {test['reason'].splitlines()[-1] if test['reason'] else ''}"


def between(test: str) -> str:
    return test.partition("[")[2].rpartition("-")[0]


def encoders(records: list[Record]) -> Iterator[str]:
    for peak in of(records, "peak"):
        yield f"a large product in {peak['dtype']}: {peak['tflops']:.3g} TFLOP/s; MFU is the share of it"
    for bare in of(records, "bare forward"):
        yield (
            f"{name(bare)}: bare forward {bare['clips_s']:.4g} clips/s in batches of {bare['batch']}, "
            f"MFU {bare['mfu']:.0%} of {bare['tflop_a_clip']:.3g} TFLOP a clip"
        )
        for mel in of(records, "mel"):
            if name(mel) == name(bare):
                yield f"    mel: {mel['clips_s']:.4g} clips/s, {mel['of_bare_forward']:.1%} of the forward's time"
        for got in of(records, "extraction"):
            if name(got) == name(bare):
                memory = f", {got['peak_gb']:.1f} GB" if "peak_gb" in got else ""
                yield (
                    f"    extraction: {got['clips_s']:.4g} clips/s of {got['clips']}, {got['of_bare_forward']:.0%} of "
                    f"the bare forward, MFU {got['mfu']:.0%}; decoding takes {got['decode_cores']:.1f} cores{memory}"
                )


def decoding(records: list[Record]) -> Iterator[str]:
    for each in of(records, "decode"):
        yield (
            f"{each['format']}: {each['clips_s_core']:.4g} clips/s of a core; {each['workers']} threads "
            f"{each['threads']:.4g} clips/s, processes {each['processes']:.4g}, "
            f"ratio {each['threads'] / each['processes']:.2f}"
        )


def probes(records: list[Record]) -> Iterator[str]:
    for found in of(records, "neighbours"):
        size = f"{found['queries']:,} queries in {found['bank']:,} x {found['dim']}"
        yield f"neighbours, {found['by']}: {size}: {found['seconds']:.3g} s"
    ran = of(records, "probe")
    for probe in ran:
        line = f"{probe['task']}, {probe['clips']:,} clips, {probe['method']} on {probe['device']}: "
        line += f"{probe['score']:.4f} in {probe['seconds']:.1f} s"
        for other in ran:
            same = (other["task"], other["method"]) == (probe["task"], probe["method"])
            if same and other["device"] == "cpu" != probe["device"]:
                line += f"; {probe['score'] - other['score']:+.4f} and {probe['seconds'] / other['seconds']:.2f} x"
                line += " the seconds of the CPU"
        yield line


def companion(records: list[Record]) -> Iterator[str]:
    for data in of(records, "data"):
        yield f"{data['clips']} {'real' if data['real'] else 'generated'} clips"
    for found in of(records, "resume"):
        apart = found["largest_difference"]
        words = "bit for bit" if found["bit_for_bit"] else f"to {apart['resumed']:.2g}"
        yield f"resumed: equal {words}; the same run twice: to {apart['repeated']:.2g}"
    for found in of(records, "micro-batch"):
        yield f"micro-batch of {found['clips']} clips: {'fits' if found['fits'] else 'does not fit'}"
    for found in of(records, "training")[-1:]:
        yield (
            f"{found['steps']} steps of {found['micro_batches']} x {found['micro_batch_clips']} clips of "
            f"{found['mean_clip_s']:.1f} s: {found['audio_s_per_s']:.0f} audio-s/s, MFU {found['mfu']:.1%} and "
            f"{found['hfu']:.1%} with what is computed twice (of the configuration's peak), "
            f"{found['padded_audio']:.0%} padding, {found['data_wait']:.0%} waiting for data, {found['peak_gb']:.1f} GB"
        )
        fell = "falls" if found["last_loss"] < found["first_loss"] else "does not fall"
        yield f"loss {fell}: {found['first_loss']:.3f} to {found['last_loss']:.3f}"


SECTIONS = {
    "tests": tests,
    "whisper": encoders,
    "others": encoders,
    "decode": decoding,
    "probes": probes,
    "companion": companion,
}


if __name__ == "__main__":
    sys.exit(main())
