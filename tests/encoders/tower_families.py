"""Small random language models with an audio tower, saved whole, and how transformers itself is called on each tower.

Layers are recorded by hooks on the blocks' outputs or by transformers' own `output_hidden_states`; what a family
averages is averaged here in a loop over frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from encoders.families import Case, Direct

_SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
_WHISPER = {
    "num_mel_bins": 80,
    "d_model": 32,
    "encoder_layers": 3,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "output_dim": 16,
}
TEXT = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 40,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_ROTARY = {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e6}}
_VISION = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
States = tuple[list[torch.Tensor], torch.Tensor]


def maker(whole: str, config: str, extractor: str, settings: dict[str, Any], **parts: Any) -> Callable[[Path], None]:
    """Return a function that saves a model of the class `whole` and its feature extractor."""

    def make(folder: Path) -> None:
        import transformers

        torch.manual_seed(0)
        built = getattr(transformers, config).from_dict(parts)
        getattr(transformers, whole)(built).save_pretrained(folder)
        getattr(transformers, extractor)(**settings).save_pretrained(folder)

    return make


def direct_call(
    whole: str, extractor: str, run: Callable[[Any, Any], States], *, rate: int = 16_000, **options: Any
) -> Direct:
    """Return the direct call: the complete model, loaded by transformers, on the extractor's output."""

    def direct(folder: Path, samples: Any) -> States:
        import transformers

        extract = getattr(transformers, extractor).from_pretrained(folder)
        named = {"sampling_rate": rate, "return_tensors": "pt"} | options
        if extractor == "GraniteSpeechFeatureExtractor":
            named = {}
        inputs = extract([samples], **named)
        return run(getattr(transformers, whole).from_pretrained(folder).eval(), inputs)

    return direct


def recorded(blocks: Iterable[torch.nn.Module], call: Callable[[], Any]) -> tuple[list[torch.Tensor], Any]:
    """Return the input of the first block, every block's output, and what the call returned."""
    states: list[torch.Tensor] = []

    def keep(_: Any, inputs: Any, output: Any) -> None:
        if not states:
            states.append(inputs[0])
        states.append(output[0] if isinstance(output, tuple) else output)

    hooks = [block.register_forward_hook(keep) for block in blocks]
    try:
        return states, call()
    finally:
        for hook in hooks:
            hook.remove()


def averaged(states: torch.Tensor, factor: int, count: int, frames: int) -> torch.Tensor:
    """Return `count` means over `factor` frames each, of the first `frames` alone; zeros where there are none."""
    groups = [states[:, factor * i : min(factor * (i + 1), frames)] for i in range(count)]
    return torch.stack(
        [group.mean(1) if group.shape[1] else group.new_zeros(1, states.shape[2]) for group in groups], 1
    )


def own_states(tower: Any, *inputs: Any, **named: Any) -> States:
    output = tower(*inputs, **named, output_hidden_states=True)
    return list(output.hidden_states), output.last_hidden_state


def _omni(model: Any, inputs: Any) -> States:
    count = int(inputs.attention_mask.sum())
    tower = getattr(model, "thinker", model).model.audio_tower
    sizes = {"feature_lens": torch.tensor([count])}
    states, _ = recorded(tower.layers, lambda: tower(inputs.input_features[0][:, :count], **sizes))
    if type(tower).__name__.startswith("Qwen3"):
        return [state[None] for state in states], tower.ln_post(states[-1])[None]
    pairs = len(states[0]) // 2
    means = [averaged(state[None], 2, pairs, 2 * pairs) for state in states]
    return means, tower.ln_post(means[-1])


def _qwen3_asr(model: Any, inputs: Any) -> States:
    tower = model.model.audio_tower
    states, output = recorded(tower.layers, lambda: tower(inputs.input_features, inputs.attention_mask))
    return [state[None] for state in states], output.last_hidden_state[None]


