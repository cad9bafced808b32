"""The configuration of a training run: one closed YAML file that `plan`, `train` and `ablate` read."""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import Field, ValidationError, model_validator

from uwbench.api import InputError, UsageError
from uwbench.base.registry import suggestion
from uwbench.base.schema import Closed, first_fault
from uwbench.base.yaml_text import parse_yaml, read_yaml_file

WINDOW_S = 30.0
FRAMES_PER_S = 50  # Whisper's encoder: one frame per 20 ms
_WHISPER_VOCABULARY = 51_866  # Large-v3's; the others differ by two rows at most
_WHISPER_TEXT = 448  # positions of Whisper's decoder

# Configurations from before `lm.shape` describe a Qwen3 by these keys.
_FORMER_KINDS = {"qwen3": "causal", "random-qwen3": "random-causal"}
_FORMER_SHAPE = {
    "dim": "hidden_size",
    "layers": "num_hidden_layers",
    "ffn": "intermediate_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "vocabulary": "vocab_size",
}
_QWEN3 = {
    "model_type": "qwen3",
    "tie_word_embeddings": True,
    "max_position_embeddings": 4096,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
}

Stage = Literal["bridge", "joint"]
Domain = Literal["speech", "paralinguistic", "sound", "music"]
DOMAINS: tuple[Domain, ...] = get_args(Domain)
Count = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0)]
Decibels = Annotated[float, Field(ge=-20, le=100)]


Section = TypeVar("Section", bound=Closed)


def validated(kind: type[Section], values: Any, where: str | None) -> Section:
    """Return plain values as a section; raise InputError naming the file `where` and the first wrong field."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field, what = first_fault(error)
        if first["type"] == "extra_forbidden":
            raise InputError(f"{field}: is not a key", where=where, remedy=_near(kind, first["loc"])) from error
        raise InputError(f"{field or 'the file'}: {what}", where=where) from error


def _near(kind: type[Closed], place: Sequence[int | str]) -> str | None:
    """Return a suggestion for an unknown key, from the keys of its section."""
    for name in place[:-1]:
        inner = kind.model_fields[name].annotation if name in kind.model_fields else None
        if not (isinstance(inner, type) and issubclass(inner, Closed)):
            return None
        kind = inner
    return suggestion(str(place[-1]), list(kind.model_fields))


class Encoder(Closed):
    """A Whisper-shaped encoder: its shape, the source of its weights (folder or hub id), and its learning rates.

    Layer i of n learns at `lr * layer_decay ** (n - 1 - i)`, the convolutions below at `lr * layer_decay ** n`.
    """

    mels: Count
    dim: Count
    layers: Count
    ffn: Count
    positions: Count
    init: str
    train: Literal["full", "frozen"] = "full"
    lr: Rate = 2e-5
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0

    def parameters(self) -> int:
        """Return all parameters, the fixed positions included; Whisper's key projections have no bias."""
        convolutions = 3 * self.mels * self.dim + self.dim + 3 * self.dim**2 + self.dim
        block = 4 * self.dim**2 + 3 * self.dim + 2 * self.dim * self.ffn + self.ffn + self.dim + 4 * self.dim
        return convolutions + self.positions * self.dim + self.layers * block + 2 * self.dim

    def flops(self, frames: float) -> float:
        """Return the FLOPs of a forward over `frames` encoder frames."""
        blocks = self.layers * (4 * self.dim**2 + 2 * self.dim * self.ffn)
        convolutions = 2 * 3 * self.mels * self.dim * 2 * frames + 2 * 3 * self.dim**2 * frames
        return 2 * blocks * frames + 4 * frames**2 * self.dim * self.layers + convolutions


