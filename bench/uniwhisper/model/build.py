"""Build a configuration's model from its sources, and choose the parts that learn in each stage."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from uniwhisper.config import Config, LanguageModel, Stage
from uniwhisper.config import Encoder as EncoderConfig
from uniwhisper.language_model import layers_of, model_configuration, require_source, shape_of
from uniwhisper.model.adapter import Adapter
from uniwhisper.model.model import AudioModel, Heads, UniWhisper, WhisperArm, next_token_scores
from uniwhisper.model.tokens import numbered
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
        elif config.lm.kind == "heads":
            names = list(config.lm.classes)
            questions = [names.index(name) for name, _ in numbered(config.lm.classes)]
            model = Heads(whisper.encoder, config.encoder.dim, questions)
        else:
            model = _joined(config, whisper.encoder, _load_lm(config.lm))
        if config.lm.train == "lora":
            add_lora(model.decoder, config)
    _prepare(model, config)
    return model


def _joined(config: Config, encoder: nn.Module, lm: Any) -> UniWhisper:
    embedding = lm.get_input_embeddings()
    with torch.no_grad():  # Gemma's embeddings are scaled by their module, so the weights do not tell
        every = embedding(torch.arange(embedding.num_embeddings))
    scale = every.pow(2).mean().sqrt().item()
    deep = config.adapter.kind == "mlp"
    adapter = Adapter(config.encoder.dim, every.shape[1], config.adapter.stack, scale, deep=deep)
    return UniWhisper(encoder, adapter, lm)


def _load_whisper(config: EncoderConfig) -> Any:
    from transformers import WhisperModel

    require_source(config.init, "encoder.init")
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


def load_encoder(config: Config) -> Any:
    """Return a run's initial encoder, in fp32."""
    return _load_whisper(config.encoder).encoder


def _load_lm(config: LanguageModel) -> Any:
    from transformers import AutoModelForCausalLM

    if config.kind == "random-causal":
        lm: Any = AutoModelForCausalLM.from_config(model_configuration(config), dtype=torch.float32)
    else:
        lm = _load_pretrained(config)
    layers_of(lm, config)
    _require_own_scores(lm, config)
    return lm


def _load_pretrained(config: LanguageModel) -> Any:
    from transformers import AutoModelForCausalLM

    if config.init is None:
        raise InputError("kind causal needs init, a folder or a hub id", where="lm", remedy="give --lm FOLDER")
    configuration = model_configuration(config.model_copy(update={"shape": None}))
    try:
        lm: Any = AutoModelForCausalLM.from_pretrained(
            config.init, config=configuration, dtype=torch.float32, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be loaded ({str(error).splitlines()[0]})", where=config.init) from error
    count = sum(p.numel() for p in lm.parameters())
    if config.shape is not None and count != (planned := shape_of(config).parameters):
        what = f"has {count} parameters, the configuration's lm.shape {planned}"
        raise InputError(what, where=config.init, remedy="leave out lm.shape: it is then read from the weights")
    return lm


@torch.no_grad()
def _require_own_scores(lm: Any, config: LanguageModel) -> None:
    """Raise EncoderError for a model whose scores `next_token_scores` does not reproduce."""
    ids = torch.arange(4)[None] % lm.config.vocab_size
    hidden = lm.get_decoder()(inputs_embeds=lm.get_input_embeddings()(ids), use_cache=False).last_hidden_state
    if not torch.allclose(next_token_scores(lm, hidden), lm(input_ids=ids).logits, rtol=1e-4, atol=1e-4):
        raise EncoderError(
            f"computes its scores in a way of its own ({type(lm).__name__})", where=config.init or "lm.shape"
        )


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
    if config.run.checkpointing and not isinstance(model, Heads):
        model.decoder.gradient_checkpointing_enable({"use_reentrant": False})
    set_stage(model, config, "joint")


def set_stage(model: AudioModel, config: Config, stage: Stage) -> None:
    """Set the parameters that learn: in `bridge` those without pretrained weights, in `joint` the configured ones.

    Whisper's own decoder has no adapter before it, so there it is the decoder that learns the instructions in
    `bridge`, and heads learn their classes. The encoder's sinusoidal positions never learn.
    """
    new = config.lm.kind != "causal"
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
