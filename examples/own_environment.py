"""An encoder with an environment of its own: Resemblyzer's speaker encoder, whose weights come with its package.

    python -m venv resemblyzer-env
    resemblyzer-env/bin/pip install resemblyzer
    uwbench run -m own_environment.py:Resemblyzer --python resemblyzer-env/bin/python -t fsdd/manifest.csv

The interpreter needs numpy and the model's packages. uwbench need not be installed there: the worker that runs this
file stands in for the names that it imports.
"""

import importlib

import numpy as np
import torch

from uwbench.api import Encoded, EncoderInfo

RATE, WINDOW = 16_000, 25_600  # the encoder sees windows of 1.6 s
PER_SECOND = 4  # windows per second


class Resemblyzer:
    """Embeddings of overlapping windows as frames: 256 values per 250 ms."""

    def __init__(self) -> None:
        self.info = EncoderInfo(
            name="resemblyzer",
            family="resemblyzer",
            sample_rate=RATE,
            dim=256,
            layers=("window",),
            hop_s=1 / PER_SECOND,
            context_s=None,
            min_s=WINDOW / RATE,
            batching="single",
            identity={"version": 1},  # the packages are part of the identity too
        )

    def load(self, device: str, dtype: str) -> None:
        self.package = importlib.import_module("resemblyzer")
        self.model = self.package.VoiceEncoder(device, verbose=False)

    def encode(self, waveforms: torch.Tensor, lengths: torch.Tensor, layers: list[int]) -> Encoded:
        clip = waveforms[0].cpu().numpy()
        if clip.any():
            clip = self.package.normalize_volume(clip, -30, increase_only=True)
        _, windows, _ = self.model.embed_utterance(clip, return_partials=True, rate=PER_SECOND)
        frames = torch.from_numpy(np.asarray(windows, np.float32)).to(waveforms.device)
        return Encoded(frames[None, None].expand(1, len(layers), -1, -1), torch.tensor([len(frames)]))
