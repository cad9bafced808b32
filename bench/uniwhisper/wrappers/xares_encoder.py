"""An X-ARES encoder with the weights of this folder: `python -m xares.run FOLDER/xares_encoder.py TASKS`."""

from __future__ import annotations

from pathlib import Path

import torch

from uniwhisper.wrappers.frames import WhisperFrames


class UniWhisperEncoder(WhisperFrames):
    """Waveforms `(clips, samples)` at 16 kHz to frames `(clips, frames, dim)`."""

    def __init__(self) -> None:
        super().__init__(Path(__file__).parent)

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        """Return the frames."""
        return self.frames(audio)
