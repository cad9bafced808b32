"""The training log: lines on the terminal, `log.jsonl`, and TensorBoard if installed."""

from __future__ import annotations

import importlib.util
import json
import resource
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from uniwhisper.config import Config, Stage
from uniwhisper.cost import Costs
from uniwhisper.data.examples import SAMPLE_RATE
from uniwhisper.model.collate import FRAME, Batch

Sums = dict[str, tuple[float, int]]  # of losses and their tokens, by name


@dataclass
class Tally:
    """Sums since the last log line, of one rank or of all."""

    loss: float = 0.0
    weight: float = 0.0
    tasks: Sums = field(default_factory=dict)
    domains: Sums = field(default_factory=dict)
    audio_s: float = 0.0
    padded_s: float = 0.0
    tokens: int = 0
    padded_tokens: int = 0
    answers: int = 0
    replaced: int = 0
    flops: float = 0.0
    done_flops: float = 0.0

    def add(self, batch: Batch, losses: Any, costs: Costs, stage: Stage) -> None:
        """Add a micro-batch and the losses of its answer tokens."""
        losses = losses.detach().float()
        self.loss += float((losses * batch.weights).sum())
        self.weight += float(batch.weights.sum())
        lengths = batch.answers
        parts = [float(part.sum()) for part in losses.split(list(lengths))]
        for sums, names in ((self.tasks, batch.tasks), (self.domains, batch.domains)):
            for name, part, tokens in zip(names, parts, lengths, strict=True):
                _count(sums, name, part, tokens)
        self.audio_s += sum(batch.samples) / SAMPLE_RATE
        self.padded_s += batch.mel.shape[0] * batch.mel.shape[2] / 100
        self.padded_tokens += batch.ids.numel()
        self.tokens += sum(batch.lengths)
        self.answers += sum(lengths)
        self.replaced += batch.replaced
        self.flops += useful_flops(batch, costs, stage)
        self.done_flops += done_flops(batch, costs, stage)

    @staticmethod
    def merged(tallies: Iterable[Tally]) -> Tally:
        """Return the sums over ranks."""
        total = Tally()
        for tally in tallies:
            for item in fields(Tally):
                value = getattr(tally, item.name)
                if isinstance(value, dict):
                    for name, (part, tokens) in value.items():
                        _count(getattr(total, item.name), name, part, tokens)
                else:
                    setattr(total, item.name, getattr(total, item.name) + value)
        return total


def _count(sums: Sums, name: str, part: float, tokens: int) -> None:
    if not tokens:  # a question that heads do not answer
        return
    before = sums.get(name, (0.0, 0))
    sums[name] = (before[0] + part, before[1] + tokens)


def useful_flops(batch: Batch, costs: Costs, stage: Stage) -> float:
    """Return a micro-batch's FLOPs without padding: each clip through the encoder, each row through the rest."""
    frames = [samples / FRAME for samples in batch.samples]
    audio = sum(costs.audio(heard, stage) for heard in frames)
    rows = zip(batch.clip_of.tolist(), batch.lengths, batch.pairs, _answers(batch), strict=True)
    return audio + sum(costs.text(length, pairs, answers, frames[clip], stage) for clip, length, pairs, answers in rows)


def done_flops(batch: Batch, costs: Costs, stage: Stage) -> float:
    """Return the FLOPs actually computed, including padding and recomputation.

    Attention with a mask computes every pair of a row, without one only those below the diagonal.
    """
    again = costs.config.run.checkpointing
    frames, width = batch.mel.shape[2] / 2, batch.ids.shape[1]
    pairs = width**2 / (2 if batch.segments is None else 1)
    audio = batch.mel.shape[0] * costs.audio(frames, stage, again=again)
    return audio + sum(costs.text(width, pairs, answers, frames, stage, again=again) for answers in _answers(batch))


def _answers(batch: Batch) -> list[int]:
    """Return each row's tokens of answers."""
    return batch.is_answer.sum(dim=1).tolist()


def peak_gb(device: str) -> float:
    """Return this process's peak memory: on the GPU, or in RAM without one."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


class Log:
    """Writes log lines on rank 0; does nothing on other ranks."""

    def __init__(self, output: Path, config: Config, *, enabled: bool, world: int) -> None:
        self._config = config
        self._name = output.name  # of several trainings in one terminal
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

    def write(
        self,
        step: int,
        stage: str,
        tally: Tally,
        norm: float,
        norms: Mapping[str, float],
        rates: Sequence[float],
        skipped: int,
        device: str,
    ) -> None:
        """Write one line for the steps since the last one; `tally` is of all ranks, the wait for data of rank 0."""
        now = time.monotonic()
        took = max(now - self._since, 1e-9)
        peak = self._config.hardware.peak_tflops * 1e12 * self._world
        line = {
            "step": step,
            "stage": stage,
            "loss": tally.loss / max(tally.weight, 1e-9),
            "loss_by_task": {name: total / n for name, (total, n) in sorted(tally.tasks.items())},
            "loss_by_domain": {name: total / n for name, (total, n) in sorted(tally.domains.items()) if name},
            "grad_norm": norm,
            "grad_norm_by_part": dict(norms),
            "lr": max(rates),
            "skipped": skipped,
            "replaced": tally.replaced,
            "audio_s_per_s": tally.audio_s / took,
            "answers_per_s": tally.answers / took,
            "padded_audio": 1 - tally.audio_s / max(tally.padded_s, 1e-9),
            "padded_tokens": 1 - tally.tokens / max(tally.padded_tokens, 1),
            "data_wait": self._waited / took,
            "mfu": tally.flops / took / peak,
            "hfu": tally.done_flops / took / peak,
            "peak_gb": peak_gb(device),
        }
        self._since, self._waited = now, 0.0
        replaced = f"  replaced {tally.replaced}" if tally.replaced else ""
        self._say(
            line,
            f"step {step:>7} {stage:<6} loss {line['loss']:.4f}  norm {norm:.2f}  lr {line['lr']:.1e}  "
            f"{line['audio_s_per_s']:.0f} audio-s/s  padding {line['padded_audio']:.0%}  mfu {line['mfu']:.1%}"
            f"{replaced}",
        )

    def look(self, step: int, scores: Mapping[str, Any]) -> None:
        """Write the monitor's scores; its time does not count as training."""
        self._since = time.monotonic()
        self._waited = 0.0
        parts = [
            f"{name} {', '.join(f'{k} {v:.2f}' for k, v in value.items())}"
            for name, value in scores.items()
            if isinstance(value, dict)
        ]
        plain = [f"{name} {value:.4f}" for name, value in scores.items() if isinstance(value, float)]
        self._say({"step": step, "monitor": dict(scores)}, f"step {step:>7} monitor  {'  '.join([*parts, *plain])}")

    def _say(self, line: dict[str, Any], text: str) -> None:
        if self._file is None:
            return
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        # One write, so that lines of several trainings are never torn apart.
        sys.stderr.write(f"{self._name}: {text}\n")
        sys.stderr.flush()
        if self._board is not None:
            for name, value in _scalars(line):
                self._board.add_scalar(name, value, line["step"])

    def close(self) -> None:
        """Close the files."""
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()


def _scalars(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, float]]:
    """Yield the numbers of a nested record with their paths."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _scalars(value, f"{prefix}{name}/")
        elif isinstance(value, float):
            yield f"{prefix}{name}", value