def _gemma4(model: Any, inputs: Any) -> States:
    tower = model.model.audio_tower
    states, output = recorded(tower.layers, lambda: tower(inputs.input_features, inputs.input_features_mask))
    torch.testing.assert_close(tower.output_proj(states[-1]), output.last_hidden_state)
    return states, states[-1]


def _with_voices(make: Callable[[Path], None]) -> Callable[[Path], None]:
    """Return a function that saves a Qwen2.5-Omni with the file of voices that its class asks for."""

    def make_with_voices(folder: Path) -> None:
        make(folder)
        torch.save({}, folder / "spk_dict.pt")

    return make_with_voices


def _make_gemma3n(folder: Path) -> None:
    """Save the tower under the names of the complete model, whose image tower needs a package that is not here."""
    from safetensors.torch import load_file, save_file
    from transformers import Gemma3nAudioEncoder, Gemma3nAudioFeatureExtractor, Gemma3nConfig

    torch.manual_seed(0)
    audio = {
        "input_feat_size": 32,
        "hidden_size": 32,
        "conf_num_attention_heads": 4,
        "conf_num_hidden_layers": 3,
        "sscp_conv_channel_size": (8, 4),
    }
    config: Any = Gemma3nConfig(audio_config=audio)
    Gemma3nAudioEncoder(config.audio_config).save_pretrained(folder)
    config.save_pretrained(folder)
    tensors = {f"model.audio_tower.{name}": value for name, value in load_file(folder / "model.safetensors").items()}
    save_file(tensors | {"model.language_model.norm.weight": torch.ones(4)}, folder / "model.safetensors")
    Gemma3nAudioFeatureExtractor(feature_size=32).save_pretrained(folder)


def _direct_gemma3n(folder: Path, samples: Any) -> States:
    from safetensors.torch import load_file
    from transformers import Gemma3nAudioEncoder, Gemma3nAudioFeatureExtractor, Gemma3nConfig

    config: Any = Gemma3nConfig.from_pretrained(folder)
    tower = Gemma3nAudioEncoder(config.audio_config).eval()
    stored = load_file(folder / "model.safetensors").items()
    tower.load_state_dict({name[18:]: value for name, value in stored if name.startswith("model.audio_tower.")})
    inputs = Gemma3nAudioFeatureExtractor.from_pretrained(folder)([samples], return_tensors="pt")
    outside = ~inputs.input_features_mask.bool()
    states, output = recorded(tower.conformer, lambda: tower(inputs.input_features, outside))
    count, frames = output.last_hidden_state.shape[1], int((~outside[:, ::4]).sum())
    return [averaged(state, 4, count, frames) for state in states], output.last_hidden_state


def _phi4(model: Any, inputs: Any) -> States:
    tower = model.model.embed_tokens_extend.audio_embed.encoder
    return recorded(tower.encoders, lambda: tower(inputs.audio_input_features, None))


def _seamless(model: Any, inputs: Any) -> States:
    encoder = model.speech_encoder
    normed: list[torch.Tensor] = []
    hook = encoder.encoder.layer_norm.register_forward_hook(lambda _, __, output: normed.append(output))
    states, _ = recorded(encoder.encoder.layers, lambda: encoder(**inputs))
    hook.remove()
    count = int(inputs.attention_mask.sum())
    return [state[:, :count] for state in states], normed[0][:, :count]


