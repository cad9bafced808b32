"""Part of `gpu.py`: the probes of three tasks of true size, and nearest neighbours, on the device and on the CPU."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from gpu_part import Part, part

# One with folds, one of a medium and one of a large size.
TASKS = ("ravdess", "fsdkaggle2018", "librispeech_mf")


def main() -> None:
    this, _ = part(__doc__)
    devices = [this.device, "cpu"] if this.cuda else ["cpu"]
    neighbours_on(this)
    data = {name: task(this, name) for name in TASKS}
    for device in devices:
        for name in TASKS:
            probe(this, name, data[name], device)


def task(this: Part, name: str) -> Any:
    """Return generated embeddings of a task's true size, or of a few clips of it."""
    from probing import FOLDS, SPLITS, folded, made
    from uwbench.cards.find import find_card

    card = find_card(name).model_copy(update={"vocabulary": None})
    if name in FOLDS:
        count, classes = FOLDS[name]
        return folded(card, 96, 4, dim=32) if this.tiny else folded(card, count, classes)
    *sizes, classes = SPLITS[name]
    if this.tiny:
        sizes, classes = [48, 24, 24], 2
    splits = [split for split, size in zip(("train", "valid", "test"), sizes, strict=True) for _ in range(size)]
    return made(card, sum(sizes), classes, dim=32 if this.tiny else 1280, splits=splits)


def probe(this: Part, name: str, data: Any, device: str) -> None:
    """Record the score and the seconds of each method on one device."""
    from uwbench.cards.find import find_protocol
    from uwbench.probes.run import run_probes

    protocol = find_protocol("uwbench-1")
    if this.tiny:
        grid = {"grid_shown": 400, "shown": 400, "seeds": protocol.mlp.seeds[:1]}
        protocol = protocol.model_copy(update={"mlp": protocol.mlp.model_copy(update=grid)})
    for method in ("mlp", "knn"):
        started = time.perf_counter()
        outcome = run_probes(data, protocol, methods=[method], device=device)
        seconds = time.perf_counter() - started
        score = outcome.scores[method].main_score
        this.record("probe", task=name, clips=len(data.ids), device=device, method=method, score=score, seconds=seconds)


def neighbours_on(this: Part, k: int = 20) -> None:
    """Record a search of 20 neighbours by raw FAISS on the CPU, on the GPU if its build has one, and by torch."""
    import torch

    bank, queries, dim = (500, 100, 32) if this.tiny else (100_000, 10_000, 1280)
    rng = np.random.default_rng(0)
    held, asked = (rng.standard_normal((n, dim), dtype=np.float32) for n in (bank, queries))
    sizes = {"bank": bank, "queries": queries, "dim": dim}
    bank_there, asked_there = (torch.from_numpy(array).to(this.device) for array in (held, asked))
    seconds = 1 / this.rate(lambda: best_of(bank_there, asked_there, k), 0.1)
    this.record("neighbours", by=f"torch on {this.device}", **sizes, seconds=seconds)
    try:
        import faiss
    except ImportError as error:
        this.record("failed", name="FAISS", reason=str(error))
        return
    index = faiss.IndexFlatIP(dim)
    if this.cuda and hasattr(faiss, "StandardGpuResources"):
        on_gpu = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
        seconds = this.seconds(lambda: search(on_gpu, held, asked, k))
        this.record("neighbours", by="FAISS on the GPU", **sizes, seconds=seconds)
    seconds = this.seconds(lambda: search(index, held, asked, k))
    this.record("neighbours", by="FAISS on the CPU", **sizes, seconds=seconds)


def best_of(held: Any, asked: Any, k: int) -> Any:
    return (asked @ held.T).topk(k, dim=1)


def search(index: Any, held: np.ndarray, asked: np.ndarray, k: int) -> None:
    index.add(held)
    index.search(asked, k)


if __name__ == "__main__":
    main()
