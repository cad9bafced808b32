"""Small random models whose feature extractors need torchaudio; they are run where it is installed."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

import torch

from encoders.families import Case
from encoders.tower_families import States, direct_call, maker, own_states

_CTC = {
    "input_dim": 160,
    "num_layers": 4,
    "hidden_dim": 32,
    "num_heads": 4,
    "output_dim": 7,
    "context_size": 20,
    "max_pos_emb": 32,
    "conv_kernel_size": 5,
}
_PROJECTOR = {
    "model_type": "blip_2_qformer",
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
_TEXT = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 40,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GRANITE = _TEXT | {"model_type": "granite"}


def _granite(model: Any, inputs: Any) -> States:
    return own_states(model.model.encoder, inputs["input_features"])


def _granite_plus(model: Any, inputs: Any) -> States:
    """Split off what the encoder joins before its last layer."""
    states, joined = own_states(model.model.encoder, inputs["input_features"])
    return states, joined[..., -states[0].shape[2] :]


def _granite5(model: Any, inputs: Any) -> States:
    states, output = own_states(model.encoder, **inputs)
    count = output.shape[1]
    means = [
        torch.stack([state[:, factor * i : factor * (i + 1)].mean(1) for i in range(count)], dim=1)
        for state, factor in zip(states, (4, 2, 1, 1, 1), strict=True)
    ]
    return means, output


def _fun_asr(model: Any, inputs: Any) -> States:
    states, output = own_states(model.model.audio_tower, inputs.input_features, inputs.input_features_mask)
    return states[1:], output


def _latents(model: Any, inputs: Any) -> States:
    """Compute both branches step by step; the codec's own `encode` returns quantised latents."""
    semantic = model.semantic_encoder(inputs.input_features, attention_mask=inputs.get("input_features_mask"))
    semantic = model.semantic_adapter(semantic.last_hidden_state.transpose(1, 2))
    acoustic = model.acoustic_encoder(inputs.input_values)
    count = min(semantic.shape[2], acoustic.shape[2])
    joined = torch.cat([semantic[..., :count], acoustic[..., :count]], dim=1)
    latents = model.fc_encoder(joined.transpose(1, 2))
    return [latents], latents


def _higgs(model: Any, inputs: Any) -> States:
    """Compute both branches step by step, as for X-codec, at the two rates."""
    resample = import_module("torchaudio.functional").resample
    samples = inputs["input_values"]
    samples = torch.nn.functional.pad(samples, (0, -samples.shape[2] % 960))
    slower = resample(samples, 24_000, 16_000)[:, 0]
    states = model.semantic_model(torch.nn.functional.pad(slower, (160, 160)), output_hidden_states=True).hidden_states
    semantic = model.encoder_semantic(torch.stack(states, dim=1).mean(1)[:, ::2].transpose(1, 2))
    acoustic = model.acoustic_encoder(samples)
    if acoustic.shape[2] != semantic.shape[2]:
        acoustic = model.acoustic_encoder(torch.nn.functional.pad(samples, (model.pad, model.pad)))
    latents = model.fc(torch.cat([acoustic, semantic], dim=1).transpose(1, 2))
    return [latents], latents


def _case(
    name: str,
    whole: str,
    extractor: str,
    run: Any,
    hop_s: float,
    parts: dict[str, Any],
    *,
    config: str | None = None,
    batching: str = "equal-length",
    rate: int = 16_000,
    settings: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
) -> Case:
    make = maker(whole, config or whole.replace("Model", "Config"), extractor, settings or {}, **parts)
    direct = direct_call(whole, extractor, run, rate=rate, **(options or {}))
    return replace(Case(name, make, direct, hop_s, batching, rate), needs="torchaudio", reads_back=True)


_CODEC = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "encoder_hidden_size": 2,
    "quantization_dim": 64,
    "semantic_model_config": {
        "model_type": "wav2vec2-bert",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
    },
}

CASES = (
    _case(
        "granite_speech",
        "GraniteSpeechForConditionalGeneration",
        "GraniteSpeechFeatureExtractor",
        _granite,
        0.02,
        {
            "encoder_config": _CTC,
            "projector_config": _PROJECTOR | {"encoder_hidden_size": 32},
            "text_config": _GRANITE,
            "has_lora_adapter": False,
        },
        config="GraniteSpeechConfig",
    ),
    _case(
        "granite_speech_plus",
        "GraniteSpeechPlusForConditionalGeneration",
        "GraniteSpeechFeatureExtractor",
        _granite_plus,
        0.02,
        {
            "encoder_config": _CTC | {"cat_hidden_layers": [1]},
            "projector_config": _PROJECTOR | {"encoder_hidden_size": 64},
            "text_config": _GRANITE,
            "has_lora_adapter": False,
        },
        config="GraniteSpeechPlusConfig",
    ),
    _case(
        "granite_speech5",
        "GraniteSpeech5ForCTC",
        "GraniteSpeech5FeatureExtractor",
        _granite5,
        0.08,
        {
            "vocab_size": 20,
            "encoder_config": {
                "vocab_size": 20,
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 4,
                "num_attention_heads": 4,
                "context_size": 20,
                "max_position_embeddings": 32,
            },
        },
        config="GraniteSpeech5CTCConfig",
        options={"padding": True},
    ),
    _case(
        "fun_asr_nano",
        "FunAsrNanoForConditionalGeneration",
        "FunAsrNanoFeatureExtractor",
        _fun_asr,
        0.06,
        {
            "audio_config": {
                "hidden_size": 32,
                "num_attention_heads": 4,
                "intermediate_size": 48,
                "num_hidden_layers": 4,
                "num_timestamp_prediction_layers": 1,
            },
            "adaptor_config": {
                "projector_hidden_size": 16,
                "hidden_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "intermediate_size": 4,
            },
            "text_config": _TEXT | {"model_type": "qwen3", "head_dim": 8},
        },
        config="FunAsrNanoConfig",
        batching="padded",
        options={"padding": True},
    ),
    _case("xcodec2", "Xcodec2Model", "Xcodec2FeatureExtractor", _latents, 0.02, _CODEC),
    _case("neucodec", "NeuCodecModel", "Xcodec2FeatureExtractor", _latents, 0.02, _CODEC),
    _case(
        "higgs_audio_v2_tokenizer",
        "HiggsAudioV2TokenizerModel",
        "DacFeatureExtractor",
        _higgs,
        0.04,
        {
            "acoustic_model_config": {
                "encoder_hidden_size": 2,
                "decoder_hidden_size": 32,
                "hidden_size": 16,
                "codebook_size": 8,
                "downsampling_ratios": [8, 5, 4, 2, 3],
                "upsampling_ratios": [8, 5, 4, 2, 3],
            },
            "semantic_model_config": {
                "model_type": "hubert",
                "hidden_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "intermediate_size": 48,
                "num_conv_pos_embeddings": 16,
                "num_conv_pos_embedding_groups": 4,
                "conv_dim": (16,) * 7,
            },
            "codebook_size": 8,
            "codebook_dim": 8,
        },
        rate=24_000,
        settings={"sampling_rate": 24_000, "hop_length": 960},
    ),
)
