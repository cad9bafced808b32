"""The cost of training a UniWhisper: parameters, FLOPs, memory and GPU-hours, computed from a configuration.

A matrix product of n parameters costs 2n FLOPs a position forward and twice that backward. Attention over T positions
adds 4 T^2 d a layer in the encoder and half of that in the causal language model. Nothing is measured here; `mfu` is
an assumption.
"""

from __future__ import annotations

from dataclasses import dataclass

from uniwhisper.config import (
    FRAMES_PER_S,
    WINDOW_S,
    Closed,
    Config,
    Stage,
    whisper_decoder_flops,
    whisper_decoder_parameters,
)
from uniwhisper.language_model import LmShape, attended_pairs, shape_of

_STATE_BYTES = 16  # fp32 weight, gradient and AdamW's two moments, per trained parameter


class Plan(Closed):
    """The cost of a run. FLOPs are per hour of training audio, except for `forward_*`, which are of one question."""

    encoder_parameters: int
    adapter_parameters: int
    lm_parameters: int
    trained_parameters: int
    forward_30s_encoder_flops: float
    forward_30s_lm_flops: float
    train_flops_per_hour: float
    state_gb: float
    gpu_hours: float
    wall_hours: float

    @property
    def parameters(self) -> int:
        return self.encoder_parameters + self.adapter_parameters + self.lm_parameters


@dataclass(frozen=True, slots=True)
class Costs:
    """The FLOPs of a configuration; `lm` is None for Whisper's decoder and for heads, which have no adapter."""

    config: Config
    lm: LmShape | None

    @staticmethod
    def of(config: Config) -> Costs:
        """Return the costs of a configuration, whose language model's shape is read from its own configuration."""
        return Costs(config, None if config.lm.kind in ("whisper", "heads") else shape_of(config.lm))

    @property
    def classes(self) -> int:
        """The classes of all heads together."""
        return sum(len(answers) for answers in self.config.lm.classes.values())

    def parameters(self) -> tuple[int, int, int, int]:
        """Return the parameters of encoder, adapter and decoder, and the number trained in the joint stage.

        The encoder's fixed positions are never trained; LoRA's matrices count with the decoder.
        """
        config, encoder = self.config, self.config.encoder.parameters()
        if config.lm.kind == "heads":
            adapter, lm, sides = 0, self.classes * (config.encoder.dim + 1), 0
        elif self.lm is None:
            adapter, lm, sides = 0, whisper_decoder_parameters(config.encoder), 0
        else:
            adapter, lm = config.adapter.parameters(config.encoder, self.lm.dim), self.lm.parameters
            sides = self.lm.sides
        added = config.lm.lora.rank * sides if config.lm.train == "lora" else 0
        trained = adapter + {"full": lm, "frozen": 0, "lora": added}[config.lm.train]
        if config.encoder.train == "full":
            trained += encoder - config.encoder.positions * config.encoder.dim
        return encoder, adapter, lm + added, trained

    def clip(
        self,
        frames: float,
        heard: float,
        prompt: float,
        answer: float,
        *,
        questions: int = 1,
        stage: Stage = "joint",
    ) -> float:
        """Return the FLOPs of forward and backward over a clip of `heard` frames and its questions.

        The encoder hears the clip padded to `frames`, once for all questions.
        """
        shared = heard / self.config.adapter.stack if self.lm else 0.0
        in_a_row = questions if self.config.data.packed and self.lm else 1
        text = prompt + answer
        row = shared + in_a_row * text, attended_pairs(shared, [text] * in_a_row), in_a_row * answer
        return self.audio(frames, stage) + questions / in_a_row * self.text(*row, frames, stage)

    def audio(self, frames: float, stage: Stage, *, again: bool = False) -> float:
        """Return the FLOPs of encoder and adapter over `frames`, forward and backward.

        A frozen encoder has no backward. With `again`, the forward of trained parts is computed twice, as with
        activation checkpointing.
        """
        config = self.config
        learns = stage == "joint" and config.encoder.train == "full"
        flops = config.encoder.flops(frames) * ((4 if again else 3) if learns else 1)
        if self.lm is not None:
            flops += 3 * config.adapter.flops(config.encoder, self.lm.dim, frames)
            flops -= 0 if learns else config.adapter.first_flops(config.encoder, self.lm.dim, frames)
        return flops

    def text(
        self, tokens: float, pairs: float, answers: float, frames: float, stage: Stage, *, again: bool = False
    ) -> float:
        """Return the FLOPs of the decoder over one row, forward and backward; see `LmShape.flops`.

        `frames` are those that Whisper's decoder attends to. A frozen decoder still passes gradients through.
        """
        lm = self.config.lm
        learns = lm.train == "full" and (stage == "joint" or lm.kind != "causal")
        return ((3 if learns else 2) + again) * self.text_forward(tokens, pairs, answers, frames)

    def text_forward(self, tokens: float, pairs: float, answers: float, frames: float) -> float:
        """Return the FLOPs of the decoder's forward over one row."""
        if self.config.lm.kind == "heads":
            return 2.0 * self.classes * self.config.encoder.dim * answers
        if self.lm is None:
            return whisper_decoder_flops(self.config.encoder, frames, tokens, answers)
        return self.lm.flops(tokens, pairs, answers)


def make_plan(config: Config) -> Plan:
    """Return the cost of a run."""
    data, costs = config.data, Costs.of(config)
    window = WINDOW_S * FRAMES_PER_S
    encoder, adapter, lm, trained = costs.parameters()
    heard = data.clip_s * FRAMES_PER_S
    texts = data.prompt_tokens, data.answer_tokens
    per_clip = costs.clip(heard, heard, *texts, questions=data.qa_per_audio) * (1 - data.pad30_prob)
    per_clip += costs.clip(window, heard, *texts, questions=data.qa_per_audio) * data.pad30_prob
    per_hour = per_clip * 3600 / data.clip_s
    seconds = per_hour * data.hours * data.epochs / (config.hardware.peak_tflops * 1e12 * config.hardware.mfu)
    text = sum(texts) + (window / config.adapter.stack if costs.lm else 0)
    return Plan(
        encoder_parameters=encoder,
        adapter_parameters=adapter,
        lm_parameters=lm,
        trained_parameters=trained,
        forward_30s_encoder_flops=config.encoder.flops(window),
        forward_30s_lm_flops=costs.text_forward(text, text**2 / 2, data.answer_tokens, window),
        train_flops_per_hour=per_hour,
        state_gb=(trained * _STATE_BYTES + (encoder + adapter + lm - trained) * 4) / 2**30,
        gpu_hours=seconds / 3600,
        wall_hours=seconds / 3600 / config.hardware.gpus,
    )
