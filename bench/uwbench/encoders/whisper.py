"""Whisper's encoder, and every encoder of its shape (Distil-Whisper, UniWhisper).

`full` context is the model as it was trained: the clip in 30 s of silence, all 1,500 positions computed. `trimmed`
computes the positions of the clip alone, with what lies beyond them masked; it is another encoder with another
fingerprint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uwbench.encoders.base import Encoded, Encoder, EncoderInfo, ModelFolder, ModelSpec
from uwbench.encoders.checkpoint import (
    count_parameters,
    files_under,
    fill,
    identity_of,
    read_tensors,
    torch_dtype,
    training_data_of,
)
from uwbench.encoders.mel import slaney_filters
from uwbench.errors import EncoderError, UsageError

if TYPE_CHECKING:
    import torch

RATE = 16_000
_FFT = 400
_HOP = 160
_STRIDE = 320  # samples a position: a mel frame each 160, halved by the second convolution
_PREFIXES = ("model.encoder.", "encoder.", "")
_TOWERS = ("model.audio_tower.", "audio_tower.", "")


class WhisperEncoder:
    """Layers "0" (convolutions and positions) to "n" (after the final norm), as `hidden_states` of transformers."""

    def __init__(
        self, folder: ModelFolder, spec: ModelSpec, *, family: str = "whisper", tower: Mapping[str, Any] | None = None
    ) -> None:
        """With `tower`, its configuration, the encoder of an audio language model: keys masked beyond the clip as in
        its training, and pairs of positions averaged before the last norm (here in every layer, that all have one
        rate).
        """
        config = tower or folder.config
        self._folder = folder
        self._config = config
        self._prefixes = _TOWERS if tower else _PREFIXES
        self._positions = int(config["max_source_positions"])
        self._trimmed = tower is not None or spec.context == "trimmed"
        self._pairs = tower is not None
        self._model: Any = None
        context_s = self._positions * _STRIDE / RATE
        self.info = EncoderInfo(
            name=folder.name,
            family=family,
            sample_rate=RATE,
            dim=int(config["d_model"]),
            layers=tuple(str(index) for index in range(int(config["encoder_layers"]) + 1)),
            hop_s=_STRIDE / RATE * (2 if tower else 1),
            context_s=context_s,
            min_s=2 * _STRIDE / RATE if tower else 0.0,
            forward_s=0.0 if self._trimmed else context_s,
            context=None if tower else spec.context,
            parameters=count_parameters(folder, self._prefixes),
            revision=folder.revision,
            training_data=training_data_of(folder),
            identity={
                "family": "whisper tower" if tower else "whisper",
                "version": 1,
                **({} if tower else {"context": spec.context}),
                **identity_of(folder, files=files_under(folder, self._prefixes)),
            },
        )

    def load(self, device: str, dtype: str) -> None:
        """Read the encoder's weights, and no others, and put them on `device`."""
        import torch
        from transformers import WhisperConfig
        from transformers.models.whisper.modeling_whisper import WhisperEncoder as Model

        kind = torch_dtype(dtype)
        config = WhisperConfig(**{key: value for key, value in self._config.items() if key != "model_type"})
        with torch.device("meta"):
            model: Any = Model(config)
        fill(model, read_tensors(self._folder, self._prefixes), self._folder)
        self._model = model.to(device, kind).eval()
        filters = slaney_filters(_FFT, int(self._config["num_mel_bins"]), RATE)
        self._filters = torch.from_numpy(filters).to(device, torch.float32)
        self._window = torch.hann_window(_FFT, device=device)

    def encode(self, waveforms: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]) -> Encoded:
        """Return the wanted layers over 1,500 positions, or over those of the longest clip where trimmed."""
        import torch

        if self._model is None:
            raise EncoderError("encode was called before load", where=self.info.name)
        valid = ((lengths + _STRIDE - 1) // _STRIDE).clamp(2 if self._pairs else 1, self._positions)
        mel = self.log_mel(waveforms).to(self._model.dtype)
        hidden = torch.nn.functional.gelu(self._model.conv1(mel))
        hidden = torch.nn.functional.gelu(self._model.conv2(hidden)).transpose(1, 2)
        mask = None
        if self._trimmed:
            # The convolutions saw the silence after the clip, as they do in 30 s; attention does not.
            # The longest clip's positions follow from the width: to read `valid` back would stall a device.
            longest = -(-waveforms.shape[1] // _STRIDE)
            hidden = hidden[:, : min(max(longest, 2 if self._pairs else 1), self._positions)]
            inside = torch.arange(hidden.shape[1], device=hidden.device) < valid[:, None]
            whole = hidden.device.type == "cpu" and bool(inside.all())
            mask = None if whole else inside[:, None, None, :]
        hidden = hidden + self._model.embed_positions.weight[: hidden.shape[1]]
        kept = {0: hidden}
        last = len(self._model.layers)
        for index, layer in enumerate(self._model.layers[: max(layers)], start=1):
            hidden = layer(hidden, mask)
            if index in layers:
                kept[index] = hidden
        if self._pairs:
            kept = {index: _paired(states) for index, states in kept.items()}
            valid = valid // 2
        if last in kept:
            kept[last] = self._model.layer_norm(kept[last])
        return Encoded(torch.stack([kept[index] for index in layers], dim=1), valid)

    def log_mel(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Return Whisper's input `(batch, mels, frames)` for float32 `(batch, samples)`, zero beyond each clip.

        Equal to transformers' WhisperFeatureExtractor on 30 s, of which only the part with sound is computed: silence
        is a constant of each clip, its maximum less 8 (in log10 of power) or the floor. Trimmed, frames far beyond the
        longest clip are left out.
        """
        import torch

        width, whole = waveforms.shape[1], self._positions * _STRIDE
        if width > whole:
            raise EncoderError(f"takes at most {whole} samples, and was given {width}", where=self.info.name)
        # 400 zeros after the clip keep the mirror that torch.stft puts at the end out of every frame with sound.
        padded = min(whole, -(-(width + _FFT) // _STRIDE) * _STRIDE)
        waveforms = torch.nn.functional.pad(waveforms, (0, padded - width))
        spectrum = torch.stft(waveforms, _FFT, _HOP, window=self._window, return_complex=True)[..., :-1]
        mel = (self._filters @ spectrum.abs().square()).clamp(min=1e-10).log10()
        if not self._trimmed:
            mel = torch.nn.functional.pad(mel, (0, (whole - padded) // _HOP), value=-10.0)
        mel = torch.maximum(mel, mel.amax((1, 2), keepdim=True) - 8.0)
        return (mel + 4.0) / 4.0


def _paired(states: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.nn.functional.avg_pool1d(states.transpose(1, 2), 2, 2).transpose(1, 2)


def open_whisper(folder: ModelFolder, spec: ModelSpec) -> Encoder:
    """Return the encoder of a Whisper checkpoint."""
    return WhisperEncoder(folder, spec)


def open_uniwhisper(spec: ModelSpec) -> Encoder:
    """Return the encoder that `uniwhisper export` wrote, from the folder or hub id `--weights`."""
    from uwbench.encoders.resolve import find_checkpoint

    if spec.weights is None:
        remedy = (
            "pass --weights DIR with the folder that `uniwhisper export` wrote, or a hub id; "
            "`uniwhisper train` makes one, as no public weights are known"
        )
        raise UsageError("uniwhisper ships without weights", where=f"-m {spec.name}", remedy=remedy)
    folder = find_checkpoint(spec.weights, spec, name="uniwhisper")
    kind = folder.config.get("model_type")
    if kind != "whisper":
        raise EncoderError(f"holds a {kind} model, not one of Whisper's shape", where=Path(folder.path, "config.json"))
    return WhisperEncoder(folder, spec, family="uniwhisper")
