"""wav2vec 2.0 and its kin: convolutions over the waveform, then a transformer.

Where the convolutions carry a group norm over time, silence at the end would change every frame (transformers#21534,
fairseq#3227): such models take clips of one length at a time. The others are padded and masked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from uwbench.encoders.base import Batching, Encoded, Encoder, ModelFolder, ModelSpec
from uwbench.encoders.checkpoint import read_json
from uwbench.encoders.pretrained import PretrainedEncoder, describe, layer_names, load_pretrained, pick

if TYPE_CHECKING:
    import torch

# data2vec's stack of positional convolutions and conformer's depthwise ones carry padding into the last frames.
_LEAKY = frozenset({"data2vec-audio", "wav2vec2-conformer"})
_MOONSHINE = ((127, 64), (7, 3), (3, 2))  # kernels and strides, fixed in its code


def open_waveform(folder: ModelFolder, _spec: ModelSpec) -> Encoder:
    """Return the encoder of a wav2vec2, HuBERT, WavLM, data2vec-audio, UniSpeech-SAT, wav2vec2-conformer or Moonshine
    checkpoint.
    """
    config = folder.config
    kind = config["model_type"]
    preprocessor = read_json(folder.path / "preprocessor_config.json") or {}
    rate = int(preprocessor.get("sampling_rate", 16_000))
    moonshine = kind == "moonshine"
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
    hop, least = 1, 1
    for kernel, stride in reversed(convolutions):
        hop, least = hop * stride, (least - 1) * stride + kernel
    grouped = moonshine or kind in _LEAKY or config.get("feat_extract_norm", "group") == "group"
    batching: Batching = "equal-length" if grouped else "padded"
    normalised = bool(preprocessor.get("do_normalize", not moonshine))
    count = int(config["encoder_num_hidden_layers"] if moonshine else config["num_hidden_layers"])
    info = describe(
        folder,
        kind,
        sample_rate=rate,
        dim=int(config["hidden_size"]),
        layers=layer_names(count),
        hop_s=hop / rate,
        context_s=None,
        min_s=least / rate,
        batching=batching,
    )

    def forward(model: Any, waveforms: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]) -> Encoded:
        import torch

        inside = torch.arange(waveforms.shape[1], device=waveforms.device) < lengths[:, None]
        inputs = _normalise(waveforms, inside) if normalised else waveforms
        lengths = lengths.clamp(min=least)
        # Clips of one length fill the batch. Whether others do is read on the CPU alone: it would stall a device.
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
        config.add_adapter = False  # it halves the rate after the last layer, for translation models
    model = load_pretrained(AutoModel, folder, config=config)
    return model.encoder if folder.config["model_type"] == "moonshine" else model


def _normalise(waveforms: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Return each clip with zero mean and unit variance over its own samples, zero beyond.

    The constant is Wav2Vec2FeatureExtractor's.
    """
    count = inside.sum(1, keepdim=True)
    centred = (waveforms - waveforms.sum(1, keepdim=True) / count).masked_fill(~inside, 0.0)
    return centred / (centred.square().sum(1, keepdim=True) / count + 1e-7).sqrt()
