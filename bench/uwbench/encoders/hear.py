"""HEAR modules (`load_model`, `get_timestamp_embeddings`, `get_scene_embeddings`), unchanged.

https://hearbenchmark.com/hear-api.html: audio `(sounds, samples)` of one length at `model.sample_rate`; embeddings
`(sounds, frames, dim)` with the centre of each frame in milliseconds.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uwbench.base.hashing import sha256_file
from uwbench.encoders.base import Encoded, Encoder, EncoderInfo, ModelSpec
from uwbench.encoders.checkpoint import torch_dtype
from uwbench.encoders.from_file import names_the_line
from uwbench.encoders.own_code import package_sources, state_sha256, training_data_in, weights_identity
from uwbench.errors import EncoderError, UsageError

if TYPE_CHECKING:
    import torch

_FUNCTIONS = ("load_model", "get_timestamp_embeddings", "get_scene_embeddings")
_NOISE_S = 3


def open_hear(spec: ModelSpec) -> Encoder:
    """Return the encoder `hear:MODULE`, with weights from the file `--weights` if given."""
    name = spec.name.removeprefix("hear:")
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        remedy = "install the package that provides it"
        raise UsageError(f"cannot be imported ({error})", where=f"-m {spec.name}", remedy=remedy) from error
    missing = [part for part in _FUNCTIONS if not hasattr(module, part)]
    if missing:
        raise UsageError(f"is no HEAR module: it lacks {', '.join(missing)}", where=f"-m {spec.name}")
    with names_the_line(Path(str(module.__file__))):
        return HearEncoder(module, spec)


class HearEncoder:
    """A HEAR module: timestamp embeddings as frames, and a layer "scene" if scene embeddings have the same width."""

    def __init__(self, module: Any, spec: ModelSpec) -> None:
        weights = spec.weights
        self._module = module
        self._model = module.load_model(weights) if weights else module.load_model()
        rate = int(self._model.sample_rate)
        dim = int(self._model.timestamp_embedding_size)
        has_scene = int(self._model.scene_embedding_size) == dim
        self._scene = 0 if has_scene else None
        sources = package_sources(module.__name__, Path(module.__file__))
        self.info = EncoderInfo(
            name=spec.name,
            family="hear",
            sample_rate=rate,
            dim=dim,
            layers=("scene", "timestamp") if has_scene else ("timestamp",),
            hop_s=self._hop(rate),
            context_s=None,
            min_s=0.1,
            # The interface takes clips of one length only.
            batching="equal-length",
            training_data=training_data_in(getattr(module, "training_data", None), spec.name),
            identity={
                "family": "hear",
                "version": 1,
                "module": module.__name__,
                "sources": {name: sha256_file(file) for name, file in sorted(sources.items())},
                "package": _version(module.__name__),
                "weights": weights_identity(weights),
                "tensors": state_sha256(self._model),
            },
            runs_own_code=True,
        )

    def _hop(self, rate: int) -> float:
        import torch

        noise = 0.1 * torch.randn(1, _NOISE_S * rate, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            _, times = self._module.get_timestamp_embeddings(noise, self._model)
        if times.shape[-1] < 2:
            raise EncoderError("returns one timestamp for three seconds", where=self._module.__name__)
        return float((times[0, -1] - times[0, 0]) / (times.shape[-1] - 1)) / 1000

    def load(self, device: str, dtype: str) -> None:
        """Move the model to `device`; float32 only."""
        import torch

        if torch_dtype(dtype) != torch.float32:
            raise EncoderError("runs in fp32 only", where=self.info.name, remedy="drop --dtype")
        if isinstance(self._model, torch.nn.Module):
            self._model.to(device).eval()

    def encode(self, waveforms: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]) -> Encoded:
        """Return the timestamp embeddings, and the scene embedding repeated at every frame."""
        import torch

        frames, _ = self._module.get_timestamp_embeddings(waveforms, self._model)
        states = [frames] * len(layers)
        if self._scene in layers:
            scene = self._module.get_scene_embeddings(waveforms, self._model).unsqueeze(1).expand_as(frames)
            states = [scene if layer == self._scene else frames for layer in layers]
        return Encoded(torch.stack(states, dim=1), torch.full_like(lengths, frames.shape[1]))


def _version(module: str) -> str | None:
    for package in importlib.metadata.packages_distributions().get(module.partition(".")[0], ()):
        return f"{package} {importlib.metadata.version(package)}"
    return None