def _seamless_case(version: str, **extra: Any) -> Case:
    sides = ("encoder", "decoder", "t2u_encoder", "t2u_decoder")
    sizes = {"layers": 1, "attention_heads": 2, "ffn_dim": 16}
    parts = {f"{side}_{name}": size for side in sides for name, size in sizes.items()}
    speech = {"speech_encoder_layers": 3, "speech_encoder_attention_heads": 4, "speech_encoder_intermediate_size": 48}
    words = {"vocab_size": 40, "t2u_vocab_size": 20, "unit_hifi_gan_vocab_size": 20, "max_position_embeddings": 64}
    voice = {"upsample_initial_channel": 32, "unit_embed_dim": 8, "lang_embed_dim": 4, "spkr_embed_dim": 4}
    make = maker(
        f"SeamlessM4T{version}Model",
        f"SeamlessM4T{version}Config",
        "SeamlessM4TFeatureExtractor",
        {},
        hidden_size=32,
        **parts,
        **speech,
        **words,
        **voice,
        **extra,
    )
    direct = direct_call(f"SeamlessM4T{version}Model", "SeamlessM4TFeatureExtractor", _seamless)
    name = f"seamless_m4t{'_' if version else ''}{version}"
    return Case(name, make, direct, 0.02)


def _tower_case(
    name: str,
    prefix: str,
    extractor: str,
    run: Callable[[Any, Any], States],
    hop_s: float,
    parts: dict[str, Any],
    *,
    settings: dict[str, Any] | None = None,
    head: str = "ForConditionalGeneration",
    config: str | None = None,
    batching: str = "padded",
    options: dict[str, Any] | None = None,
    reads_back: bool = False,
    family: str = "",
) -> Case:
    whole = prefix + head
    make = maker(whole, config or f"{prefix}Config", extractor, settings or {}, **parts)
    make = _with_voices(make) if prefix == "Qwen2_5Omni" else make
    direct = direct_call(whole, extractor, run, **(options or {}))
    return Case(name, make, direct, hop_s, batching, family=family, reads_back=reads_back)


_MEL_80 = {"feature_size": 80}
_CONFORMER = _SIZES | {"subsampling_conv_channels": 16, "num_mel_bins": 80}
_PADDED = {"padding": True, "return_attention_mask": True}
_EXPERTS = {"moe_intermediate_size": 8, "num_experts": 2, "num_experts_per_tok": 1}
_THINKER = {"audio_config": _WHISPER, "vision_config": _VISION, "text_config": TEXT | _ROTARY}
_THINKER_3 = {
    "audio_config": _WHISPER | {"downsample_hidden_size": 8},
    "vision_config": _VISION | {"deepstack_visual_indexes": [0]},
    "text_config": TEXT | _ROTARY | _EXPERTS,
}
_PHI4_AUDIO = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_blocks": 3,
    "num_attention_heads": 4,
    "ext_pw_out_channel": 32,
    "depthwise_separable_out_channel": 32,
    "nemo_conv_channels": 8,
}
_GEMMA4_TEXT = {
    "num_hidden_layers": 2,
    "global_head_dim": 8,
    "vocab_size_per_layer_input": 40,
    "hidden_size_per_layer_input": 8,
    "num_kv_shared_layers": 0,
    "layer_types": ["sliding_attention", "full_attention"],
}
_IMAGES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}

