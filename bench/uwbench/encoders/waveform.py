"""wav2vec 2.0 and similar models: convolutions over the waveform, then a transformer.

If the convolutions have a group norm over time, padding would change every frame (transformers#21534, fairseq#3227).
Such models take clips of equal length; the others are padded and masked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from uwbench.encoders.base import Batching, Encoded, Encoder, ModelFolder, ModelSpec
from uwbench.encoders.checkpoint import read_json
from uwbench.encoders.pretrained import PretrainedEncoder, describe, layer_names, load_pretrained, pick

if TYPE_CHECKING:
    import torch

# data2vec's positional convolutions and conformer's depthwise ones leak padding into the last frames.
_LEAKY = frozenset({"data2vec-audio", "wav2vec2-conformer"})
_MOONSHINE = ((127, 64), (7, 3), (3, 2))  # kernels and strides, fixed in its code


def open_waveform(folder: ModelFolder, _spec: ModelSpec) -> Encoder:
    """Return the encoder of a wav2vec2, HuBERT, WavLM, data2vec-audio, UniSpeech-SAT, wav2vec2-conformer or Moonshine
    checkpoint.
    """
    config = folder.config
    model_type = config["model_type"]
    preprocessor = read_json(folder.path / "preprocessor_config.json") or {}
    rate = int(preprocessor.get("sampling_rate", 16_000))
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
    normalised = bool(preprocessor.get("do_normalize", not moonshine))
    count = int(config["encoder_num_hidden_layers"] if moonshine else config["num_hidden_layers"])
    info = describe(
        folder,
        model_type,
        sample_rate=rate,
        dim=int(config["hidden_size"]),
        layers=layer_names(count),
        hop_s=hop / rate,
        context_s=None,
        min_s=min_samples / rate,
        batching=batching,
    )

    def forward(model: Any, waveforms: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]) -> Encoded:
        import torch

        inside = torch.arange(waveforms.shape[1], device=waveforms.device) < lengths[:, None]
        inputs = _normalise(waveforms, inside) if normalised else waveforms
        lengths = lengths.clamp(min=min_samples)
        # Clips of equal length need no mask. Only the CPU checks: reading lengths back would stall a GPU.
        full = grouped or (lengths.device.type == "cpu" and int(lengths.min()) == inputs.shape[1])
        mask = None if full else (torch.arange(inputs.shape[1], device=inputs.device) < lengths[:, None]).long()
        output = model(inputs.to(model.dtype), attention_mask=mask, output_hidden_states=True)
        for kernel, stride in convolutions:
            lengths = (lengths - kernel) // stride + 1
        return Encoded(pick(output.hidden_states, output.last_hidden_state, layers), lengths)

    return PretrainedEncoder(info, lambda: _build(folder), forward)


def _build(folder: ModelFolder) -> Any:
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(folder.path)
    if hasattr(config, "add_adapter"):
        config.add_adapter = False  # made for translation models; it halves the frame rate after the last layer
    model = load_pretrained(AutoModel, folder, config=config)
    return model.encoder if folder.config["model_type"] == "moonshine" else model


def _normalise(waveforms: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Return each clip with zero mean and unit variance over its own samples, and zeros beyond them.

    The constant 1e-7 is from transformers' Wav2Vec2FeatureExtractor.
    """
    count = inside.sum(1, keepdim=True)
    centred = (waveforms - waveforms.sum(1, keepdim=True) / count).masked_fill(~inside, 0.0)
    return centred / (centred.square().sum(1, keepdim=True) / count + 1e-7).sqrt()
