"""Build a configuration's model from its sources, and choose the parts that learn in each stage."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from uniwhisper.config import Config, LanguageModel, Stage
from uniwhisper.config import Encoder as EncoderConfig
from uniwhisper.model.adapter import Adapter
from uniwhisper.model.model import AudioModel, UniWhisper, WhisperArm
from uwbench.api import EncoderError, InputError

_STILL: dict[str, Any] = {  # no randomness in the forward
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "encoder_layerdrop": 0.0,
    "decoder_layerdrop": 0.0,
}


def build_model(config: Config) -> AudioModel:
    """Return the model in fp32 with its sources' weights; parts without weights are initialised from the run's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.run.seed)
        whisper = _load_whisper(config.encoder)
        if config.lm.kind == "whisper":
            model: AudioModel = WhisperArm(whisper.encoder, whisper.decoder)
        else:
            lm = _load_lm(config.lm)
            scale = lm.get_input_embeddings().weight.detach().pow(2).mean().sqrt().item()
            model = _joined(config, whisper.encoder, lm, scale)
        if config.lm.train == "lora":
            add_lora(model.lm if config.lm.kind == "whisper" else model.lm.model, config)
    _prepare(model, config)
    return model


def _joined(config: Config, encoder: nn.Module, lm: Any, scale: float) -> UniWhisper:
    deep = config.adapter.kind == "mlp"
    return UniWhisper(encoder, Adapter(config.encoder.dim, config.lm.dim, config.adapter.stack, scale, deep=deep), lm)


def _load_whisper(config: EncoderConfig) -> Any:
    from transformers import WhisperModel

    _require_source(config.init, "encoder.init")
    try:
        whisper: Any = WhisperModel.from_pretrained(config.init, dtype=torch.float32, **_STILL)
    except OSError as error:
        message = str(error).splitlines()[0]
        remedy = "name a Whisper folder as encoder.init"
        raise InputError(f"cannot be loaded ({message})", where=config.init, remedy=remedy) from error
    w = whisper.config
    shape = w.num_mel_bins, w.d_model, w.encoder_layers, w.encoder_ffn_dim, w.max_source_positions
    configured = config.mels, config.dim, config.layers, config.ffn, config.positions
    if shape != configured:
        raise InputError(f"has the shape {shape}, the configuration says {configured}", where=config.init)
    return whisper


def _require_source(name: str, key: str) -> None:
    """Raise InputError for a name that is neither a folder nor of a hub's form OWNER/NAME."""
    owner, slash, rest = name.partition("/")
    if not Path(name).is_dir() and not (slash and owner.strip(".~") and rest and "/" not in rest):
        raise InputError("is no folder, and no OWNER/NAME of a hub", where=name, remedy=f"name a folder as {key}")


def load_encoder(config: Config) -> Any:
    """Return a run's initial encoder, in fp32."""
    return _load_whisper(config.encoder).encoder


def qwen_config(config: LanguageModel) -> Any:
    """Return the Qwen3 configuration of a language model's shape."""
    from transformers import Qwen3Config

    return Qwen3Config(
        vocab_size=config.vocabulary,
        hidden_size=config.dim,
        intermediate_size=config.ffn,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        head_dim=config.head_dim,
        tie_word_embeddings=True,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
    )


def _load_lm(config: LanguageModel) -> Any:
    from transformers import Qwen3ForCausalLM

    if config.kind == "random-qwen3":
        return Qwen3ForCausalLM(qwen_config(config))
    if config.init is None:
        raise InputError("kind qwen3 needs init, a folder or a hub id", where="lm")
    _require_source(config.init, "lm.init")
    try:
        lm: Any = Qwen3ForCausalLM.from_pretrained(config.init, dtype=torch.float32)
    except OSError as error:
        raise InputError(f"cannot be loaded ({str(error).splitlines()[0]})", where=config.init) from error
    if (count := sum(p.numel() for p in lm.parameters())) != config.parameters():
        raise InputError(f"has {count} parameters, the configuration says {config.parameters()}", where=config.init)
    return lm


class LoraLinear(nn.Module):
    """A frozen linear layer with a low-rank update that starts at zero: `base(x) + alpha / rank * B A x`."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Parameter(torch.empty(rank, base.in_features))
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))
        self.scale = alpha / rank
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map `(..., in)` to `(..., out)`."""
        low = nn.functional.linear(nn.functional.linear(inputs, self.down), self.up)
        return self.base(inputs) + self.scale * low


def add_lora(module: nn.Module, config: Config) -> None:
    """Put LoRA around every linear layer below `module`."""
    for child_name, child in list(module.named_children()):
        if isinstance(child, nn.Linear):
            setattr(module, child_name, LoraLinear(child, config.lm.lora.rank, config.lm.lora.alpha))
        else:
            add_lora(child, config)


def _prepare(model: AudioModel, config: Config) -> None:
    model.train()
    model.checkpointing = config.run.checkpointing
    if config.run.checkpointing:
        inner = model.lm if config.lm.kind == "whisper" else model.lm.model
        inner.gradient_checkpointing_enable({"use_reentrant": False})
    set_stage(model, config, "joint")


def set_stage(model: AudioModel, config: Config, stage: Stage) -> None:
    """Set the parameters that learn: in `bridge` those without pretrained weights, in `joint` the configured ones.

    Whisper's own decoder has no adapter before it, so there it is the decoder that learns the instructions in
    `bridge`. The encoder's sinusoidal positions never learn.
    """
    new = config.lm.kind in {"random-qwen3", "whisper"}
    trains_lm = config.lm.train if stage == "joint" or new else "frozen"
    model.encoder.requires_grad_(stage == "joint" and config.encoder.train == "full")
    model.encoder.embed_positions.requires_grad_(False)
    for name, parameter in model.lm.named_parameters():
        low_rank = name.endswith((".down", ".up"))
        parameter.requires_grad_(trains_lm == "full" or (trains_lm == "lora" and low_rank))
    if isinstance(model, UniWhisper):
        model.adapter.requires_grad_(True)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise EncoderError(f"nothing learns in stage {stage}", remedy="set stages.bridge to 0 or train a part")
