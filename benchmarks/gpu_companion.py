"""Part of `gpu.py`: training the companion in the shape of its configuration `full`, with random weights.

The largest micro-batch is found first; then 30 steps of what one of its eight GPUs does in a step. Resuming is checked
on a small shape: three steps and three more against six.
"""

from __future__ import annotations

import csv
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpu_encoders import write_whisper
from gpu_part import Part, part

STEPS, CLIP_S, RATE = 30, 10.0, 16_000
GPUS = 8  # that share a step of `full`
SMALL_LM = {
    "model_type": "qwen3",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 128,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "vocab_size": 272,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
}


@dataclass(frozen=True)
class Rounds:
    """Examples in turn, in micro-batches of `clips`."""

    examples: Sequence[Any]
    clips: int
    per_step: int
    steps: int | None = None

    def micro_batches(self, step: int, rank: int, world: int) -> list[list[Any]]:
        """Return a rank's micro-batches of a step."""
        first = step * self.clips * self.per_step
        chosen = [self.examples[(first + i) % len(self.examples)] for i in range(self.clips * self.per_step)]
        return [chosen[i : i + self.clips] for i in range(0, len(chosen), self.clips)][rank::world]


def main() -> None:
    this, options = part(__doc__)
    import torch

    if not this.cuda:
        torch.set_num_threads(1)
    examples, real = clips(options.data)
    this.record("data", clips=len(examples), real=real)
    for name, tiny in (("small", True), ("full", this.tiny)):
        folder = this.scratch / f"whisper-{name}"
        folder.mkdir()
        with torch.device(this.device):
            write_whisper(folder, tiny)
    resume(this, examples)
    speed(this, examples)


def clips(data: Path | None) -> tuple[list[Any], bool]:
    """Return examples of ten seconds at most, of real clips if there are any, else of tones to be named."""
    from uniwhisper.data.examples import Example, Question
    from uwbench.api import AudioFile, decode

    examples: list[Any] = []
    for name, label in (("esc10", "label"), ("fsdd", "digit")):  # of one length each, so that little is padded
        manifest = data / name / "manifest.csv" if data else None
        if manifest is None or not manifest.is_file():
            continue
        with manifest.open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        for row in np.random.default_rng(0).permutation(np.array(rows, object))[:200]:
            audio = decode(AudioFile(manifest.parent / row["path"]), RATE)[: round(CLIP_S * RATE)]
            examples.append(Example(row["path"], name, audio, (Question("What is it?", row[label], name),)))
        return examples, True
    times = np.arange(round(CLIP_S * RATE)) / RATE
    for index in range(200):
        tone = (0.3 * np.sin(2 * np.pi * 110 * 2 ** (index % 12 / 12) * times)).astype(np.float32)
        examples.append(Example(str(index), "tones", tone, (Question("Which note?", str(index % 12), "note"),)))
    return examples, False


def configured(this: Part, whisper: Path, *, small: bool, **run: Any) -> Any:
    """Return `full` with random weights, or a small shape, on one GPU and in the joint stage from the start."""
    from uniwhisper.config import load_config

    full: dict[str, Any] = {
        "encoder": {"init": str(whisper)},
        "lm": {"kind": "random-causal", "init": None, "tokenizer": "bytes", "lr": 2e-4},
        "stages": {"bridge": 0},
        "optimiser": {"warmup_steps": 5},
        "hardware": {"gpus": 1},
        "run": {"workers": 0, "log_every": 1, "save_every": 1000, "keep": 1, "monitor_every": None, **run},
    }
    if small:
        full["encoder"] |= {"dim": 64, "layers": 2, "ffn": 256}
        full["lm"] |= {"shape": SMALL_LM, "lr": 1e-3}
    if not this.cuda:
        full["run"]["precision"] = "fp32"
    return load_config("full", full)


