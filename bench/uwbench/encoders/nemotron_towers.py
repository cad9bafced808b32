"""The encoders of NVIDIA's Nemotron models: streaming and language-model FastConformers, and stacked transformers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from uwbench.encoders.base import Encoder, ModelFolder, ModelSpec
from uwbench.encoders.tower import Tensors
from uwbench.encoders.tower_row import Features, Row, open_row

_HOP = 160


def open_nemotron(folder: ModelFolder, _spec: ModelSpec) -> Encoder:
    """Return the encoder of a Nemotron model, whose type has a row in the table below."""
    name = str(folder.config["model_type"])
    name = _ALIASES.get(name, name)
    return open_row(folder, name, _ROWS[name])


def _streaming(model: Any, inputs: Features, _host: Features) -> Any:
    """Run the streaming FastConformer with the look-ahead of its checkpoint."""
    output = model(
        inputs["input_features"],
        attention_mask=inputs["attention_mask"],
        num_lookahead_tokens=model.config.default_num_lookahead_tokens,
        output_attention_mask=True,
        output_hidden_states=True,
    )
    return output.hidden_states, output.last_hidden_state, output.attention_mask.sum(1).long()


def _fast_conformer(model: Any, inputs: Features, _host: Features) -> Any:
    """Run Parakeet's encoder inside a language model."""
    output = model(inputs["input_features"], attention_mask=inputs["attention_mask"], output_hidden_states=True)
    return output.hidden_states, output.last_hidden_state, output.attention_mask.sum(1).long()


def _stacked(model: Any, inputs: Features, host: Features) -> Any:
    """Run Nemotron's transformer, whose frames are eight mel frames side by side; it asks for no full mask."""
    factor, mask = model.config.subsampling_factor, host["attention_mask"]
    partial = None if bool(mask.all()) else inputs["attention_mask"]
    output = model(inputs["input_features"], attention_mask=partial, output_hidden_states=True)
    return output.hidden_states, output.last_hidden_state, -(-mask.sum(1) // factor)


def _transcribe(model: Any, inputs: Features, host: Features) -> Any:
    """Run the speech recogniser of Nemotron 3.5 Transcribe, each mel band normalised over the clip as in its model."""
    from transformers.models.nemotron3_5_transcribe.modeling_nemotron3_5_transcribe import normalize_per_feature

    mels = inputs["input_features"]
    normed = normalize_per_feature(mels, inputs["attention_mask"]).to(mels.dtype)
    return _stacked(model, {**inputs, "input_features": normed}, host)


def _from_nemo(tensors: Tensors) -> Tensors:
    """Return the tensors of a NeMo transformer under transformers' names, queries, keys and values apart."""
    converted: Tensors = {}
    for saved, value in tensors.items():
        name = saved
        for pattern, replacement in _NEMO_NAMES.items():
            name = re.sub(pattern, replacement, name)
        if name.endswith("attn.w_qkv.weight"):
            lead = name.replace("attn.w_qkv.weight", "self_attn.")
            converted |= {f"{lead}{part}_proj.weight": rows for part, rows in zip("qkv", value.chunk(3), strict=True)}
        else:
            converted[name] = value
    return converted


def _stacked_hop(config: Mapping[str, Any], settings: Mapping[str, Any]) -> int:
    return int(config.get("subsampling_factor", 8)) * int(settings.get("hop_length", _HOP))


def _conformer_hop(_: Any, settings: Mapping[str, Any]) -> int:
    return 8 * int(settings.get("hop_length", _HOP))


# As in transformers' conversion_mapping.py.
_NEMO_NAMES = {
    r"^pre_encode\.proj\.": "embedder.projection.",
    r"^embed_norm\.": "input_layer_norm.",
    r"^final_norm\.": "layer_norm.",
    r"\.norm([12])\.": r".layer_norm\1.",
    r"\.attn\.out_proj\.": ".self_attn.o_proj.",
    r"\.attn\.([qk])_norm\.": r".self_attn.\1_norm.",
    r"\.ffn\.net\.0\.": ".mlp.fc1.",
    r"\.ffn\.net\.3\.": ".mlp.fc2.",
}
_WIDTH, _DEPTH, _PADDED = "hidden_size", "num_hidden_layers", {"padding": True}
_ROWS: dict[str, Row] = {
    "nemotron_asr_streaming": Row(
        "nemotron_asr_streaming.NemotronAsrStreamingEncoder",
        "encoder",
        (_WIDTH, 1024),
        (_DEPTH, 24),
        _conformer_hop,
        _streaming,
        options=_PADDED,
    ),
    "nemotron3_diarization": Row(
        "nemotron3_diarization.Nemotron3DiarizationAudioModel",
        "audio_tower",
        (_WIDTH, 512),
        (_DEPTH, 31),
        _stacked_hop,
        _stacked,
        27.2,  # 340 frames, after which it goes on with a memory of speakers
        options=_PADDED,
    ),
    "nemotron3_5_transcribe": Row(
        "nemotron3_5_transcribe.Nemotron3_5TranscribeAsrAudioModel",
        ("audio_tower.asr_encoder", "perception.encoder.asr_encoder", "asr_encoder"),
        (_WIDTH, 1280),
        (_DEPTH, 32),
        _stacked_hop,
        _transcribe,
        40.0,  # 500 frames, after which it goes on in overlapping chunks
        options=_PADDED,
        convert=_from_nemo,
    ),
    "nemotron_h_omni": Row(
        "parakeet.ParakeetEncoder",
        ("audio_tower", "sound_encoder.encoder"),
        (_WIDTH, 1024),
        (_DEPTH, 24),
        _conformer_hop,
        _fast_conformer,
        options={"padding": "longest"},
    ),
}
# The model types of towers that were saved alone, and of models with another one's tower.
_ALIASES = {
    "nemo_speechlm": "nemotron3_5_transcribe",
    "nemotron3_5_asr": "nemotron_asr_streaming",
    "nemotron3_5_transcribe_asr_audio": "nemotron3_5_transcribe",
    "nemotron3_5_transcribe_audio": "nemotron3_5_transcribe",
    "nemotron3_diarization_audio": "nemotron3_diarization",
    "nemotron_asr_streaming_encoder": "nemotron_asr_streaming",
}
