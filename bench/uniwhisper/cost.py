"""The cost of training a UniWhisper: parameters, FLOPs, memory and GPU-hours, computed from a configuration.

A matrix product of n parameters costs 2n FLOPs a position forward and twice that backward. Attention over T positions
adds 4 T^2 d a layer in the encoder and half of that in the causal language model. Nothing is measured here; `mfu` is
an assumption.
"""

from __future__ import annotations

from uniwhisper.config import (
    FRAMES_PER_S,
    WINDOW_S,
    Closed,
    Config,
    Stage,
    whisper_decoder_flops,
    whisper_decoder_parameters,
)

_STATE_BYTES = 16  # fp32 weight, gradient and AdamW's two moments, per trained parameter


class Plan(Closed):
    """The cost of a run. FLOPs are per hour of training audio, except for `forward_*`, with one question per clip."""

    encoder_parameters: int
    adapter_parameters: int
    lm_parameters: int
    trained_parameters: int
    forward_30s_encoder_flops: float
    forward_30s_lm_flops: float
    train_flops_per_hour: float
    state_gb: float
    gpu_hours: float
    wall_hours: float

    @property
    def parameters(self) -> int:
        return self.encoder_parameters + self.adapter_parameters + self.lm_parameters


def make_plan(config: Config) -> Plan:
    """Return the cost of a run."""
    data = config.data
    window = WINDOW_S * FRAMES_PER_S
    encoder, adapter, lm, trained = count_parameters(config)
    heard = data.clip_s * FRAMES_PER_S
    texts = data.prompt_tokens, data.answer_tokens
    per_clip = train_flops(config, heard, heard, *texts) * (1 - data.pad30_prob)
    per_clip += train_flops(config, window, heard, *texts) * data.pad30_prob
    per_hour = per_clip * 3600 / data.clip_s
    seconds = per_hour * data.hours * data.epochs / (config.hardware.peak_tflops * 1e12 * config.hardware.mfu)
    return Plan(
        encoder_parameters=encoder,
        adapter_parameters=adapter,
        lm_parameters=lm,
        trained_parameters=trained,
        forward_30s_encoder_flops=config.encoder.flops(window),
        forward_30s_lm_flops=_text_flops(config, window, *texts),
        train_flops_per_hour=per_hour,
        state_gb=(trained * _STATE_BYTES + (encoder + adapter + lm - trained) * 4) / 2**30,
        gpu_hours=seconds / 3600,
        wall_hours=seconds / 3600 / config.hardware.gpus,
    )


def count_parameters(config: Config) -> tuple[int, int, int, int]:
    """Return the parameters of encoder, adapter and decoder, and the number trained in the joint stage.

    The encoder's fixed positions are never trained; LoRA's matrices count with the decoder.
    """
    encoder = config.encoder.parameters()
    if config.lm.kind == "whisper":
        adapter, lm = 0, whisper_decoder_parameters(config.encoder)
    else:
        adapter, lm = config.adapter.parameters(config.encoder, config.lm), config.lm.parameters()
    added = config.lm.lora_parameters() if config.lm.train == "lora" else 0
    trained = adapter + {"full": lm, "frozen": 0, "lora": added}[config.lm.train]
    if config.encoder.train == "full":
        trained += encoder - config.encoder.positions * config.encoder.dim
    return encoder, adapter, lm + added, trained


def train_flops(
    config: Config, frames: float, heard: float, prompt: float, answer: float, *, stage: Stage = "joint"
) -> float:
    """Return the FLOPs of forward and backward over a clip of `heard` frames, padded to `frames` for the encoder."""
    return audio_flops(config, frames, stage) + text_flops(config, frames, heard, prompt, answer, stage)


def audio_flops(config: Config, frames: float, stage: Stage, *, again: bool = False) -> float:
    """Return the FLOPs of encoder and adapter over `frames`, forward and backward; a frozen encoder has no backward.

    With `again`, the forward of trained parts is computed twice, as with activation checkpointing.
    """
    learns = stage == "joint" and config.encoder.train == "full"
    flops = config.encoder.flops(frames) * ((4 if again else 3) if learns else 1)
    if config.lm.kind != "whisper":
        flops += 3 * config.adapter.flops(config.encoder, config.lm, frames)
        flops -= 0 if learns else config.adapter.first_flops(config.encoder, config.lm, frames)
    return flops


def text_flops(
    config: Config, frames: float, heard: float, prompt: float, answer: float, stage: Stage, *, again: bool = False
) -> float:
    """Return the FLOPs of the decoder over one row, forward and backward.

    Tokens of padding are dropped before the language model; Whisper's decoder sees them. A frozen decoder still passes
    gradients through.
    """
    new = config.lm.kind in {"random-qwen3", "whisper"}
    learns = config.lm.train == "full" and (stage == "joint" or new)
    audio_frames = frames if config.lm.kind == "whisper" else heard
    return ((3 if learns else 2) + again) * _text_flops(config, audio_frames, prompt, answer)


def _text_flops(config: Config, frames: float, prompt: float, answer: float) -> float:
    if config.lm.kind == "whisper":
        return whisper_decoder_flops(config.encoder, frames, prompt + answer, answer)
    return config.lm.flops(frames / config.adapter.stack + prompt + answer, answer)
