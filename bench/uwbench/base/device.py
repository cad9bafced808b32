"""The device that encoders and probes run on, and the way there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uwbench.errors import UsageError

if TYPE_CHECKING:
    import torch


def pick_device(device: str) -> str:
    """Return the device that `auto` stands for, or `device` itself; raise UsageError if it cannot be used."""
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"cannot be used ({reason})", where=f"--device {device}", remedy="try --device auto"
        ) from error
    return device


def send(tensor: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """Return `tensor` on `device`; the copy to a GPU goes through pinned memory and may still run."""
    import torch

    if tensor.device.type != "cpu" or torch.device(device).type != "cuda":
        return tensor.to(device)
    return (tensor if tensor.is_pinned() else tensor.pin_memory()).to(device, non_blocking=True)
