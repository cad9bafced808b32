"""OpenBEATs (Bharadwaj et al. 2025, arXiv 2507.14129) and BEATs (Chen et al. 2022, arXiv 2212.09058), by `openbeats`.

Both publish files of `cfg` and `model`. One frame per 160 ms: the mean of its eight patches, each of 16 bands.
"""

import torch
from shared import block_states, fill, given_weights, part_of, place, size_of, tensors_in

from uwbench.encoders.base import Encoded, EncoderInfo

RATE, PATCH, BANDS, HOP = 16_000, 16, 128, 160
SHORTEST = 3_200  # samples; the package repeats shorter clips


class Beats:
    """The input of the first block, and the output of each."""

    def __init__(self, spec):
        package = part_of("openbeats.utils")
        weights = given_weights(spec, "a checkpoint of `cfg` and `model`, or the folder it is in")
        _, file = package.find_artifacts(weights) if not weights.endswith((".pt", ".pth", ".ckpt")) else ("", weights)
        content = tensors_in(file)
        config = content["cfg"]
        self.encoder = part_of("openbeats.beats_encoder").BeatsEncoder(
            input_size=0,
            beats_config=config,
            fbank_mean=config.get("fbank_mean", 15.41663),  # as OpenBeats.from_pretrained does
            fbank_std=config.get("fbank_std", 6.55582),
        )
        fill(self.encoder, package.encoder_state_dict(content["model"]), file, computed=("_pad.",))
        blocks = self.encoder.encoder.layers
        self.info = EncoderInfo(
            name="beats",
            family="openbeats",
            sample_rate=RATE,
            dim=self.encoder.output_size(),
            layers=tuple(map(str, range(len(blocks) + 1))),
            hop_s=PATCH * HOP / RATE,
            context_s=None,
            min_s=SHORTEST / RATE,
            batching="equal-length",
            parameters=size_of(self.encoder),
            identity={"version": 1},
        )

    def load(self, device, dtype):
        place(self.encoder, device, dtype)

    def encode(self, waveforms, lengths, layers):
        width = torch.full_like(lengths, waveforms.shape[1])
        (last, _, _), states = block_states(self.encoder.encoder.layers, lambda: self.encoder(waveforms, width))
        chosen = [states[i][0].transpose(0, 1) for i in range(len(states) - 1)] + [last]
        frames = [chosen[i].unflatten(1, (-1, BANDS // PATCH)).mean(2) for i in layers]
        return Encoded(torch.stack(frames, 1), torch.full_like(lengths, frames[0].shape[1]))