class Adapter(Closed):
    """The adapter: LayerNorm, linear layers and RMSNorm over `stack` frames at a time, and two learned marks.

    `mlp` has two linear layers with GELU between them, `linear` only the first.
    """

    stack: Literal[1, 2, 4, 8]
    kind: Literal["mlp", "linear"] = "mlp"
    lr: Rate = 2e-4

    def parameters(self, encoder: Encoder, dim: int) -> int:
        """Return all parameters of an adapter to a language model of `dim`."""
        wide = self.stack * encoder.dim
        second = dim**2 + dim if self.kind == "mlp" else 0
        return 2 * wide + wide * dim + dim + second + dim + 2 * dim

    def flops(self, encoder: Encoder, dim: int, frames: float) -> float:
        """Return the FLOPs of a forward over `frames` encoder frames."""
        second = 2 * dim**2 * frames / self.stack if self.kind == "mlp" else 0.0
        return self.first_flops(encoder, dim, frames) + second

    def first_flops(self, encoder: Encoder, dim: int, frames: float) -> float:
        """Return the FLOPs of the first linear layer, whose backward towards a frozen encoder is not computed."""
        return 2 * encoder.dim * dim * frames


class Lora(Closed):
    """Low-rank updates of every linear layer of the language model (Hu et al. 2021): `W + alpha / rank * B A`."""

    rank: Count = 8
    alpha: Rate = 32.0


