"""Small random models that take waveforms, codecs among them, and how transformers itself is called on each."""

from __future__ import annotations

from typing import Any

import torch

from encoders.families import Case
from encoders.tower_families import States, averaged, direct_call, maker, own_states, recorded

_CONVOLUTIONS = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
_SEVEN = {"conv_dim": (16,) * 7}
_WAV2VEC2, _ENCODEC, _DAC = "Wav2Vec2FeatureExtractor", "EncodecFeatureExtractor", "DacFeatureExtractor"
_TEXT = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 40,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def _sew(model: Any, inputs: Any) -> States:
    tower = getattr(model, model.base_model_prefix)
    encoder = tower.encoder
    blocks = encoder.encoder.layer if model.base_model_prefix == "sew_d" else encoder.layers
    states, output = recorded(blocks, lambda: tower(inputs.input_values))
    repeated = [torch.cat([state[:, [i // 2]] for i in range(2 * state.shape[1])], 1) for state in states]
    return repeated, output.last_hidden_state[:, : repeated[0].shape[1]]


def _moonshine(model: Any, inputs: Any) -> States:
    return own_states(model.model.encoder, inputs.input_values, attention_mask=inputs.attention_mask)


def _pe_audio(model: Any, inputs: Any) -> States:
    tower = model.audio_encoder
    states, output = recorded(tower.layers, lambda: tower(**inputs))
    states, frames = [state[:, 1:] for state in states], output.last_hidden_state
    summary = output.pooler_output[:, None].expand_as(frames)
    joint = torch.nn.functional.layer_norm(summary, summary.shape[-1:], eps=1e-6)
    return [joint, *states], frames


def _speecht5(model: Any, inputs: Any) -> States:
    return own_states(model.speecht5.encoder, inputs.input_values)


def _omniasr(model: Any, inputs: Any) -> States:
    return own_states(model.model.audio_tower, inputs.input_values, padding_mask=inputs.padding_mask)


def _mimi(model: Any, inputs: Any) -> States:
    encoder = model.encoder
    states, output = recorded(encoder.encoder_transformer.layers, lambda: encoder(inputs.input_values))
    latents = output.latents.transpose(1, 2)
    count = latents.shape[1]
    return [*(averaged(state, 2, count, state.shape[1]) for state in states), latents], latents


def _csm(model: Any, inputs: Any) -> States:
    return _mimi(model.codec_model, inputs)


def _moshi(model: Any, inputs: Any) -> States:
    return _mimi(model.audio_encoder, inputs)


def _pocket(model: Any, inputs: Any) -> States:
    """Fill the last frame with silence, as the published extractor does, and average the 16 frames to each latent."""
    encoder, samples = model.encoder, inputs.input_values
    samples = torch.nn.functional.pad(samples, (0, -samples.shape[2] % 1920))
    states, output = recorded(encoder.encoder_transformer.layers, lambda: encoder(samples))
    count = output.latents.shape[2]
    means = [averaged(state, 16, count, state.shape[1]) for state in states]
    return means, means[-1]


def _musicgen(model: Any, inputs: Any) -> States:
    latents = model.audio_encoder.encoder(inputs.input_values).transpose(1, 2)
    return [latents], latents


def _apertus(model: Any, inputs: Any) -> States:
    latents = model.model.audio_tokenizer.encoder(inputs.input_values).transpose(1, 2)
    return [latents], latents


def _vibevoice(model: Any, inputs: Any) -> States:
    model = getattr(model, "model", model)
    tower = getattr(model, "audio_tower", model)
    encoder = getattr(model, "acoustic_tokenizer_encoder", None) or tower.encoder
    latents = encoder(inputs["input_values"]).latents
    if hasattr(model, "semantic_tokenizer_encoder"):
        latents = torch.cat([latents, model.semantic_tokenizer_encoder(inputs["input_values"]).latents], dim=2)
    return [latents], latents


def _dac(model: Any, inputs: Any) -> States:
    latents = model.encoder(inputs["input_values"]).transpose(1, 2)
    return [latents], latents


def _wavtokenizer(model: Any, inputs: Any) -> States:
    latents = model.encoder_model.encoder(inputs.input_values).transpose(1, 2)
    return [latents], latents


def _xcodec(model: Any, inputs: Any) -> States:
    """Compute both branches step by step; X-codec's own `encode` returns codes alone."""
    samples = inputs["input_values"]
    widened = torch.nn.functional.pad(samples[:, 0], (model.pad, model.pad))
    states = model.semantic_model(widened, output_hidden_states=True).hidden_states
    semantic = model.encoder_semantic(torch.stack(states, dim=1).mean(1).transpose(1, 2))
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
    settings: dict[str, Any] | None = None,
    batching: str = "equal-length",
    rate: int = 16_000,
    family: str = "",
    reads_back: bool = False,
    **options: Any,
) -> Case:
    make = maker(whole, config or whole.replace("Model", "Config"), extractor, settings or {}, **parts)
    direct = direct_call(whole, extractor, run, rate=rate, **options)
    return Case(name, make, direct, hop_s, batching, rate, family, reads_back)


_OMNIASR = _CONVOLUTIONS | _SEVEN
_HUBERT = {"model_type": "hubert", **_CONVOLUTIONS, **_SEVEN}
_DECODER = {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 16}

_MIMI = {
    "hidden_size": 32,
    "num_filters": 4,
    "codebook_size": 8,
    "codebook_dim": 8,
    "num_quantizers": 3,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "intermediate_size": 48,
    "upsample_groups": 8,
    "vector_quantization_hidden_dimension": 8,
    "sliding_window": 20,
}
_WAVTOKENIZER = {
    "num_filters": 4,
    "hidden_size": 16,
    "codebook_size": 8,
    "codebook_dim": 16,
    "decoder_hidden_size": 32,
    "decoder_intermediate_size": 32,
    "decoder_num_layers": 1,
}
_STREAMS = {"codebook_vocab_size": 8, "num_codebooks": 2, "audio_bos_token_id": 6, "audio_pad_token_id": 7}
_VIBEVOICE = {"num_filters": 2, "depths": [1, 1, 1, 1, 1, 1, 1], "hidden_size": 12, "layer_scale_init_value": 0.5}
_T5 = {
    "model_type": "t5",
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 16,
    "num_layers": 1,
    "num_heads": 2,
    "vocab_size": 40,
}

CASES = (
    _case(
        "sew",
        "SEWForCTC",
        _WAV2VEC2,
        _sew,
        0.02,
        _CONVOLUTIONS | {"conv_dim": (16,) * 13, "vocab_size": 12},
        config="SEWConfig",
    ),
    _case(
        "sew-d",
        "SEWDForCTC",
        _WAV2VEC2,
        _sew,
        0.02,
        _CONVOLUTIONS | {"conv_dim": (16,) * 13, "vocab_size": 12},
        config="SEWDConfig",
        reads_back=True,
    ),
    _case(
        "omniasr_ctc",
        "OmniASRForCTC",
        "OmniASRFeatureExtractor",
        _omniasr,
        0.02,
        {"vocab_size": 40, "audio_config": _OMNIASR},
        config="OmniASRCTCConfig",
        batching="padded",
        family="omniasr",
    ),
    _case(
        "omniasr",
        "OmniASRForConditionalGeneration",
        "OmniASRFeatureExtractor",
        _omniasr,
        0.02,
        {"audio_config": _OMNIASR, "text_config": _TEXT | {"model_type": "llama", "num_key_value_heads": 2}},
        config="OmniASRConfig",
        batching="padded",
    ),
    _case(
        "moonshine_streaming",
        "MoonshineStreamingForConditionalGeneration",
        _WAV2VEC2,
        _moonshine,
        0.02,
        {
            "encoder_config": {
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 3,
                "num_attention_heads": 4,
                "num_key_value_heads": 4,
                "head_dim": 8,
            },
            **_TEXT,
            "hidden_size": 32,
            "num_key_value_heads": 2,
        },
        config="MoonshineStreamingConfig",
        settings={"do_normalize": False, "return_attention_mask": True},
        padding=True,
        pad_to_multiple_of=80,
    ),
    _case(
        "pe_audio",
        "PeAudioModel",
        "PeAudioFeatureExtractor",
        _pe_audio,
        0.04,
        {
            "audio_config": {
                "dac_config": {
                    "encoder_hidden_size": 2,
                    "downsampling_ratios": [2, 8, 10, 12],
                    "hidden_size": 16,
                    "codebook_dim": 24,
                },
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 3,
                "num_attention_heads": 4,
                "num_key_value_heads": 4,
                "head_dim": 8,
            },
            "text_config": _TEXT | {"model_type": "modernbert", "cls_token_id": 1, "sep_token_id": 2},
        },
        rate=48_000,
        padding=True,
    ),
    _case(
        "speecht5",
        "SpeechT5ForSpeechToText",
        "SpeechT5FeatureExtractor",
        _speecht5,
        0.02,
        _CONVOLUTIONS
        | _SEVEN
        | _DECODER
        | {"vocab_size": 20, "encoder_layers": 3, "encoder_attention_heads": 4, "encoder_ffn_dim": 48},
        config="SpeechT5Config",
    ),
    _case(
        "dac",
        "DacModel",
        _DAC,
        _dac,
        0.032,
        {
            "encoder_hidden_size": 2,
            "decoder_hidden_size": 16,
            "codebook_size": 8,
            "codebook_dim": 4,
            "n_codebooks": 2,
        },
    ),
    _case(
        "mimi",
        "MimiModel",
        _ENCODEC,
        _mimi,
        0.08,
        _MIMI,
        rate=24_000,
        reads_back=True,
    ),
    _case(
        "wavtokenizer",
        "WavTokenizerModel",
        _ENCODEC,
        _wavtokenizer,
        0.025,
        _WAVTOKENIZER,
        rate=24_000,
    ),
    _case(
        "xcodec",
        "XcodecModel",
        _DAC,
        _xcodec,
        0.02,
        {
            "acoustic_model_config": {
                "encoder_hidden_size": 2,
                "decoder_hidden_size": 16,
                "hidden_size": 16,
                "codebook_size": 8,
            },
            "semantic_model_config": _HUBERT,
            "codebook_size": 8,
        },
        settings={"sampling_rate": 16_000, "hop_length": 320},
    ),
    _case(
        "csm",
        "CsmForConditionalGeneration",
        _ENCODEC,
        _csm,
        0.08,
        _TEXT
        | {
            "num_key_value_heads": 2,
            "head_dim": 8,
            "text_vocab_size": 40,
            "codec_config": _MIMI,
            "depth_decoder_config": _TEXT | {"num_key_value_heads": 2, "head_dim": 8, "backbone_hidden_size": 16},
        },
        config="CsmConfig",
        rate=24_000,
        family="mimi",
        reads_back=True,
    ),
    _case(
        "kyutai_speech_to_text",
        "KyutaiSpeechToTextForConditionalGeneration",
        _ENCODEC,
        _csm,
        0.08,
        _TEXT | {"num_key_value_heads": 2, "head_dim": 8, "ffn_dim": 16, "codec_config": _MIMI} | _STREAMS,
        config="KyutaiSpeechToTextConfig",
        rate=24_000,
        family="mimi",
        reads_back=True,
    ),
    _case(
        "moshi",
        "MoshiForConditionalGeneration",
        _ENCODEC,
        _moshi,
        0.08,
        _TEXT
        | {
            "num_key_value_heads": 2,
            "head_dim": 8,
            "ffn_dim": 16,
            "num_codebooks": 2,
            "audio_vocab_size": 8,
            "audio_encoder_config": _MIMI,
            "depth_decoder_config": _TEXT
            | {"num_key_value_heads": 2, "head_dim": 8, "ffn_dim": 16, "num_codebooks": 2},
        },
        config="MoshiConfig",
        rate=24_000,
        family="mimi",
        reads_back=True,
    ),
    _case(
        "pocket_tts_audio_tokenizer",
        "PocketTTSAudioTokenizerModel",
        _ENCODEC,
        _pocket,
        0.08,
        {
            "hidden_size": 32,
            "num_filters": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "head_dim": 8,
            "intermediate_size": 48,
            "upsample_groups": 8,
            "latent_dim": 8,
            "layer_scale_initial_scale": 0.5,
        },
        config="PocketTTSAudioTokenizerConfig",
        settings={"chunk_length_s": None},
        rate=24_000,
        reads_back=True,
    ),
    _case(
        "musicgen",
        "MusicgenForConditionalGeneration",
        _ENCODEC,
        _musicgen,
        320 / 24_000,
        {
            "text_encoder": _T5,
            "audio_encoder": {
                "model_type": "encodec",
                "num_filters": 4,
                "hidden_size": 16,
                "codebook_size": 8,
                "codebook_dim": 16,
            },
            "decoder": {
                "model_type": "musicgen_decoder",
                "hidden_size": 16,
                "ffn_dim": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "vocab_size": 8,
                "num_codebooks": 2,
            },
        },
        config="MusicgenConfig",
        rate=24_000,
        family="encodec",
    ),
    _case(
        "apertus1p5",
        "Apertus1p5ForConditionalGeneration",
        "WavTokenizerFeatureExtractor",
        _apertus,
        0.025,
        {
            "text_config": _TEXT | {"num_key_value_heads": 2, "vocab_size": 262_400},
            "audio_config": _WAVTOKENIZER | {"model_type": "wavtokenizer_encoder"},
            "vision_config": {},
        },
        config="Apertus1p5Config",
        rate=24_000,
        family="wavtokenizer",
    ),
    _case(
        "vibevoice_acoustic_tokenizer",
        "VibeVoiceAcousticTokenizerModel",
        "VibeVoiceAcousticTokenizerFeatureExtractor",
        _vibevoice,
        3_200 / 24_000,
        _VIBEVOICE,
        batching="padded",
        rate=24_000,
        family="vibevoice",
    ),
    _case(
        "vibevoice",
        "VibeVoiceForConditionalGeneration",
        "VibeVoiceAcousticTokenizerFeatureExtractor",
        _vibevoice,
        3_200 / 24_000,
        {
            "text_config": _TEXT | {"model_type": "qwen2", "num_key_value_heads": 2},
            "audio_config": _VIBEVOICE,
            "semantic_model_config": _VIBEVOICE | {"hidden_size": 20},
            "diffusion_head_config": {"num_head_layers": 1, "intermediate_size": 16},
        },
        config="VibeVoiceConfig",
        batching="padded",
        rate=24_000,
    ),
    _case(
        "vibevoice_asr",
        "VibeVoiceAsrForConditionalGeneration",
        "VibeVoiceAcousticTokenizerFeatureExtractor",
        _vibevoice,
        3_200 / 24_000,
        {
            "text_config": _TEXT | {"model_type": "qwen2", "num_key_value_heads": 2},
            "acoustic_tokenizer_encoder_config": _VIBEVOICE,
            "semantic_tokenizer_encoder_config": _VIBEVOICE | {"hidden_size": 20},
        },
        config="VibeVoiceAsrConfig",
        batching="padded",
        rate=24_000,
        family="vibevoice",
    ),
)
