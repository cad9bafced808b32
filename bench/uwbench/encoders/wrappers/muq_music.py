"""MuQ (Zhu et al. 2025, arXiv 2501.01108) by the package `muq`, from the folder of its hub repository.

One frame per 40 ms of 24 kHz audio.
"""

from pathlib import Path

import torch
from shared import given_weights, part_of, place, size_of

from uwbench.encoders.base import Encoded, EncoderInfo
from uwbench.errors import UsageError

RATE, HOP = 24_000, 960
SHORTEST = 2_048  # samples: one window of its spectrogram


class MuQ:
    """The input of the first block, the output of each but the last, and the normalised output."""

    def __init__(self, spec):
        weights = given_weights(spec, "the folder with config.json and model.safetensors")
        self.model = part_of("muq").MuQ.from_pretrained(weights).eval()
        with part_of("safetensors").safe_open(str(Path(weights, "model.safetensors")), "pt") as file:
            missing = sorted(set(dict(self.model.named_parameters())) - set(file.keys()))
        if missing:  # from_pretrained would leave them random
            raise UsageError(f"{weights} lacks {len(missing)} tensors of the model, the first is {missing[0]!r}")
        self.info = EncoderInfo(
            name="muq",
            family="muq",
            sample_rate=RATE,
            dim=self.model.config.encoder_dim,
            layers=tuple(map(str, range(self.model.config.encoder_depth + 1))),
            hop_s=HOP / RATE,
            context_s=None,
            min_s=SHORTEST / RATE,
            batching="equal-length",
            parameters=size_of(self.model),
            identity={"version": 1},
        )

    def load(self, device, dtype):
        place(self.model, device, dtype)

    def encode(self, waveforms, lengths, layers):
        states = self.model(waveforms).hidden_states
        return Encoded(torch.stack([states[i] for i in layers], 1), torch.full_like(lengths, states[0].shape[1]))
