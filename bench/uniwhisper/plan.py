"""What training a UniWhisper costs: parameters, FLOPs, memory, GPU-hours, from a configuration and arithmetic alone.

A matrix product of n parameters costs 2n FLOPs a position forward and twice that backward. Attention over T positions
adds 4 T^2 d a layer in the encoder and half of that in the causal language model. Nothing is measured here; `mfu` is
an assumption.
"""

from __future__ import annotations

import importlib.resources
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from uwbench.api import InputError, UsageError, suggestion

_FRAMES_PER_S = 50  # Whisper's encoder: one frame each 20 ms
_WINDOW_S = 30.0
_STATE_BYTES = 16  # fp32 weight, gradient and AdamW's two moments, per trained parameter

Count = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Encoder(_Closed):
    """A Whisper-shaped encoder."""

    mels: Count
    dim: Count
    layers: Count
    ffn: Count
    positions: Count

    def parameters(self) -> int:
        """Return all parameters, the fixed positions included; Whisper's key projections have no bias."""
        convolutions = 3 * self.mels * self.dim + self.dim + 3 * self.dim**2 + self.dim
        block = 4 * self.dim**2 + 3 * self.dim + 2 * self.dim * self.ffn + self.ffn + self.dim + 4 * self.dim
        return convolutions + self.positions * self.dim + self.layers * block + 2 * self.dim

    def flops(self, frames: float) -> float:
        """Return the FLOPs of a forward over `frames` encoder frames."""
        blocks = self.layers * (4 * self.dim**2 + 2 * self.dim * self.ffn)
        convolutions = 2 * 3 * self.mels * self.dim * 2 * frames + 2 * 3 * self.dim**2 * frames
        return 2 * blocks * frames + 4 * frames**2 * self.dim * self.layers + convolutions


class Adapter(_Closed):
    """LayerNorm, two linear layers with GELU between, RMSNorm, over `stack` frames at a time; and two learned marks."""

    stack: Literal[1, 2, 4, 8]

    def parameters(self, encoder: Encoder, lm: LanguageModel) -> int:
        wide = self.stack * encoder.dim
        return 2 * wide + wide * lm.dim + lm.dim + lm.dim**2 + lm.dim + lm.dim + 2 * lm.dim

    def flops(self, encoder: Encoder, lm: LanguageModel, frames: float) -> float:
        """Return the FLOPs of a forward over `frames` encoder frames."""
        return 2 * (self.stack * encoder.dim * lm.dim + lm.dim**2) * frames / self.stack


class LanguageModel(_Closed):
    """A Qwen3-shaped decoder with tied embeddings."""

    dim: Count
    layers: Count
    ffn: Count
    heads: Count
    kv_heads: Count
    head_dim: Count
    vocabulary: Count
    train: Literal["full", "frozen"]

    def _matrices(self) -> int:
        attention = 2 * self.dim * self.heads * self.head_dim + 2 * self.dim * self.kv_heads * self.head_dim
        return self.layers * (attention + 3 * self.dim * self.ffn)

    def parameters(self) -> int:
        norms = self.layers * (2 * self.dim + 2 * self.head_dim) + self.dim
        return self._matrices() + norms + self.vocabulary * self.dim

    def flops(self, tokens: float, answers: float) -> float:
        """Return the FLOPs of a forward over `tokens`, of which `answers` reach the output layer."""
        attention = 2 * tokens**2 * self.heads * self.head_dim * self.layers
        return 2 * self._matrices() * tokens + attention + 2 * self.vocabulary * self.dim * answers


class Data(_Closed):
    """The mixture: hours of audio, the mean clip, the mean text around it, and how often a clip is padded to 30 s."""

    hours: float = Field(gt=0)
    clip_s: float = Field(gt=0, le=_WINDOW_S)
    prompt_tokens: Count
    answer_tokens: Count
    pad30_prob: Share
    epochs: float = Field(default=1, gt=0)


class Hardware(_Closed):
    """The machine: `peak_tflops` of one GPU in bf16, and the share of it that is assumed to be reached."""

    gpus: Count
    peak_tflops: float = Field(gt=0)
    mfu: float = Field(gt=0, le=1)


class Config(_Closed):
    """A training run as far as its cost goes."""

    encoder: Encoder
    adapter: Adapter
    lm: LanguageModel
    data: Data
    hardware: Hardware


class Plan(_Closed):
    """The cost of a run. FLOPs are of one audio-hour of training unless they say forward."""

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


Loaded = TypeVar("Loaded", bound=_Closed)


def load_config(name: str) -> Config:
    """Return a shipped configuration by its name (full, small), or one by its path; raise InputError for a bad file."""
    shipped = {
        path.name.removesuffix(".yaml"): path for path in importlib.resources.files("uniwhisper.configs").iterdir()
    }
    shipped = {key: path for key, path in shipped.items() if path.name.endswith(".yaml")}
    if name in shipped:
        text = shipped[name].read_text(encoding="utf-8")
    elif name.endswith((".yaml", ".yml")):
        try:
            text = Path(name).read_text(encoding="utf-8")
        except OSError as error:
            raise InputError(f"cannot be read ({error.strerror})", where=name) from error
    else:
        raise UsageError(f"unknown configuration {name!r}", remedy=suggestion(name, shipped))
    try:
        return Config.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise InputError(f"is not valid YAML ({' '.join(str(error).split())})", where=name) from error
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        field = ".".join(map(str, found["loc"]))
        raise InputError(f"{field or 'the file'}: {found['msg']}", where=name) from error


def make_plan(config: Config) -> Plan:
    """Return what a run costs."""
    encoder, adapter, lm, data = config.encoder, config.adapter, config.lm, config.data
    window = _WINDOW_S * _FRAMES_PER_S
    counts = encoder.parameters(), adapter.parameters(encoder, lm), lm.parameters()
    trained = counts[0] + counts[1] + (counts[2] if lm.train == "full" else 0)
    heard = data.clip_s * _FRAMES_PER_S
    per_clip = _train_flops(config, heard, heard) * (1 - data.pad30_prob)
    per_clip += _train_flops(config, window, heard) * data.pad30_prob
    per_hour = per_clip * 3600 / data.clip_s
    seconds = per_hour * data.hours * data.epochs / (config.hardware.peak_tflops * 1e12 * config.hardware.mfu)
    whole = window / adapter.stack + data.prompt_tokens + data.answer_tokens
    return Plan(
        encoder_parameters=counts[0],
        adapter_parameters=counts[1],
        lm_parameters=counts[2],
        trained_parameters=trained,
        forward_30s_encoder_flops=encoder.flops(window),
        forward_30s_lm_flops=lm.flops(whole, data.answer_tokens),
        train_flops_per_hour=per_hour,
        state_gb=(trained * _STATE_BYTES + (sum(counts) - trained) * 4) / 2**30,
        gpu_hours=seconds / 3600,
        wall_hours=seconds / 3600 / config.hardware.gpus,
    )


def _train_flops(config: Config, frames: float, heard: float) -> float:
    """Return the FLOPs of forward and backward over a clip of `heard` frames, padded to `frames` for the encoder.

    Tokens of padding are dropped before the language model. Frozen, it still passes gradients through.
    """
    tokens = heard / config.adapter.stack + config.data.prompt_tokens + config.data.answer_tokens
    audio = config.encoder.flops(frames) + config.adapter.flops(config.encoder, config.lm, frames)
    text = config.lm.flops(tokens, config.data.answer_tokens)
    return 3 * audio + (3 if config.lm.train == "full" else 2) * text
