"""Whisper's encoder and every encoder of its shape (Distil-Whisper, UniWhisper).

With `full` context the model runs as it was trained: clips are padded to 30 s and all 1,500 positions are computed.
With `trimmed` only the positions of the clip are computed and the rest is masked; this counts as a different encoder,
with its own fingerprint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uwbench.base.device import send
from uwbench.encoders.base import Encoded, Encoder, EncoderInfo, ModelFolder, ModelSpec
from uwbench.encoders.checkpoint import (
    count_parameters,
    extractor_settings,
    files_under,
    fill,
    identity_of,
    read_tensors,
    torch_dtype,
    training_data_of,
)
from uwbench.encoders.mel import slaney_filters
from uwbench.encoders.pretrained import default_notes, input_deviation
from uwbench.errors import EncoderError, UsageError

if TYPE_CHECKING:
    import numpy as np
    import torch

_EXTRACTOR = "WhisperFeatureExtractor"
_EXTRACTORS = (_EXTRACTOR, "MossTranscribeDiarizeFeatureExtractor")  # which differ after 30 s alone
_DEFAULTS = {"sampling_rate": 16_000, "n_fft": 400, "hop_length": 160, "chunk_length": 30}
_TOP_HZ = 8000.0  # of the highest mel band, at any rate
_LEADS = ("model.", "")  # of a training framework, before an encoder that was saved alone
_PREFIXES = ("model.encoder.", "encoder.", "model.model.encoder.", *_LEADS)
_TOWERS = ("model.audio_tower.", "audio_tower.", "model.model.audio_tower.", *_LEADS)


class WhisperEncoder:
    """Whisper's encoder; layers "0" (convolutions and positions) to "n" (after the final norm) as in transformers."""

    def __init__(
        self,
        folder: ModelFolder,
        spec: ModelSpec,
        *,
        family: str = "whisper",
        tower: Mapping[str, Any] | None = None,
        pairs: bool = False,
    ) -> None:
        """Describe the encoder of `folder`, or the audio tower of a language model whose configuration is `tower`.

        A tower with `pairs` masks attention beyond the clip as in its training, and averages pairs of positions before
        the last norm. Here every layer is averaged, so that all layers have the same rate.
        """
        config = tower or folder.config
        self._folder = folder
        self._config = config
        self._prefixes = _TOWERS if tower else _PREFIXES
        self._positions = int(config["max_source_positions"])
        settings = extractor_settings(folder) or {}
        self._rate, self._fft, self._hop, chunk = (int(settings.get(name) or _DEFAULTS[name]) for name in _DEFAULTS)
        self._stride = 2 * self._hop  # samples per position: the second convolution halves the mel frames
        if settings:
            _require_fit(folder, settings, config, None if pairs else chunk * self._rate // self._stride)
        self._trimmed = pairs or spec.context == "trimmed"
        self._pairs = pairs
        self._model: Any = None
        context_s = self._positions * self._stride / self._rate
        self.info = EncoderInfo(
            name=folder.name,
            family=family,
            sample_rate=self._rate,
            dim=int(config["d_model"]),
            layers=tuple(str(index) for index in range(int(config["encoder_layers"]) + 1)),
            hop_s=self._stride / self._rate * (2 if pairs else 1),
            context_s=context_s,
            min_s=2 * self._stride / self._rate if pairs else 0.0,
            forward_s=0.0 if self._trimmed else context_s,
            host_inputs=("lengths",),
            context=None if pairs else spec.context,
            parameters=count_parameters(folder, self._prefixes),
            revision=folder.revision,
            training_data=training_data_of(folder),
            notes=default_notes(folder, "Whisper's own 16,000 Hz and log-mel settings"),
            identity={
                "family": "whisper tower" if pairs else "whisper",
                "version": 1,
                **({} if pairs else {"context": spec.context}),
                **identity_of(folder, files=files_under(folder, self._prefixes)),
            },
        )

    def load(self, device: str, dtype: str) -> None:
        """Read the encoder's weights alone and put them on `device`."""
        import torch
        from transformers import WhisperConfig
        from transformers.models.whisper.modeling_whisper import WhisperEncoder as Model

        precision = torch_dtype(dtype)
        config = WhisperConfig(**{key: value for key, value in self._config.items() if key != "model_type"})
        with torch.device("meta"):
            model: Any = Model(config)
        fill(model, read_tensors(self._folder, self._prefixes), self._folder)
        self._model = model.to(device, precision).eval()
        filters = slaney_filters(self._fft, int(self._config["num_mel_bins"]), self._rate, top=_TOP_HZ)
        self._filters = torch.from_numpy(filters).to(device, torch.float32)
        self._window = torch.hann_window(self._fft, device=device)

    def encode(self, waveforms: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]) -> Encoded:
        """Return the requested layers over 1,500 positions, or over those of the longest clip if trimmed."""
        import torch

        if self._model is None:
            raise EncoderError("encode was called before load", where=self.info.name)
        valid = (-(-lengths // self._stride)).clamp(2 if self._pairs else 1, self._positions)
        mel = self.log_mel(waveforms).to(self._model.dtype)
        hidden = torch.nn.functional.gelu(self._model.conv1(mel))
        hidden = torch.nn.functional.gelu(self._model.conv2(hidden)).transpose(1, 2)
        mask = None
        if self._trimmed:
            # The convolutions see the silence after the clip, as in 30 s of audio; attention does not. Clips with as
            # many positions as the longest need no mask, with which attention could not take its flash kernel.
            count = int(valid.max())
            hidden = hidden[:, :count]
            if int(valid.min()) < count:
                inside = torch.arange(count, device=hidden.device) < send(valid, hidden.device)[:, None]
                mask = inside[:, None, None, :]
        hidden = hidden + self._model.embed_positions.weight[: hidden.shape[1]]
        outputs = {0: hidden}
        last = len(self._model.layers)
        for index, layer in enumerate(self._model.layers[: max(layers)], start=1):
            hidden = layer(hidden, mask)
            if index in layers:
                outputs[index] = hidden
        if self._pairs:
            outputs = {index: _average_pairs(states) for index, states in outputs.items()}
            valid = valid // 2
        if last in outputs:
            outputs[last] = self._model.layer_norm(outputs[last])
        return Encoded(torch.stack([outputs[index] for index in layers], dim=1), valid)

    def input_deviation(self, clips: Sequence[np.ndarray]) -> float:
        """Return the largest relative difference between `log_mel` and the checkpoint's own extractor on `clips`."""
        return input_deviation(
            self._folder, lambda waveforms: self.log_mel(waveforms.to(self._window.device)).cpu(), clips
        )

    def log_mel(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Return Whisper's input `(batch, mels, frames)` for float32 `(batch, samples)`, zero beyond each clip.

        Equal to transformers' WhisperFeatureExtractor on 30 s. Only the part with sound is computed: silence has one
        constant value per clip, its maximum minus 8 (in log10 of power) or the floor. If trimmed, frames far beyond the
        longest clip are left out.
        """
        import torch

        width, whole = waveforms.shape[1], self._positions * self._stride
        if width > whole:
            raise EncoderError(f"takes at most {whole} samples but got {width}", where=self.info.name)
        # Zeros of a window's length after the clip keep torch.stft's mirror padding out of every frame with sound.
        padded = min(whole, -(-(width + self._fft) // self._stride) * self._stride)
        waveforms = torch.nn.functional.pad(waveforms, (0, padded - width))
        spectrum = torch.stft(waveforms, self._fft, self._hop, window=self._window, return_complex=True)[..., :-1]
        mel = (self._filters @ spectrum.abs().square()).clamp(min=1e-10).log10()
        if not self._trimmed:
            mel = torch.nn.functional.pad(mel, (0, (whole - padded) // self._hop), value=-10.0)
        mel = torch.maximum(mel, mel.amax((1, 2), keepdim=True) - 8.0)
        return (mel + 4.0) / 4.0


def _require_fit(
    folder: ModelFolder, settings: Mapping[str, Any], config: Mapping[str, Any], positions: int | None
) -> None:
    """Raise EncoderError unless the feature extractor is Whisper's, adds no noise, and makes what the model takes."""
    kind = settings.get("feature_extractor_type", _EXTRACTOR)
    sizes = {"num_mel_bins": int(settings.get("feature_size", 80)), "max_source_positions": positions}
    wrong = [] if kind in _EXTRACTORS else [f"is a {kind}, not a {_EXTRACTOR}"]
    wrong += [
        f"makes {size} {name} and the model takes {config[name]}"
        for name, size in sizes.items()
        if size not in (None, int(config[name]))
    ]
    if settings.get("dither"):
        wrong.append("adds noise (dither), so a clip has no one embedding; set dither to 0")
    if wrong:
        raise EncoderError(f"the feature extractor {wrong[0]}", where=folder.path)


def _average_pairs(states: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.nn.functional.avg_pool1d(states.transpose(1, 2), 2, 2).transpose(1, 2)


def open_whisper(folder: ModelFolder, spec: ModelSpec) -> Encoder:
    """Return the encoder of a Whisper checkpoint."""
    return WhisperEncoder(folder, spec)


def open_uniwhisper(spec: ModelSpec) -> Encoder:
    """Return the encoder that `uniwhisper export` wrote, from the folder or hub id in `--weights`."""
    from uwbench.encoders.resolve import find_checkpoint

    if spec.weights is None:
        remedy = (
            "pass --weights DIR with the folder that `uniwhisper export` wrote, or a hub id; "
            "`uniwhisper train` makes one, as no public weights are known"
        )
        raise UsageError("uniwhisper ships without weights", where=f"-m {spec.name}", remedy=remedy)
    folder = find_checkpoint(spec.weights, spec, name="uniwhisper")
    model_type = folder.config.get("model_type")
    if model_type != "whisper":
        raise EncoderError(
            f"holds a {model_type} model, not one of Whisper's shape", where=Path(folder.path, "config.json")
        )
    return WhisperEncoder(folder, spec, family="uniwhisper")
