"""Functions for the wrappers of packages, which run in an interpreter where uwbench need not be installed."""

import importlib
from pathlib import Path

import torch

from uwbench.errors import UsageError


def given_weights(spec, form):
    """Return the path of the weights; without them there is no model, as one with random weights must never pass."""
    if spec.weights is None or not Path(spec.weights).exists():
        raise UsageError(f"needs --weights, {form}; there is no {spec.weights!r}")
    return str(spec.weights)


def tensors_in(path):
    """Return the content of a PyTorch checkpoint that holds only tensors and plain values."""
    return torch.load(path, map_location="cpu", weights_only=True)


def fill(module, tensors, where, computed=()):
    """Load tensors into a module; refuse a checkpoint that lacks any whose name holds none of `computed`."""
    missing = [name for name in module.state_dict() if name not in tensors and not any(p in name for p in computed)]
    if missing:
        raise UsageError(f"{where} lacks {len(missing)} tensors of the model, the first is {missing[0]!r}")
    module.load_state_dict(tensors, strict=False)
    return module.eval()


def part_of(name):
    """Return a module of the package."""
    return importlib.import_module(name)


def place(module, device, dtype):
    """Put a model on a device; these packages are run in float32 alone."""
    if dtype != "fp32":
        raise UsageError("runs in fp32 only; drop --dtype")
    return module.to(device)


def size_of(module):
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def block_states(blocks, run):
    """Return `run()`'s output, and what went into the first block and came out of each, one tensor per forward pass."""
    states = [[] for _ in range(len(blocks) + 1)]
    hooks = [blocks[0].register_forward_pre_hook(lambda _, inputs: states[0].append(inputs[0]))]
    for outputs, block in zip(states[1:], blocks):  # noqa: B905 (Python 3.8 knows no strict)

        def keep(_module, _inputs, output, outputs=outputs):
            outputs.append(output[0] if isinstance(output, tuple) else output)

        hooks.append(block.register_forward_hook(keep))
    try:
        output = run()
    finally:
        for hook in hooks:
            hook.remove()
    return output, states
