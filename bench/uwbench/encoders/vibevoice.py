"""VibeVoice's tokenizers: the latents of its acoustic encoder, and of its semantic one if there is one.

Their convolutions are causal, so silence after a clip changes none of its frames. In training, noise is added to the
acoustic latents; here it is left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from uwbench.base.device import send
from uwbench.encoders.base import Encoded, Encoder, ModelFolder, ModelSpec
from uwbench.encoders.pretrained import ClipExtractor, PretrainedEncoder, required_settings
from uwbench.encoders.tower import describe_tower, find_tower, load_tower

if TYPE_CHECKING:
    import torch

_CLASS = "vibevoice_acoustic_tokenizer.VibeVoiceAcousticTokenizerEncoderModel"
# The encoders of a model type: their keys in config.json, their names in the weights, their widths if not said.
_ALONE = ((None, "encoder", 64),)
_PARTS = {
    "vibevoice": (
        ("audio_config", "audio_tower.encoder", 64),
        ("semantic_model_config", "semantic_tokenizer_encoder", 128),
    ),
    "vibevoice_asr": (
        ("acoustic_tokenizer_encoder_config", "acoustic_tokenizer_encoder", 64),
        ("semantic_tokenizer_encoder_config", "semantic_tokenizer_encoder", 128),
    ),
}


def open_vibevoice(folder: ModelFolder, _spec: ModelSpec) -> Encoder:
    """Return the encoder whose frames are what the language model is given: both latents side by side."""
    parts = _PARTS.get(str(folder.config["model_type"]), _ALONE)
    towers = [find_tower(folder, _CLASS, module, key=key) for key, module, _ in parts]
    widths = [int(tower.settings.get("hidden_size", part[2])) for tower, part in zip(towers, parts, strict=True)]
    rate = int(required_settings(folder).get("sampling_rate", 24_000))
    hop = math.prod(towers[0].settings.get("downsampling_ratios", (2, 2, 4, 5, 5, 8)))
    facts: dict[str, Any] = {
        "sample_rate": rate,
        "dim": sum(widths),
        "layers": ("latent",),
        "hop_s": hop / rate,
        "context_s": None,
        "min_s": hop / rate,
        "host_inputs": ("waveforms", "lengths"),
    }
    infos = [describe_tower(tower, "vibevoice", **facts) for tower in towers]
    counts = [info.parameters for info in infos]
    info = replace(
        infos[0],
        parameters=None if None in counts else sum(count or 0 for count in counts),
        identity={"towers": [dict(info.identity) for info in infos]},
    )
    extractor = ClipExtractor(folder)

    def forward(model: Any, waveforms: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]) -> Encoded:
        import torch

        samples = send(extractor(waveforms, lengths.clamp(min=1))["input_values"], model[0].device).to(model[0].dtype)
        latents = torch.cat([encoder(samples).latents for encoder in model], dim=-1)
        return Encoded(latents[:, None].expand(-1, len(layers), -1, -1), (-(-lengths // hop)).clamp(min=1))

    def build() -> Any:
        import torch

        return torch.nn.ModuleList([load_tower(tower) for tower in towers])

    return PretrainedEncoder(info, build, forward)
