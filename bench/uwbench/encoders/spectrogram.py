"""Families that take a filter bank which their own feature extractor computes: AST, wav2vec2-BERT, Parakeet, CLAP.

The features are computed clip by clip on the CPU, as the checkpoint's preprocessor_config.json says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from uwbench.encoders.base import Encoded, Encoder, ModelFolder, ModelSpec
from uwbench.encoders.checkpoint import read_json
from uwbench.encoders.pretrained import PretrainedEncoder, describe, layer_names, load_extractor, load_pretrained, pick

if TYPE_CHECKING:
    import torch

_HOP = 160
_WINDOW = 400
_RATE = 16_000


def open_ast(folder: ModelFolder, _spec: ModelSpec) -> Encoder:
    """Return an Audio Spectrogram Transformer: a frame a column of patches, averaged over frequency.

    The model was trained on 10.24 s with silence at the end and sees it; its two summary tokens are left out.
    """
    config = folder.config
    patch, step = int(config.get("patch_size", 16)), int(config.get("time_stride", 10))
    columns = (int(config.get("max_length", 1024)) - patch) // step + 1
    rows = (int(config.get("num_mel_bins", 128)) - patch) // int(config.get("frequency_stride", 10)) + 1
    context = int(config.get("max_length", 1024)) * _HOP / _RATE
    info = describe(
        folder,
        "audio-spectrogram-transformer",
        sample_rate=_RATE,
        dim=int(config["hidden_size"]),
        layers=layer_names(int(config["num_hidden_layers"])),
        hop_s=step * _HOP / _RATE,
        context_s=context,
        min_s=_WINDOW / _RATE,
        forward_s=context,
    )
    extractor = _Extractor(folder)

    def forward(model: Any, waveforms: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]) -> Encoded:
        inputs = extractor(waveforms, lengths.clamp(min=_WINDOW))["input_values"].to(waveforms.device, model.dtype)
        output = model(inputs, output_hidden_states=True)
        frames = pick(output.hidden_states, output.last_hidden_state, layers)[:, :, 2:]
        frames = frames.unflatten(2, (rows, columns)).mean(2)
        return Encoded(frames, (-(-lengths // (step * _HOP))).clamp(1, columns))

    def build() -> Any:
        from transformers import ASTModel

        return load_pretrained(ASTModel, folder)

    return PretrainedEncoder(info, build, forward)


def open_wav2vec2_bert(folder: ModelFolder, _spec: ModelSpec) -> Encoder:
    """Return wav2vec2-BERT, which sees pairs of 10 ms mel frames; its adapter, where there is one, is left out."""
    config = folder.config
    preprocessor = read_json(folder.path / "preprocessor_config.json") or {}
    stride = int(preprocessor.get("stride", 2))
    least = _WINDOW + (stride - 1) * _HOP
    info = describe(
        folder,
        "wav2vec2-bert",
        sample_rate=_RATE,
        dim=int(config["hidden_size"]),
        layers=layer_names(int(config["num_hidden_layers"])),
        hop_s=stride * _HOP / _RATE,
        context_s=None,
        # Normalised per mel band over time, for which two frames are the least.
        min_s=least / _RATE,
    )
    extractor = _Extractor(folder)

    def forward(model: Any, waveforms: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]) -> Encoded:
        features = extractor(waveforms, lengths.clamp(min=least), padding=True)
        mask = features["attention_mask"].to(waveforms.device)
        inputs = features["input_features"].to(waveforms.device, model.dtype)
        valid = mask.sum(1)
        output = model(inputs, attention_mask=None if bool(mask.all()) else mask, output_hidden_states=True)
        return Encoded(pick(output.hidden_states, output.last_hidden_state, layers), valid)

    def build() -> Any:
        from transformers import Wav2Vec2BertConfig, Wav2Vec2BertModel

        settings = Wav2Vec2BertConfig.from_pretrained(folder.path)
        settings.add_adapter = False
        return load_pretrained(Wav2Vec2BertModel, folder, config=settings)

    return PretrainedEncoder(info, build, forward)


def open_parakeet(folder: ModelFolder, _spec: ModelSpec) -> Encoder:
    """Return the FastConformer encoder of a Parakeet checkpoint, a frame each 80 ms."""
    config = folder.config.get("encoder_config", folder.config)
    preprocessor = read_json(folder.path / "preprocessor_config.json") or {}
    hop = int(preprocessor.get("hop_length", _HOP)) * int(config.get("subsampling_factor", 8))
    info = describe(
        folder,
        "parakeet",
        sample_rate=_RATE,
        # A nested configuration is saved without what equals the defaults.
        dim=int(config.get("hidden_size", 1024)),
        layers=layer_names(int(config.get("num_hidden_layers", 24))),
        hop_s=hop / _RATE,
        context_s=None,
        min_s=2 * hop / _RATE,
    )
    extractor = _Extractor(folder)

    def forward(model: Any, waveforms: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]) -> Encoded:
        features = extractor(waveforms, lengths.clamp(min=2 * hop), padding="longest")
        mask = features["attention_mask"].to(waveforms.device)
        inputs = features["input_features"].to(waveforms.device, model.dtype)
        output = model(inputs, attention_mask=mask, output_hidden_states=True)
        frames = pick(output.hidden_states, output.last_hidden_state, layers)
        return Encoded(frames, output.attention_mask.sum(1).long().clamp(min=1))

    def build() -> Any:
        from transformers import ParakeetEncoder, ParakeetEncoderConfig

        return load_pretrained(ParakeetEncoder, folder, config=ParakeetEncoderConfig(**config))

    return PretrainedEncoder(info, build, forward)


def open_clap(folder: ModelFolder, _spec: ModelSpec) -> Encoder:
    """Return CLAP's audio tower: 32 frames over 10 s, averaged over frequency; its last layer alone, as the stages of
    its Swin transformer differ in rate and width.

    Shorter clips are repeated as in training; the frames of the first time through are the valid ones.
    """
    config = folder.config.get("audio_config", folder.config)
    rate, seconds, frames_in_all = 48_000, 10.0, int(config.get("spec_size", 256)) // 8
    hop = round(rate * seconds / frames_in_all)
    dim = int(config.get("patch_embeds_hidden_size", 96)) * 2 ** (len(config.get("depths", (2, 2, 6, 2))) - 1)
    info = describe(
        folder,
        "clap",
        sample_rate=rate,
        dim=dim,
        layers=("last",),
        hop_s=seconds / frames_in_all,
        context_s=seconds,
        forward_s=seconds,
    )
    extractor = _Extractor(folder)

    def forward(model: Any, waveforms: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]) -> Encoded:
        import torch

        features = extractor(waveforms, lengths)["input_features"].to(waveforms.device, model.dtype)
        # The extractor calls a random clip of the batch "longer" where none is; nothing longer than 10 s comes here.
        longer = torch.zeros(len(features), 1, dtype=torch.bool, device=features.device)
        frames = model(input_features=features, is_longer=longer).last_hidden_state.mean(2).transpose(1, 2)
        valid = (-(-lengths // hop)).clamp(1, frames.shape[1])
        return Encoded(frames.unsqueeze(1).expand(-1, len(layers), -1, -1), valid)

    def build() -> Any:
        from transformers import ClapAudioConfig, ClapAudioModel

        names = {r"^audio_model\.": ""} if "audio_config" in folder.config else None
        return load_pretrained(ClapAudioModel, folder, config=ClapAudioConfig(**config), keys=names)

    return PretrainedEncoder(info, build, forward)


class _Extractor:
    """A checkpoint's feature extractor, read when it is first used."""

    def __init__(self, folder: ModelFolder) -> None:
        self._folder = folder
        self._extract: Any = None

    def __call__(self, waveforms: torch.Tensor, lengths: torch.Tensor, **options: Any) -> Any:
        if self._extract is None:
            self._extract = load_extractor(self._folder)
        clips = [row[:length].cpu().numpy() for row, length in zip(waveforms, lengths.tolist(), strict=True)]
        return self._extract(clips, sampling_rate=self._extract.sampling_rate, return_tensors="pt", **options)
