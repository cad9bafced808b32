"""Neural codecs as encoders: their latents before quantisation, one row each.

Their convolutions see beyond a clip's end, so clips share a batch with others of their length only. Where a codec keeps
its latents to itself, its quantiser is made to return what it is given. A codec inside a language model is read alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from uwbench.base.device import send
from uwbench.encoders.base import Encoded, Encoder, ModelFolder, ModelSpec
from uwbench.encoders.checkpoint import extractor_settings
from uwbench.encoders.pretrained import ClipExtractor, PretrainedEncoder, default_notes, describe, load_pretrained
from uwbench.encoders.tower import at_rate, describe_tower, find_tower, inputs_of, load_tower
from uwbench.errors import EncoderError

if TYPE_CHECKING:
    import torch

Config = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Codec:
    model: str  # class in transformers
    rate: int  # Hz, if neither extractor nor configuration says
    hop: Callable[[Config], int]  # samples
    dim: Callable[[Config], int]
    states: Callable[[Any, Any], Sequence[torch.Tensor]]  # (model, `(batch, 1, samples)`) -> frames by layer
    whole: bool = False  # its extractor fills the last frame with silence
    depth: tuple[str, int] | None = None  # setting and default of a transformer's layers before the latents
    latent: bool = True  # whether its latents are as wide as those layers
    shortest: int = 2  # frames that a clip is padded to
    extracts: bool = False  # takes its extractor's output, which needs torchaudio, and not the samples alone


def open_codec(folder: ModelFolder, _spec: ModelSpec) -> Encoder:
    """Return the encoder of a mono codec whose model type has a row in the tables below."""
    settings, model_type = extractor_settings(folder) or {}, str(folder.config["model_type"])
    family, inner, module = _HOSTS.get(model_type, (model_type, "", ""))
    tower = find_tower(folder, inner, module) if inner else None
    config = tower.settings if tower else folder.config
    codec = _CODECS[family]
    channels = 1 if codec.extracts else int(settings.get("feature_size", 1))  # if it extracts, those of its spectrum
    if channels != 1 or int(config.get("audio_channels", 1)) != 1 or config.get("normalize", False):
        what = "takes more than one channel, or normalises loudness second by second"
        raise EncoderError(what, where=folder.path, remedy="use the codec's mono model")
    hop = codec.hop(config)
    rate = int(settings.get("sampling_rate") or config.get("sampling_rate") or config.get("sample_rate") or codec.rate)
    blocks = int(config.get(*codec.depth)) + 1 if codec.depth else 0
    facts: dict[str, Any] = {
        "sample_rate": rate,
        "dim": codec.dim(config),
        "layers": (*(str(index) for index in range(blocks)), *(("latent",) if codec.latent else ())),
        "hop_s": hop / rate,
        "context_s": None,
        "min_s": codec.shortest * hop / rate,
        "batching": "equal-length",
        "notes": default_notes(folder, f"{rate:,} Hz and mono"),
        "host_inputs": ("waveforms", "lengths") if codec.extracts else (),
    }
    info = describe_tower(tower, family, **facts) if tower else describe(folder, family, **facts)
    extractor = ClipExtractor(folder)

    def forward(model: Any, waveforms: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]) -> Encoded:
        import torch

        samples: Any = waveforms.unsqueeze(1).to(model.dtype)
        if codec.extracts:
            features = extractor(waveforms, lengths.clamp(min=2 * hop)).items()
            samples = {name: send(value, model.device) for name, value in features}
            samples |= {k: v.to(model.dtype) for k, v in samples.items() if v.is_floating_point()}
        if codec.whole:
            samples = torch.nn.functional.pad(samples, (0, -samples.shape[2] % hop))
        states = codec.states(model, samples)
        frames = torch.stack([states[layer] for layer in layers], dim=1)
        return Encoded(frames, torch.full_like(lengths, frames.shape[2]))

    def build() -> Any:
        import transformers

        whole = load_tower(tower) if tower else load_pretrained(getattr(transformers, codec.model), folder)
        return numbers_on_host(whole)

    return PretrainedEncoder(info, build, forward)


def numbers_on_host(model: Any) -> Any:
    """Return a codec whose convolutions keep the three numbers of their padding on the CPU.

    They are buffers; on a device, padding would wait for them.
    """
    for module in model.modules():
        for name, number in list(module.named_buffers(recurse=False)):
            if name in ("stride", "kernel_size", "padding_total"):
                delattr(module, name)
                vars(module)[name] = number
    return model


def _dac(model: Any, samples: torch.Tensor) -> list[torch.Tensor]:
    return [model.encoder(samples).transpose(1, 2)]


def _pocket(model: Any, samples: torch.Tensor) -> list[torch.Tensor]:
    """Return the layers of Pocket TTS's transformer, averaged to the rate of its latents, which are narrower."""
    *states, _ = _mimi(model, samples)
    return states


