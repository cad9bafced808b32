"""Ready vectors as a model: one vector per clip, or one per layer, computed elsewhere and imported into the cache.

So closed services and models in other languages take part. `uwbench.extraction.imported` matches them to clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from uwbench.encoders.base import IMPORTED, Encoded, EncoderInfo, ModelSpec
from uwbench.encoders.vector_files import VectorFile, read_vectors
from uwbench.errors import EncoderError

if TYPE_CHECKING:
    import torch


def open_vectors(spec: ModelSpec) -> ReadyVectors:
    """Return the model of a file or folder of vectors; raise InputError naming the row if it is malformed."""
    return ReadyVectors(read_vectors(Path(spec.name).expanduser()))


class ReadyVectors:
    """A model that was run elsewhere. It has vectors and no frames, rate or hop, and encodes nothing."""

    def __init__(self, file: VectorFile) -> None:
        self.file = file
        self.info = EncoderInfo(
            name=file.path.resolve().name,
            family=IMPORTED,
            sample_rate=0,
            dim=file.vectors.shape[2],
            layers=file.layers,
            hop_s=0.0,
            context_s=None,
            identity={"family": IMPORTED, "version": 1, "vectors": file.sha256()},
        )

    def load(self, device: str, dtype: str) -> None:
        del device, dtype
        raise EncoderError("holds ready vectors, and no weights", where=self.info.name)

    def encode(self, waveforms: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]) -> Encoded:
        del waveforms, lengths, layers
        raise EncoderError("holds ready vectors and encodes nothing", where=self.info.name)
