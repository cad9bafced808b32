"""wav2vec 2.0 and similar models: convolutions over the waveform, then a transformer.

If the convolutions have a group norm over time, padding would change every frame (transformers#21534, fairseq#3227).
Such models take clips of equal length; the others are padded and masked.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from uwbench.base.device import send
from uwbench.encoders.base import Batching, Encoded, Encoder, ModelFolder, ModelSpec
from uwbench.encoders.checkpoint import extractor_settings
from uwbench.encoders.pretrained import (
    PretrainedEncoder,
    default_notes,
    describe,
    input_deviation,
    layer_names,
    load_pretrained,
    mask_unasked,
    pick,
)
from uwbench.errors import EncoderError

if TYPE_CHECKING:
    import torch

# data2vec's positional convolutions and conformer's depthwise ones leak padding into the last frames.
_LEAKY = frozenset({"data2vec-audio", "wav2vec2-conformer"})
_EXTRACTOR = "Wav2Vec2FeatureExtractor"
_MOONSHINE = ((127, 64), (7, 3), (3, 2))  # kernels and strides, fixed in its code


def open_waveform(folder: ModelFolder, _spec: ModelSpec) -> Encoder:
    """Return the encoder of a wav2vec2, HuBERT, WavLM, data2vec-audio, UniSpeech-SAT, wav2vec2-conformer or Moonshine
    checkpoint.
    """
    config = folder.config
    model_type = config["model_type"]
    settings = extractor_settings(folder)
    # Without one, as the models' authors trained: Moonshine on waveforms as they are, the others on normalised ones.
    normalised = model_type != "moonshine" if settings is None else bool(settings.get("do_normalize", True))
    settings = settings or {}
    rate = int(settings.get("sampling_rate", 16_000))
    kind = settings.get("feature_extractor_type", _EXTRACTOR)
    if kind != _EXTRACTOR:
        what = f"names the feature extractor {kind}, but a {model_type} model takes waveforms"
        raise EncoderError(what, where=folder.path, remedy=f"use one of {_EXTRACTOR}")
    moonshine = model_type == "moonshine"
    convolutions = (
        _MOONSHINE
        if moonshine
        else tuple(
            zip(
                config.get("conv_kernel", (10, 3, 3, 3, 3, 2, 2)),
                config.get("conv_stride", (5, 2, 2, 2, 2, 2, 2)),
                strict=True,
            )
        )
    )
    hop, min_samples = 1, 1
    for kernel, stride in reversed(convolutions):
        hop, min_samples = hop * stride, (min_samples - 1) * stride + kernel
    grouped = moonshine or model_type in _LEAKY or config.get("feat_extract_norm", "group") == "group"
    batching: Batching = "equal-length" if grouped else "padded"
    count = int(config["encoder_num_hidden_layers"] if moonshine else config["num_hidden_layers"])
    info = describe(
        folder,
        model_type,
        version=2 if moonshine else 1,  # 2: an extractor that does not say normalises, as its class does
        sample_rate=rate,
        dim=int(config["hidden_size"]),
        layers=layer_names(count),
        hop_s=hop / rate,
        context_s=None,
        min_s=min_samples / rate,
        batching=batching,
        host_inputs=("lengths",),
        notes=default_notes(
            folder, f"16,000 Hz and {'normalised waveforms' if normalised else 'waveforms as they are'}"
        ),
    )

    def inputs(waveforms: torch.Tensor) -> torch.Tensor:
        import torch

        return _normalise(waveforms, torch.ones_like(waveforms, dtype=torch.bool)) if normalised else waveforms

    def forward(model: Any, waveforms: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]) -> Encoded:
        import torch

        times = torch.arange(waveforms.shape[1], device=waveforms.device)
        inputs = _normalise(waveforms, times < send(lengths, times.device)[:, None]) if normalised else waveforms
        lengths = lengths.clamp(min=min_samples)
        full = grouped or int(lengths.min()) == inputs.shape[1]  # clips of equal length need no mask
        mask = None if full else (times < send(lengths, times.device)[:, None]).long()
        output = model(inputs.to(model.dtype), attention_mask=mask, output_hidden_states=True)
        for kernel, stride in convolutions:
            lengths = (lengths - kernel) // stride + 1
        return Encoded(pick(output.hidden_states, output.last_hidden_state, layers), lengths)

    return PretrainedEncoder(info, lambda: _build(folder), forward, partial(input_deviation, folder, inputs))


def _build(folder: ModelFolder) -> Any:
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(folder.path)
    if hasattr(config, "add_adapter"):
        config.add_adapter = False  # made for translation models; it halves the frame rate after the last layer
    model = load_pretrained(AutoModel, folder, config=config)
    return model.encoder if folder.config["model_type"] == "moonshine" else mask_unasked(model)


def _normalise(waveforms: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Return each clip with zero mean and unit variance over its own samples, and zeros beyond them.

    The constant 1e-7 is from transformers' Wav2Vec2FeatureExtractor.
    """
    count = inside.sum(1, keepdim=True)
    centred = (waveforms - waveforms.sum(1, keepdim=True) / count).masked_fill(~inside, 0.0)
    return centred / (centred.square().sum(1, keepdim=True) / count + 1e-7).sqrt()
