"""Your own data: four kinds of bird call, made here, become a task; built-in encoders are scored on it.

    python examples/own_data.py [FOLDER]

Replace `make_calls` by the table of your own clips.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

import uwbench

RATE = 16_000  # Hz

# A call's pitch, over the call (from 0 to 1) and over time in seconds.
CALLS = {
    "rising": lambda position, time: 2**position,
    "falling": lambda position, time: 2 ** (1 - position),
    "trill": lambda position, time: 1.4 + 0.25 * np.sin(2 * np.pi * 8 * time),
    "flat": lambda position, time: 1.4 + 0 * position,
}


def make_calls(folder: Path) -> pd.DataFrame:
    """Write two calls of each kind by each of 20 birds as WAV files; return their table, one row per clip."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for kind in CALLS:
        for bird in range(20):
            for take in range(2):
                path = folder / f"{kind}-{bird:02d}-{take}.wav"
                soundfile.write(path, call(kind, bird, take), RATE)
                split = "train" if bird < 10 else "valid" if bird < 13 else "test"
                rows.append({"path": path, "label": kind, "group": f"bird {bird:02d}", "split": split})
    return pd.DataFrame(rows)


def call(kind: str, bird: int, take: int) -> np.ndarray:
    """Return one call of about half a second in noise; each bird has its own pitch."""
    rng = np.random.default_rng([list(CALLS).index(kind), bird, take])
    time = np.arange(int(RATE * rng.uniform(0.3, 0.7))) / RATE
    position = time / time[-1]
    pitch = np.random.default_rng(bird).uniform(1400, 2000) + rng.uniform(-50, 50)
    phase = 2 * np.pi * np.cumsum(pitch * CALLS[kind](position, time)) / RATE
    sound = 0.3 * np.sin(phase) * np.sin(np.pi * position)
    return sound + rng.uniform(0.01, 0.06) * rng.standard_normal(len(time))


def main() -> None:
    calls = make_calls(Path(sys.argv[1] if len(sys.argv) > 1 else "calls"))
    print(calls.groupby("split", sort=False).agg(clips=("path", "size"), birds=("group", "nunique")))

    task = uwbench.load_task(calls, name="calls")
    report = uwbench.check_data(task)
    print(f"\n{report.clips} clips checked:", *(report.findings or ["nothing wrong"]), "\n")

    results = uwbench.evaluate(["logmel", "mfcc"], task)
    print(results.to_frame()[["model", "method", "score", "low", "high", "n"]].round(2))


if __name__ == "__main__":
    main()
