"""Encoders of speech and language models that are fed by their own extractor's spectrogram: one row each.

Layers that are faster than the output are averaged to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from uwbench.base.device import send
from uwbench.encoders.base import Encoded, Encoder, ModelFolder, ModelSpec
from uwbench.encoders.pretrained import ClipExtractor, PretrainedEncoder, layer_names, pick, required_settings
from uwbench.encoders.tower import at_rate, describe_tower, find_tower, inputs_of, load_tower
from uwbench.encoders.tower_row import HOST, Features, Row, open_row

if TYPE_CHECKING:
    import torch

_RATE, _HOP = 16_000, 160


def open_mel_tower(folder: ModelFolder, _spec: ModelSpec) -> Encoder:
    """Return the encoder of a model whose type has a row in the table below."""
    name = str(folder.config["model_type"])
    name = _ALIASES.get(name, name)
    return open_row(folder, name, _ROWS[name])


def _mels(count: int) -> Callable[[Any, Mapping[str, Any]], int]:
    """Return the function that gives the samples in `count` mel frames."""
    return lambda _, settings: count * int(settings.get("hop_length", _HOP))


def open_glm_asr(folder: ModelFolder, spec: ModelSpec) -> Encoder:
    """Return GLM-ASR's encoder, which sees the silence up to 30 s as Whisper does unless it is trimmed.

    It knows no mask: trimmed clips share a batch with others of their length only.
    """
    tower = find_tower(folder, "glmasr.GlmAsrEncoder", "audio_tower")
    settings, trimmed = required_settings(folder), spec.context == "trimmed"
    rate, stride = int(settings.get("sampling_rate", _RATE)), 2 * int(settings.get("hop_length", _HOP))
    context_s = float(settings.get("chunk_length", 30))
    info = describe_tower(
        tower,
        "glmasr",
        sample_rate=rate,
        dim=int(tower.settings.get("hidden_size", 1280)),
        layers=layer_names(int(tower.settings.get("num_hidden_layers", 32))),
        hop_s=stride / rate,
        context_s=context_s,
        forward_s=0.0 if trimmed else context_s,
        batching="equal-length" if trimmed else "padded",
        context=spec.context,
        host_inputs=HOST,
    )
    info = replace(info, identity={**info.identity, "context": spec.context})
    extractor = ClipExtractor(folder)

    def forward(model: Any, waveforms: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]) -> Encoded:
        mels = send(extractor(waveforms, lengths)["input_features"], model.device).to(model.dtype)
        if trimmed:
            mels = mels[..., : 2 * -(-waveforms.shape[1] // stride)]
        output = model(mels, output_hidden_states=True)
        frames = pick(output.hidden_states, output.last_hidden_state, layers)
        return Encoded(frames, (-(-lengths // stride)).clamp(1, frames.shape[2]))

    return PretrainedEncoder(info, lambda: load_tower(tower), forward)


def _lasr(model: Any, inputs: Features, _host: Features) -> Any:
    """Run LASR's encoder, which returns its own mask."""
    options = {"output_attention_mask": True, "output_hidden_states": True}
    output = model(inputs["input_features"], attention_mask=inputs["attention_mask"], **options)
    return output.hidden_states, output.last_hidden_state, output.attention_mask.sum(1).long()


def _causal(model: Any, inputs: Features, host: Features) -> Any:
    """Run Voxtral Realtime: no frame sees what comes after it, so silence after a clip changes none of its frames."""
    output = model(inputs["input_features"], output_hidden_states=True)
    return output.hidden_states, output.last_hidden_state, (host["attention_mask"].sum(1) + 1) // 2


def _gemma3n(model: Any, inputs: Features, _host: Features) -> Any:
    """Run Gemma 3n's encoder, whose output is every fourth of its frames of 40 ms; its mask is 1 beyond a clip."""
    outside = ~inputs["input_features_mask"].bool()
    with inputs_of(model.conformer) as states:
        output = model(inputs["input_features"], outside)
    frames, stride = output.last_hidden_state, math.prod(time for time, _ in model.config.sscp_conv_stride_size)
    inside = ~outside[:, ::stride][:, : states[0].shape[1]]
    slower = [at_rate(state, frames.shape[1], inside) for state in states]
    return [*slower, frames], frames, (~output.audio_mel_mask).sum(1)


