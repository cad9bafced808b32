"""What the benchmarks work on: generated audio files, a Whisper of random weights, a task of the files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from uwbench.audio.clip import AudioFile, Clip
from uwbench.cards.card import Card
from uwbench.extraction.task import Task, scan_task

RATE = 44_100

CARD = Card.model_validate(
    {
        "name": "clips",
        "version": 1,
        "title": "Clips",
        "domain": "sound",
        "kind": "single-label",
        "metric": "accuracy",
        "splits": {"train": "train", "test": "test"},
        "chance": 0,
    }
)


def look(files: list[Path], scratch: Path, card: Card = CARD) -> Task:
    """Hash the files and return them as a task."""
    labels = () if card.kind == "frame-multi-label" else "a"
    clips = [Clip(path.name, AudioFile(path), labels, split="train") for path in files]
    return scan_task(card, clips, "files", (), scratch, None)


def no_progress(_rows: Sequence[int]) -> None:
    """Take what an extraction reports, and do nothing with it."""


def audio_files(
    data: Path | None, scratch: Path, count: int, *, seconds: float = 5.0, kind: str = "ogg", rate: int = RATE
) -> list[Path]:
    """Return `count` audio files of `data`, or as many that are made here: filtered noise, no two alike."""
    import soundfile

    if data is not None:
        found = sorted(path for path in data.rglob("*") if path.suffix in (".ogg", ".wav", ".flac", ".mp3"))
        return found[:count]
    folder = scratch / f"audio-{seconds:g}s"
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for index in range(count):
        path = folder / f"{index:06d}.{kind}"
        with soundfile.SoundFile(path, "w", rate, 1) as file:
            for start in range(0, int(rate * seconds), 60 * rate):
                size = min(60 * rate, int(rate * seconds) - start)
                noise = rng.standard_normal(size, dtype=np.float32)
                noise[1:] += 0.9 * noise[:-1]
                file.write(0.1 * noise)
    return sorted(folder.iterdir())[:count]


def random_whisper(folder: Path) -> Path:
    """Write a checkpoint of Whisper tiny.en's shape with random weights, which take as long to multiply with."""
    import torch
    from transformers import WhisperConfig, WhisperModel

    torch.manual_seed(0)
    config = WhisperConfig(
        d_model=384,
        encoder_layers=4,
        encoder_attention_heads=6,
        encoder_ffn_dim=1536,
        decoder_layers=1,
        decoder_ffn_dim=64,
    )
    WhisperModel(config).save_pretrained(folder)
    return folder
