"""The audio towers of Qwen2-Audio and Audio Flamingo 3: Whisper's encoder, masked, with pairs of positions averaged.

These models mask attention beyond the clip, so computing the clip's positions alone gives the same frames as 30 s.
"""

from __future__ import annotations

from typing import Any

from uwbench.encoders.base import Encoder, ModelFolder, ModelSpec
from uwbench.encoders.whisper import WhisperEncoder

# Whisper's name of a setting, the other families' name, and the default that both models share.
_SETTINGS: dict[str, tuple[str, Any]] = {
    "d_model": ("hidden_size", 1280),
    "encoder_layers": ("num_hidden_layers", 32),
    "encoder_attention_heads": ("num_attention_heads", 20),
    "encoder_ffn_dim": ("intermediate_size", 5120),
    "num_mel_bins": ("num_mel_bins", 128),
    "max_source_positions": ("max_source_positions", 1500),
    "activation_function": ("activation_function", "gelu"),
}


def open_tower(folder: ModelFolder, spec: ModelSpec) -> Encoder:
    """Return the audio tower of a complete model, reading nothing else of it, or of a folder with the tower alone."""
    config = folder.config.get("audio_config", folder.config)
    tower = {name: config.get(name, config.get(alias, default)) for name, (alias, default) in _SETTINGS.items()}
    family = str(folder.config["model_type"]).removesuffix("_encoder")
    return WhisperEncoder(folder, spec, family=family, tower=tower)
