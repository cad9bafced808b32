"""The audio encoders of Qwen2.5-Omni, Qwen3-Omni and Qwen3-ASR, which take clips packed one after another.

They cut a clip into windows and attend within them, so nothing limits its length and batch mates never meet. Frames are
those before the projection to the language model's width. Qwen2.5-Omni averages pairs of positions before its last
norm; here every layer is averaged, so that all layers have the same rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from uwbench.base.device import send
from uwbench.encoders.base import Encoded, Encoder, ModelFolder, ModelSpec
from uwbench.encoders.pretrained import ClipExtractor, PretrainedEncoder, layer_names, required_settings
from uwbench.encoders.tower import describe_tower, find_tower, inputs_of, load_tower

if TYPE_CHECKING:
    import torch

# The tower's package and class in transformers, and its number of layers and width if they are not said.
_CLASSES = {
    "qwen2_5_omni": ("qwen2_5_omni.Qwen2_5OmniAudioEncoder", 32, 1280),
    "qwen3_omni_moe": ("qwen3_omni_moe.Qwen3OmniMoeAudioEncoder", 32, 1280),
    "qwen3_asr": ("qwen3_asr.Qwen3ASREncoder", 24, 1024),
}


_OPTIONS = {"padding": True, "truncation": False, "return_attention_mask": True}


def open_packed(folder: ModelFolder, _spec: ModelSpec) -> Encoder:
    """Return the audio encoder of a complete model, of its thinker, or of a folder with the encoder alone."""
    name = next(name for name in _CLASSES if str(folder.config["model_type"]).startswith(name))
    model_class, depth, width = _CLASSES[name]
    tower = find_tower(folder, model_class, "audio_tower")
    settings, config = required_settings(folder), tower.settings
    rate, hop = int(settings.get("sampling_rate", 16_000)), int(settings.get("hop_length", 160))
    pairs = name == "qwen2_5_omni"
    window = 2 * int(config.get("n_window", 100 if pairs else 50))  # mel frames that the convolutions see at once
    # Three convolutions of stride 2 begin again in every window: 13 frames to a second in the published models.
    hop_s = 4 * hop / rate if pairs else window * hop / rate / _after(window)
    minimum = 4 * hop
    info = describe_tower(
        tower,
        name,
        sample_rate=rate,
        dim=int(config.get("d_model", width)),
        layers=layer_names(int(config.get("encoder_layers", depth))),
        hop_s=hop_s,
        context_s=None,
        min_s=minimum / rate,
        host_inputs=("waveforms", "lengths"),
    )
    extractor = ClipExtractor(folder)
    # The processors of the Omni models pad a clip with silence before its spectrum is made, Qwen3-ASR's does not.
    silence = 0 if name == "qwen3_asr" else int(settings.get("n_fft", 400))

    def forward(model: Any, waveforms: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]) -> Encoded:
        import torch
        from torch.nn.utils.rnn import pad_sequence

        mels = []
        for waveform, length in zip(waveforms, lengths.clamp(min=minimum).tolist(), strict=True):
            samples = torch.nn.functional.pad(waveform[:length], (0, silence))[None]
            features = extractor(samples, torch.tensor([samples.shape[1]]), **_OPTIONS)
            count = -(-length // hop) if silence else int(features["attention_mask"].sum())
            mels.append(features["input_features"][0, :, :count].T)
        # Qwen3-Omni's convolutions see nothing after a clip that is shorter than a window, unless it has batch mates.
        short = [[index] for index, mel in enumerate(mels) if name == "qwen3_omni_moe" and len(mel) < window]
        long = [index for index in range(len(mels)) if [index] not in short]
        clips: dict[int, list[torch.Tensor]] = {}
        for group in [*short, *([long] if long else [])]:
            states = _states(model, [send(mels[index], model.device).to(model.dtype) for index in group], window)
            clips |= {index: [state[row] for state in states] for row, index in enumerate(group)}
        frames = [clips[index][0].shape[0] for index in range(len(mels))]
        layer_frames = [pad_sequence([clips[index][layer] for index in range(len(mels))], True) for layer in layers]
        return Encoded(torch.stack(layer_frames, dim=1), torch.tensor(frames))

    return PretrainedEncoder(info, lambda: load_tower(tower), forward)


def _states(model: Any, mels: Sequence[torch.Tensor], window: int) -> list[Sequence[torch.Tensor]]:
    """Return the frames of each layer, by layer and clip, for mel spectra `(frames, bands)` on the model's device."""
    import torch

    counts = [len(mel) for mel in mels]
    sizes = torch.tensor(counts, device=model.device)
    with inputs_of([*model.layers, model.ln_post]) as states:
        if hasattr(model, "proj1") or hasattr(model, "proj"):
            model(torch.cat(list(mels)).T, feature_lens=sizes)
        else:  # Qwen3-ASR takes whole windows
            width = -(-max(counts) // window) * window
            batch = torch.stack([torch.nn.functional.pad(mel, (0, 0, 0, width - len(mel))) for mel in mels])
            model(batch.transpose(1, 2), torch.arange(width, device=sizes.device) < sizes[:, None])
    pairs = hasattr(model, "avg_pooler")
    positions = [(count - 1) // 2 + 1 if pairs else _packed(count, window) for count in counts]
    clips = [state.split(positions) for state in states[:-1]]
    if pairs:  # the input of the last norm is averaged already
        clips = [[_in_pairs(clip) for clip in layer] for layer in clips]
        positions = [count // 2 for count in positions]
    return [*clips, model.ln_post(states[-1]).split(positions)]


def _after(mels: int) -> int:
    """Return the frames that three convolutions of kernel 3, stride 2 and padding 1 make of a window."""
    for _ in range(3):
        mels = (mels - 1) // 2 + 1
    return mels


def _packed(mels: int, window: int) -> int:
    whole, rest = divmod(mels, window)
    return whole * _after(window) + (_after(rest) if rest else 0)


def _in_pairs(clip: torch.Tensor) -> torch.Tensor:
    """Return the means of pairs of positions; the last of an odd number is left out, as in the model."""
    return clip[: len(clip) // 2 * 2].unflatten(0, (-1, 2)).mean(1)