class LanguageModel(Closed):
    """The part that answers an instruction about the audio: a language model, or heads without one.

    `causal` is any causal language model of transformers, with the weights of `init` (a folder or a hub id).
    `random-causal` has such a model's shape and random weights; the shape is that of `init`, or `shape`. `whisper` is
    the decoder that came with the encoder, behind no adapter, and takes its shape from there. `heads` is no language
    model but the control for one: a linear layer per question of `classes` (its name and its possible answers) over a
    clip's mean frame. Questions that are not in `classes` are not learnt.
    `shape` holds fields of a `config.json`, at least `model_type`. Weights of another shape are refused; without it
    the shape is read from `init`. `tokenizer` is `bytes`, a folder or a hub id; None means that of `init`.
    """

    kind: Literal["causal", "random-causal", "whisper", "heads"] = "causal"
    init: str | None = None
    shape: dict[str, Any] | None = None
    tokenizer: str | None = None
    train: Literal["full", "frozen", "lora"] = "full"
    lr: Rate = 2e-5
    lora: Lora = Lora()
    classes: dict[str, tuple[str, ...]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _heads_have_classes(self) -> LanguageModel:
        if (self.kind == "heads") != bool(self.classes):
            raise ValueError("kind heads needs classes, and no other kind has them")
        if self.kind == "heads" and self.train != "full":
            raise ValueError(f"heads have no weights to begin with: train must be full, not {self.train}")
        return self

    @model_validator(mode="before")
    @classmethod
    def _with_former_keys(cls, values: Any) -> Any:
        """Translate the keys and kinds of the time when the only language model was a Qwen3."""
        if not isinstance(values, Mapping):
            return values
        translated = {key: value for key, value in values.items() if key not in _FORMER_SHAPE}
        former = {field: values[key] for key, field in _FORMER_SHAPE.items() if key in values}
        if former:
            translated["shape"] = {**_QWEN3, **(values.get("shape") or {}), **former}
        translated["kind"] = _FORMER_KINDS.get(values.get("kind", "causal"), values.get("kind", "causal"))
        return translated


def whisper_decoder_parameters(encoder: Encoder) -> int:
    """Return the parameters of the Whisper decoder beside an encoder of as many layers (not so for turbo)."""
    attention = 4 * encoder.dim**2 + 3 * encoder.dim
    block = 2 * attention + 2 * encoder.dim * encoder.ffn + encoder.ffn + encoder.dim + 6 * encoder.dim
    return encoder.layers * block + (_WHISPER_VOCABULARY + _WHISPER_TEXT) * encoder.dim + 2 * encoder.dim


def whisper_decoder_flops(encoder: Encoder, frames: float, tokens: float, answers: float) -> float:
    """Return the FLOPs of the Whisper decoder over `tokens` of text and `frames` of the encoder."""
    text = encoder.layers * (6 * encoder.dim**2 + 2 * encoder.dim * encoder.ffn) * tokens
    keys = encoder.layers * 2 * encoder.dim**2 * frames
    attention = encoder.layers * encoder.dim * (2 * tokens**2 + 4 * tokens * frames)
    return 2 * (text + keys) + attention + 2 * _WHISPER_VOCABULARY * encoder.dim * answers


class Wording(Closed):
    """The wording of questions.

    `varied` draws from the task's phrases, of which only the first `phrases` are used (None: all), and in `bare_share`
    of the draws from its bare lines; `canonical` asks the first phrase and nothing else, `tag` the first bare line.
    With `options_prob`, that share of the draws ends with the possible answers where a dataset has at most fifty of
    them, which moves work from the encoder to the language model: off unless that is what is studied.
    """

    instructions: Literal["varied", "canonical", "tag"] = "varied"
    phrases: Count | None = None
    bare_share: Share = 0.2
    options_prob: Share = 0.0


class Augment(Closed):
    """Changes to the audio of training clips, all off; held-out clips are heard as they are.

    With `mix_prob`, a clip is heard together with another of its dataset, `mix_db` louder or softer at most, and asked
    only which sounds or instruments there are: the answer names both. Where all that is asked of a clip can be answered
    by a part of it, and it is not mixed, it is cut to a stretch of at least `crop_share` of its length (1: the whole)
    that holds its loudest moment. With `noise_prob`, it gets white, pink or brown noise with a signal-to-noise ratio in
    `noise_db`. Last, its level is changed by up to `gain_db` up or down, so that only timbre tells how loudly a note
    was played. Samples are never clipped: they may exceed 1.
    """

    gain_db: Annotated[float, Field(ge=0, le=60)] = 0.0
    noise_prob: Share = 0.0
    noise_db: tuple[Decibels, Decibels] = (5.0, 30.0)
    crop_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    mix_prob: Share = 0.0
    mix_db: Annotated[float, Field(ge=0, le=20)] = 5.0

    @model_validator(mode="after")
    def _noise_is_a_range(self) -> Augment:
        if self.noise_db[0] > self.noise_db[1]:
            raise ValueError(f"noise_db goes from {self.noise_db[0]:g} down to {self.noise_db[1]:g}: swap them")
        return self


class Data(Closed):
    """The training data: hours, mean clip and text lengths, and the share of clips padded to 30 s.

    `mixture` names the file of datasets. With `speech_share`, that is the share of audio-seconds of its domain speech;
    the other domains keep their proportions, and no replay beyond it is asked for. `without_domains` are not heard, and
    of all questions only those of `tasks` are asked, where any are named; a clip without one is not heard either.
    A clip is asked `qa_per_audio` questions at a time, in the way that `wording` says, and `augment` changes how it
    sounds; with `packed`, its questions are in one row of the language model, behind the audio. Batches are filled from
    `bins` of clips of about one length; `together` micro-batches in a row are of one bin, all of a step where it is
    None.
    """

    hours: float = Field(gt=0)
    clip_s: float = Field(gt=0, le=WINDOW_S)
    prompt_tokens: Count
    answer_tokens: Count
    pad30_prob: Share
    epochs: float = Field(default=1, gt=0)
    mixture: str | None = None
    speech_share: Share | None = None
    without_domains: tuple[Domain, ...] = ()
    tasks: tuple[str, ...] = ()
    wording: Wording = Wording()
    augment: Augment = Augment()
    qa_per_audio: Count = 1
    packed: bool = False
    bins: Count = 16
    together: Count | None = None


class Hardware(Closed):
    """The machine: `peak_tflops` of one GPU in bf16, and the assumed utilisation `mfu`."""

    gpus: Count
    peak_tflops: float = Field(gt=0)
    mfu: float = Field(gt=0, le=1)


class Optimiser(Closed):
    """AdamW; warm-up, then a cosine down to `floor` of the rate, in each stage; one global gradient norm.

    `reduction` weighs answer tokens: all equally, each answer equally, or each answer by the root of its length.
    """

    betas: tuple[float, float] = (0.9, 0.98)
    eps: Rate = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup_steps: Annotated[int, Field(ge=0)] = 1000
    floor: Share = 0.1
    clip: Rate = 1.0
    reduction: Literal["token", "sample", "sqrt_tokens"] = "token"


class Stages(Closed):
    """Steps of the two stages: `bridge` trains new parts at `bridge_lr`, `joint` each part at its own rate."""

    bridge: Annotated[int, Field(ge=0)]
    joint: Annotated[int, Field(ge=0)]
    bridge_lr: Rate = 1e-3


class Run(Closed):
    """The execution of a run; batch sizes are global, in seconds of audio including padding.

    `ema` is the decay of averaged encoder weights, kept from the joint stage on and exported by choice. Every
    `monitor_every` steps the model is looked at with `monitor_clips` held-out clips, and with `monitor_mini` also with
    the clips of the benchmark's suite mini. With `monitor_speech`, Whisper's own decoder also transcribes the held-out
    clips of speech in English, from the original and the trained encoder.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    batch_s: Rate = 3840.0
    micro_batch_s: Rate = 240.0
    precision: Literal["fp32", "bf16"] = "bf16"
    checkpointing: bool = True
    parallel: Literal["ddp", "fsdp2"] = "ddp"
    workers: Annotated[int, Field(ge=0)] = 4
    save_every: Count = 1000
    keep: Count = 3
    log_every: Count = 20
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    monitor_every: Count | None = None
    monitor_clips: Count = 32
    monitor_mini: bool = False
    monitor_speech: bool = False


class Config(Closed):
    """A training run."""

    encoder: Encoder
    adapter: Adapter
    lm: LanguageModel
    data: Data
    hardware: Hardware
    stages: Stages
    optimiser: Optimiser = Optimiser()
    run: Run = Run()


def shipped_configs() -> list[str]:
    """Return the names of the configurations in the package."""
    files = importlib.resources.files("uniwhisper.configs").iterdir()
    return sorted(path.name.removesuffix(".yaml") for path in files if path.name.endswith(".yaml"))


def load_config(name: str, overlay: Mapping[str, Any] | None = None) -> Config:
    """Load a configuration of the package by name, or a file by path; `overlay` replaces keys within sections.

    Raises InputError for a file that is unreadable or invalid, UsageError for an unknown name.
    """
    if name in shipped_configs():
        text = (importlib.resources.files("uniwhisper.configs") / f"{name}.yaml").read_text(encoding="utf-8")
        read = parse_yaml(text, name)
    elif name.endswith((".yaml", ".yml")):
        read = read_yaml_file(Path(name))
    else:
        raise UsageError(f"unknown configuration {name!r}", remedy=suggestion(name, shipped_configs()))
    return parse_config(overlaid(read, overlay) if overlay and isinstance(read, dict) else read, where=name)


def parse_config(values: Any, *, where: str | None = None) -> Config:
    """Return the configuration that plain values describe; raise InputError naming the first wrong field."""
    return validated(Config, values, where)


def overlaid(values: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` with the leaves of `overlay` in place of its own."""
    result = dict(values)
    for key, value in overlay.items():
        inner = result.get(key)
        result[key] = overlaid(inner, value) if isinstance(value, Mapping) and isinstance(inner, Mapping) else value
    return result


def leaves(config: Config) -> dict[str, Any]:
    """Return every value of a configuration by its dotted key, for example `run.batch_s`."""
    return _leaves(config.model_dump(mode="json"), "")


def _leaves(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    by_key: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            by_key |= _leaves(value, f"{prefix}{key}.")
        else:
            by_key[f"{prefix}{key}"] = value
    return by_key
