"""Whisper's encoder as an X-ARES encoder file: the checkpoint in WHISPER_FOLDER, its own feature extractor, 30 s."""

from __future__ import annotations

import os

import torch
from transformers import WhisperFeatureExtractor, WhisperModel


class LocalWhisperEncoder(torch.nn.Module):
    """Waveforms `(batch, samples)` at 16 kHz to frames `(batch, 1500, dim)`."""

    sampling_rate = 16_000
    hop_size_in_ms = 20

    def __init__(self) -> None:
        super().__init__()
        folder = os.environ["WHISPER_FOLDER"]
        self.extractor = WhisperFeatureExtractor.from_pretrained(folder)
        self.model = WhisperModel.from_pretrained(folder).encoder
        self.output_dim = self.model.config.d_model

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        """Return the last layer's frames."""
        clips = list(audio.reshape(-1, audio.shape[-1]).cpu().numpy())
        inputs = self.extractor(clips, sampling_rate=self.sampling_rate, return_tensors="pt")
        return self.model(inputs.input_features).last_hidden_state
