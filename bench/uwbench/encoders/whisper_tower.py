"""The audio towers of language models that have the shape of Whisper's encoder.

Qwen2-Audio, Audio Flamingo 3 and Music Flamingo mask attention beyond the clip and average pairs of positions, so
computing the clip's positions alone gives the same frames as 30 s. Voxtral's and MOSS-Transcribe-Diarize's towers are
Whisper's encoder unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from uwbench.encoders.base import Encoder, ModelFolder, ModelSpec
from uwbench.encoders.whisper import WhisperEncoder

# Whisper's name of a setting, the other families' name, and the default that their models share.
_SETTINGS: dict[str, tuple[str, Any]] = {
    "d_model": ("hidden_size", 1280),
    "encoder_layers": ("num_hidden_layers", 32),
    "encoder_attention_heads": ("num_attention_heads", 20),
    "encoder_ffn_dim": ("intermediate_size", 5120),
    "num_mel_bins": ("num_mel_bins", 128),
    "max_source_positions": ("max_source_positions", 1500),
    "activation_function": ("activation_function", "gelu"),
}
# MOSS's tower has the size of Whisper medium.
_MOSS = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "num_mel_bins": 80,
}


def open_tower(folder: ModelFolder, spec: ModelSpec) -> Encoder:
    """Return the audio tower of a complete model, reading nothing else of it, or of a folder with the tower alone."""
    return WhisperEncoder(folder, spec, family=_family(folder), tower=_settings(folder), pairs=True)


def open_voxtral(folder: ModelFolder, spec: ModelSpec) -> Encoder:
    """Return the tower of Voxtral or MOSS, which sees the silence after a clip as Whisper does unless it is trimmed."""
    family = _family(folder)
    defaults = _MOSS if family == "moss_transcribe_diarize" else None
    return WhisperEncoder(folder, spec, family=family, tower=_settings(folder, defaults))


def _settings(folder: ModelFolder, defaults: Mapping[str, Any] | None = None) -> dict[str, Any]:
    config = {**(defaults or {}), **folder.config.get("audio_config", folder.config)}
    return {name: config.get(name, config.get(alias, default)) for name, (alias, default) in _SETTINGS.items()}


def _family(folder: ModelFolder) -> str:
    name = str(folder.config["model_type"]).removesuffix("_encoder")
    return "moss_transcribe_diarize" if name == "moss_transcribe_diarize_audio" else name
