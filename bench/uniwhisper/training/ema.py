"""Averages of the encoder's weights over the steps of the joint stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from uniwhisper.training.parallel import whole


class Average:
    """The exponential average of a module's weights, `mean = decay * mean + (1 - decay) * weight` after each step.

    It starts from the weights at the start of the joint stage, or from a checkpoint's averages (`state`). Sharded
    parameters have sharded averages.
    """

    def __init__(self, module: nn.Module, decay: float, state: Mapping[str, torch.Tensor] | None = None) -> None:
        self._module, self._decay = module, decay
        self._means: dict[str, Any] = {}
        for name, parameter in module.named_parameters():
            start: Any = parameter.detach()
            if state is not None:
                start = _like(state[name], parameter)
            self._means[name] = start.clone()

    @torch.no_grad()
    def update(self) -> None:
        """Update the averages after a step."""
        for name, parameter in self._module.named_parameters():
            self._means[name].lerp_(parameter.detach(), 1 - self._decay)

    def state(self) -> dict[str, torch.Tensor]:
        """Return the averages in full on the CPU; every rank must call."""
        return {name: whole(mean).cpu().contiguous() for name, mean in self._means.items()}


def _like(value: torch.Tensor, parameter: Any) -> Any:
    from torch.distributed.tensor import DTensor, distribute_tensor

    value = value.to(parameter.device)
    if isinstance(parameter, DTensor):
        return distribute_tensor(value, parameter.device_mesh, parameter.placements)
    return value