def _mimi(model: Any, samples: torch.Tensor) -> list[torch.Tensor]:
    """Return Mimi's transformer layers, which have twice the rate, averaged to that of its latents, and the latents."""
    encoder = model.encoder
    with inputs_of([*encoder.encoder_transformer.layers, encoder.downsample]) as states:
        latents = encoder(samples).latents.transpose(1, 2)
    states[-1] = states[-1].transpose(1, 2)
    return [*(at_rate(state, latents.shape[1]) for state in states), latents]


def _wavtokenizer(model: Any, samples: torch.Tensor) -> list[torch.Tensor]:
    return [getattr(model, "encoder_model", model).encoder(samples).transpose(1, 2)]


def _xcodec(model: Any, samples: torch.Tensor) -> list[torch.Tensor]:
    """Return what X-codec's or Higgs Audio's quantiser is given: its acoustic and semantic branches, joined."""
    model.quantizer.encode = lambda latents, *_: latents
    return [model.encode(samples).audio_codes.permute(1, 2, 0)]


def _xcodec2(model: Any, features: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
    """Return what the quantiser of X-codec 2 or NeuCodec is given: its semantic and acoustic branches, joined."""
    model.quantizer.forward = lambda latents: (latents, latents)
    return [model.encode(**features, output_latents=True).latents.transpose(1, 2)]


def _product(name: str, default: tuple[int, ...], *, factor: int = 1) -> Callable[[Config], int]:
    return lambda config: factor * math.prod(config.get(name) or default)


def _dac_width(config: Config) -> int:
    return int(config.get("encoder_hidden_size", 64)) * 2 ** len(config.get("downsampling_ratios", (2, 4, 8, 8)))


def _xcodec_part(config: Config, part: str, name: str, default: Any) -> Any:
    return (config.get(f"{part}_model_config") or {}).get(name, default)


def _xcodec2_width(config: Config) -> int:
    return int(config.get("hidden_size", 1024)) + _xcodec_part(config, "semantic", "hidden_size", 1024)


def _xcodec_hop(config: Config) -> int:
    return math.prod(_xcodec_part(config, "acoustic", "downsampling_ratios", (8, 5, 4, 2)))


def _xcodec_width(config: Config) -> int:
    widths = (("acoustic", 256), ("semantic", 768))
    return sum(int(_xcodec_part(config, part, "hidden_size", width)) for part, width in widths)


_RATIOS_2 = _product("downsampling_ratios", (2, 2, 4, 4, 5))
_CODECS = {
    "encodec": _Codec(
        "EncodecModel",
        24_000,
        _product("upsampling_ratios", (8, 5, 4, 2)),
        lambda config: int(config.get("hidden_size", 128)),
        _dac,
        shortest=0,
    ),
    "pocket_tts_audio_tokenizer": _Codec(
        "PocketTTSAudioTokenizerModel",
        24_000,
        lambda config: math.prod(config.get("upsampling_ratios") or (6, 5, 4)) * int(config.get("latent_stride", 16)),
        lambda config: int(config.get("hidden_size", 512)),
        _pocket,
        whole=True,
        depth=("num_hidden_layers", 2),
        latent=False,
    ),
    # Its own code resamples by torchaudio.
    "higgs_audio_v2_tokenizer": _Codec(
        "HiggsAudioV2TokenizerModel", 24_000, _xcodec_hop, _xcodec_width, _xcodec, whole=True
    ),
    "neucodec": _Codec("NeuCodecModel", 16_000, _RATIOS_2, _xcodec2_width, _xcodec2, extracts=True),
    "xcodec2": _Codec("Xcodec2Model", 16_000, _RATIOS_2, _xcodec2_width, _xcodec2, extracts=True),
    "dac": _Codec("DacModel", 16_000, _product("downsampling_ratios", (2, 4, 8, 8)), _dac_width, _dac, whole=True),
    "mimi": _Codec(
        "MimiModel",
        24_000,
        _product("upsampling_ratios", (8, 6, 5, 4), factor=2),
        lambda config: int(config.get("hidden_size", 512)),
        _mimi,
        depth=("num_hidden_layers", 8),
    ),
    "wavtokenizer": _Codec(
        "WavTokenizerModel",
        24_000,
        _product("upsampling_ratios", (6, 5, 5, 4)),
        lambda config: int(config.get("hidden_size", 512)),
        _wavtokenizer,
    ),
    "xcodec": _Codec(
        "XcodecModel",
        16_000,
        _xcodec_hop,
        _xcodec_width,
        _xcodec,
        whole=True,
    ),
}
# Models with a codec inside: its family, package and class, and name there.
_HOSTS = {
    "apertus1p5": ("wavtokenizer", "wavtokenizer.WavTokenizerEncoderModel", "audio_tokenizer"),
    "csm": ("mimi", "mimi.MimiModel", "codec_model"),
    "kyutai_speech_to_text": ("mimi", "mimi.MimiModel", "codec_model"),
    "moshi": ("mimi", "mimi.MimiModel", "audio_encoder"),
    "musicgen": ("encodec", "encodec.EncodecModel", "audio_encoder"),
    "musicgen_melody": ("encodec", "encodec.EncodecModel", "audio_encoder"),
}
