"""Overfitting: after training on four tasks of real audio, all greedy answers are exact."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from uniwhisper.config import load_config
from uniwhisper.data.examples import Example, Question
from uniwhisper.model.build import build_model
from uniwhisper.model.generate import answer
from uniwhisper.model.tokens import open_text
from uniwhisper.training.checkpoint import load_weights
from uniwhisper.training.train import train
from uwbench.api import AudioFile, decode

_ASKED = {
    "fsdd": {"digit": "Which digit?", "speaker": "Who speaks?"},
    "esc10": {"label": "Which sound?"},
    "philharmonia": {"instrument": "Which instrument?"},
}


def clips(folder: Path, dataset: str, count: int) -> list[Example]:
    """Return clips of at most a second, far apart in the manifest, with every question of their set."""
    with (folder / dataset / "manifest.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [
        Example(
            row["path"],
            dataset,
            decode(AudioFile(folder / dataset / row["path"]), 16_000)[:16_000],
            tuple(Question(text, row[field], field) for field, text in _ASKED[dataset].items()),
        )
        for row in rows[:: len(rows) // count][:count]
    ]


@dataclass(frozen=True)
class Same:
    """The same clips in every step."""

    examples: list[Example]
    steps: int | None = None

    def micro_batches(self, step: int, rank: int, world: int) -> list[list[Example]]:
        return [self.examples][rank::world]


@pytest.mark.slow
def test_four_tasks_are_answered_exactly(whisper_tiny: Path, shared_data: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    examples = [example for dataset in _ASKED for example in clips(shared_data, dataset, 3)]
    overlay = {
        "encoder": {"init": str(whisper_tiny)},
        "stages": {"bridge": 10, "joint": 70},
        "optimiser": {"warmup_steps": 5},
        "run": {"save_every": 1000},
    }
    config = load_config("cpu-mini", overlay)
    result = train(config, Same(examples), tmp_path)
    model, text = build_model(config), open_text(config)
    asked = [(example, question) for example in examples for question in example.questions]
    audio, instructions = [e.audio for e, _ in asked], [q.instruction for _, q in asked]
    expected = [question.answer for _, question in asked]
    said = {"mels": config.encoder.mels, "stack": config.adapter.stack, "longest": 16}
    assert answer(model, text, audio, instructions, **said) != expected
    load_weights(model, result.checkpoint)
    assert answer(model, text, audio, instructions, **said) == expected
