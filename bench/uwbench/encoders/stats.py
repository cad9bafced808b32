"""Encoders without weights: log-mel spectra and cepstra, the baseline of every comparison."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from uwbench.encoders.base import Encoded, Encoder, EncoderInfo, ModelSpec
from uwbench.encoders.checkpoint import torch_dtype
from uwbench.encoders.mel import slaney_filters
from uwbench.errors import EncoderError

if TYPE_CHECKING:
    import torch

_RATE = 16_000
_HOP = 160  # 10 ms
_WINDOW = 400  # 25 ms
_FFT = 512
_MELS = 64
_FLOOR = 1e-10  # power; log10 of silence is -10, as in Whisper
_CEPSTRA = 20
_REACH = 4  # frames on each side in the regression of deltas, 9 in total as in librosa


class SpectralEncoder:
    """Log-mel frames `(64,)`, or 20 cepstra with first and second deltas `(60,)`, every 10 ms.

    Each frame is centred at `(t + 0.5) * 10 ms`, with zeros outside the clip; a clip has `ceil(samples / 160)` frames.
    """

    def __init__(self, name: str, dim: int, *, cepstra: bool) -> None:
        self._cepstra = cepstra
        self._tables: dict[str, torch.Tensor] = {}
        self.info = EncoderInfo(
            name=name,
            family=name,
            sample_rate=_RATE,
            dim=dim,
            layers=(name,),
            hop_s=_HOP / _RATE,
            context_s=None,
            parameters=0,
            licence="Apache-2.0",
            training_data=(),
            identity={"family": name, "version": 1},
        )

    def load(self, device: str, dtype: str) -> None:
        """Compute the filters; the spectra are always float32."""
        import torch

        torch_dtype(dtype)  # refuses an unknown precision
        tables = {"filters": torch.from_numpy(slaney_filters(_FFT, _MELS, _RATE)), "window": torch.hann_window(_WINDOW)}
        if self._cepstra:
            tables["cosines"] = _cosines(_MELS, _CEPSTRA)
        self._tables = {key: table.to(device, torch.float32) for key, table in tables.items()}

    def encode(self, waveforms: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]) -> Encoded:
        """Return the frames once per entry of `layers`, each of which is 0."""
        if not self._tables:
            raise EncoderError("encode was called before load", where=self.info.name)
        valid = (lengths + _HOP - 1) // _HOP
        frames = self._log_mel(waveforms)
        if self._cepstra:
            frames = frames @ self._tables["cosines"]
            first = _deltas(frames, valid)
            frames = _concatenate(frames, first, _deltas(first, valid))
        return Encoded(frames.unsqueeze(1).expand(-1, len(layers), -1, -1), valid)

    def _log_mel(self, waveforms: torch.Tensor) -> torch.Tensor:
        import torch

        count = -(-waveforms.shape[1] // _HOP)
        before = (_WINDOW - _HOP) // 2
        after = (count - 1) * _HOP + _WINDOW - before - waveforms.shape[1]
        windows = torch.nn.functional.pad(waveforms, (before, after)).unfold(1, _WINDOW, _HOP)
        power = torch.fft.rfft(windows * self._tables["window"], _FFT).abs().square()
        return (power @ self._tables["filters"].T).clamp(min=_FLOOR).log10()


def open_logmel(spec: ModelSpec) -> Encoder:
    """Return the encoder `logmel`."""
    return SpectralEncoder(spec.name, _MELS, cepstra=False)


def open_mfcc(spec: ModelSpec) -> Encoder:
    """Return the encoder `mfcc`."""
    return SpectralEncoder(spec.name, 3 * _CEPSTRA, cepstra=True)


def _cosines(inputs: int, outputs: int) -> torch.Tensor:
    """Return the orthonormal DCT-II as a matrix `(inputs, outputs)`, float64."""
    import torch

    places = (torch.arange(inputs, dtype=torch.float64) + 0.5) * math.pi / inputs
    table = torch.cos(places[:, None] * torch.arange(outputs, dtype=torch.float64)) * math.sqrt(2.0 / inputs)
    table[:, 0] /= math.sqrt(2.0)
    return table


def _deltas(frames: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Return the least-squares slope of each coefficient over 9 frames, repeating the frames at a clip's ends."""
    import torch

    steps = torch.arange(frames.shape[1], device=frames.device)
    slope = torch.zeros_like(frames)
    for shift in range(1, _REACH + 1):
        for sign in (1, -1):
            places = torch.minimum((steps + sign * shift).clamp(min=0), valid[:, None] - 1)
            slope += sign * shift * frames.gather(1, places[:, :, None].expand_as(frames))
    return slope / (2 * sum(shift * shift for shift in range(1, _REACH + 1)))


def _concatenate(*parts: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.cat(parts, dim=-1)
