"""Encoders through `AutoModel`, for families without a file here; runs remote code if that is allowed.

Nothing is known about such a model in advance. So it is loaded as soon as it is opened and run on noise of two lengths
to measure its hop, layers and width. Clips are encoded one at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from uwbench.base.device import send
from uwbench.base.hashing import sha256_file
from uwbench.encoders.base import Encoded, Encoder, ModelFolder, ModelSpec
from uwbench.encoders.checkpoint import extractor_settings
from uwbench.encoders.own_code import fails_as_one_line
from uwbench.encoders.pretrained import (
    PretrainedEncoder,
    default_notes,
    describe,
    load_extractor,
    load_pretrained,
    pick,
)
from uwbench.errors import EncoderError, UsageError

if TYPE_CHECKING:
    import torch

_NOISE_S = (2, 4)


def open_automodel(folder: ModelFolder, spec: ModelSpec) -> Encoder:
    """Return an encoder with measured facts; raise UsageError if it needs `--trust-remote-code`."""
    model_type = str(folder.config.get("model_type"))
    settings = extractor_settings(folder) or {}
    code = "auto_map" in folder.config or "auto_map" in settings
    if code and not spec.trust_remote_code:
        remedy = "read the Python files beside its config.json, then pass --trust-remote-code"
        raise UsageError(
            f"is a {model_type} model, which runs code from its own repository", where=folder.name, remedy=remedy
        )
    rate = int(settings.get("sampling_rate") or folder.config.get("sampling_rate") or 16_000)
    runner = _Runner(folder, rate, code=code)
    model = runner.build()
    counts, states = [], ()
    with fails_as_one_line(folder.name, "a forward pass on noise"):
        for seconds in _NOISE_S:
            states, last = runner.states(model, runner.noise(seconds))
            counts.append(last.shape[1])
    if counts[1] <= counts[0]:
        what = f"returns {counts[0]} frames for 2 s and {counts[1]} for 4 s, so its valid frames cannot be counted"
        raise EncoderError(what, where=folder.name, remedy="write a wrapper: docs/adding-an-encoder.md")
    info = describe(
        folder,
        model_type,
        sample_rate=rate,
        dim=last.shape[2],
        layers=tuple(str(index) for index in range(len(states))),
        hop_s=(_NOISE_S[1] - _NOISE_S[0]) / (counts[1] - counts[0]),
        context_s=None,
        min_s=0.1,
        batching="single",
        host_inputs=("waveforms", "lengths"),
        notes=default_notes(folder, f"{rate:,} Hz and waveforms as they are"),
    )
    identity = dict(info.identity)
    if code:
        identity["code"] = [sha256_file(file) for file in sorted(folder.path.glob("*.py"))]
    return PretrainedEncoder(
        replace(info, identity=identity, parameters=sum(p.numel() for p in model.parameters())), lambda: model, runner
    )


class _Runner:
    """Runs a model of unknown class on one clip at a time."""

    def __init__(self, folder: ModelFolder, rate: int, *, code: bool) -> None:
        self._folder, self._rate, self._code = folder, rate, code
        self._extract: Any = None

    def build(self) -> Any:
        from transformers import AutoModel

        if extractor_settings(self._folder) is not None:
            self._extract = load_extractor(self._folder, code=self._code)
        return load_pretrained(AutoModel, self._folder, code=self._code).eval()

    def noise(self, seconds: int) -> torch.Tensor:
        import torch

        return 0.1 * torch.randn(1, seconds * self._rate, generator=torch.Generator().manual_seed(0))

    def states(self, model: Any, waveform: torch.Tensor) -> tuple[Sequence[torch.Tensor], torch.Tensor]:
        """Return the hidden states and the output, each `(1, frames, dim)`, of one clip `(1, samples)`."""
        import inspect

        import torch

        inputs: dict[str, Any] = {"input_values": waveform}
        if self._extract is not None:
            inputs = dict(self._extract(waveform[0].numpy(), sampling_rate=self._rate, return_tensors="pt"))
        device = next(model.parameters()).device
        inputs = {
            name: send(value, device).to(model.dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
        }
        parameters = inspect.signature(model.forward).parameters.values()
        takes_states = any(p.name == "output_hidden_states" or p.kind == p.VAR_KEYWORD for p in parameters)
        with torch.inference_mode():
            output = model(**inputs, **({"output_hidden_states": True} if takes_states else {}))
        last, states = getattr(output, "last_hidden_state", None), getattr(output, "hidden_states", None)
        if last is None and isinstance(states, torch.Tensor):
            last, states = states, None  # Dasheng names its output hidden_states
        if last is None or last.ndim != 3:
            what, remedy = "returns no frames as last_hidden_state", "write a wrapper: docs/adding-an-encoder.md"
            raise EncoderError(what, where=self._folder.name, remedy=remedy)
        # Layers whose rate or width differs from the output's (SEW, Swin) cannot be stacked with it.
        stackable = states is not None and all(state.shape == last.shape for state in states)
        return (states if stackable and states else (last,)), last

    def __call__(self, model: Any, waveforms: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]) -> Encoded:
        import torch

        states, last = self.states(model, waveforms)
        return Encoded(pick(states, last, layers), torch.full_like(lengths, last.shape[1]))
