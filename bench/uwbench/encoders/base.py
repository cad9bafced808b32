"""The contract of an encoder.

An encoder turns waveforms into frames. Pooling, masking, chunking, batching and the choice of layers happen once, in
`uwbench.extraction`; an encoder only says which of its frames are valid. `uwbench.encoders.conformance` measures what
it declares: hop, batch invariance, determinism.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch

# How clips may share a batch: padded to the longest, only with clips of the same length, or not at all.
Batching = Literal["padded", "equal-length", "single"]
Input = Literal["waveforms", "lengths"]

# What tests and `benchmarks/packages.py` run: the published weights, its class with random weights, or nothing.
Verified = Literal["weights", "random", "not run"]

IMPORTED = "imported"  # family of ready vectors, which were computed elsewhere
JOINT = "joint"  # the layer from which clips meet texts, if it is another than the last; not a step in depth


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model by name, hub id, folder, `hear:MODULE`, `FILE.py:Class` or file of vectors, and its options."""

    name: str
    weights: str | None = None  # folder or hub id, for families that ship no weights
    context: Literal["full", "trimmed"] = "full"
    revision: str | None = None
    trust_remote_code: bool = False
    python: str | None = None  # another interpreter to run it in; None: this one
    timeout_s: float = 600.0  # a worker of `python` that answers nothing for longer is ended


@dataclass(frozen=True, slots=True)
class EncoderInfo:
    """Facts about an encoder that are known before its weights are loaded."""

    name: str  # as the user wrote it, or the folder's name
    family: str
    sample_rate: int  # Hz
    dim: int
    layers: tuple[str, ...]  # every layer `encode` can return, in order; the last is the model's output
    hop_s: float  # seconds between frames; 0: one frame per clip, its vector
    context_s: float | None  # longest input; longer clips are chunked. None: no limit
    min_s: float = 0.0  # shorter clips are zero-padded to this before they are encoded
    forward_s: float = 0.0  # seconds of audio that even the shortest clip costs (30 for Whisper at full context)
    batching: Batching = "padded"
    host_inputs: tuple[Input, ...] = ()  # those that `encode` takes on the CPU: reading values waits for no GPU
    context: str | None = None  # full | trimmed, for families that offer the choice
    parameters: int | None = None
    revision: str | None = None
    licence: str | None = None
    training_data: tuple[dict[str, Any], ...] | None = None  # None: unknown
    notes: tuple[str, ...] = ()  # what a run says of the checkpoint: defaults that were taken
    first_token: bool = False  # frame 0 is a summary token, not a moment in time
    runs_own_code: bool = False  # user code whose changes the identity may miss: cached vectors are checked before use
    # Everything that changes an embedding, JSON-able: weights by content, configuration, options, wrapper version.
    identity: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Encoded:
    """Frames of a batch: `frames` float `(batch, layers, frames, dim)`, on the encoder's device.

    `valid` `(batch,)` int64, there or on the CPU: the number of leading frames of each clip that cover its audio; the
    rest is padding. Frame t of a clip is centred at `(t + 0.5) * hop_s` seconds.
    """

    frames: torch.Tensor
    valid: torch.Tensor


class Encoder(Protocol):
    """The interface of an encoder: any object with these three members is one.

    Pooling, masking, chunking and batching happen outside, once for all encoders.
    """

    @property
    def info(self) -> EncoderInfo:
        """The facts that are known before the weights are loaded."""
        ...

    def load(self, device: str, dtype: str) -> None:
        """Read the weights and put them on `device` in `dtype` (`fp32` or `bf16`)."""
        ...

    def encode(self, waveforms: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]) -> Encoded:
        """Encode float32 `(batch, samples)` at `info.sample_rate`, zero beyond `lengths` `(batch,)` samples.

        The batch is as wide as its longest clip, or as `info.min_s` if that is longer. Both are on the device, except
        `info.host_inputs`. `layers` are indices into `info.layers`. Called under `torch.inference_mode`.
        """
        ...


@dataclass(frozen=True, slots=True)
class Head:
    """The map from a clip's pooled vectors to the space of its texts: linear maps, rectified between them.

    `weights` are float32 `(out, in)` and `biases` `(out,)`, one for each linear map.
    """

    weights: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...]

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Return float32 `(n, out)` of `(n, in)`."""
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            vectors = (vectors.clip(min=0) if index else vectors) @ weight.T + bias
        return vectors


@dataclass(frozen=True, slots=True)
class TextTower:
    """The text side of an encoder: texts as vectors in a space that they share with clips.

    A clip's vector there is `head` of its vector in `layer` under `pooling`. An encoder that has a text tower offers it
    as `text_tower()`, which raises EncoderError if its files are not complete; one of the user defines `encode_text`.
    """

    embed: Callable[[Sequence[str], str], np.ndarray]  # (texts, device) -> float32 (n, dim), not scaled to length 1
    head: Callable[[], Head | None]  # read when it is needed; None: the vectors are in the space already
    identity: Mapping[str, Any]  # what changes a text's vector, beyond the encoder's own identity
    layer: str
    pooling: str = "mean"


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One row of `uwbench models`."""

    name: str
    family: str
    hub_id: str | None
    parameters: int | None
    sample_rate: int
    context_s: float | None
    hop_s: float | None  # None: unknown
    layers: int  # 0: unknown
    licence: str
    training_data: str
    verified: Verified = "random"
    code: str | None = None  # the class of another package or of the repository that runs it; None: transformers'
    revision: str | None = None  # of the hub's repository; no commit of those that were not run is known here
    package: str | None = None  # what pip installs in an environment of its own, separated by spaces
    wrapper: str | None = None  # `FILE.py:Class` of `uwbench/encoders/wrappers` that runs the package
    weights: str | None = None  # what `--weights` takes and where it is published; None: found by itself
    needs: str | None = None  # what a user has to do, as it does not run by its name
    texts: bool = False  # it embeds texts too, as zero-shot asks


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A checkpoint folder in Hugging Face format; `config` is its parsed config.json."""

    path: Path
    config: Mapping[str, Any]
    revision: str | None
    name: str  # the model's name in results
