"""The arithmetic behind docs/scaling.md: costs of 1M, 100M and 1B clips, of one H100, of thousands of workers.

    python benchmarks/paper.py

Nothing is measured here. What the sums start from is in the constants, with where each comes from; the rest follows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from probing import FOLDS, FRAMES, HOP_S, SPLITS
from uwbench.cards.card import Xares
from uwbench.cards.find import find_card, find_protocol
from uwbench.cards.protocol import MlpSettings, Protocol
from uwbench.probes.grid import epochs_for, grid_points

# Whisper large-v3's encoder: 32 layers, 1,280 wide, 1,500 positions, 128 mel bands, 30 s.
LAYERS, WIDTH, POSITIONS, MELS = 32, 1280, 1500, 128
H100_BF16 = 989e12  # FLOP/s dense, SXM data sheet
UTILISATION = (0.35, 0.5)  # of the peak that inference of this shape reaches; assumed, to be measured
WINDOW_S = 30.0
CLIP_S = 10.0  # of the clips that are counted below

# Core seconds a clip on the machine of benchmarks/README.md.
DECODE_5S = 0.011  # Ogg at 44.1 kHz to 16 kHz, soxr VHQ

ROW_BYTES = 4 * WIDTH * 2 + 32 + 8  # two poolings in float32, a key, two counts
ENTRY_BYTES = 173  # of manifest.json, a part: benchmarks/store.py
PART_ROWS = 4096
PLAN_BYTES = 800  # of a clip in memory, in its table and the plan: benchmarks/memory.py
LOCATE_S = 0.25e-6  # to look up where a key is stored, of 300,000
ENTER_S, ENTRY_S = 2e-3, 8e-6  # to enter parts: a rewrite and two syncs, and for each part there: benchmarks/store.py
HASH_RATE = 2e9  # bytes a second of sha256 and a core, with the processor's instructions
SENT_BYTES = 250  # of a clip, pickled for a worker
KERNELS, LAUNCH_S = 15, 5e-6  # of a layer, and the host's time for one
STEP_KERNELS, PROBE_KERNELS = 40, 6  # of a training step for all probes together, and for each: its optimiser
GPU_FP32 = 20e12  # FLOP/s of float32 products of these sizes; assumed
FRAME_RATE = 50  # frames a second


@dataclass(frozen=True, slots=True)
class Scale:
    """A number of clips and how it is written."""

    clips: int
    name: str


SCALES = (Scale(10**6, "1M"), Scale(10**8, "100M"), Scale(10**9, "1B"))


def main() -> None:
    forward()
    print()
    components()
    print()
    workers()
    print()
    probes()


def window_flop() -> float:
    """Return the FLOP of one 30 s window: convolutions, projections, attention, feed-forward."""
    convolutions = 2 * (2 * POSITIONS * 3 * MELS * WIDTH + POSITIONS * 3 * WIDTH * WIDTH)
    projections = 2 * POSITIONS * 4 * WIDTH * WIDTH
    attention = 2 * 2 * POSITIONS * POSITIONS * WIDTH
    feed_forward = 2 * POSITIONS * 2 * WIDTH * 4 * WIDTH
    return convolutions + LAYERS * (projections + attention + feed_forward)


def forward() -> None:
    """Print what one H100 encodes and the cores that decode for it."""
    flop = window_flop()
    print(f"Whisper large-v3's encoder: {flop / 1e12:.2f} TFLOP a window of 30 s")
    for share in UTILISATION:
        rate = share * H100_BF16 / flop
        cores = rate * DECODE_5S
        print(
            f"  H100, bf16, {share:.0%} of {H100_BF16 / 1e12:.0f} TFLOP/s: {rate:.0f} clips/s in full context", end=""
        )
        print(f"; of 5 s each, {cores:.1f} cores decode for it; of 30 s, {cores * 6:.0f}")
        trimmed = flop * 5 / WINDOW_S
        rate = share * H100_BF16 / trimmed
        print(f"    trimmed, 5 s clips: {rate:.0f} clips/s, {rate * DECODE_5S:.0f} cores")


def components() -> None:
    """Print what each component costs, by the number of clips."""
    print("clips".ljust(44) + "".join(scale.name.rjust(12) for scale in SCALES))
    rate = UTILISATION[0] * H100_BF16 / window_flop()
    rows = [
        ("pooled vectors, two poolings x 1,280", lambda n: ROW_BYTES * n, size),
        ("parts of 4,096 clips", lambda n: n / PART_ROWS, count),
        ("manifest of one task", lambda n: ENTRY_BYTES * n / PART_ROWS, size),
        ("plan and clip table in memory", lambda n: PLAN_BYTES * n, size),
        ("hash the audio, 16-bit 16 kHz, a core", lambda n: n * CLIP_S * 32_000 / HASH_RATE, time_of),
        ("look every key up, a core", lambda n: n * LOCATE_S, time_of),
        ("decode, a core", lambda n: n * DECODE_5S * CLIP_S / 5, time_of),
        ("forward in full context, one H100 at 35 %", lambda n: n / rate, time_of),
        ("frames of 1,280 x float16, 50 a second", lambda n: n * CLIP_S * FRAME_RATE * WIDTH * 2, size),
    ]
    for name, cost, unit in rows:
        print(name.ljust(44) + "".join(unit(cost(scale.clips)).rjust(12) for scale in SCALES))


def workers() -> None:
    """Print how one driver keeps up with many workers, each an H100 at 35 %."""
    rate = UTILISATION[0] * H100_BF16 / window_flop()
    part_s = PART_ROWS / rate
    print(f"one H100 makes a part of {PART_ROWS:,} clips in {part_s:.0f} s, which is what a lost worker costs;")
    print("entering all parts that are there takes ", end="")
    print(", ".join(f"{time_of(ENTER_S + ENTRY_S * scale.clips / PART_ROWS)} at {scale.name}" for scale in SCALES))
    for number in (8, 256, 4096):
        nodes = "  ".join(f"{scale.name} {time_of(scale.clips / rate / number)}" for scale in SCALES)
        print(f"  {number:>5,} workers: {nodes}; they write {size(number * rate * ROW_BYTES)}/s and decode on", end="")
        print(f" {number * rate * DECODE_5S * CLIP_S / 5:,.0f} cores")
    audio = 4096 * rate * CLIP_S * 32_000
    print(f"  4,096 workers read {size(audio)}/s of 16-bit audio at 16 kHz; a part's clips by path are ", end="")
    print(f"{size(PART_ROWS * SENT_BYTES)}")
    launches = LAYERS * KERNELS * LAUNCH_S
    print(f"  launching the kernels of 32 windows: {launches * 1000:.1f} ms of {1000 * 32 / rate:.0f} ms")
    entered = [scale.clips / PART_ROWS for scale in SCALES]
    written = [ENTRY_BYTES * parts * parts / 2 for parts in entered]
    print("  manifest bytes written, a rewrite a part: ", end="")
    print(", ".join(f"{scale.name} {size(total)}" for scale, total in zip(SCALES, written, strict=True)))


def probes() -> None:
    """Print what the probes of each task ask of a GPU: products, and launches of kernels."""
    protocol, total = find_protocol("uwbench-1"), np.zeros(3)
    for name in sorted({**SPLITS, **FOLDS, **FRAMES}):
        flop, steps, probe_steps = training(name, protocol.mlp)
        flop += searching(name, protocol)
        total += (flop, steps, probe_steps)
        if name in ("nsynth", "urbansound8k", "voxceleb1"):
            print(f"{name}: {told(flop, steps, probe_steps)}")
    print(f"all 20 tasks: {told(*total)}")
    rate = 150e9
    print(f"    at {rate / 1e9:.0f} GFLOP/s: {total[0] / rate / 60:.0f} min")
    bank = SPLITS["nsynth"][0]
    print(f"NSynth's bank of neighbours takes {size(bank * WIDTH * 4)}")


def told(flop: float, steps: float, probe_steps: float) -> str:
    launched = LAUNCH_S * (STEP_KERNELS * steps + PROBE_KERNELS * probe_steps)
    words = f"{flop / 1e12:.0f} TFLOP in float32, {time_of(flop / GPU_FP32)} at {GPU_FP32 / 1e12:.0f} TFLOP/s of a GPU"
    return f"{words}; {steps:,.0f} steps, {time_of(launched)} to launch them"


def folds_of(name: str) -> tuple[int, int, int, int, int]:
    """Return folds, and of each the items that train, validate and are tested, and the classes."""
    if name in FRAMES:
        train, valid, test, classes, seconds = FRAMES[name]
        frames = round(seconds / HOP_S)
        return 1, train * frames, (valid or train // 5) * frames, test * frames, classes
    if name in SPLITS:
        train, valid, test, classes = SPLITS[name]
        return 1, train, valid or train // 5, test, classes
    (clips, classes), folds = FOLDS[name], len(find_card(name).folds or ())
    train = clips * (folds - 1) // folds
    return folds, train, train // 5, clips - train, classes


def training(name: str, settings: MlpSettings) -> tuple[float, float, float]:
    """Return FLOP, steps, and steps times probes of the grid and the final seeds, all with the hidden layer."""
    folds, train, valid, test, classes = folds_of(name)
    hidden, points, seeds = max(settings.widths), len(grid_points(settings)) // 2, len(settings.seeds)
    forward = 2 * (WIDTH * hidden + hidden * classes)
    step = forward + 2 * WIDTH * hidden + 4 * hidden * classes  # the gradient of the input is not needed
    limit, final = settings.grid_clips, train
    if name in FRAMES:
        limit, final = settings.grid_frames, min(train, settings.train_frames or train)
    limit = limit or train
    flop = steps = probe_steps = 0.0
    thinned = min(valid, limit)
    if name in FRAMES:
        test = min(test, settings.test_frames or test)
    for items, probes, judged, shown in (
        (min(train, limit), points, thinned, settings.grid_shown),
        (final, seeds, thinned if name in FRAMES else valid, settings.shown),
    ):
        epochs = epochs_for(settings, Xares(), items, shown)
        batch = 64 if settings.batch == "card" else settings.batch
        an_epoch = min(-(-items // batch), settings.epoch_steps or items)
        flop += folds * probes * epochs * (items * step + judged * forward)
        steps += epochs * an_epoch
        probe_steps += folds * probes * epochs * an_epoch
    return flop + folds * seeds * test * forward, steps, probe_steps


def searching(name: str, protocol: Protocol) -> float:
    """Return the FLOP of kNN, as it is and standardised."""
    folds, bank, _, queries, _ = folds_of(name)
    if name in FRAMES:
        bank, queries = min(bank, protocol.knn.bank_frames or bank), min(queries, protocol.knn.query_frames or queries)
    return 2.0 * folds * bank * queries * WIDTH * (1 + protocol.knn.standardised_too)


def size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} PB"


def time_of(seconds: float) -> str:
    for unit, length in (("s", 60.0), ("min", 60.0), ("h", 24.0), ("days", 365.0)):
        if seconds < length:
            return f"{seconds:.3g} {unit}"
        seconds /= length
    return f"{seconds:.3g} years"


def count(number: float) -> str:
    return f"{number:,.0f}"


if __name__ == "__main__":
    main()
