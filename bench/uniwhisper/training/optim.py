"""Parameter groups, their learning rates over the steps of a stage, and the gradient's norm."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from uniwhisper.config import Config, Stage
from uniwhisper.model.model import AudioModel


def make_optimiser(model: AudioModel, config: Config, stage: Stage) -> torch.optim.AdamW:
    """Return AdamW for the parameters that learn in `stage`; each group has its `peak` rate and its part's name.

    Weight decay applies to matrices, not to biases, norms, embeddings and the learned marks.
    """
    groups: dict[tuple[str, float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part, peak = name.split(".")[0], _peak(name, config, stage)
        decays = parameter.ndim >= 2 and "embed" not in name
        groups.setdefault((part, peak, decays), []).append(parameter)
    settings = config.optimiser
    listed = [
        {"params": parameters, "part": part, "peak": peak, "weight_decay": settings.weight_decay if decays else 0.0}
        for (part, peak, decays), parameters in groups.items()
    ]
    return torch.optim.AdamW(listed, lr=0.0, betas=settings.betas, eps=settings.eps)


def _peak(name: str, config: Config, stage: Stage) -> float:
    if stage == "bridge" and not (config.lm.kind == "whisper" and name.startswith("lm.")):
        return config.stages.bridge_lr  # the rate of new parts; Whisper's own decoder keeps its rate
    if name.startswith("adapter."):
        return config.adapter.lr
    if name.startswith("lm."):
        return config.lm.lr
    words = name.split(".")
    below = config.encoder.layers
    if words[1] == "layers":
        below -= 1 + int(words[2])
    elif words[1] == "layer_norm":
        below = 0
    return config.encoder.lr * config.encoder.layer_decay**below


def schedule(step: int, steps: int, warmup: int, floor: float) -> float:
    """Return the share of the peak rate in `step` of `steps`: a linear rise, then a cosine down to `floor`.

    The rise takes at most half of the steps.
    """
    warmup = min(warmup, steps // 2)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(steps - warmup, 1)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def set_rates(optimiser: torch.optim.Optimizer, share: float) -> None:
    """Set every group to `share` of its peak."""
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * share


def gradient_norm(model: nn.Module) -> torch.Tensor:
    """Return the norm of all gradients, the same on every rank even if they are sharded."""
    norm: Any = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm


def part_norms(model: nn.Module) -> dict[str, float]:
    """Return the gradient norms of encoder, adapter and lm, of those that learn."""
    parts = {name: gradient_norm(part) for name, part in model.named_children()}
    learns = {name for name, part in model.named_children() if any(p.grad is not None for p in part.parameters())}
    return {name: float(norm) for name, norm in parts.items() if name in learns}


def clip_to(model: nn.Module, norm: torch.Tensor, largest: float) -> None:
    """Scale all gradients so that their `norm` is at most `largest`."""
    torch.nn.utils.clip_grads_with_norm_(model.parameters(), largest, norm)
