"""PaSST (Koutini et al. 2021, arXiv 2110.05069) by the package `hear21passt`, from the file of its release.

One frame per 100 ms: the mean of its patches over frequency. `hear:hear21passt.base` is its answer to the HEAR
challenge, of one summary token and class scores per window, instead.
"""

import torch
from shared import block_states, fill, given_weights, part_of, place, size_of, tensors_in

from uwbench.encoders.base import Encoded, EncoderInfo

RATE, HOP = 32_000, 320
STRIDE = 10  # spectra between two patches
SHORTEST = 5_121  # samples: one patch of 16 spectra, one sample lost to pre-emphasis
TOKENS = 2  # summary tokens, which come first


class Passt:
    """The patches with their positions, the output of each block but the last, and the normalised output."""

    def __init__(self, spec):
        weights = given_weights(spec, "passt-s-f128-p16-s10-ap.476-swa.pt")
        model = part_of("hear21passt.models.passt").get_model("passt_s_swa_p16_128_ap476", pretrained=False)
        self.model = fill(model, tensors_in(weights), weights)
        # As hear21passt.base; outside of training there is no masking and no random band edge.
        self.mel = part_of("hear21passt.models.preprocess").AugmentMelSTFT(fmin_aug_range=10, fmax_aug_range=2000)
        self.mel.eval()
        self.info = EncoderInfo(
            name="passt",
            family="hear21passt",
            sample_rate=RATE,
            dim=self.model.embed_dim,
            layers=tuple(map(str, range(len(self.model.blocks) + 1))),
            hop_s=STRIDE * HOP / RATE,
            context_s=10.0,
            min_s=SHORTEST / RATE,
            batching="equal-length",
            parameters=size_of(self.model),
            identity={"version": 1},
        )

    def load(self, device, dtype):
        place(self.model, device, dtype)
        self.mel.to(device)

    def encode(self, waveforms, lengths, layers):
        _, states = block_states(self.model.blocks, lambda: self.model(self.mel(waveforms)[:, None]))
        chosen = [passes[0] for passes in states[:-1]] + [self.model.norm(states[-1][0])]
        bands = self.model.freq_new_pos_embed.shape[2]
        frames = [chosen[i][:, TOKENS:].unflatten(1, (bands, -1)).mean(1) for i in layers]
        return Encoded(torch.stack(frames, 1), torch.full_like(lengths, frames[0].shape[1]))
