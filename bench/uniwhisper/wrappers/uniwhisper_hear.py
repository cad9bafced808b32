"""A HEAR module with the weights of this folder: `load_model`, `get_timestamp_embeddings`, `get_scene_embeddings`."""

from __future__ import annotations

from pathlib import Path

import torch

from uniwhisper.wrappers.frames import WhisperFrames


class UniWhisper(WhisperFrames):
    """The model that the functions of this module take."""

    sample_rate = 16_000

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.scene_embedding_size = self.timestamp_embedding_size = self.output_dim


def load_model(model_file_path: str = "") -> UniWhisper:
    """Return the model of this folder, or of the export `model_file_path`."""
    return UniWhisper(Path(model_file_path) if model_file_path else Path(__file__).parent)


def get_timestamp_embeddings(audio: torch.Tensor, model: UniWhisper) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the frames `(sounds, frames, dim)` of `(sounds, samples)`, and their centres in ms `(sounds, frames)`."""
    frames = model.frames(audio)
    centres = (torch.arange(frames.shape[1], device=frames.device) + 0.5) * model.hop_size_in_ms
    return frames, centres.expand(len(frames), -1)


def get_scene_embeddings(audio: torch.Tensor, model: UniWhisper) -> torch.Tensor:
    """Return the mean of a sound's frames `(sounds, dim)`."""
    return model.frames(audio).mean(dim=1)
