"""Data and sharded parallelism: join processes, wrap the model, gather its state."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from uniwhisper.config import Config
from uniwhisper.model.model import AudioModel, own_state


@dataclass(frozen=True, slots=True)
class World:
    """This process's place among those of a run."""

    rank: int
    size: int
    device: str

    @staticmethod
    @contextmanager
    def joined() -> Iterator[World]:
        """Join the processes that torchrun or accelerate started, if the environment names any."""
        cuda = torch.cuda.is_available()
        if "RANK" not in os.environ:
            yield World(0, 1, "cuda:0" if cuda else "cpu")
            return
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if cuda else "cpu"
        if cuda:
            torch.cuda.set_device(device)
        torch.distributed.init_process_group("nccl" if cuda else "gloo")
        try:
            yield World(torch.distributed.get_rank(), torch.distributed.get_world_size(), device)
        finally:
            torch.distributed.destroy_process_group()

    @property
    def many(self) -> bool:
        return torch.distributed.is_available() and torch.distributed.is_initialized()

    def sum(self, value: float) -> float:
        """Return the sum of every rank's value."""
        if self.size == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(tensor)
        return tensor.item()

    def any(self, value: bool) -> bool:
        """Return True if the value is true on any rank."""
        return self.sum(float(value)) > 0

    def gather(self, value: Any) -> list[Any]:
        """Return every rank's value, in the order of ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Wait for every rank."""
        if self.many:
            torch.distributed.barrier()

    def accumulating(self, wrapped: Any, more: bool) -> AbstractContextManager[Any]:
        """Keep gradients on their rank while `more` micro-batches of the step follow."""
        from torch.distributed.fsdp import FSDPModule

        if isinstance(wrapped, nn.parallel.DistributedDataParallel):
            return wrapped.no_sync() if more else nullcontext()
        if isinstance(wrapped, FSDPModule):
            wrapped.set_requires_gradient_sync(not more)
        return nullcontext()

    def optimiser_state(self, model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
        """Return the full optimiser state; of a sharded model, by parameter name on the CPU of rank 0."""
        if not _is_sharded(model):
            return optimiser.state_dict()
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

        return get_optimizer_state_dict(
            model, optimiser, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
        )

    def load_optimiser(self, model: nn.Module, optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Fill an optimiser from a full state, each rank its own shards."""
        if not _is_sharded(model):
            optimiser.load_state_dict(state)
            return
        from torch.distributed.checkpoint.state_dict import StateDictOptions, set_optimizer_state_dict

        set_optimizer_state_dict(
            model, optimiser, state, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
        )


def _is_sharded(model: nn.Module) -> bool:
    from torch.distributed.tensor import DTensor

    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def wrap(model: AudioModel, config: Config, world: World) -> Any:
    """Return the module to call: the model, wrapped in DDP or sharded in place if there are several processes."""
    if not world.many:
        return model
    if config.run.parallel == "ddp":
        return nn.parallel.DistributedDataParallel(model)
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    for layer in _layers(model):
        fully_shard(layer)
    sharded = fully_shard(model)
    for name in ("encode", "logits"):  # called separately to generate answers
        register_fsdp_forward_method(model, name)
    return sharded


def _layers(model: AudioModel) -> list[nn.Module]:
    return [*model.encoder.layers, *model.decoder.layers]


def full_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the model's full state, tied parameters once; every rank must call."""
    return {name: whole(value) for name, value in own_state(model).items()}


def whole(value: Any) -> torch.Tensor:
    """Return a possibly sharded tensor in full; every rank must call."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def load_full_state(model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Fill a model of the same build that is not sharded yet; a tied parameter is filled under its first name."""
    model.load_state_dict(state, strict=False)
