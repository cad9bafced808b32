"""What a run says while it runs: a line on the terminal, `log.jsonl`, and TensorBoard where that is installed."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from uniwhisper.config import Config
from uniwhisper.examples import SAMPLE_RATE
from uniwhisper.features import FRAME, Batch
from uniwhisper.plan import train_flops


@dataclass
class Tally:
    """Sums since the last line, of one rank."""

    loss: float = 0.0
    weight: float = 0.0
    tasks: dict[str, list[float]] = field(default_factory=lambda: defaultdict(lambda: [0.0, 0.0]))
    audio_s: float = 0.0
    padded_s: float = 0.0
    tokens: int = 0
    padded_tokens: int = 0
    answers: int = 0
    flops: float = 0.0

    def add(self, batch: Batch, losses: Any, config: Config) -> None:
        """Take in a micro-batch and the losses of its answer tokens."""
        seen = losses.detach().float()
        self.loss += float((seen * batch.weights).sum())
        self.weight += float(batch.weights.sum())
        lengths = batch.is_answer.sum(dim=1).tolist()
        for task, part in zip(batch.tasks, seen.split(lengths), strict=True):
            self.tasks[task][0] += float(part.sum())
            self.tasks[task][1] += len(part)
        heard = sum(batch.samples) / SAMPLE_RATE
        self.audio_s += heard
        self.padded_s += batch.mel.shape[0] * batch.mel.shape[2] / 100
        self.padded_tokens += batch.ids.numel()
        used = batch.is_answer.int().flip(1).cumsum(1).flip(1) > 0  # up to a row's last answer token
        self.tokens += int(used.sum())
        self.answers += sum(lengths)
        self.flops += _useful_flops(batch, text=int((used & ~batch.is_audio & ~batch.is_answer).sum()), config=config)


def _useful_flops(batch: Batch, *, text: int, config: Config) -> float:
    """Return a joint step's FLOPs without padding: each clip once through the encoder, each row through the rest."""
    rows = len(batch.tasks)
    per_row = text / rows, float(batch.is_answer.sum()) / rows
    frames = [samples / FRAME for samples in batch.samples]
    asked = [frames[clip] for clip in batch.clip_of.tolist()]
    whole = sum(train_flops(config, n, n, *per_row) for n in asked)
    return whole - 3 * (sum(map(config.encoder.flops, asked)) - sum(map(config.encoder.flops, frames)))


class Log:
    """Writes the lines of rank 0; other ranks' logs are silent."""

    def __init__(self, output: Path, config: Config, *, enabled: bool, world: int) -> None:
        self._config = config
        self._world = world
        self._file = (output / "log.jsonl").open("a", encoding="utf-8") if enabled else None
        self._board: Any = None
        if enabled and importlib.util.find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(output / "tensorboard"))
        self._since = time.monotonic()
        self._waited = 0.0

    def waited(self, seconds: float) -> None:
        """Count time that the step waited for data."""
        self._waited += seconds

    def write(self, step: int, stage: str, tally: Tally, norm: float, rates: Sequence[float], skipped: int) -> None:
        """Write one line for the steps since the last; the rates of speed are this rank's times the world."""
        now = time.monotonic()
        took = max(now - self._since, 1e-9)
        peak = self._config.hardware.peak_tflops * 1e12
        line = {
            "step": step,
            "stage": stage,
            "loss": tally.loss / max(tally.weight, 1e-9),
            "loss_by_task": {task: total / n for task, (total, n) in sorted(tally.tasks.items())},
            "grad_norm": norm,
            "lr": max(rates),
            "skipped": skipped,
            "audio_s_per_s": tally.audio_s * self._world / took,
            "answers_per_s": tally.answers * self._world / took,
            "padded_audio": 1 - tally.audio_s / max(tally.padded_s, 1e-9),
            "padded_tokens": 1 - tally.tokens / max(tally.padded_tokens, 1),
            "data_wait": self._waited / took,
            "mfu": tally.flops / took / peak,
        }
        self._since, self._waited = now, 0.0
        if self._file is None:
            return
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        print(
            f"step {step:>7} {stage:<6} loss {line['loss']:.4f}  norm {norm:.2f}  lr {line['lr']:.1e}  "
            f"{line['audio_s_per_s']:.0f} audio-s/s  padding {line['padded_audio']:.0%}  mfu {line['mfu']:.1%}",
            file=sys.stderr,
            flush=True,
        )
        if self._board is not None:
            for name, value in line.items():
                if isinstance(value, float):
                    self._board.add_scalar(name, value, step)
            for task, value in line["loss_by_task"].items():
                self._board.add_scalar(f"loss/{task}", value, step)

    def close(self) -> None:
        """Finish the files."""
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()
