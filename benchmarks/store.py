"""The embeddings store against raw numpy: write and read pooled vectors, and the time to open a store.

    python benchmarks/store.py                     1,000,000 x 1,280: 10 GB of disk, 7 GB of memory
    python benchmarks/store.py --quick             100,000 x 1,280

Both write float32 and wait until it is on the disk, numpy with one sync of one file and with one per part; numpy also
writes without waiting. Both read into one new array, from the disk and from the system's page cache, numpy from one
file and from one file per part. The store looks up each row by its key, hashes what it writes and checks the hashes of
what it reads; with `--shuffled` both return the rows in another order than they are stored in. A time is the best of
some rounds, with the contenders in turn.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from machine import best, print_machine, seconds
from uwbench.cache.parts import PooledRows
from uwbench.cache.records import Part
from uwbench.cache.store import EncoderStore, open_encoders
from uwbench.encoders.base import EncoderInfo
from uwbench.extraction.identity import describe_encoder

PART = 4096  # rows, the largest part that is planned
WRITERS = 4  # a part is synced to the disk while others are written, as several processes of an extraction do


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=1280)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--shuffled", action="store_true")
    parser.add_argument("--quick", action="store_true", help="100,000 rows")
    parser.add_argument("--folder", type=Path, help="where to write; default: the system's temporary folder")
    options = parser.parse_args()
    rows = 100_000 if options.quick else options.rows
    print_machine("numpy", "pyarrow", "xxhash")
    keys = [index.to_bytes(32, "big") for index in range(rows)]
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        vectors = np.random.default_rng(0).standard_normal((PART, 1, options.dim), dtype=np.float32)
        write(Path(folder), keys, vectors, options.rounds)
        order = np.random.default_rng(1).permutation(rows) if options.shuffled else np.arange(rows)
        read(Path(folder), keys, vectors, order, options.rounds, options.shuffled)
        opening(Path(folder), keys)


def write(folder: Path, keys: list[bytes], vectors: np.ndarray, rounds: int) -> None:
    rows, raw = len(keys), folder / "raw"
    contenders = {
        "numpy": lambda: write_raw(raw, rows, vectors, rows, sync=True),
        "store": lambda: write_store(folder / "store", keys, vectors),
        "numpy, a file and a sync a part": lambda: write_raw(raw, rows, vectors, PART, sync=True),
        "numpy without a sync": lambda: write_raw(raw, rows, vectors, rows, sync=False),
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds):
        names = list(contenders)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            shutil.rmtree(folder / "store", ignore_errors=True)
            shutil.rmtree(raw, ignore_errors=True)
            os.sync()
            times[name].append(seconds(contenders[name]))
    for path in (raw, folder / "store"):
        shutil.rmtree(path, ignore_errors=True)
    contenders["store"]()  # what is read
    contenders["numpy"]()
    write_raw(folder / "raw-parts", rows, vectors, PART, sync=True)
    ours, size = min(times.pop("store")), rows * vectors[0].nbytes / 1e9
    print(f"write {rows:,} x {vectors.shape[2]:,} ({size:.2f} GB): store {ours:.2f} s")
    for name, taken in times.items():
        print(f"    against {name}: {min(taken):.2f} s, ratio {ours / min(taken):.2f}", flush=True)


def write_raw(folder: Path, rows: int, vectors: np.ndarray, at_once: int, *, sync: bool) -> None:
    """Write the blocks end to end as .npy, one file per `at_once` rows."""
    folder.mkdir()
    for first in range(0, rows, at_once):
        count = min(at_once, rows - first)
        header = {"descr": "<f4", "fortran_order": False, "shape": (count, vectors.shape[2])}
        with (folder / f"{first:010d}.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for start in range(0, count, PART):
                vectors[: min(PART, count - start)].tofile(file)
            file.flush()
            if sync:
                os.fsync(file.fileno())


def write_store(root: Path, keys: list[bytes], vectors: np.ndarray) -> None:
    store = the_store(root, vectors.shape[2])
    store.create()

    def one(number: int) -> None:
        own = keys[number * PART : (number + 1) * PART]
        ones = np.ones(len(own), np.int32)
        held = PooledRows(own, {"mean": vectors[: len(own)]}, ones, ones)
        store.enter("task", "table", [store.write_part("task", f"{number:05d}", held)])

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(one, range(-(-len(keys) // PART))))


def the_store(root: Path, dim: int) -> EncoderStore:
    info = EncoderInfo("made", "made", 16_000, dim, ("last",), 0.02, None)
    return EncoderStore(root, describe_encoder(info, poolings=("mean",)))


def read(folder: Path, keys: list[bytes], vectors: np.ndarray, order: np.ndarray, rounds: int, shuffled: bool) -> None:
    wanted = [keys[index] for index in order.tolist()]

    def ours() -> np.ndarray:
        return the_store(folder / "store", vectors.shape[2]).open_task("task", wanted).pooled()

    def raw() -> np.ndarray:
        held = np.load(folder / "raw" / f"{0:010d}.npy")
        return held[order] if shuffled else held

    def raw_parts() -> np.ndarray:
        held = np.empty((len(keys), vectors.shape[2]), np.float32)
        for path in sorted((folder / "raw-parts").iterdir()):
            first = int(path.stem)
            held[first : first + PART] = np.load(path)
        return held[order] if shuffled else held

    first = ours()
    some = np.linspace(0, len(keys) - 1, 1000).astype(int)
    np.testing.assert_array_equal(first[some], vectors[order[some] % PART])
    del first
    files = [path for path in folder.rglob("*") if path.is_file()]
    for where, prepare in (("the disk", lambda: forget(files)), ("the system's cache", lambda: None)):
        contenders = {"store": ours, "numpy": raw, "numpy, a file a part": raw_parts}
        times: dict[str, list[float]] = {name: [] for name in contenders}
        for turn in range(rounds):
            names = list(contenders)
            for name in names[turn % 3 :] + names[: turn % 3]:
                prepare()
                times[name].append(seconds(contenders[name]))
        mine = min(times.pop("store"))
        print(f"read from {where}: store {mine:.2f} s")
        for name, taken in times.items():
            print(f"    against {name}: {min(taken):.2f} s, ratio {mine / min(taken):.2f}", flush=True)


def forget(files: list[Path]) -> None:
    """Ask the system to drop the files from its page cache, so that they are read from the disk."""
    for path in files:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def opening(folder: Path, keys: list[bytes]) -> None:
    def listed() -> None:
        stores, problems = open_encoders(folder / "store")
        assert len(stores) == 1
        assert not problems
        assert stores[0].manifest("task") is not None

    def one() -> None:
        the_store(folder / "store", open_encoders(folder / "store")[0][0].record.dim).open_task(
            "task", keys[:1]
        ).pooled()

    for count in (244, 24_414):  # a million and a hundred million clips
        store = the_store(folder / f"manifest-{count}", 1280)
        (store.folder / "task").mkdir(parents=True)
        parts = [Part(f"pooled-{i:05d}.arrow", PART, 20_000_000 + i, f"{i:032x}") for i in range(count)]
        store.enter("task", "table", parts)
        entered = best(lambda store=store, parts=parts: store.enter("task", "table", parts[:1]), 5)
        size = (store.folder / "task" / "manifest.json").stat().st_size
        print(f"enter a part in a manifest of {count:,} parts ({size / 1e6:.2f} MB): {1000 * entered:.1f} ms")
    print(f"open, with the manifest of {-(-len(keys) // PART)} parts: {1000 * best(listed, 5):.1f} ms; ", end="")
    print(f"open and read one vector, its part checked: {1000 * seconds(one):.0f} ms")


if __name__ == "__main__":
    main()
