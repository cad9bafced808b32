"""An mteb model with the weights of this folder: `mteb.evaluate(UniWhisper(), tasks)`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mteb.models.abs_encoder import AbsEncoder  # pyright: ignore[reportMissingImports]
from mteb.models.modality_collators import AudioCollator  # pyright: ignore[reportMissingImports]
from mteb.models.model_meta import ModelMeta  # pyright: ignore[reportMissingImports]

from uniwhisper.wrappers.frames import WhisperFrames


class UniWhisper(AbsEncoder):
    """Clips to the mean of their frames, each at its own length."""

    def __init__(self, device: str | None = None) -> None:
        folder = Path(__file__).parent
        self.model = WhisperFrames(folder).to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.mteb_model_meta = ModelMeta.create_empty(
            {"name": f"uniwhisper/{folder.resolve().name}", "revision": "export", "modalities": ["audio"]}
        )

    def encode(self, inputs: Any, **_: Any) -> np.ndarray:
        """Return the embeddings `(clips, dim)` of a data loader of audio; mteb's other arguments change nothing."""
        inputs.collate_fn = AudioCollator(target_sampling_rate=self.model.sampling_rate)
        vectors = []
        for batch in inputs:
            for clip in batch["audio"]:
                samples = torch.as_tensor(np.asarray(clip["array"], dtype=np.float32))
                vectors.append(self.model.frames(samples)[0].mean(dim=0).cpu().numpy())
        return np.stack(vectors)
