"""Small random models whose tower another family has too, or that take several kinds of input, saved whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from encoders.families import Case
from encoders.tower_families import TEXT, States, direct_call, maker, own_states, recorded

_SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
_HYBRID = TEXT | {"layers_block_type": ["attention"], "mamba_num_heads": 2, "mamba_head_dim": 8}
_IMAGES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
_CONFORMER = _SIZES | {"subsampling_conv_channels": 16, "num_mel_bins": 80}
_MEL_80 = {"feature_size": 80}
_PE_LEAD = "audio_model.audio_encoder."
_NEMOTRON = "NemotronAsrStreamingFeatureExtractor"


def _moss(model: Any, inputs: Any) -> States:
    return own_states(model.model.audio_tower, inputs.input_features)


def _diarization(model: Any, inputs: Any) -> States:
    return own_states(model.model.audio_tower, inputs.input_features, inputs.attention_mask)


def _transcribe(model: Any, inputs: Any) -> States:
    from transformers.models.nemotron3_5_transcribe.modeling_nemotron3_5_transcribe import normalize_per_feature

    mels = normalize_per_feature(inputs.input_features, inputs.attention_mask)
    return own_states(model.model.audio_tower.asr_encoder, mels, inputs.attention_mask)


def _streaming(model: Any, inputs: Any) -> States:
    return own_states(model.encoder, **inputs, num_lookahead_tokens=3)


def _parakeet(model: Any, inputs: Any) -> States:
    tower = getattr(model, "audio_tower", None) or model.encoder
    states, output = own_states(tower, inputs.input_features, attention_mask=inputs.attention_mask)
    count = int(tower._get_subsampling_output_length(inputs.attention_mask.sum()))
    return [state[:, :count] for state in states], output[:, :count]


def _speech_to_text(model: Any, inputs: Any) -> States:
    return own_states(model.model.encoder, inputs.input_features, attention_mask=inputs.attention_mask)


def _dots3(model: Any, inputs: Any) -> States:
    tower = model.model.audio_tower
    return own_states(tower, inputs.input_features, inputs.chunk_sample_lengths)


def _muse(model: Any, inputs: Any) -> States:
    tower = model.model.audio_tower
    stages, _ = recorded(tower.layers, lambda: tower(inputs.input_values))
    normed = tower.norm(stages[-1])
    return [normed], normed


def _embedding_gemma(model: Any, inputs: Any) -> States:
    tower = model.audio_tower
    states, _ = recorded(tower.layers, lambda: tower(inputs.input_features, inputs.input_features_mask))
    return states, states[-1]


_PE_AUDIO = _SIZES | {
    "num_key_value_heads": 4,
    "head_dim": 8,
    "dac_config": {
        "encoder_hidden_size": 2,
        "downsampling_ratios": [2, 8, 10, 12],
        "hidden_size": 16,
        "codebook_dim": 24,
    },
}


def _make_pe_audio_video(folder: Path) -> None:
    """Save the tower under the names of the complete model, whose video tower needs a package that is not here."""
    from safetensors.torch import load_file, save_file
    from transformers import PeAudioEncoder, PeAudioFeatureExtractor, PeAudioVideoConfig

    torch.manual_seed(0)
    config: Any = PeAudioVideoConfig(audio_video_config=_SIZES | {"audio_config": _PE_AUDIO})
    PeAudioEncoder(config.audio_video_config.audio_config).save_pretrained(folder)
    config.save_pretrained(folder)
    tensors = {f"{_PE_LEAD}{name}": value for name, value in load_file(folder / "model.safetensors").items()}
    save_file(tensors | {"text_model.final_norm.weight": torch.ones(4)}, folder / "model.safetensors")
    PeAudioFeatureExtractor().save_pretrained(folder)


def _direct_pe_audio_video(folder: Path, samples: Any) -> States:
    from safetensors.torch import load_file
    from transformers import PeAudioEncoder, PeAudioFeatureExtractor, PeAudioVideoConfig

    config: Any = PeAudioVideoConfig.from_pretrained(folder)
    tower = PeAudioEncoder(config.audio_video_config.audio_config).eval()
    stored = load_file(folder / "model.safetensors").items()
    tower.load_state_dict({name.removeprefix(_PE_LEAD): value for name, value in stored if name.startswith(_PE_LEAD)})
    extract = PeAudioFeatureExtractor.from_pretrained(folder)
    inputs = extract([samples], sampling_rate=48_000, padding=True, return_tensors="pt")
    states, output = recorded(tower.layers, lambda: tower(inputs["input_values"]))
    return [state[:, 1:] for state in states], output.last_hidden_state


def _case(
    name: str,
    whole: str,
    config: str,
    extractor: str,
    run: Any,
    hop_s: float,
    parts: dict[str, Any],
    *,
    settings: dict[str, Any] | None = None,
    batching: str = "padded",
    rate: int = 16_000,
    family: str = "",
    options: dict[str, Any] | None = None,
    reads_back: bool = False,
) -> Case:
    make = maker(whole, config, extractor, settings or {}, **parts)
    direct = direct_call(whole, extractor, run, rate=rate, **(options or {}))
    return Case(name, make, direct, hop_s, batching, rate, family, reads_back)


CASES = (
    _case(
        "moss_transcribe_diarize",
        "MossTranscribeDiarizeForConditionalGeneration",
        "MossTranscribeDiarizeConfig",
        "MossTranscribeDiarizeFeatureExtractor",
        _moss,
        0.02,
        {
            "audio_config": _SIZES | {"num_mel_bins": 80},
            "text_config": TEXT | {"model_type": "qwen3"},
        },
    ),
    _case(
        "nemotron3_diarization",
        "Nemotron3DiarizationForAudioFrameClassification",
        "Nemotron3DiarizationConfig",
        _NEMOTRON,
        _diarization,
        0.08,
        {
            "audio_config": _SIZES | {"num_mel_bins": 80},
            "head_config": {"hidden_size": 8, "audio_hidden_size": 32},
        },
        settings=_MEL_80,
    ),
    _case(
        "nemotron3_5_transcribe",
        "Nemotron3_5TranscribeForConditionalGeneration",
        "Nemotron3_5TranscribeConfig",
        _NEMOTRON,
        _transcribe,
        0.08,
        {
            "audio_config": {
                "asr_config": _SIZES | {"num_mel_bins": 80},
                "diarization_config": {
                    "model_type": "nemotron3_diarization",
                    "audio_config": _SIZES | {"num_mel_bins": 80},
                    "head_config": {"hidden_size": 8, "audio_hidden_size": 32},
                },
            },
            "text_config": _HYBRID,
            "word_timestamp_config": _SIZES | {"vocab_size": 8, "blank_token_id": 7},
        },
        settings=_MEL_80,
    ),
    _case(
        "nemotron3_5_asr",
        "Nemotron3_5AsrForRNNT",
        "Nemotron3_5AsrConfig",
        _NEMOTRON,
        _streaming,
        0.08,
        {
            "vocab_size": 20,
            "blank_token_id": 19,
            "decoder_hidden_size": 16,
            "num_prompts": 4,
            "default_prompt_id": 1,
            "prompt_intermediate_size": 16,
            "encoder_config": _CONFORMER | {"sliding_window": 9, "default_num_lookahead_tokens": 3},
        },
        settings=_MEL_80,
        family="nemotron_asr_streaming",
    ),
    _case(
        "parakeet_rnnt",
        "ParakeetForRNNT",
        "ParakeetRNNTConfig",
        "ParakeetFeatureExtractor",
        _parakeet,
        0.08,
        {"vocab_size": 20, "blank_token_id": 19, "decoder_hidden_size": 16, "encoder_config": _CONFORMER},
        family="parakeet",
    ),
    _case(
        "nemotron_h_omni",
        "NemotronH_Omni_Reasoning_V3",
        "NemotronH_Omni_Reasoning_V3_Config",
        "ParakeetFeatureExtractor",
        _parakeet,
        0.08,
        {
            "audio_config": _CONFORMER | {"projection_hidden_size": 16, "projection_bias": False},
            "text_config": _HYBRID,
            "vision_config": _IMAGES | {"video_temporal_patch_size": 2},
            "vision_hidden_size": 16,
            "projector_hidden_size": 16,
        },
    ),
    _case(
        "speech_to_text",
        "Speech2TextForConditionalGeneration",
        "Speech2TextConfig",
        "Speech2TextFeatureExtractor",
        _speech_to_text,
        0.04,
        {
            "vocab_size": 40,
            "d_model": 32,
            "encoder_layers": 3,
            "encoder_attention_heads": 4,
            "encoder_ffn_dim": 48,
            "decoder_layers": 1,
            "decoder_attention_heads": 2,
            "decoder_ffn_dim": 16,
            "conv_channels": 16,
        },
        batching="equal-length",
        options={"padding": True},
    ),
    _case(
        "dots3_note",
        "Dots3NoteForConditionalGeneration",
        "Dots3NoteConfig",
        "Dots3NoteFeatureExtractor",
        _dots3,
        0.08,
        {
            "audio_config": _SIZES
            | {"head_dim": 8, "adapter_input_size": 32, "adapter_out_dim": 16, "downsample_hidden_size": 8},
            "text_config": TEXT | {"n_routed_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 8},
            "vision_config": _IMAGES
            | {"mlp_layer_types": ["dense"], "adapter_in_dim": 16, "adapter_out_dim": 16, "head_dim": 8},
            "audio_token_id": 5,
        },
        reads_back=True,
    ),
    _case(
        "muse_spark",
        "MuseSparkForConditionalGeneration",
        "MuseSparkConfig",
        "MuseSparkFeatureExtractor",
        _muse,
        0.08,
        {
            "audio_config": {"hidden_sizes": [8, 8, 16, 32], "depths": [1, 1, 1, 1], "out_hidden_size": 16},
            "text_config": TEXT | {"num_local_experts": 2, "num_experts_per_tok": 1, "moe_hidden_size": 8},
            "vision_config": _IMAGES,
        },
        rate=24_000,
    ),
    _case(
        "embedding_gemma2",
        "EmbeddingGemma2Model",
        "EmbeddingGemma2Config",
        "Gemma4AudioFeatureExtractor",
        _embedding_gemma,
        0.04,
        {
            "audio_config": _SIZES
            | {"model_type": "gemma4_audio", "subsampling_conv_channels": [128, 4], "output_proj_dims": 24},
            "text_config": TEXT | {"layer_types": ["full_attention"]},
            "vision_config": None,
        },
        family="gemma4",
    ),
    Case("pe_audio_video", _make_pe_audio_video, _direct_pe_audio_video, 0.04, "equal-length", 48_000, "pe_audio"),
)