def resume(this: Part, examples: Sequence[Any]) -> None:
    """Record whether six steps give the weights of three steps, a new start and three more."""
    from safetensors.torch import load_file

    from uniwhisper.training.train import train

    config = configured(this, this.scratch / "whisper-small", small=True, save_every=3)
    weights = []
    for name, stops in (("whole", (6,)), ("again", (6,)), ("halves", (3, 6))):
        for until in stops:
            last = train(config, Rounds(examples, 2, 2), this.scratch / name, until=until).checkpoint
        files = sorted(last.rglob("model*.safetensors"))
        weights.append({key: value for file in files for key, value in load_file(file).items()})
    whole, again, halves = weights
    apart = {
        "repeated": max(float((whole[key] - again[key]).abs().max()) for key in whole),
        "resumed": max(float((whole[key] - halves[key]).abs().max()) for key in whole),
    }
    this.record("resume", tensors=len(whole), bit_for_bit=apart["resumed"] == 0, largest_difference=apart)


def speed(this: Part, examples: Sequence[Any]) -> None:
    """Record 30 steps at the largest micro-batch that fits."""
    import torch

    from uniwhisper.training.train import train

    folder = this.scratch / "whisper-full"
    config = configured(this, folder, small=this.tiny)
    seconds = sum(len(example.audio) for example in examples) / len(examples) / RATE
    micro = largest(this, config, examples, max(1, round(config.run.micro_batch_s / seconds)))
    if this.cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    per_step = 1 if this.tiny else max(1, round(config.run.batch_s / GPUS / seconds / micro))
    steps = 4 if this.tiny else STEPS
    facts = {"micro_batch_clips": micro, "micro_batches": per_step, "mean_clip_s": seconds}
    output, ended = this.scratch / "full", threading.Event()
    watcher = threading.Thread(target=watch, args=(this, output / "log.jsonl", facts, ended))
    watcher.start()
    try:
        train(config, Rounds(examples, micro, per_step), output, until=steps)
    finally:
        ended.set()
        watcher.join()


def watch(this: Part, log: Path, facts: dict[str, Any], ended: threading.Event) -> None:
    """Record the steps so far whenever there are more: saving the last ones may take longer than there is time."""
    seen = 0
    while True:
        last = ended.wait(1.0)
        lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []
        if len(lines) > seen:
            seen = len(lines)
            this.record("training", **facts, **summary(lines))
        if last:
            return


def summary(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the medians of a training log without its first two steps, and the losses of its first and last third."""
    later, losses = lines[2:] or lines, [line["loss"] for line in lines]
    names = ("audio_s_per_s", "mfu", "hfu", "padded_audio", "padded_tokens", "data_wait", "peak_gb")
    third = max(1, len(losses) // 3)
    first, last = float(np.mean(losses[:third])), float(np.mean(losses[-third:]))
    medians = {name: float(np.median([line[name] for line in later])) for name in names}
    return {"steps": len(lines), **medians, "first_loss": first, "last_loss": last}


def largest(this: Part, config: Any, examples: Sequence[Any], clips: int) -> int:
    """Return the number of clips of the largest micro-batch that fits, doubled or halved from the configuration's."""
    import torch

    from uniwhisper.model.build import build_model
    from uniwhisper.model.collate import Collator
    from uniwhisper.model.tokens import open_text
    from uniwhisper.training.parallel import World
    from uniwhisper.training.train import gradients
    from uwbench.extraction.forward import out_of_memory

    if this.tiny:
        return 2
    model = build_model(config).to(this.device)
    # The optimiser's two moments and the averaged encoder take their share.
    held = [torch.zeros_like(p) for p in model.parameters() for _ in range(2)]
    held += [torch.zeros_like(p) for p in model.encoder.parameters()]
    collate = Collator(text=open_text(config), mels=config.encoder.mels, stack=config.adapter.stack)
    fitting, tried = 0, clips
    while tried and tried != fitting:
        batch = collate([examples[i % len(examples)] for i in range(tried)]).to(this.device)
        try:
            gradients(model, [batch], config, World(0, 1, this.device))
            this.wait()
            fits = True
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            fits = False
        this.record("micro-batch", clips=tried, fits=fits)
        torch.cuda.empty_cache()
        if not fits:
            if fitting:
                break
            tried //= 2
            continue
        fitting = tried
        if fitting < clips or fitting >= 8 * clips:
            break
        tried *= 2
    return max(1, fitting)


if __name__ == "__main__":
    main()
