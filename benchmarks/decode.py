"""Decoding alone: clips a second of a core for WAV, FLAC, Ogg and MP3, resampled; threads against processes.

    python benchmarks/decode.py                    about a minute
    python benchmarks/decode.py --workers 16       what a GPU needs beside it (docs/scaling.md)

Clips are five seconds of filtered noise at 44.1 kHz, decoded as extraction does: read, hash, decode, resample to 16 kHz
with soxr's VHQ. A core's rate is by CPU time. Threads and processes take turns, and their median rates are compared.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from machine import print_machine, seconds
from made import audio_files
from uwbench.audio.clip import AudioFile, Clip
from uwbench.audio.scan import sha256_of
from uwbench.extraction.encode import decode_clip

FORMATS = ("wav", "flac", "ogg", "mp3")
TARGET = 16_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=min(16, os.cpu_count() or 1))
    parser.add_argument("--clips", type=int, default=128, help="of each format and round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tiny", action="store_true", help="few clips, one round")
    parser.add_argument("--record", type=Path, help="file for JSON lines")
    for word in ("--device", "--scratch", "--data"):  # what gpu.py gives to every part
        parser.add_argument(word, help=argparse.SUPPRESS)
    options = parser.parse_args()
    clips, rounds = (8, 1) if options.tiny else (options.clips, options.rounds)
    print_machine("soundfile", "soxr", "numpy")
    with tempfile.TemporaryDirectory() as folder, processes(options.workers) as pool:
        for kind in FORMATS:
            of_kind = Path(folder, kind)
            of_kind.mkdir()
            core, rates = measure(audio_files(None, of_kind, clips, kind=kind), options.workers, rounds, pool)
            print(
                f"{kind}: {core:.4g} clips/s of a core; {options.workers} threads {rates['threads']:.4g} clips/s, ",
                end="",
            )
            print(f"processes {rates['processes']:.4g}, ratio {rates['threads'] / rates['processes']:.2f}; ", end="")
            print(f"load {os.getloadavg()[0]:.1f}", flush=True)
            if options.record is not None:
                line = {"what": "decode", "format": kind, "clips_s_core": core, "workers": options.workers, **rates}
                with options.record.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")


def measure(files: Sequence[Path], workers: int, rounds: int, pool: Executor) -> tuple[float, dict[str, float]]:
    """Return the clips a second of a core's CPU time, and those of threads and of processes."""
    each = [(file, sha256_of(AudioFile(file))) for file in files]
    decode_all(each)
    cpu = time.process_time()
    decode_all(each)
    core = len(each) / (time.process_time() - cpu)
    many = each * max(1, round(workers / 2))
    with ThreadPoolExecutor(workers) as threads:
        times: dict[str, list[float]] = {"threads": [], "processes": []}
        for _ in range(rounds):
            times["threads"].append(seconds(lambda: list(threads.map(decode_one, many))))
            times["processes"].append(seconds(lambda: list(pool.map(decode_one, many))))
    return core, {name: len(many) / statistics.median(taken) for name, taken in times.items()}


def decode_one(file: tuple[Path, str]) -> int:
    """Decode one file as extraction does and return its number of samples."""
    path, sha256 = file
    return len(decode_clip(Clip(path.name, AudioFile(path), "a", split="train"), sha256, TARGET))


def decode_all(files: Sequence[tuple[Path, str]]) -> None:
    for file in files:
        decode_one(file)


@contextmanager
def processes(workers: int) -> Iterator[Executor]:
    """Yield a pool of processes that have started."""
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(abs, range(workers)))
        yield pool


if __name__ == "__main__":
    main()
