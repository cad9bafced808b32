"""What is measured of a family: its distance to a direct call of transformers, to other batches, to its own claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from encoders.families import CASES as FAMILIES
from encoders.families import Case
from encoders.omni_families import CASES as OMNI
from encoders.torchaudio_families import CASES as WITH_TORCHAUDIO
from encoders.tower_families import CASES as TOWERS
from encoders.wave_families import CASES as WAVES
from uwbench.audio.decode import decode, samples_in
from uwbench.encoders.base import Encoder, EncoderInfo, ModelSpec
from uwbench.encoders.conformance import check_encoder
from uwbench.encoders.resolve import open_encoder
from uwbench.sources.dataset import Dataset

CASES: tuple[Case, ...] = (*FAMILIES, *TOWERS, *OMNI, *WAVES, *WITH_TORCHAUDIO)


@dataclass(frozen=True)
class Parity:
    """One row of the parity table."""

    case: str
    family: str
    dim: int
    deviations: tuple[float, ...]  # per layer, relative, from a direct call of transformers
    batch_deviation: float
    hop_s: float  # measured
    declared_hop_s: float
    context_s: float | None
    silence: bool  # a silent clip gives finite frames
    problems: tuple[str, ...]  # on noise, and on each task's real audio
    checked: tuple[str, ...]  # the tasks whose audio it was measured on
    real_deviation: float  # the largest of any layer on that audio


def lacks(case: Case) -> str | None:
    """Return the package that a case needs and that is not installed."""
    return case.needs if case.needs and find_spec(case.needs) is None else None


def loaded(folder: Path) -> Encoder:
    """Return the encoder of a folder, opened and loaded as a user's is."""
    encoder = open_encoder(ModelSpec(str(folder)))
    encoder.load("cpu", "fp32")
    return encoder


def noise(case: Case, seconds: float) -> np.ndarray:
    """Return a clip at the case's rate."""
    samples = round(seconds * case.rate)
    return np.random.default_rng(samples).normal(0, 0.1, samples).astype(np.float32)


@torch.inference_mode()
def deviations(case: Case, folder: Path, encoder: Encoder, samples: np.ndarray | None = None) -> tuple[float, ...]:
    """Return each layer's relative distance to transformers' own, which has the same layers and frames.

    `samples` is a clip at the case's rate, by default noise.
    """
    samples = noise(case, 1.2371) if samples is None else samples
    states, output = case.direct(folder, samples)
    count = len(encoder.info.layers)
    assert len(states) == count
    found = encoder.encode(torch.from_numpy(samples)[None], torch.tensor([len(samples)]), range(count))
    distances = []
    for layer, expected in enumerate([*states[:-1], output]):
        got = found.frames[:, layer]
        assert got.shape == expected.shape
        distances.append(float((got - expected).norm() / expected.norm()))
    return tuple(distances)


@torch.inference_mode()
def short_clip_deviation(case: Case, encoder: Encoder) -> float:
    """Return how far a longer batch mate moves the vectors of a clip of 0.3 s, relatively."""
    short, long = noise(case, 0.3), noise(case, 1.7)
    layers = range(len(encoder.info.layers))
    width = max(len(short), round(encoder.info.min_s * case.rate))
    alone = torch.zeros(1, width)
    batch = torch.zeros(2, len(long))
    alone[0, : len(short)] = batch[0, : len(short)] = torch.from_numpy(short)
    batch[1] = torch.from_numpy(long)
    first = encoder.encode(alone, torch.tensor([len(short)]), layers)
    second = encoder.encode(batch, torch.tensor([len(short), len(long)]), layers)
    count = int(first.valid[0])
    assert int(second.valid[0]) == count
    means = [encoded.frames[0, :, :count].mean(1) for encoded in (first, second)]
    return float(((means[1] - means[0]).norm(dim=-1) / means[0].norm(dim=-1)).max())


@torch.inference_mode()
def silence_is_finite(case: Case, encoder: Encoder) -> bool:
    """Return whether a second of digital silence gives finite frames in every layer."""
    waveform = torch.zeros(1, case.rate)
    found = encoder.encode(waveform, torch.tensor([case.rate]), range(len(encoder.info.layers)))
    return bool(found.frames[:, :, : int(found.valid[0])].isfinite().all())


def measure(case: Case, folder: Path, audio: Mapping[str, Dataset] | None = None) -> Parity:
    """Return a family's row of the table; `folder` is where its small random model is made.

    Of the real `audio` of each task, four clips are measured as the noise is.
    """
    case.make(folder)
    encoder = loaded(folder)
    clips = {"noise": [noise(case, seconds) for seconds in (1.0, 1.7, 2.3)]}
    clips |= {name: _clips(dataset, encoder.info) for name, dataset in (audio or {}).items()}
    found = {name: check_encoder(encoder, clips=waveforms) for name, waveforms in clips.items()}
    real = [deviations(case, folder, encoder, clips[name][0]) for name in clips if name != "noise"]
    return Parity(
        case.name,
        encoder.info.family,
        encoder.info.dim,
        deviations(case, folder, encoder),
        max(each.batch_deviation for each in found.values()),
        found["noise"].hop_seconds,
        encoder.info.hop_s,
        encoder.info.context_s,
        silence_is_finite(case, encoder),
        tuple(f"{problem} ({name})" for name, each in found.items() for problem in each.problems),
        tuple(name for name in clips if name != "noise"),
        max((distance for layers in real for distance in layers), default=0.0),
    )


def _clips(dataset: Dataset, info: EncoderInfo) -> Sequence[np.ndarray]:
    """Return four clips from all over a task, at the encoder's rate, cut to its context or to 3 s."""
    count = len(dataset.clips)
    chosen = [dataset.clips[count * index // 4] for index in range(4)]
    longest = samples_in(min(3.0, 0.9 * (info.context_s or 3.0)), info.sample_rate)
    return [decode(clip.audio, info.sample_rate)[:longest] for clip in chosen]