def _gemma4(model: Any, inputs: Features, _host: Features) -> Any:
    """Run Gemma 4's encoder without its last projection, which leads to the width of the language model."""
    with inputs_of([*model.layers, model.output_proj]) as states:
        output = model(inputs["input_features"], inputs["input_features_mask"])
    return states, states[-1], output.attention_mask.sum(1).long()


def _phi4(model: Any, inputs: Features, _host: Features) -> Any:
    """Run Phi-4-multimodal's encoder on clips of one length: it adds its mask to the scores as 0 and 1."""
    with inputs_of(model.encoders) as states:
        output = model(inputs["audio_input_features"], None)
    return [*states, output], output, None


def _seamless(model: Any, inputs: Features, host: Features) -> Any:
    """Run SeamlessM4T's conformer; what comes after it makes one frame of eight for the translation model."""
    features, mask = model.feature_projection(inputs["input_features"]), host["attention_mask"]
    with inputs_of(model.encoder.layers) as states:
        output = model.encoder(features, attention_mask=None if bool(mask.all()) else inputs["attention_mask"])
    return [*states, output], output, mask.sum(1)


def _granite(model: Any, inputs: Features, _host: Features) -> Any:
    """Run Granite Speech's encoder; Plus joins layers for its projector, which would widen the last one."""
    model.config.cat_hidden_layers = None
    output = model(inputs["input_features"], output_hidden_states=True)
    return output.hidden_states, output.last_hidden_state, None


def _granite5(model: Any, inputs: Features, _host: Features) -> Any:
    """Run Granite Speech 5's encoder, some of whose layers halve the rate and drop an odd frame."""
    output = model(inputs["input_features"], inputs["attention_mask"], output_hidden_states=True)
    count = output.last_hidden_state.shape[1]
    factors = [
        2 ** sum(layer >= index for layer in model.config.subsample_layers)
        for index in range(len(output.hidden_states))
    ]
    pairs = zip(output.hidden_states, factors, strict=True)
    states = [at_rate(state[:, : count * factor], count) for state, factor in pairs]
    return states, output.last_hidden_state, None


def _fun_asr(model: Any, inputs: Features, host: Features) -> Any:
    """Run Fun-ASR Nano's encoder, whose input of stacked mel frames is wider than its layers."""
    mask = inputs["input_features_mask"]
    output = model(inputs["input_features"], mask, output_hidden_states=True)
    return output.hidden_states[1:], output.last_hidden_state, host["input_features_mask"].sum(1)


def _speech_to_text(model: Any, inputs: Features, _host: Features) -> Any:
    """Run Speech2Text's encoder on clips of one length: its convolutions carry silence after a clip into its frames.

    Its extractor divides each mel band by its deviation, which is 0 in a silent clip.
    """
    mels = inputs["input_features"]
    output = model(mels.where(mels.isfinite(), 0.0), output_hidden_states=True)
    return output.hidden_states, output.last_hidden_state, None


