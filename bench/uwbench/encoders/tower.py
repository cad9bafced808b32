"""An audio encoder inside a larger model: its own settings and tensors, and nothing else of that model.

The language model around it is neither loaded nor hashed, so one tower has one identity, whatever lies beside it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from uwbench.base.hashing import digest
from uwbench.encoders.base import EncoderInfo, ModelFolder
from uwbench.encoders.checkpoint import (
    count_parameters,
    extractor_identity,
    hash_of_tensors,
    read_tensors,
    stored_tensors,
    training_data_of,
)
from uwbench.encoders.pretrained import quiet
from uwbench.errors import EncoderError

if TYPE_CHECKING:
    import torch

# Where complete models keep a tower's settings: the key in config.json, and its name in transformers' configuration.
_NESTED = {
    "thinker_config": "thinker_config",
    "audio_video_config": "audio_video_config",
    "audio_config": "audio_config",
    "sound_config": "audio_config",
    "asr_config": "asr_config",
    "encoder_config": "encoder_config",
    "codec_config": "codec_config",
    "audio_encoder_config": "audio_encoder_config",
    "audio_encoder": "audio_encoder",
}

Tensors = dict[str, "torch.Tensor"]


@dataclass(frozen=True, slots=True)
class Tower:
    """An encoder of `model`, a package and class of transformers; `prefix` begins its tensors in the checkpoint."""

    folder: ModelFolder
    model: str
    prefix: str
    path: tuple[str, ...]  # names in transformers' configuration that lead to its settings
    settings: Mapping[str, Any]  # defaults are left out, as transformers saves them


def find_tower(folder: ModelFolder, model: str, *modules: str, key: str | None = None) -> Tower:
    """Return the tower that a complete model calls by one of `modules`, or the one that a folder holds alone.

    `key` leads to its settings in config.json, if it is not where most models keep them.
    """
    path: list[str] = []
    settings: Mapping[str, Any] = folder.config
    nested = _NESTED if key is None else {key: key}
    while keys := [name for name in nested if isinstance(settings.get(name), dict)]:
        path.append(nested[keys[0]])
        settings = settings[keys[0]]
    names = list(stored_tensors(folder))
    lead = re.compile(rf"(?:\w+\.)*?(?:{'|'.join(map(re.escape, modules))})\.")
    leads = {match[0] for name in names if (match := lead.match(name))}
    # Training frameworks put "model." before the names of a tower that is saved alone.
    alone = "model." if names and all(name.startswith("model.") for name in names) else ""
    if path and not leads:
        raise EncoderError(f"the weights hold no {modules[0]}.*; their names begin with {names[0]}", where=folder.path)
    return Tower(folder, model, min(leads, key=len) if leads else alone, tuple(path), settings)


def describe_tower(tower: Tower, family: str, *, version: int = 1, **facts: Any) -> EncoderInfo:
    """Return the EncoderInfo of a tower; `facts` are the fields that the family fills in."""
    folder = tower.folder
    settings = {key: value for key, value in tower.settings.items() if not key.startswith(("_", "transformers_"))}
    return EncoderInfo(
        name=folder.name,
        family=family,
        parameters=count_parameters(folder, [tower.prefix]),
        revision=folder.revision,
        training_data=training_data_of(folder),
        identity={
            "family": family,
            "version": version,
            "config": digest(settings),
            "weights": hash_of_tensors(folder, tower.prefix),
            **extractor_identity(folder),
        },
        **facts,
    )


def load_tower(tower: Tower, convert: Callable[[Tensors], Tensors] | None = None) -> Any:
    """Return the tower in float32, built from its own tensors; raise EncoderError if some are missing or do not fit.

    `convert` gives them the names and shapes of the tower's class, if they were saved under others.
    """
    import torch

    package, name = tower.model.split(".")
    model_class: Any = getattr(import_module(f"transformers.models.{package}.modeling_{package}"), name)
    where = tower.folder.path
    try:
        config = _config(tower, model_class)
        tensors: Tensors = read_tensors(tower.folder, [tower.prefix])
        with quiet():
            model, report = model_class.from_pretrained(
                None,
                config=config,
                state_dict=convert(tensors) if convert else tensors,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        text = " ".join(str(error).split())[:200]
        raise EncoderError(f"cannot be loaded ({type(error).__name__}: {text})", where=where) from error
    faults = sorted(key for key in report["missing_keys"] if not key.endswith("masked_spec_embed"))  # of training
    faults = faults or [str(key) for key in report["mismatched_keys"]]
    if faults:
        raise EncoderError(f"the weights lack {', '.join(faults[:3])} ({len(faults)} in all)", where=where)
    return model


def _config(tower: Tower, model_class: Any) -> Any:
    """Return the tower's configuration as the complete model's class makes it, whose defaults may be its own."""
    from transformers import AutoConfig

    if not tower.path:
        return model_class.config_class.from_pretrained(tower.folder.path)
    config: Any = AutoConfig.from_pretrained(tower.folder.path)
    for key in tower.path:
        config = getattr(config, key)
    return config


@contextmanager
def inputs_of(layers: Sequence[torch.nn.Module]) -> Iterator[list[torch.Tensor]]:
    """Yield a list that fills with the first argument of each of `layers`, for models that return no hidden states."""
    states: list[torch.Tensor] = []
    hooks = [layer.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0])) for layer in layers]
    try:
        yield states
    finally:
        for hook in hooks:
            hook.remove()


def at_rate(state: torch.Tensor, count: int, inside: torch.Tensor | None = None) -> torch.Tensor:
    """Return `(batch, count, dim)`, a layer at the rate of the model's output, from `(batch, frames, dim)`.

    Of a faster layer the frames that fall into one of the output are averaged, those `inside` a clip `(batch, frames)`
    alone. Frames of a slower one are repeated.
    """
    import torch

    frames = state.shape[1]
    if frames == count:
        return state
    if frames < count:
        repeated = state.repeat_interleave(-(-count // frames), 1)
        return repeated[:, :count]
    factor = -(-frames // count)
    inside = torch.ones(state.shape[:2], dtype=torch.bool, device=state.device) if inside is None else inside
    missing = count * factor - frames
    weights = torch.nn.functional.pad(inside, (0, missing)).unflatten(1, (count, factor)).unsqueeze(-1).to(state.dtype)
    groups = torch.nn.functional.pad(state, (0, 0, 0, missing)).unflatten(1, (count, factor))
    return (groups * weights).sum(2) / weights.sum(2).clamp(min=1)
