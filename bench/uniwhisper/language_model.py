"""The shape of a causal language model, read from its own configuration: dimensions, parameters, FLOPs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uniwhisper.config import LanguageModel
from uwbench.api import EncoderError, InputError


@dataclass(frozen=True, slots=True)
class LmShape:
    """The numbers of a causal language model.

    `attention` is heads times their size; `matrices` counts the weights of the layers' linear layers, `sides` the sums
    of their inputs and outputs, and `parameters` everything, tied embeddings once.
    """

    dim: int
    layers: int
    attention: int
    vocabulary: int
    matrices: int
    sides: int
    parameters: int

    def flops(self, tokens: float, pairs: float, answers: float) -> float:
        """Return the FLOPs of a forward over `tokens`, of which `answers` reach the output layer.

        `pairs` is their number of `attended_pairs`.
        """
        attention = 4 * pairs * self.attention * self.layers
        return 2 * self.matrices * tokens + attention + 2 * self.vocabulary * self.dim * answers


def attended_pairs(shared: float, own: Iterable[float]) -> float:
    """Return the pairs of a token and one that it attends to, in a row of `shared` tokens before texts of `own` tokens.

    A text attends to what is shared and to itself: n tokens of which the last 0 are own make n^2 / 2 pairs.
    """
    return shared**2 / 2 + sum(shared * text + text**2 / 2 for text in own)


def shape_of(lm: LanguageModel) -> LmShape:
    """Return the shape of the language model that a configuration names, without reading weights."""
    import torch
    from torch import nn
    from transformers import AutoModelForCausalLM

    configuration = model_configuration(lm)
    with torch.device("meta"):  # shapes alone, at any size
        model: Any = AutoModelForCausalLM.from_config(configuration)
    decoder = layers_of(model, lm)
    linear = [module for module in decoder.modules() if isinstance(module, nn.Linear)]
    matrices = sum(module.weight.numel() for module in linear)
    if matrices != sum(p.numel() for layer in decoder.layers for p in layer.parameters() if p.ndim >= 2):
        raise _unsupported(lm, "has weights that are not in linear layers, such as a mixture of experts")
    heads = configuration.num_attention_heads
    return LmShape(
        dim=configuration.hidden_size,
        layers=len(decoder.layers),
        attention=heads * (getattr(configuration, "head_dim", None) or configuration.hidden_size // heads),
        vocabulary=configuration.vocab_size,
        matrices=matrices,
        sides=sum(module.in_features + module.out_features for module in linear),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
    )


def layers_of(model: Any, lm: LanguageModel) -> Any:
    """Return the part of a causal language model below its output layer; raise EncoderError if it has no layers."""
    decoder = model.get_decoder()
    if not hasattr(decoder, "layers") or model.get_output_embeddings() is None:
        raise _unsupported(lm, "is not made of `layers` and an output layer")
    return decoder


def model_configuration(lm: LanguageModel) -> Any:
    """Return the transformers configuration of a language model, without dropout.

    It is `shape` if that is given and nothing is pretrained, else the one of `init`. Raises InputError if there is
    neither or it cannot be read; code from a checkpoint is never run.
    """
    from transformers import AutoConfig

    where = lm.init or "lm"
    shape = dict(lm.shape or {})
    try:
        if shape:
            configuration: Any = AutoConfig.for_model(shape.pop("model_type", ""), **shape)
        elif lm.init is not None:
            require_source(lm.init, "lm.init")
            configuration = AutoConfig.from_pretrained(lm.init, trust_remote_code=False)
        else:
            raise InputError("names neither init nor shape", where="lm", remedy="give --lm FOLDER")
    except (OSError, ValueError, TypeError, LookupError) as error:
        what = f"has no configuration that can be read ({_first_line(error)})"
        raise InputError(what, where="lm.shape" if lm.shape else where) from error
    for name, value in configuration.to_dict().items():
        if isinstance(value, float) and ("dropout" in name or name.endswith("pdrop")):
            setattr(configuration, name, 0.0)  # nothing in a step draws from a generator
    return configuration


def require_source(name: str, key: str) -> None:
    """Raise InputError for a name that is neither a folder nor of a hub's form OWNER/NAME."""
    owner, slash, rest = name.partition("/")
    if not Path(name).is_dir() and not (slash and owner.strip(".~") and rest and "/" not in rest):
        raise InputError("is no folder, and no OWNER/NAME of a hub", where=name, remedy=f"name a folder as {key}")


def _unsupported(lm: LanguageModel, what: str) -> EncoderError:
    name = lm.init or (lm.shape or {}).get("model_type", "lm")
    return EncoderError(what, where=name, remedy="take a dense decoder such as Llama, Qwen, Gemma or SmolLM")


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]
