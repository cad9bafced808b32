"""Families fed by a spectrogram: AST and wav2vec2-BERT, Parakeet, CLAP.

The first two get theirs on the device. The others' extractor, which the checkpoint describes, runs on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from uwbench.base.device import send
from uwbench.encoders.base import Encoded, Encoder, Input, ModelFolder, ModelSpec
from uwbench.encoders.kaldi import HOP, WINDOW, FilterBanks, count_frames
from uwbench.encoders.pretrained import (
    ClipExtractor,
    PretrainedEncoder,
    describe,
    input_deviation,
    layer_names,
    load_pretrained,
    mask_unasked,
    pick,
    required_settings,
)
from uwbench.encoders.text_towers import clap_texts
from uwbench.errors import EncoderError, InputError

if TYPE_CHECKING:
    import torch

_HOP = 160
_RATE = 16_000
_HOST: tuple[Input, ...] = ("waveforms", "lengths")


def open_ast(folder: ModelFolder, _spec: ModelSpec) -> Encoder:
    """Return an Audio Spectrogram Transformer: one frame per column of patches, averaged over frequency.

    Clips are padded with silence to 10.24 s as in training. Its two summary tokens are left out. At other rates than
    16 kHz, transformers gives other frames where torchaudio is installed; here they have 400 samples everywhere.
    """
    config, settings = folder.config, required_settings(folder)
    _require_extractor(folder, settings, "ASTFeatureExtractor")
    for name, default in (("max_length", 1024), ("num_mel_bins", 128)):
        sizes = int(config.get(name, default)), int(settings.get(name, default))
        if sizes[0] != sizes[1]:
            raise InputError(f"{name} is {sizes[0]} in config.json and {sizes[1]} in its extractor", where=folder.path)
    rate = int(settings.get("sampling_rate", _RATE))
    length, bands = int(config.get("max_length", 1024)), int(config.get("num_mel_bins", 128))
    patch, step = int(config.get("patch_size", 16)), int(config.get("time_stride", 10))
    columns = (length - patch) // step + 1
    rows = (bands - patch) // int(config.get("frequency_stride", 10)) + 1
    context = length * HOP / rate
    # The mean and half the spread of AudioSet's filter banks (transformers' ASTFeatureExtractor).
    mean, spread = float(settings.get("mean", -4.2677393)), 2 * float(settings.get("std", 4.5689974))
    if not settings.get("do_normalize", True):
        mean, spread = 0.0, 1.0
    info = describe(
        folder,
        "audio-spectrogram-transformer",
        sample_rate=rate,
        dim=int(config["hidden_size"]),
        layers=layer_names(int(config["num_hidden_layers"])),
        hop_s=step * HOP / rate,
        host_inputs=("lengths",),
        context_s=context,
        min_s=WINDOW / rate,
        forward_s=context,
    )
    filter_banks = FilterBanks(bands, "hann", rate)

    def inputs(waveforms: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return `(batch, frames, bands)`, of which those beyond a clip stand for a log power of 0, as in training."""
        import torch

        banks = filter_banks(waveforms)[:, :length]
        beyond = torch.arange(banks.shape[1], device=banks.device) >= send(count_frames(lengths), banks.device)[:, None]
        banks = torch.nn.functional.pad(banks.masked_fill(beyond[:, :, None], 0.0), (0, 0, 0, length - banks.shape[1]))
        return ((banks - mean) / spread).float()

    def forward(model: Any, waveforms: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]) -> Encoded:
        output = model(inputs(waveforms, lengths.clamp(min=WINDOW)).to(model.dtype), output_hidden_states=True)
        frames = pick(output.hidden_states, output.last_hidden_state, layers)[:, :, 2:]
        frames = frames.unflatten(2, (rows, columns)).mean(2)
        return Encoded(frames, (-(-lengths // (step * HOP))).clamp(1, columns))

    def build() -> Any:
        from transformers import ASTModel

        return load_pretrained(ASTModel, folder)

    return PretrainedEncoder(info, build, forward, partial(input_deviation, folder, partial(_of_whole, inputs)))


def open_wav2vec2_bert(folder: ModelFolder, _spec: ModelSpec) -> Encoder:
    """Return wav2vec2-BERT, which takes pairs of mel frames of 160 samples; its adapter, if any, is left out."""
    config, settings = folder.config, required_settings(folder)
    _require_extractor(folder, settings, "SeamlessM4TFeatureExtractor")
    rate = int(settings.get("sampling_rate", _RATE))
    stride, bands = int(settings.get("stride", 2)), int(settings.get("num_mel_bins", 80))
    # Each mel band is normalised over time, which needs two frames.
    min_samples = WINDOW + (max(stride, 2) - 1) * HOP
    info = describe(
        folder,
        "wav2vec2-bert",
        sample_rate=rate,
        dim=int(config["hidden_size"]),
        layers=layer_names(int(config["num_hidden_layers"])),
        hop_s=stride * HOP / rate,
        host_inputs=("lengths",),
        context_s=None,
        min_s=min_samples / rate,
    )
    filter_banks = FilterBanks(bands, "povey", rate, scale=2**15)
    padding = float(settings.get("padding_value", 0.0))

    def inputs(waveforms: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return `(batch, pairs, 2 * bands)`: banks of zero mean and unit variance over each clip's own frames."""
        import torch

        counts = count_frames(lengths)
        banks = filter_banks(waveforms)[:, : int(counts.max())]
        times, counts = torch.arange(banks.shape[1], device=banks.device), send(counts, banks.device)[:, None, None]
        beyond = times[:, None] >= counts
        centred = (banks - banks.masked_fill(beyond, 0.0).sum(1, keepdim=True) / counts).masked_fill(beyond, 0.0)
        # The constant is from transformers' SeamlessM4TFeatureExtractor, which divides by one less than the frames.
        banks = centred / (centred.square().sum(1, keepdim=True) / (counts - 1) + 1e-7).sqrt()
        banks = banks.masked_fill(beyond, padding)
        banks = torch.nn.functional.pad(banks, (0, 0, 0, banks.shape[1] % 2), value=padding)
        return banks[:, : banks.shape[1] // stride * stride].unflatten(1, (-1, stride)).flatten(2).float()

    def forward(model: Any, waveforms: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]) -> Encoded:
        import torch

        lengths = lengths.clamp(min=min_samples)
        features, valid = inputs(waveforms, lengths), count_frames(lengths) // stride
        mask, width = None, features.shape[1]
        if int(valid.min()) < width:
            inside = torch.arange(width, device=features.device) < send(valid, features.device)[:, None]
            mask = inside.long()
        output = model(features.to(model.dtype), attention_mask=mask, output_hidden_states=True)
        return Encoded(pick(output.hidden_states, output.last_hidden_state, layers), valid)

    def build() -> Any:
        from transformers import Wav2Vec2BertConfig, Wav2Vec2BertModel

        settings = Wav2Vec2BertConfig.from_pretrained(folder.path)
        settings.add_adapter = False
        return mask_unasked(load_pretrained(Wav2Vec2BertModel, folder, config=settings))

    return PretrainedEncoder(info, build, forward, partial(input_deviation, folder, partial(_of_whole, inputs)))


def _require_extractor(folder: ModelFolder, settings: Mapping[str, Any], extractor: str) -> None:
    """Raise EncoderError unless a checkpoint's feature extractor makes the filter banks that `kaldi` makes."""
    kind = settings.get("feature_extractor_type", extractor)
    if kind != extractor:
        raise EncoderError(f"the feature extractor is a {kind}, not a {extractor}", where=folder.path)


def _of_whole(inputs: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], waveforms: torch.Tensor) -> torch.Tensor:
    """Return the input of one clip without padding."""
    import torch

    return inputs(waveforms, torch.tensor([waveforms.shape[1]]))


_CANARY_KEYS = {r"^model\.encoder\.": ""}
# Cohere ASR is saved under NeMo's names (transformers' conversion_mapping.py).
_COHERE_KEYS = {
    r"^(model\.)?encoder\.": "",
    r"pre_encode\.conv\.": "subsampling.layers.",
    r"pre_encode\.out\.": "subsampling.linear.",
    r"self_attn\.linear_([qkv])\.": r"self_attn.\1_proj.",
    r"self_attn\.linear_out\.": "self_attn.o_proj.",
    r"self_attn\.linear_pos\.": "self_attn.relative_k_proj.",
    r"self_attn\.pos_bias_([uv])$": r"self_attn.bias_\1",
    r"conv\.batch_norm\.": "conv.norm.",
}


def open_parakeet(folder: ModelFolder, _spec: ModelSpec) -> Encoder:
    """Return the FastConformer encoder of a Parakeet, Canary or Cohere ASR checkpoint, one frame per 80 ms."""
    config = folder.config.get("encoder_config", folder.config)
    family = str(folder.config["model_type"])
    with_decoder = family in ("canary", "cohere_asr")
    # The defaults of models with a decoder are not those of ParakeetEncoderConfig: what they save must say these.
    unsaid = [name for name in ("num_hidden_layers", "scale_input") if with_decoder and name not in config]
    if unsaid:
        raise KeyError(f"encoder_config.{unsaid[0]}")
    settings = required_settings(folder)
    rate = int(settings.get("sampling_rate", _RATE))
    hop = int(settings.get("hop_length", _HOP)) * int(config.get("subsampling_factor", 8))
    # Cohere's extractor splits longer clips at quiet places, into rows of their own.
    longest_s = None
    if family == "cohere_asr":
        longest_s = float(settings.get("max_audio_clip_s", 35.0)) - float(settings.get("overlap_chunk_second", 5.0))
    info = describe(
        folder,
        family if with_decoder else "parakeet",
        sample_rate=rate,
        # A nested configuration is saved without its default values.
        dim=int(config.get("hidden_size", 1024)),
        layers=layer_names(int(config.get("num_hidden_layers", 24))),
        hop_s=hop / rate,
        host_inputs=_HOST,
        context_s=longest_s,
        min_s=2 * hop / rate,
    )
    extractor = ClipExtractor(folder)

    def forward(model: Any, waveforms: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]) -> Encoded:
        features = extractor(waveforms, lengths.clamp(min=2 * hop), padding="longest")
        mask = send(features["attention_mask"], model.device)
        inputs = send(features["input_features"], model.device).to(model.dtype)
        output = model(inputs, attention_mask=mask, output_hidden_states=True)
        frames = pick(output.hidden_states, output.last_hidden_state, layers)
        return Encoded(frames, output.attention_mask.sum(1).long().clamp(min=1))

    def build() -> Any:
        from transformers import ParakeetEncoder, ParakeetEncoderConfig

        names = {"canary": _CANARY_KEYS, "cohere_asr": _COHERE_KEYS}.get(family)
        return load_pretrained(ParakeetEncoder, folder, config=ParakeetEncoderConfig(**config), keys=names)

    return PretrainedEncoder(info, build, forward)


_FUSED = "{}: clips longer than {:g} s are cut, and its fusion, which draws parts of them at random, is not used"


def open_clap(folder: ModelFolder, _spec: ModelSpec) -> Encoder:
    """Return CLAP's audio tower: 32 frames over 10 s, averaged over frequency.

    Only the last layer: the stages of its Swin transformer differ in rate and width. Shorter clips are repeated as in
    training; the frames of the first repetition are the valid ones. Longer ones are cut into 10 s, as for others: how a
    fused model joins a longer clip with three random parts of it would give no clip one embedding.
    """
    config = folder.config.get("audio_config", folder.config)
    settings = required_settings(folder)
    rate, seconds = int(settings.get("sampling_rate", 48_000)), float(settings.get("max_length_s", 10))
    n_frames = int(config.get("spec_size", 256)) // 8
    hop = round(rate * seconds / n_frames)
    dim = int(config.get("patch_embeds_hidden_size", 96)) * 2 ** (len(config.get("depths", (2, 2, 6, 2))) - 1)
    info = describe(
        folder,
        "clap",
        sample_rate=rate,
        dim=dim,
        layers=("last",),
        hop_s=seconds / n_frames,
        host_inputs=_HOST,
        context_s=seconds,
        forward_s=seconds,
        notes=(_FUSED.format(folder.name, seconds),) if config.get("enable_fusion") else (),
    )
    extractor = ClipExtractor(folder)

    def forward(model: Any, waveforms: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]) -> Encoded:
        import torch

        features = send(extractor(waveforms, lengths)["input_features"], model.device).to(model.dtype)
        # If no clip is longer than 10 s, the extractor marks a random one as longer; here none ever is.
        longer = torch.zeros(len(features), 1, dtype=torch.bool, device=features.device)
        frames = model(input_features=features, is_longer=longer).last_hidden_state.mean(2).transpose(1, 2)
        valid = (-(-lengths // hop)).clamp(1, frames.shape[1])
        return Encoded(frames.unsqueeze(1).expand(-1, len(layers), -1, -1), valid)

    def build() -> Any:
        from transformers import ClapAudioConfig, ClapAudioModel

        names = {r"^audio_model\.": ""} if "audio_config" in folder.config else None
        return load_pretrained(ClapAudioModel, folder, config=ClapAudioConfig(**config), keys=names)

    return PretrainedEncoder(info, build, forward, texts=clap_texts(folder))
