"""Kaldi's filter banks on the device: the input of the Audio Spectrogram Transformer and wav2vec2-BERT.

Transformers makes them on the CPU, clip by clip and frame by frame in Python, more slowly than a GPU encodes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from uwbench.base.device import send

if TYPE_CHECKING:
    import torch

WINDOW, HOP = 400, 160  # samples: 25 and 10 ms at 16 kHz, at which both families were trained
_FFT = 512
_PREEMPHASIS = 0.97
_FLOOR = 1.192092955078125e-07  # of a band's power: the spacing of float32 numbers at 1, as in Kaldi
_LOW_HZ = 20
_CLIPS = 8  # at a time: 0.2 GB for clips of 10 s


class FilterBanks:
    """Log mel filter banks as transformers' extractors make them where torchaudio is not installed."""

    def __init__(self, bands: int, window: Literal["hann", "povey"], rate: int, *, scale: float = 1.0) -> None:
        """`scale` multiplies samples within -1 and 1; 2**15 for models trained on 16-bit integers."""
        from transformers.audio_utils import mel_filter_bank, window_function

        self._filters = mel_filter_bank(
            num_frequency_bins=_FFT // 2 + 1,
            num_mel_filters=bands,
            min_frequency=_LOW_HZ,
            max_frequency=rate // 2,
            sampling_rate=rate,
            norm=None,
            mel_scale="kaldi",
            triangularize_in_mel_space=True,
        )
        self._window = window_function(WINDOW, window, periodic=False)
        self._scale = scale
        self._on: dict[torch.device, tuple[torch.Tensor, torch.Tensor]] = {}

    def __call__(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Return `(batch, frames, bands)` for `(batch, samples)` of at least 400 samples, on the same device.

        Frames have 400 samples, 160 apart, and none reaches beyond the batch. float64, as the power of a quiet band
        next to a loud one is below the rounding of float32; float32 on MPS, which has no float64.
        """
        import torch

        window, filters = self._constants(waveforms.device)
        banks = []
        for part in waveforms.split(_CLIPS):
            frames = (part.to(window.dtype) * self._scale).unfold(1, WINDOW, HOP)
            frames = frames - frames.mean(2, keepdim=True)
            # The sample before a frame's first one is taken to be equal to it.
            before = torch.cat([frames[:, :, :1], frames[:, :, :-1]], dim=2)
            spectrum = torch.fft.rfft((frames - _PREEMPHASIS * before) * window, _FFT)
            power = spectrum.real.square() + spectrum.imag.square()  # faster than abs()
            banks.append((power @ filters).clamp(min=_FLOOR).log())
        return torch.cat(banks)

    def _constants(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the window and the filters on `device`, copied there once."""
        import torch

        if device not in self._on:
            dtype = torch.float32 if device.type == "mps" else torch.float64
            window, filters = torch.from_numpy(self._window).to(dtype), torch.from_numpy(self._filters).to(dtype)
            self._on[device] = send(window, device), send(filters, device)
        return self._on[device]


def count_frames(lengths: torch.Tensor) -> torch.Tensor:
    """Return the frames of clips of `lengths` samples, at least 400 each."""
    return (lengths - WINDOW) // HOP + 1
