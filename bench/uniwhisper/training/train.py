"""The training loop: two stages, accumulation, data or sharded parallelism, exact resume.

Every rank runs `train`, started by `torchrun` or `accelerate launch`. A step is a pure function of its number and the
previous state and uses no random generator, so 10 steps, a kill and 10 more steps equal 20 steps.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from uniwhisper.config import Config, Stage
from uniwhisper.cost import Costs
from uniwhisper.data.examples import SAMPLE_RATE, Batches
from uniwhisper.model.build import build_model, set_stage
from uniwhisper.model.collate import Batch, Collator
from uniwhisper.model.model import AudioModel
from uniwhisper.model.tokens import open_answers
from uniwhisper.sampling.held_out import HeldOut
from uniwhisper.training import checkpoint
from uniwhisper.training.checkpoint import Progress
from uniwhisper.training.ema import Average
from uniwhisper.training.log import Log, Tally
from uniwhisper.training.monitor import Monitor, mean_knn
from uniwhisper.training.optim import clip_to, gradient_norm, make_optimiser, part_norms, schedule, set_rates
from uniwhisper.training.parallel import World, full_state, load_full_state, wrap
from uniwhisper.training.sigterm import on_sigterm
from uwbench.api import InputError, UwbenchError

_MOST_SKIPPED = 20  # in a row: the run has diverged


@dataclass(frozen=True)
class StepData(torch.utils.data.Dataset["list[Batch] | UwbenchError"]):
    """One rank's micro-batches by global step, the same whether made in the trainer or in its workers.

    Errors are returned, not raised: a worker would turn them into the text of a traceback.
    """

    batches: Batches
    collate: Collator
    rank: int
    world: int

    def __getitem__(self, step: int) -> list[Batch] | UwbenchError:
        try:
            micro_batches = self.batches.micro_batches(step, self.rank, self.world)
            return [self.collate(examples) for examples in micro_batches]
        except UwbenchError as error:
            return error


@dataclass(frozen=True, slots=True)
class Result:
    """A run's last checkpoint and its progress."""

    checkpoint: Path
    progress: Progress


def train(
    config: Config,
    batches: Batches,
    output: Path,
    *,
    training_data: list[dict[str, Any]] | None = None,
    data_digest: str | None = None,
    held_out: HeldOut | None = None,
    until: int | None = None,
) -> Result:
    """Train to the end of the joint stage, or to step `until`, from the newest checkpoint in `output` if there is one.

    On SIGTERM the step is finished and saved. Steps with non-finite gradients are skipped and counted; twenty in a row
    raise UwbenchError. `training_data` (`{dataset, split, licence}` each) goes into the exported encoder;
    `data_digest` is the identity of what `batches` draws from: InputError if a checkpoint is of other data.
    With `held_out` clips, or `monitor_mini`, the model is monitored every `monitor_every` steps, and the encoder with
    the highest mean kNN of the joint stage is kept in `best/`.
    """
    output.mkdir(parents=True, exist_ok=True)
    last = config.stages.bridge + config.stages.joint
    if batches.steps is not None:
        last = min(last, batches.steps)
    last = last if until is None else min(last, until)
    with World.joined() as world:
        run = _Run(
            config, output, world, batches, Progress(training_data=training_data, data_digest=data_digest), held_out
        )
        log = Log(output, config, enabled=world.rank == 0, world=world.size)
        stopping = threading.Event()
        try:
            with on_sigterm("stopping; saving after this step", stopping.set):
                return run.steps(last, log, stopping)
        finally:
            log.close()


