"""Probe and kNN time against scikit-learn and raw FAISS, measured in one run; tasks of true size on request.

    python benchmarks/probing.py                                   ratios on an ESC-10-sized task
    python benchmarks/probing.py --task voxceleb1                  one task at its true size (several: repeat)
    python benchmarks/probing.py --all --record FILE               all 20 by MLP and kNN; what FILE has is skipped
    python benchmarks/probing.py --all --method all --record FILE  by every method; one process for each of them

Embeddings are generated: classes with normal noise. Nothing here is a score of an encoder.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from machine import peak_anonymous, print_machine, seconds
from uwbench.audio.clip import Event, Labels
from uwbench.cache.frames import ClipRows, FileRows
from uwbench.cache.segments import SEGMENTS, SegmentFile, Segments
from uwbench.cards.card import Card
from uwbench.cards.find import find_card, find_protocol
from uwbench.methods import METHODS
from uwbench.options import methods_of
from uwbench.probes.data import Frames, TaskData
from uwbench.probes.knn import neighbours, unit_rows
from uwbench.probes.run import applicable, run_probes
from uwbench.results.averages import interval
from worlds import NamedCentres

DIM = 1280  # Whisper large's

# Clips of (train, valid, test) or of all folds, and classes: tasks.md; where it gives no count, X-ARES's own subset.
SPLITS = {
    "asvspoof2015": (16_375, 53_372, 193_404, 2),
    "cremad": (5_144, 738, 1_556, 6),
    "fluentspeechcommands": (23_132, 3_118, 3_793, 248),
    "fma_small": (6_400, 800, 800, 8),
    "fsd50k": (36_796, 4_170, 10_231, 200),
    "fsdkaggle2018": (9_473, 0, 1_600, 41),
    "librispeech_mf": (28_539, 2_703, 2_620, 2),
    "nsynth": (289_205, 12_678, 4_096, 11),
    "speechcommands_v1": (51_088, 6_798, 6_835, 30),
    "vocalsound": (15_570, 1_860, 3_594, 6),
    "voxceleb1": (138_361, 6_904, 8_251, 1_251),
    "voxlingua33": (66_000, 0, 1_609, 33),
}
FOLDS = {
    "esc50": (2_000, 50),
    "gtzan": (1_000, 10),
    "libricount": (5_720, 11),
    "ravdess": (1_440, 8),
    "urbansound8k": (8_732, 10),
    "vocalimitation": (5_601, 302),
}
FRAMES = {"desed": (1_578, 0, 1_153, 10, 10.0), "maestro": (962, 137, 177, 88, 560.0)}  # clips and seconds a clip
HOP_S = 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", action="append", default=[], choices=sorted({**SPLITS, **FOLDS, **FRAMES}))
    parser.add_argument("--all", action="store_true", help="every task at its true size")
    parser.add_argument("--method", default="default", help="methods, separated by commas; default: mlp,knn; or all")
    parser.add_argument("--record", type=Path, help="add a JSON line per task and method to it; skip what it has")
    parser.add_argument("--limit-s", type=float, help="end a method on a task after so many seconds of a core")
    parser.add_argument(
        "--frames-gb", type=float, default=2.0, help="distinct frames of a frame task, or segments, on the disk"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)  # a task in this process, as a JSON line
    options = parser.parse_args()
    _set_threads(options.threads)
    methods = methods_of(options.method.split(","))
    if options.one:
        if options.limit_s is not None:
            resource.setrlimit(resource.RLIMIT_CPU, (round(options.limit_s), round(options.limit_s) + 5))
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(true_size(options.task[0], methods[0], Path(folder), options.frames_gb)))
        return
    print_machine("torch", "faiss-cpu", "scikit-learn", "numpy", threads=options.threads)
    names = sorted({**SPLITS, **FOLDS, **FRAMES}) if options.all else options.task
    if names:
        true_sizes(names, methods, options.record, options.threads, options.frames_gb, options.limit_s)
    else:
        compare_probe()
        compare_knn()


def true_sizes(
    names: Sequence[str],
    methods: Sequence[str],
    record: Path | None,
    threads: int,
    frames_gb: float,
    limit_s: float | None,
) -> None:
    """Run each method of each task in a process of its own, so that its peak memory is its own."""
    known = [json.loads(line) for line in record.read_text().splitlines()] if record and record.is_file() else []
    measured: dict[tuple[str, str], dict[str, Any]] = {(line["task"], line["method"]): line for line in known}
    protocol = find_protocol("uwbench-1")
    wanted = {name: applicable(methods, protocol, find_card(name))[0] for name in names}
    for name, of_task in wanted.items():
        for method in of_task:
            if (name, method) not in measured:
                command = [sys.executable, __file__, "--one", "--task", name, "--method", method]
                command += ["--threads", str(threads), "--frames-gb", str(frames_gb)]
                measured[name, method] = line = _measured(command, limit_s) | {"task": name, "method": method}
                if record is not None:
                    with record.open("a") as file:
                        file.write(json.dumps(line) + "\n")
        texts = [_text(measured[name, method]) for method in of_task]
        print(f"{name}: {_size(name):,} clips; {'; '.join(texts) or 'no method takes it'}", flush=True)
    for method in methods:
        lines = [measured[name, method] for name in names if method in wanted[name]]
        ended = [line for line in lines if "cpu" in line]
        if ended:
            slowest, largest = (max(ended, key=lambda line: line[key]) for key in ("cpu", "anonymous_gb"))
            minutes = sum(line["cpu"] for line in ended) / 60
            print(f"{method}: {len(ended)} of {len(lines)} tasks in {minutes:.1f} min of a core, most of it ", end="")
            print(f"on {slowest['task']}; largest peak {largest['anonymous_gb']:.1f} GB, on {largest['task']}")


def _measured(command: Sequence[str], limit_s: float | None) -> dict[str, Any]:
    limit = [] if limit_s is None else ["--limit-s", str(limit_s)]
    ended = subprocess.run([*command, *limit], check=False, capture_output=True, text=True)
    if limit_s is not None and ended.returncode == -signal.SIGXCPU:
        return {"limit_s": limit_s}
    if ended.returncode != 0:
        return {"error": (ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"])[-1]}
    return json.loads(ended.stdout)


def _text(line: dict[str, Any]) -> str:
    if "error" in line:
        return f"{line['method']} not run ({line['error']})"
    if "limit_s" in line:
        return f"{line['method']} not within {line['limit_s']:.0f} s of a core"
    return f"{line['method']} {line['cpu']:.0f} s of a core ({line['seconds']:.0f} s), {line['anonymous_gb']:.1f} GB"


def _size(name: str) -> int:
    if name in FOLDS:
        return FOLDS[name][0]
    return sum((SPLITS.get(name) or FRAMES[name])[:3])


def compare_probe() -> None:
    """400 clips, 384 dimensions, 5 folds: whole grid and five seeds, against the same fits by scikit-learn."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    protocol = find_protocol("uwbench-1")
    data = folded(find_card("esc50").model_copy(update={"vocabulary": None}), 400, 10, dim=384)
    ours = seconds(lambda: run_probes(data, protocol, methods=["mlp"]))
    x = data.pooled[:, 0]
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    y, fold = np.array(data.labels), np.array(data.folds)

    def by_scikit_learn() -> None:
        settings = protocol.mlp
        for name in np.unique(fold):
            train = fold != name
            for rate in settings.learning_rates:
                for decay in settings.weight_decays:
                    LogisticRegression(C=1 / decay, max_iter=500).fit(x[train], y[train])
                    _mlp(MLPClassifier, rate, decay).fit(x[train], y[train])
            for _ in settings.seeds:
                _mlp(MLPClassifier, 0.001, 0.01).fit(x[train], y[train])

    def _mlp(kind: Callable, rate: float, decay: float):
        epochs = protocol.mlp.epochs
        return kind(
            (512,), learning_rate_init=rate, alpha=decay, batch_size=64, max_iter=epochs, n_iter_no_change=epochs
        )

    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = seconds(by_scikit_learn)
    print(f"MLP probe, 400 x 384, 5 folds, grid and 5 seeds: {ours:.1f} s; scikit-learn {theirs:.1f} s; ", end="")
    print(f"ratio {ours / theirs:.2f}")


