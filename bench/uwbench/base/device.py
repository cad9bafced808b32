"""The device that encoders and probes run on."""

from __future__ import annotations

from uwbench.errors import UsageError


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
