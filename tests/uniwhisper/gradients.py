"""The gradients of one global step of real audio, as a program: one of several processes that share the step."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from runs import InMemory, digits, settings
from uniwhisper.model.build import build_model, set_stage
from uniwhisper.model.collate import Collator
from uniwhisper.model.tokens import open_text
from uniwhisper.training.optim import clip_to, gradient_norm
from uniwhisper.training.parallel import World, whole, wrap
from uniwhisper.training.train import StepData, gradients


def main() -> None:
    """Write each parameter's gradient in float32 and float64, before and after clipping, as the first argument says."""
    torch.set_num_threads(1)
    asked = json.loads(sys.argv[1])
    config = settings(asked["whisper"], run={"parallel": asked["parallel"]}, optimiser={"reduction": "sqrt_tokens"})
    collate = Collator(open_text(config), config.encoder.mels, config.adapter.stack, config.optimiser.reduction)
    found: dict[str, torch.Tensor] = {}
    with World.joined() as world:
        batches = StepData(InMemory(digits(Path(asked["data"]), 24)), collate, world.rank, world.size)[1]
        assert isinstance(batches, list)
        for dtype in (torch.float32, torch.float64):
            model = build_model(config).to(dtype)
            set_stage(model, config, "joint")
            wrapped = wrap(model, config, world)
            gradients(wrapped, [replace(batch, mel=batch.mel.to(dtype)) for batch in batches], config, world)
            norm = gradient_norm(model)
            for when in ("whole", "clipped"):
                for name, parameter in model.named_parameters():
                    if parameter.grad is not None:
                        found[f"{dtype}/{when}/{name}"] = whole(parameter.grad).clone()
                clip_to(model, norm, float(norm) / 3)
            found[f"{dtype}/norm"] = norm.reshape(1)
        if world.rank == 0:
            save_file(found, asked["output"])


if __name__ == "__main__":
    main()
