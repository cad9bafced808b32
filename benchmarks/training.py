"""A training step of the companion: packed questions against rows of their own, losses in parts against all at once.

    python benchmarks/training.py                                  random weights, as large as SmolLM2 and Whisper tiny
    python benchmarks/training.py --encoder WHISPER --lm SMOLLM2   those of two folders
    python benchmarks/training.py --quick                          shorter clips, two rounds

Arms take turns, and the shortest of their rounds is printed. A step is a forward and a backward; its encoder's share
and that of the adapter and language model are timed apart. "kept" is what the forward keeps for the backward, without
the parameters. Peaks of the loss are of a process of its own.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from machine import peak_anonymous, print_machine
from made import random_whisper
from uniwhisper.cli.train import overlay_of
from uniwhisper.config import load_config, overlaid
from uniwhisper.data.examples import SAMPLE_RATE, Example, Question
from uniwhisper.model.build import build_model
from uniwhisper.model.collate import Batch, Collator
from uniwhisper.model.model import AudioModel
from uniwhisper.model.tokens import open_text

SMOLLM2 = {
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "vocab_size": 49_152,
    "tie_word_embeddings": True,
}
ASKED = (
    ("What is heard in this recording?", "A dog barks twice, then a door is closed."),
    ("Which kind of sound is it? Answer with its class.", "dog bark"),
    ("Describe the recording in one sentence.", "A dog barks in a room while somebody leaves it."),
    ("Where was this recorded, and what can be heard in the background?", "indoors; footsteps"),
)


@dataclass(frozen=True, slots=True)
class Step:
    """Seconds of a step: of the encoder, and of everything behind it."""

    encoder: float
    answers: float

    @property
    def whole(self) -> float:
        return self.encoder + self.answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", type=Path, help="a folder of Whisper weights")
    parser.add_argument("--lm", type=Path, help="a folder of a causal language model")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print_machine("torch", "transformers", threads=1)
    seconds, rounds = (2.0, 2) if options.quick else (10.0, 3)
    with tempfile.TemporaryDirectory() as folder:
        encoder = options.encoder or random_whisper(Path(folder) / "whisper")
        model, collators = built(encoder, options.lm)
        for questions in (2, 4):
            compare(model, collators, clips(3, seconds, questions), rounds)
    rows, vocabulary, dim = (400, 40_000, 256) if options.quick else (1_920, 151_936, 1024)
    parts = min(AudioModel.most_scores, rows * vocabulary // 4)
    print(f"\nloss of {rows:,} tokens, {vocabulary:,} words, {dim:,} dimensions: forward and backward")
    for learns in (True, False):
        print(f"    output layer {'trained' if learns else 'frozen'}, memory above the weights and their gradient:")
        for name, most in (("all at once", 10**12), ("in parts", parts)):
            peak, took = in_a_process(peak_of_loss, rows, vocabulary, dim, most, learns)
            print(f"        {name:<12} {took:6.2f} s, {peak / 2**20:7,.0f} MB", flush=True)


def built(encoder: Path, lm: Path | None) -> tuple[AudioModel, dict[str, Collator]]:
    """Return the model, and the collators of the two arms."""
    from transformers import WhisperConfig

    shape: Any = WhisperConfig.from_pretrained(encoder)
    sizes = {
        "mels": shape.num_mel_bins,
        "dim": shape.d_model,
        "layers": shape.encoder_layers,
        "ffn": shape.encoder_ffn_dim,
        "positions": shape.max_source_positions,
    }
    named = overlay_of((), encoder=str(encoder), lm=None if lm is None else str(lm))
    random: dict[str, Any] = {"lm": {"shape": SMOLLM2}} if lm is None else {}
    config = load_config("cpu-mini", overlaid(named, {"encoder": sizes, **random}))
    text = open_text(config)
    collators = {
        name: Collator(text, config.encoder.mels, config.adapter.stack, packed=packed)
        for name, packed in (("apart", False), ("packed", True))
    }
    return build_model(config), collators


def clips(count: int, seconds: float, questions: int) -> list[Example]:
    """Return clips of noise, as sounds of any kind cost the same, with the first of `ASKED`."""
    rng = np.random.default_rng(0)
    asked = tuple(Question(instruction, answer, "caption") for instruction, answer in ASKED[:questions])
    return [
        Example(str(index), "noise", 0.1 * rng.standard_normal(int(seconds * SAMPLE_RATE)).astype(np.float32), asked)
        for index in range(count)
    ]


def compare(model: AudioModel, collators: dict[str, Collator], examples: list[Example], rounds: int) -> None:
    """Print tokens, seconds and kept memory of both arms on the same clips and questions."""
    batches = {name: collate(examples) for name, collate in collators.items()}
    steps: dict[str, Step] = {}
    for _ in range(rounds):
        for name, batch in batches.items():
            step = timed(model, batch)
            if name not in steps or step.whole < steps[name].whole:
                steps[name] = step
    kept = {name: kept_bytes(model, batch) for name, batch in batches.items()}
    audio = sum(len(example.audio) for example in examples) / SAMPLE_RATE
    print(f"\n{len(examples)} clips of {audio / len(examples):g} s, {len(examples[0].questions)} questions each")
    for name, batch in batches.items():
        step = steps[name]
        shares = f"encoder {step.encoder:5.2f}, {step.encoder / step.whole:4.0%}; language model {step.answers:5.2f}"
        print(
            f"    {name:<7} {sum(batch.lengths):6,} tokens, {step.whole:6.2f} s a step ({shares}), "
            f"{audio / step.whole:5.2f} audio-s/s, kept {kept[name] / 2**20:6,.0f} MB"
        )
    apart, packed = batches["apart"], batches["packed"]
    print(
        f"    packed / apart: tokens {sum(packed.lengths) / sum(apart.lengths):.2f}, "
        f"language model {steps['packed'].answers / steps['apart'].answers:.2f}, "
        f"step {steps['packed'].whole / steps['apart'].whole:.2f}, kept {kept['packed'] / kept['apart']:.2f}"
    )


def timed(model: AudioModel, batch: Batch) -> Step:
    """Return the seconds of a forward and a backward, those of the encoder apart."""
    model.zero_grad(set_to_none=True)
    started = time.perf_counter()
    frames = model.encode(batch.mel)
    encoded = time.perf_counter()
    cut = frames.detach().requires_grad_()
    losses_of(model, cut, batch).sum().backward()
    answered = time.perf_counter()
    frames.backward(cut.grad)
    ended = time.perf_counter()
    return Step(encoder=encoded - started + ended - answered, answers=answered - encoded)


def losses_of(model: AudioModel, frames: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return the losses after given frames, as the model's forward computes them."""
    keep = torch.nn.functional.pad(batch.is_answer[:, 1:], (0, 1))
    return model.losses(model.states(frames, batch)[keep], batch.ids[batch.is_answer])