class _Run:
    """The state of a run: weights, optimiser, progress."""

    def __init__(
        self,
        config: Config,
        output: Path,
        world: World,
        batches: Batches,
        start: Progress,
        held_out: HeldOut | None,
    ) -> None:
        self.config, self.output, self.world = config, output, world
        self._costs = Costs.of(config)
        folders = checkpoint.checkpoints(output)
        self.progress = start
        self.model: AudioModel = build_model(config)
        self._resume: Path | None = folders[-1] if folders else None
        if self._resume is not None:
            self.progress = checkpoint.read_progress(self._resume, config)
            if self.progress.data_digest != start.data_digest:
                raise InputError(
                    "is of other rows or another mixture",
                    where=self._resume,
                    remedy="give the same ones or another --output folder",
                )
            checkpoint.load_weights(self.model, self._resume)
        collate = Collator(
            text=open_answers(config),
            mels=config.encoder.mels,
            stack=config.adapter.stack,
            reduction=config.optimiser.reduction,
            packed=config.data.packed,
        )
        self.data = StepData(batches, collate, world.rank, world.size)
        self.model.to(world.device)
        self._stage: Stage | None = None
        self._wrapped: Any = None
        self.optimiser: Any = None
        self._average: Average | None = None
        self._norms: dict[str, float] = {}
        self._in_a_row = 0
        clips = held_out or HeldOut(())
        asked = config.run.monitor_mini or config.run.monitor_speech
        looks = config.run.monitor_every is not None and (clips.examples or asked)
        self._monitor = Monitor(config, clips, world.device) if looks else None
        if self._resume is None and world.rank == 0:
            checkpoint.forget_best(output)
        self._best = None if self._resume is None else checkpoint.best_score(output)

    def steps(self, last: int, log: Log, stopping: threading.Event) -> Result:
        """Run to step `last` and return the result."""
        tally, saved = Tally(), self._resume
        loader = iter(self._loader(last))
        while self.progress.step < last and not self.world.any(stopping.is_set()):
            self._enter_stage()
            before = time.monotonic()
            loaded = next(loader)
            if isinstance(loaded, UwbenchError):
                raise loaded
            batches = [batch.to(self.world.device) for batch in loaded]
            log.waited(time.monotonic() - before)
            norm = self._step(batches, tally, last)
            step = self.progress.step
            if step % self.config.run.log_every == 0 or step == last:
                rates = [group["lr"] for group in self.optimiser.param_groups]
                whole = Tally.merged(self.world.gather(tally))
                log.write(
                    step, str(self._stage), whole, norm, self._norms, rates, self.progress.skipped, self.world.device
                )
                tally = Tally()
            if self._monitor is not None and step % (self.config.run.monitor_every or 1) == 0:
                scores = self._monitor.look(self.model)
                log.look(step, scores)
                self._keep_best(scores)
            if step % self.config.run.save_every == 0:
                saved = self._save()
        if saved is None or not saved.name.endswith(f"{self.progress.step:07d}"):
            self._enter_stage()
            saved = self._save()
        return Result(saved, self.progress)

    def _loader(self, last: int) -> torch.utils.data.DataLoader[list[Batch] | UwbenchError]:
        return torch.utils.data.DataLoader(
            self.data,
            batch_size=None,
            sampler=range(self.progress.step, last),
            num_workers=self.config.run.workers,
            generator=torch.Generator(),  # of its own: a loader draws a seed
        )

    def _enter_stage(self) -> None:
        stage: Stage = "bridge" if self.progress.step < self.config.stages.bridge else "joint"
        if stage == self._stage:
            return
        if self._wrapped is not None and self.config.run.parallel == "fsdp2":
            # Sharding was set up for the parameters of the last stage: rebuild from the full state.
            state = full_state(self.model)
            self.model = build_model(self.config).to(self.world.device)
            load_full_state(self.model, state)
        first, self._stage = self._stage is None, stage
        set_stage(self.model, self.config, stage)
        self._wrapped = wrap(self.model, self.config, self.world)
        self.optimiser = make_optimiser(self.model, self.config, stage)
        if stage == "joint" and self.config.run.ema is not None:
            state = checkpoint.load_average(self._resume) if first and self._resume is not None else None
            self._average = Average(self.model.encoder, self.config.run.ema, state)
        if first and self._resume is not None and not self._starts_stage():
            self.world.load_optimiser(self.model, self.optimiser, checkpoint.load_optimiser(self._resume))

    def _starts_stage(self) -> bool:
        return self.progress.step in {0, self.config.stages.bridge}

    def _step(self, batches: list[Batch], tally: Tally, last: int) -> float:
        config, settings = self.config, self.config.optimiser
        for batch, losses in zip(batches, gradients(self._wrapped, batches, config, self.world), strict=True):
            tally.add(batch, losses, self._costs, self._stage or "joint")
        norm = gradient_norm(self.model)
        finite = bool(torch.isfinite(norm))
        step = self.progress.step
        if (step + 1) % config.run.log_every == 0 or step + 1 == last:
            self._norms = part_norms(self.model)
        start, steps = (
            (0, config.stages.bridge) if self._stage == "bridge" else (config.stages.bridge, config.stages.joint)
        )
        set_rates(self.optimiser, schedule(step - start, steps, settings.warmup_steps, settings.floor))
        if finite:
            clip_to(self.model, norm, settings.clip)
            self.optimiser.step()
            if self._average is not None:
                self._average.update()
        self.optimiser.zero_grad(set_to_none=True)
        self._in_a_row = 0 if finite else self._in_a_row + 1
        heard = self.world.sum(sum(sum(batch.samples) for batch in batches) / SAMPLE_RATE)
        self.progress = replace(
            self.progress,
            step=step + 1,
            skipped=self.progress.skipped + (not finite),
            audio_s=self.progress.audio_s + heard,
        )
        if self._in_a_row >= _MOST_SKIPPED:
            raise UwbenchError(
                f"{_MOST_SKIPPED} steps in a row had gradients that were not finite",
                where=f"step {step + 1}",
                remedy="lower the learning rates, or look at the data of these steps",
            )
        return float(norm)

    def _keep_best(self, scores: dict[str, Any]) -> None:
        """Keep the encoder if it scores above every look of the joint stage before; see `mean_knn`."""
        score = mean_knn(scores)
        if self._stage != "joint" or score is None or (self._best is not None and score <= self._best):
            return
        self._best = score
        weights = full_state(self.model.encoder)
        if self.world.rank == 0:
            checkpoint.save_best(self.output, self.progress, self.config, self.model.encoder, weights, score)

    def _save(self) -> Path:
        weights = full_state(self.model)
        optimiser = self.world.optimiser_state(self.model, self.optimiser)
        averaged = None if self._average is None else self._average.state()
        folder = self.output / f"step-{self.progress.step:07d}"
        if self.world.rank == 0:
            folder = checkpoint.save(
                self.output, self.progress, self.config, weights, optimiser, self.model.encoder, averaged
            )
        self.world.wait()
        return folder


def gradients(wrapped: Any, batches: Sequence[Batch], config: Config, world: World) -> list[torch.Tensor]:
    """Add the gradients of a global step to the model's, from this rank's micro-batches, and return their losses.

    Each token's loss is weighted by its share of the step's total weight over all ranks: however a step is divided, its
    gradient is the same sum, up to floating-point order. `wrapped` is `wrap`'s result. The gradient is zero where no
    question of a step has an answer to learn, as can be with heads.
    """
    total = world.sum(sum(float(batch.weights.sum()) for batch in batches)) or 1.0
    losses_by_batch = []
    for index, batch in enumerate(batches):
        with world.accumulating(wrapped, index < len(batches) - 1), _autocast(config, world):
            losses = wrapped(batch)
            # Gradients are averaged over ranks; the factor `world.size` turns that into a sum.
            ((losses * batch.weights).sum() * (world.size / total)).backward()
        losses_by_batch.append(losses.detach())
    return losses_by_batch


def _autocast(config: Config, world: World) -> AbstractContextManager[Any]:
    if config.run.precision == "bf16":
        return torch.autocast(world.device.split(":")[0], torch.bfloat16)
    return nullcontext()