def compare_knn(bank: int = 20_000, queries: int = 4_000, k: int = 20) -> None:
    """Our neighbours, with their exact order and ties, against raw FAISS and scikit-learn on the same vectors."""
    import faiss
    from sklearn.neighbors import NearestNeighbors

    rng = np.random.default_rng(0)
    held, asked = (unit_rows(rng.normal(size=(n, DIM)).astype(np.float32)) for n in (bank, queries))

    def raw() -> None:
        index = faiss.IndexFlatIP(DIM)
        index.add(held)
        index.search(asked, k)

    raw()
    times = {
        "uwbench": seconds(lambda: neighbours(held, asked, k)),
        "raw FAISS": seconds(raw),
        "scikit-learn": seconds(lambda: NearestNeighbors(n_neighbors=k, algorithm="brute").fit(held).kneighbors(asked)),
    }
    print(f"kNN, {bank:,} x {DIM}, {queries:,} queries, k = {k}: ", end="")
    print("; ".join(f"{name} {value:.2f} s" for name, value in times.items()), end="; ")
    print(f"ratio to FAISS {times['uwbench'] / times['raw FAISS']:.2f}")


def true_size(name: str, method: str, folder: Path, frames_gb: float) -> dict[str, Any]:
    """Run a method, with its interval, on generated embeddings of a task's true size; return seconds and peak memory.

    The peaks hold the embeddings too; the first of them also what the system keeps in memory of the file of frames.
    """
    protocol, card = find_protocol("uwbench-1"), find_card(name)
    data = _generate(name, card.model_copy(update={"vocabulary": None}), folder, frames_gb)
    if METHODS[method].segments:
        data = segmented(data, folder, frames_gb)
    taken: dict[str, float] = {}

    def run() -> None:
        started, used = time.perf_counter(), time.process_time()
        score = (outcome := run_probes(data, protocol, methods=[method])).scores[method]
        of_folds = protocol.metric_of_folds(method)
        interval(outcome.predictions, method, score.metric, protocol.bootstrap, of_folds=of_folds)
        taken["seconds"], taken["cpu"] = time.perf_counter() - started, time.process_time() - used
        taken["score"] = score.main_score

    anonymous = peak_anonymous(run, every_s=0.1) / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return {
        **taken,
        "peak_gb": peak,
        "anonymous_gb": anonymous,
        "load": os.getloadavg()[1],
    }


