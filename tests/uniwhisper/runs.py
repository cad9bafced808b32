"""A training run for tests, also as a program that can be killed and resumed."""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from small_whisper import ENCODER
from uniwhisper.config import Config, load_config
from uniwhisper.data.examples import Example, Question
from uniwhisper.training.train import Result, train
from uwbench.api import AudioFile, decode

SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
}
LM = {"shape": SHAPE}


def digits(data: Path, count: int) -> list[Example]:
    """Return spoken digits of all speakers, with two questions each."""
    with (data / "fsdd" / "manifest.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [
        Example(
            row["path"],
            "fsdd",
            decode(AudioFile(data / "fsdd" / row["path"]), 16_000)[:16_000],
            (Question("Which digit?", row["digit"], "digit"), Question("Who speaks?", row["speaker"], "speaker")),
        )
        for row in rows[:: len(rows) // count][:count]
    ]


@dataclass(frozen=True)
class InMemory:
    """Four micro-batches of two clips per step, different in each; the process is killed before step `kill_at`."""

    examples: list[Example]
    kill_at: int | None = None
    broken: tuple[int, ...] = ()
    steps: int | None = None

    def micro_batches(self, step: int, rank: int, world: int) -> list[list[Example]]:
        if self.kill_at is not None and step >= self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        start = step * 8
        chosen = [self.examples[(start + index) % len(self.examples)] for index in range(8)]
        return [chosen[2 * index : 2 * index + 2] for index in range(4)][rank::world]


def settings(whisper: str, **overlay: Any) -> Config:
    """Return a run of 4 + 16 steps with the small Whisper and a language model of a few thousand parameters."""
    run = {"save_every": 10, "keep": 3, "log_every": 2, **overlay.pop("run", {})}
    base = {
        "encoder": {**ENCODER, "init": whisper, "lr": 1e-4},
        "adapter": {"lr": 1e-3},
        "lm": {**LM, "lr": 1e-3, **overlay.pop("lm", {})},
        "stages": {"bridge": 4, "joint": 16, "bridge_lr": 1e-3, **overlay.pop("stages", {})},
        "optimiser": {"reduction": "token", **overlay.pop("optimiser", {})},
    }
    return load_config("cpu-mini", {**base, "run": run, **overlay})


def losses(output: Path) -> Iterator[float]:
    """Return the losses of a run's log."""
    for line in (output / "log.jsonl").read_text(encoding="utf-8").splitlines():
        yield json.loads(line)["loss"]


def main() -> Result:
    """Train as described by the JSON in the first argument."""
    import torch

    torch.set_num_threads(1)
    asked = json.loads(sys.argv[1])
    batches = InMemory(digits(Path(asked["data"]), 24), kill_at=asked.get("kill_at"))
    return train(settings(asked["whisper"], **asked.get("overlay", {})), batches, Path(asked["output"]))


if __name__ == "__main__":
    main()