CASES = (
    _tower_case(
        "qwen2_5_omni",
        "Qwen2_5OmniThinker",
        "WhisperFeatureExtractor",
        _omni,
        0.04,
        _THINKER,
        settings=_MEL_80,
        options={"return_attention_mask": True},
        reads_back=True,
    ),
    _tower_case(
        "qwen3_omni_moe",
        "Qwen3OmniMoeThinker",
        "WhisperFeatureExtractor",
        _omni,
        1 / 13,
        _THINKER_3,
        settings=_MEL_80,
        options={"return_attention_mask": True},
        reads_back=True,
    ),
    # As they are published: names begin with "thinker."; the talker, which writes audio, is left out.
    _tower_case(
        "qwen2_5_omni-whole",
        "Qwen2_5Omni",
        "WhisperFeatureExtractor",
        _omni,
        0.04,
        {"thinker_config": _THINKER, "enable_audio_output": False},
        settings=_MEL_80,
        options={"return_attention_mask": True},
        reads_back=True,
        family="qwen2_5_omni",
    ),
    _tower_case(
        "qwen3_omni_moe-whole",
        "Qwen3OmniMoe",
        "WhisperFeatureExtractor",
        _omni,
        1 / 13,
        {"thinker_config": _THINKER_3, "enable_audio_output": False},
        settings=_MEL_80,
        options={"return_attention_mask": True},
        reads_back=True,
        family="qwen3_omni_moe",
    ),
    _tower_case(
        "qwen3_asr",
        "Qwen3ASR",
        "Qwen3ASRFeatureExtractor",
        _qwen3_asr,
        1 / 13,
        {
            "audio_config": _WHISPER | {"downsample_hidden_size": 8},
            "text_config": TEXT | {"model_type": "qwen3"},
            "audio_token_id": 5,
        },
        settings=_MEL_80,
        options=_PADDED,
        reads_back=True,
    ),
    _tower_case(
        "glmasr",
        "GlmAsr",
        "WhisperFeatureExtractor",
        lambda model, inputs: own_states(model.model.audio_tower, inputs.input_features),
        0.02,
        {
            "audio_config": _SIZES | {"num_mel_bins": 80, "intermediate_size": 128},
            "text_config": TEXT | {"model_type": "llama"},
            "audio_token_id": 5,
        },
        settings=_MEL_80,
    ),
    _tower_case(
        "voxtral_realtime",
        "VoxtralRealtime",
        "VoxtralRealtimeFeatureExtractor",
        lambda model, inputs: own_states(model.model.audio_tower, inputs.input_features),
        0.02,
        {
            "audio_config": _SIZES | {"num_mel_bins": 80, "head_dim": 8, "sliding_window": 20},
            "text_config": TEXT,
        },
        settings=_MEL_80,
    ),
    _tower_case(
        "nemotron_asr_streaming",
        "NemotronAsrStreaming",
        "NemotronAsrStreamingFeatureExtractor",
        lambda model, inputs: own_states(model.encoder, **inputs, num_lookahead_tokens=3),
        0.08,
        {
            "vocab_size": 20,
            "blank_token_id": 19,
            "decoder_hidden_size": 16,
            "encoder_config": _CONFORMER | {"sliding_window": 9, "default_num_lookahead_tokens": 3},
        },
        settings=_MEL_80,
        head="ForRNNT",
    ),
    _tower_case(
        "lasr",
        "Lasr",
        "LasrFeatureExtractor",
        lambda model, inputs: own_states(model.encoder, **inputs),
        0.04,
        {"vocab_size": 20, "encoder_config": _CONFORMER | {"num_mel_bins": 128, "conv_kernel_size": 8}},
        head="ForCTC",
        config="LasrCTCConfig",
        options=_PADDED,
    ),
    _tower_case(
        "gemma4",
        "Gemma4",
        "Gemma4AudioFeatureExtractor",
        _gemma4,
        0.04,
        {
            "audio_config": _SIZES | {"subsampling_conv_channels": [128, 4], "output_proj_dims": 24},
            "text_config": TEXT | _GEMMA4_TEXT,
            "vision_config": _IMAGES | {"num_key_value_heads": 2, "head_dim": 8},
        },
    ),
    Case("gemma3n", _make_gemma3n, _direct_gemma3n, 0.16, "equal-length"),
    _tower_case(
        "phi4_multimodal",
        "Phi4Multimodal",
        "Phi4MultimodalFeatureExtractor",
        _phi4,
        0.08,
        TEXT | {"audio_config": _PHI4_AUDIO, "vision_config": _IMAGES | {"crop_size": 28, "image_size": 28}},
        head="ForCausalLM",
        batching="equal-length",
    ),
    _seamless_case(""),
    _seamless_case(
        "v2",
        char_vocab_size=20,
        t2u_variance_predictor_embed_dim=32,
        t2u_variance_predictor_hidden_dim=8,
        variance_predictor_kernel_size=3,
    ),
)
