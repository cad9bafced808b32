"""The frames of a Whisper-shaped encoder, for the wrappers that an export carries.

Everything here is copied into each wrapper's file: it imports torch and transformers alone.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import WhisperFeatureExtractor

WINDOW = 480_000  # samples: 30 s
FRAME = 320  # samples: 20 ms


class WhisperFrames(torch.nn.Module):
    """The frames of waveforms at 16 kHz; the weights are those of the folder."""

    sampling_rate = 16_000
    hop_size_in_ms = 20

    def __init__(self, folder: Path) -> None:
        super().__init__()
        # Here, because X-ARES takes a module's only name that ends with Encoder.
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        self._extractor = WhisperFeatureExtractor.from_pretrained(folder)
        self.model = WhisperEncoder.from_pretrained(folder, dtype=torch.float32).eval()
        self.output_dim: int = self.model.config.d_model

    @torch.no_grad()
    def frames(self, audio: torch.Tensor) -> torch.Tensor:
        """Return the last layer's frames `(clips, ceil(samples / 320), dim)` of `(clips, samples)`.

        Silence fills the encoder's window of 30 s, and the frames of silence are left out. Longer clips are cut into
        windows.
        """
        if audio.ndim == 1:
            audio = audio[None]
        parts = []
        for start in range(0, audio.shape[1], WINDOW):
            part = audio[:, start : start + WINDOW]
            clips = list(part.detach().cpu().float().numpy())
            mel = self._extractor(clips, sampling_rate=self.sampling_rate, return_tensors="pt").input_features
            hidden = self.model(mel.to(next(self.model.parameters()).device)).last_hidden_state
            parts.append(hidden[:, : -(-part.shape[1] // FRAME)])
        return torch.cat(parts, dim=1)
