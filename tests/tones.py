"""Clips of generated sound as a task, and its extraction with SpectrumEncoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from spectrum_encoder import RATE, SpectrumEncoder
from uwbench.audio.clip import AudioArray, Clip
from uwbench.cards.card import Card
from uwbench.extraction.extract import Extraction, extract
from uwbench.extraction.forward import Settings
from uwbench.extraction.identity import describe_encoder
from uwbench.extraction.plan import Plan, make_plan
from uwbench.extraction.task import scan_task

SETTINGS = Settings("cpu", batch_seconds=4.0, workers=2)
CARD = Card.model_validate(
    {
        "name": "tones",
        "version": 1,
        "title": "Tones",
        "domain": "sound",
        "kind": "single-label",
        "metric": "accuracy",
        "splits": {"train": "train", "test": "test"},
        "chance": 0.5,
    }
)


def tones(count: int, seed: int = 0, longest: float = 0.5) -> list[Clip]:
    rng = np.random.default_rng(seed)
    clips = []
    for index in range(count):
        samples = rng.standard_normal(rng.integers(100, int(longest * RATE))).astype(np.float32)
        split = "test" if index % 3 == 0 else "train"
        clips.append(Clip(f"clip{index}", AudioArray(samples, RATE, f"clip{index}"), str(index % 2), split=split))
    return clips


def plan_for(clips: list[Clip], cache: Path, encoder: SpectrumEncoder, **options: Any) -> Plan:
    force = options.pop("force", False)
    record = describe_encoder(encoder.info, **{"layers": "all", **options})
    return make_plan(scan_task(CARD, clips, "made", (), cache, None), record, cache, force=force)


def run(clips: list[Clip], cache: Path, encoder: SpectrumEncoder, **options: Any) -> tuple[Plan, Extraction]:
    plan = plan_for(clips, cache, encoder, **options)
    encoder.load("cpu", "fp32")
    return plan, extract(plan, encoder, SETTINGS, lambda rows: None)