def _dots3(model: Any, inputs: Features, host: Features) -> Any:
    """Run dots3's encoder, which masks itself by the clips' samples."""
    output = model(inputs["input_features"], inputs["chunk_sample_lengths"], output_hidden_states=True)
    samples = model.conv_stem.samples_per_token
    return output.hidden_states, output.last_hidden_state, -(-host["chunk_sample_lengths"] // samples)


def _granite_hop(_: Any, settings: Mapping[str, Any]) -> int:
    return 2 * int((settings.get("melspec_kwargs") or settings).get("hop_length", _HOP))


def _granite5_hop(config: Mapping[str, Any], settings: Mapping[str, Any]) -> int:
    halvings = len(config.get("subsample_layers") or (0, 1))
    return 2 * 2**halvings * int(settings.get("hop_length", _HOP))


def _fun_asr_hop(_: Any, settings: Mapping[str, Any]) -> int:
    shift_ms = settings.get("frame_shift", 10) * settings.get("stride_lfr", 6)
    return round(shift_ms * settings.get("sampling_rate", _RATE) / 1000)


_PADDED = {"padding": True, "return_attention_mask": True}
_WIDTH, _DEPTH = "hidden_size", "num_hidden_layers"
_ROWS: dict[str, Row] = {
    "lasr": Row(
        "lasr.LasrEncoder", "encoder", (_WIDTH, 512), (_DEPTH, 17), _mels(4), _lasr, options=_PADDED, shortest=4
    ),
    "voxtral_realtime": Row(
        "voxtral_realtime.VoxtralRealtimeEncoder",
        "audio_tower",
        (_WIDTH, 1280),
        (_DEPTH, 32),
        _mels(2),
        _causal,
        options=_PADDED,
    ),
    "gemma3n": Row(
        "gemma3n.Gemma3nAudioEncoder",
        "audio_tower",
        (_WIDTH, 1536),
        ("conf_num_hidden_layers", 12),
        _mels(16),
        _gemma3n,
        30.0,
        "equal-length",
    ),
    "gemma4": Row("gemma4.Gemma4AudioModel", "audio_tower", (_WIDTH, 1024), (_DEPTH, 12), _mels(4), _gemma4, 30.0),
    "speech_to_text": Row(
        "speech_to_text.Speech2TextEncoder",
        "encoder",
        ("d_model", 256),
        ("encoder_layers", 12),
        lambda config, _: _HOP * 2 ** int(config.get("num_conv_layers", 2)),
        _speech_to_text,
        60.0,  # 6,000 mel frames
        "equal-length",
        {"padding": True},
    ),
    "dots3_note": Row(
        "dots3_note.Dots3NoteAudioModel",
        ("audio_tower", "audio_encoder"),
        (_WIDTH, 1280),
        (_DEPTH, 32),
        _mels(8),
        _dots3,
        60.0,
    ),
    "phi4_multimodal": Row(
        "phi4_multimodal.Phi4MultimodalAudioModel",
        "audio_embed.encoder",
        (_WIDTH, 1024),
        ("num_blocks", 24),
        _mels(8),
        _phi4,
        40.0,  # it cuts longer clips itself, after 500 frames
        "equal-length",
    ),
    # Their extractors need torchaudio.
    "granite_speech": Row(
        "granite_speech.GraniteSpeechCTCEncoder",
        "encoder",
        ("hidden_dim", 1024),
        ("num_layers", 10),
        _granite_hop,
        _granite,
        None,
        "equal-length",
        shortest=4,
    ),
    "granite_speech_plus": Row(
        "granite_speech_plus.GraniteSpeechPlusCTCEncoder",
        "encoder",
        ("hidden_dim", 1024),
        ("num_layers", 10),
        _granite_hop,
        _granite,
        None,
        "equal-length",
        shortest=4,
    ),
    "granite_speech5": Row(
        "granite_speech5.GraniteSpeech5Encoder",
        "encoder",
        (_WIDTH, 1024),
        (_DEPTH, 16),
        _granite5_hop,
        _granite5,
        None,
        "equal-length",
        _PADDED,
    ),
    "fun_asr_nano": Row(
        "fun_asr_nano.FunAsrNanoEncoder",
        "audio_tower",
        (_WIDTH, 512),
        (_DEPTH, 70),
        _fun_asr_hop,
        _fun_asr,
        options=_PADDED,
        first=1,
    ),
    "seamless_m4t": Row(
        "seamless_m4t.SeamlessM4TSpeechEncoder",
        "speech_encoder",
        (_WIDTH, 1024),
        ("speech_encoder_layers", 24),
        _mels(2),
        _seamless,
        options=_PADDED,
    ),
    "seamless_m4t_v2": Row(
        "seamless_m4t_v2.SeamlessM4Tv2SpeechEncoder",
        "speech_encoder",
        (_WIDTH, 1024),
        ("speech_encoder_layers", 24),
        _mels(2),
        _seamless,
        options=_PADDED,
    ),
}
# The model types of towers that were saved alone, and of models with another one's tower.
_ALIASES = {
    "fun_asr_nano_encoder": "fun_asr_nano",
    "granite_speech5_ctc": "granite_speech5",
    "granite_speech5_encoder": "granite_speech5",
    "granite_speech_encoder": "granite_speech",
    "granite_speech_plus_encoder": "granite_speech_plus",
    "dots3_note_audio_encoder": "dots3_note",
    "embedding_gemma2": "gemma4",
    "gemma3n_audio": "gemma3n",
    "gemma4_audio": "gemma4",
    "lasr_ctc": "lasr",
    "lasr_encoder": "lasr",
    "phi4_multimodal_audio": "phi4_multimodal",
    "voxtral_realtime_encoder": "voxtral_realtime",
}
