"""AVEX's BEATs for animal sounds (Earth Species Project) by the package `avex`, from the safetensors of its hub.

One frame per 160 ms: the mean of its eight patches, each of 16 bands.
"""

import torch
from shared import block_states, given_weights, part_of, place, size_of

from uwbench.encoders.base import Encoded, EncoderInfo
from uwbench.errors import UsageError

RATE, PATCH, BANDS, HOP = 16_000, 16, 128, 160
SHORTEST = 2_800  # samples: one patch of 16 spectra


class BeatsAll:
    """The input of the first block, and the output of each, of `esp_aves2_sl_beats_all`."""

    model_name = "esp_aves2_sl_beats_all"

    def __init__(self, spec):
        weights = given_weights(spec, "a file such as esp-aves2-sl-beats-all.safetensors")
        self.model = part_of("avex").load_model(
            self.model_name, device="cpu", checkpoint_path=weights, return_features_only=True
        )
        self.model.eval()
        stored = part_of("safetensors.torch").load_file(weights)
        for name, parameter in self.model.named_parameters():  # its loader leaves what is not there random
            if not any(key.endswith(name) and torch.equal(stored[key], parameter) for key in stored):
                raise UsageError(f"{weights} lacks {name!r} of the model")
        self.blocks = self.model.backbone.encoder.layers
        self.info = EncoderInfo(
            name="avex",
            family="avex",
            sample_rate=RATE,
            dim=self.model.backbone.cfg.encoder_embed_dim,
            layers=tuple(map(str, range(len(self.blocks) + 1))),
            hop_s=PATCH * HOP / RATE,
            context_s=None,
            min_s=SHORTEST / RATE,
            batching="equal-length",
            parameters=size_of(self.model),
            identity={"version": 1},
        )

    def load(self, device, dtype):
        self.model = place(self.model, device, dtype)

    def encode(self, waveforms, lengths, layers):
        last, states = block_states(self.blocks, lambda: self.model(waveforms))
        chosen = [passes[0].transpose(0, 1) for passes in states[:-1]] + [last]
        frames = [chosen[i].unflatten(1, (-1, BANDS // PATCH)).mean(2) for i in layers]
        return Encoded(torch.stack(frames, 1), torch.full_like(lengths, frames[0].shape[1]))
