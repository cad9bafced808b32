"""Dasheng (Dinkel et al. 2024, arXiv 2406.06992) by the package `dasheng`, from the files of its Zenodo record.

One frame per 40 ms. The package cuts long clips into pieces of 10.08 s itself. A clip's spectrogram is clipped 120 dB
below the loudest value of its batch, so clips are encoded one at a time.
"""

import torch
from shared import block_states, fill, given_weights, part_of, place, size_of, tensors_in

from uwbench.encoders.base import Encoded, EncoderInfo

RATE = 16_000


class Dasheng:
    """The patches with their positions, the output of each block but the last, and the normalised output."""

    def __init__(self, spec):
        kind = part_of("dasheng.pretrained.pretrained").Dasheng
        config, tensors, weights = self.read(spec)
        self.model = fill(kind(**config), tensors, weights)
        hop = self.model.hop_size * self.model.patch_stride[-1]
        self.info = EncoderInfo(
            name="dasheng",
            family="dasheng",
            sample_rate=RATE,
            dim=self.model.embed_dim,
            layers=tuple(map(str, range(len(self.model.blocks) + 1))),
            hop_s=hop / RATE,
            context_s=None,
            min_s=hop / RATE,
            batching="single",
            parameters=size_of(self.model),
            identity={"version": 1},
        )

    def read(self, spec):
        weights = given_weights(spec, "dasheng_base.pt, dasheng_06b.pt or dasheng_12b.pt")
        content = tensors_in(weights)
        return content["config"], content["model"], weights

    def load(self, device, dtype):
        place(self.model, device, dtype)

    def encode(self, waveforms, lengths, layers):
        last, states = block_states(self.model.blocks, lambda: self.model(waveforms))
        chosen = [torch.cat(pieces, 1) for pieces in states[:-1]] + [last]
        return Encoded(torch.stack([chosen[i] for i in layers], 1), torch.full_like(lengths, last.shape[1]))


class Glap(Dasheng):
    """The audio tower of GLAP (Dinkel et al. 2025, arXiv 2506.11350), a Dasheng base; its text tower is not read."""

    def read(self, spec):
        weights, prefix = given_weights(spec, "glap_checkpoint.pt"), "audio_encoder.model."
        tensors = {k[len(prefix) :]: v for k, v in tensors_in(weights)["model"].items() if k.startswith(prefix)}
        return {"embed_dim": 768, "depth": 12, "num_heads": 12}, tensors, weights
