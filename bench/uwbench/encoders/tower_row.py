"""Encoders that are fed by their own feature extractor and differ in a few facts: a table row each.

A row names the class in transformers, its name inside complete models, the settings that give its size with the
defaults of its class, the samples to a frame, and the function that calls it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from uwbench.base.device import send
from uwbench.encoders.base import JOINT, Batching, Encoded, Encoder, Input, ModelFolder, TextTower
from uwbench.encoders.pretrained import (
    ClipExtractor,
    PretrainedEncoder,
    layer_names,
    mask_unasked,
    pick,
    required_settings,
)
from uwbench.encoders.tower import Tensors, describe_tower, find_tower, load_tower

if TYPE_CHECKING:
    import torch

HOST: tuple[Input, ...] = ("waveforms", "lengths")  # the extractor runs on the CPU
Features = Mapping[str, "torch.Tensor"]
# (model, its extractor's output on the device, and on the CPU) -> all layers, the output, and the number of valid
# frames `(batch,)`, or None if all are.
Run = Callable[[Any, Features, Features], tuple[Sequence["torch.Tensor"], "torch.Tensor", "torch.Tensor | None"]]


@dataclass(frozen=True, slots=True)
class Row:
    """The facts that set a family apart from the others."""

    model: str  # package and class in transformers
    module: str | tuple[str, ...]  # its name inside complete models, or its names
    width: tuple[str, Any]  # a setting and its default; of a list, the last is that of the output
    depth: tuple[str, int] | None  # None if its layers differ in width, so that only the last can be returned
    hop: Callable[[Mapping[str, Any], Mapping[str, Any]], int]  # (the encoder's settings, its extractor's) -> samples
    run: Run
    context_s: float | None = None
    batching: Batching = "padded"
    options: Mapping[str, Any] = field(default_factory=dict)  # of the extractor's call
    shortest: int = 2  # frames that a clip is padded to, as the convolutions need
    rate: int = 16_000  # Hz, if the extractor does not say
    first: int = 0  # the first layer that is as wide as the others
    convert: Callable[[Tensors], Tensors] | None = None  # from the names under which its tensors were saved
    joint: bool = False  # the first of the layers is the one called `joint`


def open_row(folder: ModelFolder, family: str, row: Row, texts: Callable[[], TextTower] | None = None) -> Encoder:
    """Return the encoder that `row` describes; `texts` opens its text tower."""
    tower = find_tower(folder, row.model, *([row.module] if isinstance(row.module, str) else row.module))
    settings = required_settings(folder)
    rate = int(settings.get("sampling_rate", row.rate))
    hop = row.hop(tower.settings, settings)
    width = tower.settings.get(*row.width)
    steps = layer_names(int(tower.settings.get(*row.depth)))[row.first :] if row.depth else ("last",)
    info = describe_tower(
        tower,
        family,
        sample_rate=rate,
        dim=int(width[-1] if isinstance(width, Sequence) else width),
        layers=(JOINT, *steps) if row.joint else steps,
        hop_s=hop / rate,
        context_s=row.context_s,
        min_s=row.shortest * hop / rate,
        batching=row.batching,
        host_inputs=HOST,
    )
    extractor = ClipExtractor(folder)

    def forward(model: Any, waveforms: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]) -> Encoded:
        import torch

        features = extractor(waveforms, lengths.clamp(min=row.shortest * hop), **row.options)
        inputs = {k: send(v, model.device) for k, v in features.items() if isinstance(v, torch.Tensor)}
        inputs |= {key: value.to(model.dtype) for key, value in inputs.items() if value.is_floating_point()}
        states, output, valid = row.run(model, inputs, features)
        valid = torch.full((len(output),), output.shape[1]) if valid is None else valid.clamp(1, output.shape[1])
        return Encoded(pick(states, output, layers), valid)

    return PretrainedEncoder(info, lambda: mask_unasked(load_tower(tower, row.convert)), forward, texts=texts)
