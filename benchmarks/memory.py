"""Peak memory of extraction: against the model with one batch, over longer data, and for one clip of three hours.

    python benchmarks/memory.py                    about three minutes on two cores
    python benchmarks/memory.py --quick            fewer clips, and a clip of twenty minutes

Each case runs in its own process. Two peaks are printed: all resident memory, which counts pages of mapped files that
the system takes back when it needs them, and its anonymous part, which the system cannot take back.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from machine import peak_anonymous, print_machine
from made import CARD, audio_files, look, no_progress, random_whisper
from uwbench.audio.clip import AudioFile, Clip
from uwbench.base.hashing import clip_key, sha256_bytes
from uwbench.cache.clip_table import ClipTable
from uwbench.cache.store import EncoderStore, open_encoders
from uwbench.cards.card import Card
from uwbench.encoders.base import ModelSpec
from uwbench.encoders.resolve import open_encoder
from uwbench.extraction.extract import extract, settings_for
from uwbench.extraction.identity import describe_encoder
from uwbench.extraction.plan import make_plan
from uwbench.extraction.task import Task
from uwbench.probes.data import Frames

FRAME_CARD = Card.model_validate(
    {**json.loads(CARD.model_dump_json(exclude_defaults=True)), "kind": "frame-multi-label"}
    | {"metric": "segment-f1-micro", "segment_s": 1.0}
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    few, many, hours = (300, 600, 1 / 3) if options.quick else (500, 8000, 3.0)
    print_machine("torch", "numpy", "pyarrow")
    print(f"a clip in the table and the plan of a task: {bytes_a_clip():.0f} bytes")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        model = random_whisper(scratch / "whisper")
        short = audio_files(None, scratch, many, seconds=1.0, kind="wav", rate=16_000)
        long = audio_files(None, scratch, 1, seconds=3600 * hours, kind="wav")
        size = long[0].stat().st_size / 1e6
        base = show("the model and one batch of 120 s", one_batch, model)
        # Batches of 8 s, as those of 120 s are full only where a part has 120 clips, from 7,700 clips on.
        one = show(
            f"extraction of {few:,} clips of 1 s, batches of 8 s",
            encode,
            model,
            short[:few],
            scratch / "few",
            CARD,
            8.0,
        )
        name = f"extraction of {many:,} clips of 1 s, batches of 8 s"
        show(name, encode, model, short, scratch / "many", CARD, 8.0, base=one, what=f"those of {few:,}")
        cache = scratch / "long"
        name = f"extraction of one clip of {60 * hours:.0f} min, WAV of {size:,.0f} MB, with its frames"
        show(name, encode, model, long, cache, FRAME_CARD, base=base)
        frames = sum(path.stat().st_size for path in cache.rglob("frames-*.arrow")) / 1e6
        show(f"reading its {frames:,.0f} MB of frames in batches of 100,000", read_frames, cache)


def show(
    name: str,
    work: Callable[..., None],
    *words: Any,
    base: tuple[float, float] | None = None,
    what: str = "the model and a batch",
) -> tuple:
    """Run `work` in a new process; print and return its peaks in MB."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        whole, anonymous = pool.apply(measured, (work, words))
    line = f"{name}: {whole:,.0f} MB resident, {anonymous:,.0f} MB anonymous"
    if base is not None:
        line += f"; {whole - base[0]:+,.0f} and {anonymous - base[1]:+,.0f} MB above {what}"
    print(line, flush=True)
    return whole, anonymous


def measured(work: Callable[..., None], words: tuple[Any, ...]) -> tuple[float, float]:
    anonymous = peak_anonymous(lambda: work(*words))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, anonymous / 1e6


def loaded(model: Path) -> Any:
    encoder = open_encoder(ModelSpec(str(model), context="trimmed"))
    encoder.load("cpu", "fp32")
    return encoder


def one_batch(model: Path) -> None:
    import torch

    encoder, rate = loaded(model), 16_000
    for count, width in ((120, rate), (4, 30 * rate)):
        waveforms = torch.from_numpy(np.random.default_rng(0).standard_normal((count, width), dtype=np.float32))
        with torch.inference_mode():
            encoder.encode(waveforms, torch.full((count,), width), [len(encoder.info.layers) - 1])


def bytes_a_clip(count: int = 100_000) -> float:
    """Return the memory per clip of a scanned task, with a label, a split and a group."""
    tracemalloc.start()
    hashes = tuple(sha256_bytes(str(index).encode()) for index in range(count))
    clips = tuple(
        Clip(
            f"audio/{i:07d}.flac", AudioFile(Path(f"/data/audio/{i:07d}.flac")), "a", split="train", group=f"g{i // 9}"
        )
        for i in range(count)
    )
    table = ClipTable(
        CARD,
        "files",
        ids=tuple(clip.id for clip in clips),
        keys=tuple(clip_key(sha256, None, None) for sha256 in hashes),
        labels=tuple(clip.labels for clip in clips),
        splits=tuple(clip.split for clip in clips),
        folds=tuple(clip.fold for clip in clips),
        groups=tuple(clip.group for clip in clips),
        durations_s=tuple(float(index) for index in range(count)),
    )
    task = Task(table, clips, hashes, ())
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return taken / len(task.clips)


def encode(model: Path, files: list[Path], cache: Path, card: Card = CARD, batch_s: float | None = None) -> None:
    encoder = loaded(model)
    plan = make_plan(look(files, cache, card), describe_encoder(encoder.info), cache)
    done = extract(plan, encoder, settings_for("cpu", batch_s, None), no_progress)
    assert done.encoded == len(files)


def read_frames(cache: Path) -> None:
    store: EncoderStore = open_encoders(cache)[0][0]
    manifest = store.manifest("clips")
    assert manifest is not None
    keys = [key for part in manifest.parts for key in store.part_keys("clips", part)]
    values = store.open_task("clips", keys, needs_frames=True).frames()
    frames = Frames(values, values.offsets, store.record.hop_s)
    for start in range(0, len(values), 100_000):
        frames.rows(np.arange(start, min(start + 100_000, len(values)))).sum()


if __name__ == "__main__":
    main()
