"""The bridge from encoder frames to the language model's embeddings."""

from __future__ import annotations

import torch
from torch import nn


class Adapter(nn.Module):
    """Stacks frames and maps them (LayerNorm, linear, GELU, linear, RMSNorm), and adds marks around the audio.

    Without `deep`, the first linear layer is the only one. With a stack of 4 the encoder's 50 Hz become 12.5 Hz.
    `scale` is the root mean square of the language model's embeddings, which audio tokens then start at. The marks live
    here, so the language model stays the stock one.
    """

    def __init__(self, width: int, dim: int, stack: int, scale: float, *, deep: bool = True) -> None:
        super().__init__()
        self.stack = stack
        self.norm_in = nn.LayerNorm(stack * width)
        self.up = nn.Linear(stack * width, dim)
        self.down = nn.Linear(dim, dim) if deep else None
        self.norm_out = nn.RMSNorm(dim, eps=1e-6)
        self.bos = nn.Parameter(torch.empty(dim))
        self.eos = nn.Parameter(torch.empty(dim))
        if not self.bos.is_meta:
            nn.init.normal_(self.bos, std=scale)
            nn.init.normal_(self.eos, std=scale)
            nn.init.constant_(self.norm_out.weight, scale)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Map `(clips, frames, width)` to `(clips, ceil(frames / stack), dim)`."""
        clips, count, width = frames.shape
        frames = nn.functional.pad(frames, (0, 0, 0, -count % self.stack))
        stacked = self.norm_in(frames.reshape(clips, -1, self.stack * width))
        mapped = self.up(stacked)
        if self.down is not None:
            mapped = self.down(nn.functional.gelu(mapped))
        return self.norm_out(mapped)

    def spans(self, frames: torch.Tensor, tokens: torch.Tensor) -> list[torch.Tensor]:
        """Return each clip's embeddings `(tokens + 2, dim)`: its tokens between the marks, without padding."""
        mapped = self(frames)
        bos, eos = (mark.to(mapped.dtype)[None] for mark in (self.bos, self.eos))
        return [torch.cat([bos, clip[:count], eos]) for clip, count in zip(mapped, tokens.tolist(), strict=True)]
