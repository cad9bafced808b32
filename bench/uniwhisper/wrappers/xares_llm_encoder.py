"""An encoder for XARES-LLM with the weights of this folder."""

from __future__ import annotations

from pathlib import Path

import torch

from uniwhisper.wrappers.frames import FRAME, WhisperFrames


class UniWhisperEncoder(WhisperFrames):
    """Padded waveforms at 16 kHz and their mask to frames and theirs."""

    def __init__(self) -> None:
        super().__init__(Path(__file__).parent)

    def forward(
        self, audio: torch.Tensor, audio_attention_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the frames `(clips, frames, dim)` and which are of a clip `(clips, frames)`."""
        frames = self.frames(audio)
        samples = torch.full((len(frames),), audio.shape[-1])
        lengths = samples if audio_attention_mask is None else audio_attention_mask.sum(-1).cpu()
        valid = torch.arange(frames.shape[1])[None] < -(-lengths[:, None] // FRAME)
        return frames, valid.long().to(frames.device)
