"""EnCodec's encoder: the latents before quantisation, 75 per second at 24 kHz."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from uwbench.encoders.base import Encoded, Encoder, ModelFolder, ModelSpec
from uwbench.encoders.checkpoint import extractor_settings
from uwbench.encoders.pretrained import PretrainedEncoder, default_notes, describe, load_pretrained
from uwbench.errors import EncoderError

if TYPE_CHECKING:
    import torch


def open_encodec(folder: ModelFolder, _spec: ModelSpec) -> Encoder:
    """Return the encoder of a mono EnCodec checkpoint (facebook/encodec_24khz)."""
    config, settings = folder.config, extractor_settings(folder) or {}
    if (
        int(config.get("audio_channels", 1)) != 1
        or int(settings.get("feature_size", 1)) != 1
        or config.get("normalize", False)
    ):
        what = "is the stereo model, which normalises loudness second by second"
        raise EncoderError(what, where=folder.path, remedy="use the mono one (facebook/encodec_24khz)")
    hop = math.prod(config.get("upsampling_ratios", (8, 5, 4, 2)))
    rate = int(settings.get("sampling_rate") or config.get("sampling_rate", 24_000))
    info = describe(
        folder,
        "encodec",
        sample_rate=rate,
        dim=int(config.get("hidden_size", 128)),
        layers=("latent",),
        hop_s=hop / rate,
        context_s=None,
        # The convolutions mirror-pad the end of the clip into its last frame.
        batching="equal-length",
        notes=default_notes(folder, f"{rate:,} Hz, as config.json says, and mono"),
    )

    def forward(model: Any, waveforms: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]) -> Encoded:
        frames = model(waveforms.unsqueeze(1).to(model.layers[0].conv.weight.dtype)).transpose(1, 2)
        valid = (-(-lengths // hop)).clamp(1, frames.shape[1])
        return Encoded(frames.unsqueeze(1).expand(-1, len(layers), -1, -1), valid)

    def build() -> Any:
        from transformers import EncodecModel

        return numbers_on_host(load_pretrained(EncodecModel, folder).encoder)

    return PretrainedEncoder(info, build, forward)


def numbers_on_host(model: Any) -> Any:
    """Return a codec whose convolutions keep the three numbers of their padding on the CPU.

    They are buffers; on a device, padding would wait for them.
    """
    for module in model.modules():
        for name, number in list(module.named_buffers(recurse=False)):
            if name in ("stride", "kernel_size", "padding_total"):
                delattr(module, name)
                vars(module)[name] = number
    return model