def _generate(name: str, card: Card, folder: Path, frames_gb: float) -> TaskData:
    if name in FRAMES:
        return framed(card, FRAMES[name], folder, frames_gb)
    if name in FOLDS:
        return folded(card, *FOLDS[name])
    *sizes, classes = SPLITS[name]
    splits = [part for part, size in zip(("train", "valid", "test"), sizes, strict=True) for _ in range(size)]
    return made(card, sum(sizes), classes, splits=splits)


def folded(card: Card, n: int, classes: int, dim: int = DIM) -> TaskData:
    names = card.folds or ()
    return made(card, n, classes, dim=dim, folds=[names[row % len(names)] for row in range(n)])


def made(
    card: Card, n: int, classes: int, *, dim: int = DIM, splits: list[str] | None = None, folds: list[str] | None = None
) -> TaskData:
    """Vectors of `n` clips: the class's mean, and ten times as much noise."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, classes, n)
    codes[:classes] = np.arange(classes)  # every class is trained
    vectors = rng.standard_normal((n, 1, dim), dtype=np.float32)
    means = rng.standard_normal((classes, dim), dtype=np.float32) / 10
    for start in range(0, n, 8192):
        vectors[start : start + 8192, 0] += means[codes[start : start + 8192]]
    labels: list[Labels] = [f"c{code:04d}" for code in codes]
    if card.kind == "multi-label":
        labels = [(f"c{code:04d}", f"c{(7 * code + 1) % classes:04d}") for code in codes]
    ids = [f"clip-{row:07d}" for row in range(n)]
    return TaskData(
        card,
        ids,
        labels,
        splits,
        folds,
        [None] * n,
        np.full(n, 5.0),
        ("last",),
        vectors,
        joint=NamedCentres(vectors[:, 0], means),
    )


def framed(card: Card, sizes: tuple[int, int, int, int, float], folder: Path, frames_gb: float) -> TaskData:
    """Frames on disk, memory-mapped, as the store's are. Where all would take more than `frames_gb`, clips share them:
    the file holds the frames of the first few, which the next few clips repeat.
    """
    *clips, classes, duration = sizes
    n, frames = sum(clips), round(duration / HOP_S)
    held = min(n, max(classes, int(frames_gb * 1e9 / (2 * DIM * frames))))
    rng = np.random.default_rng(0)
    path = folder / f"{card.name}.npy"
    values = np.lib.format.open_memmap(path, "w+", np.float16, (held * frames, DIM))
    means = rng.standard_normal((classes, DIM), dtype=np.float32)
    events = []
    for row in range(held):
        onset, length = rng.uniform(0, duration * 0.7), duration * 0.3
        first, last = int(onset / HOP_S), int((onset + length) / HOP_S)
        code = row % classes
        for start in range(0, frames, 4096):
            stop = min(start + 4096, frames)
            block = rng.standard_normal((stop - start, DIM), dtype=np.float32)
            block[max(first - start, 0) : max(last - start, 0)] += means[code] / 5
            values[row * frames + start : row * frames + stop] = block
        events.append((Event(onset, onset + length, f"c{code:04d}"),))
    del values
    own = np.arange(n) % held
    rows = ClipRows([np.load(path, mmap_mode="r")], np.zeros(n, np.int64), own * frames, np.full(n, frames))
    labels: list[Labels] = [events[row] for row in own]
    splits = [part for part, size in zip(("train", "valid", "test"), clips, strict=True) for _ in range(size)]
    ids = [f"clip-{row:07d}" for row in range(n)]
    pooled, durations = np.zeros((n, 1, DIM), np.float32), np.full(n, duration)
    frames_held = Frames(rows, rows.offsets, HOP_S)
    return TaskData(card, ids, labels, splits, None, [None] * n, durations, ("last",), pooled, frames_held)


def segmented(data: TaskData, folder: Path, segments_gb: float) -> TaskData:
    """Add segments on disk: the class's mean, and ten times as much noise. Where all would take more than
    `segments_gb`, clips of a class share them.
    """
    first_labels = [label if isinstance(label, str) else str(label[0]) for label in data.labels]
    names, codes = np.unique(first_labels, return_inverse=True)
    n, classes, dim = len(codes), len(names), data.pooled.shape[-1]
    per_class = max(1, min(n, int(segments_gb * 1e9 / (2 * SEGMENTS * dim))) // classes)
    rng = np.random.default_rng(0)
    means = rng.standard_normal((classes, dim), dtype=np.float32) / 10
    path = folder / f"{data.card.name}-segments"
    with path.open("wb") as file:
        for _ in range(per_class):
            noise = rng.standard_normal((classes, SEGMENTS, dim), dtype=np.float32)
            (means[:, None] + noise).astype(np.float16).tofile(file)
    place = np.empty(n, np.int64)  # of a clip among those of its class
    for code in range(classes):
        members = np.flatnonzero(codes == code)
        place[members] = np.arange(len(members))
    rows = FileRows(path, 0, per_class * classes, SEGMENTS * dim)
    file_of = np.zeros(n, np.int64)
    segments = Segments([SegmentFile(rows, 1, [0])], file_of, place % per_class * classes + codes, (1, dim))
    return replace(data, segments=segments, segment_layers=("last",))


def _set_threads(threads: int) -> None:
    import faiss
    import torch

    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(threads)


if __name__ == "__main__":
    main()