def kept_bytes(model: AudioModel, batch: Batch) -> int:
    """Return the bytes that a forward keeps for its backward, each storage once, without the parameters."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        losses = model(batch)  # alive until the sum is taken, so that no address is used twice
    total = sum(kept.values())
    del losses
    return total


def peak_of_loss(rows: int, vocabulary: int, dim: int, most: int, learns: bool) -> tuple[int, float]:
    """Return the bytes at most above the weights and their gradient, and the seconds, of a loss and its backward."""

    class Head(AudioModel):
        """An output layer alone."""

        def __init__(self) -> None:
            super().__init__(torch.nn.Identity())
            self.words = torch.nn.Embedding(vocabulary, dim)

        @property
        def decoder(self) -> Any:
            return type("Decoder", (), {"get_input_embeddings": lambda _: self.words})()

        def scores(self, states: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.linear(states, self.words.weight)

    torch.set_num_threads(1)
    head = Head()
    head.most_scores = most
    head.words.weight.requires_grad_(learns)
    head.words.weight.grad = torch.ones_like(head.words.weight) if learns else None
    states = (torch.randn(rows, dim) / math.sqrt(dim)).requires_grad_()
    targets = torch.arange(rows) % vocabulary
    before = peak_anonymous(lambda: time.sleep(0.05))
    started = time.perf_counter()
    peak = peak_anonymous(lambda: head.losses(states, targets).sum().backward())
    return peak - before, time.perf_counter() - started


def in_a_process(work: Callable[..., tuple[int, float]], *arguments: int) -> tuple[int, float]:
    """Return what `work` returns in a process of its own, whose memory is its alone."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


if __name__ == "__main__":
    main()
