"""Encoders that take a waveform from their own feature extractor: one row each.

OmniASR masks its padding; the convolutions of the others carry it into frames, so their batches have one length.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from uwbench.encoders.base import Encoder, ModelFolder, ModelSpec
from uwbench.encoders.text_towers import HEAD_EPS, has_pe_audio_heads, pe_audio_texts
from uwbench.encoders.tower import at_rate, inputs_of
from uwbench.encoders.tower_row import Features, Row, open_row


def open_wave_tower(folder: ModelFolder, _spec: ModelSpec) -> Encoder:
    """Return the encoder of a model whose type has a row in the table below."""
    model_type = str(folder.config["model_type"])
    name = _ALIASES.get(model_type, model_type)
    return open_row(folder, name, _ROWS[name])


def open_pe_audio(folder: ModelFolder, _spec: ModelSpec) -> Encoder:
    """Return PE-Audio's audio encoder; that of a whole model has a layer `joint`, from which it meets the texts.

    The frame-level models compare each frame with a text, the others their summary token.
    """
    row = _ROWS["pe_audio"]
    if not has_pe_audio_heads(folder):
        return open_row(folder, "pe_audio", row)
    by_frame = "PeAudioFrameLevelModel" in (folder.config.get("architectures") or ())
    row = replace(row, joint=True, run=partial(_pe_audio, joint="frames" if by_frame else "summary"))
    return open_row(folder, "pe_audio", row, pe_audio_texts(folder))


def _strides(config: Mapping[str, Any], _: Any) -> int:
    return math.prod(config.get("conv_stride", (5, 2, 2, 2, 2, 2, 2)))


def _omniasr(model: Any, inputs: Features, host: Features) -> Any:
    mask = None if bool(host["padding_mask"].all()) else inputs["padding_mask"]
    output = model(inputs["input_values"], padding_mask=mask, output_hidden_states=True)
    lengths = host["padding_mask"].sum(1)
    for kernel, stride in zip(model.config.conv_kernel, model.config.conv_stride, strict=True):
        lengths = (lengths - kernel) // stride + 1
    return output.hidden_states, output.last_hidden_state, lengths


def _squeezed(model: Any, inputs: Features, _host: Features) -> Any:
    """Run SEW or SEW-D, whose blocks have half the output's rate: each of their frames is repeated.

    If the number of frames is odd, the model appends one of zeros, which is left out.
    """
    blocks = model.encoder.encoder.layer if hasattr(model.encoder, "encoder") else model.encoder.layers
    with inputs_of(blocks) as states:
        output = model(inputs["input_values"]).last_hidden_state
    count = states[0].shape[1] * model.config.squeeze_factor
    output = output[:, :count]
    return [*(at_rate(state, count) for state in states), output], output, None


def _whole(model: Any, inputs: Features, _host: Features) -> Any:
    output = model(inputs["input_values"], output_hidden_states=True)
    return output.hidden_states, output.last_hidden_state, None


def _moonshine(model: Any, inputs: Features, _host: Features) -> Any:
    """Run Moonshine's streaming encoder, whose causal convolutions take whole frames of 5 ms."""
    output = model(inputs["input_values"], attention_mask=inputs["attention_mask"], output_hidden_states=True)
    return output.hidden_states, output.last_hidden_state, output.attention_mask.sum(1).long()


def _pe_audio(model: Any, inputs: Features, _host: Features, joint: str | None = None) -> Any:
    """Run PE-Audio without its summary token, which is the first position of every layer.

    The layer `joint` is the normalised input of its head: that of the `summary`, for every frame the same, or of the
    `frames`.
    """
    import torch

    with inputs_of(model.layers) as states:
        output = model(inputs["input_values"])
    frames = output.last_hidden_state
    states = [*(state[:, 1:] for state in states), frames]
    if joint is not None:
        met = frames if joint == "frames" else output.pooler_output[:, None].expand_as(frames)
        states.insert(0, torch.nn.functional.layer_norm(met, met.shape[-1:], eps=HEAD_EPS))
    return states, frames, None


def _muse(model: Any, inputs: Features, host: Features) -> Any:
    """Run Muse Spark's causal convolutions; its stages differ in width, and its projection has the language model's."""
    with inputs_of([model.proj]) as states:
        model(inputs["input_values"])
    samples = model.config.samples_per_token
    return states, states[-1], -(-host["input_values_mask"].sum(1) // samples)


def _samples(ratios: str, default: tuple[int, ...]) -> Callable[[Mapping[str, Any], Any], int]:
    """Return the function that gives PE-Audio's samples to a frame, from its DAC's ratios."""
    return lambda config, _: math.prod((config.get("dac_config") or {}).get(ratios, default))


_WIDTH, _DEPTH, _EQUAL = "hidden_size", "num_hidden_layers", "equal-length"
_PADDED = {"padding": True, "return_attention_mask": True}
_ROWS = {
    "omniasr": Row(
        "omniasr.OmniASRAudioModel",
        "audio_tower",
        (_WIDTH, 1024),
        (_DEPTH, 24),
        _strides,
        _omniasr,
        options=_PADDED,
    ),
    "sew": Row("sew.SEWModel", "sew", (_WIDTH, 768), (_DEPTH, 12), _strides, _squeezed, None, _EQUAL, shortest=4),
    "sew-d": Row(
        "sew_d.SEWDModel", "sew_d", (_WIDTH, 768), (_DEPTH, 12), _strides, _squeezed, None, _EQUAL, shortest=4
    ),
    "speecht5": Row(
        "speecht5.SpeechT5EncoderWithSpeechPrenet",
        "encoder",
        (_WIDTH, 768),
        ("encoder_layers", 12),
        _strides,
        _whole,
        None,
        _EQUAL,
    ),
    "moonshine_streaming": Row(
        "moonshine_streaming.MoonshineStreamingEncoder",
        "encoder",
        (_WIDTH, 320),
        (_DEPTH, 6),
        lambda config, settings: round(4 * config.get("frame_ms", 5.0) * settings.get("sampling_rate", 16_000) / 1000),
        _moonshine,
        None,
        _EQUAL,
        _PADDED | {"pad_to_multiple_of": 80},
    ),
    "muse_spark": Row(
        "muse_spark.MuseSparkAudioModel",
        "audio_tower",
        ("hidden_sizes", (256, 512, 1024, 2048)),
        None,
        lambda config, _: math.prod(config.get("patch_sizes", (16, 6, 5, 4))),
        _muse,
        options=_PADDED,
        rate=24_000,
    ),
    "pe_audio": Row(
        "pe_audio.PeAudioEncoder",
        "audio_encoder",
        (_WIDTH, 1792),
        (_DEPTH, 6),
        _samples("downsampling_ratios", (2, 8, 10, 12)),
        _pe_audio,
        None,
        _EQUAL,
        {"padding": True},
        shortest=1,
        rate=48_000,
    ),
}
_ALIASES = {
    "muse_spark_audio": "muse_spark",
    "omniasr_audio": "omniasr",
    "omniasr_ctc": "omniasr",
    "pe_audio_encoder": "pe_audio",
    "pe_audio_video": "pe_audio",
    "pe_audio_video_encoder": "pe_audio",
}
