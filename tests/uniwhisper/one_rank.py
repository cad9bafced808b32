"""One rank of a world, as a program: the gradients of a global step, a training run, and the run resumed."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from runs import InMemory, digits, settings
from uniwhisper.config import Config
from uniwhisper.data.examples import Example
from uniwhisper.model.build import build_model, set_stage
from uniwhisper.model.collate import Collator
from uniwhisper.model.tokens import open_text
from uniwhisper.training.optim import clip_to, gradient_norm
from uniwhisper.training.parallel import World, whole, wrap
from uniwhisper.training.train import StepData, gradients, train


def main() -> None:
    """Do all three as the first argument says; each joins the world by a port of its own."""
    torch.set_num_threads(1)
    request = json.loads(sys.argv[1])
    output, ports = Path(request["output"]), iter(request["ports"])
    clips = digits(Path(request["data"]), 24)
    os.environ["MASTER_PORT"] = str(next(ports))
    run = {"save_every": 3, "parallel": request["parallel"]}
    config = settings(request["whisper"], run=run, optimiser={"reduction": "sqrt_tokens"})
    write_gradients(config, clips, output / "gradients.safetensors")
    config = settings(request["whisper"], run=run, stages={"bridge": 2, "joint": 4})
    os.environ["MASTER_PORT"] = str(next(ports))
    last = train(config, InMemory(clips), output / "run").checkpoint
    os.environ["MASTER_PORT"] = str(next(ports))
    if os.environ.get("RANK", "0") == "0":
        last.rename(output / last.name)  # the run resumes from the checkpoint before
    while last.exists():
        time.sleep(0.01)
    train(config, InMemory(clips), output / "run")


def write_gradients(config: Config, clips: list[Example], path: Path) -> None:
    """Write each parameter's gradient in float32 and float64, before and after clipping."""
    collate = Collator(open_text(config), config.encoder.mels, config.adapter.stack, config.optimiser.reduction)
    tensors: dict[str, torch.Tensor] = {}
    with World.joined() as world:
        batches = StepData(InMemory(clips), collate, world.rank, world.size)[1]
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
                        tensors[f"{dtype}/{when}/{name}"] = whole(parameter.grad).clone()
                clip_to(model, norm, float(norm) / 3)
            tensors[f"{dtype}/norm"] = norm.reshape(1)
        if world.rank == 0:
            save_file(tensors, path)


if __name__ == "__main__":
    main()
