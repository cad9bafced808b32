"""What `AutoModel` gives for a family without a file of its own, remote code included where it is allowed.

Nothing is known of such a model, so it is loaded when it is opened and run on noise of two lengths: hop, layers and
width are measured. Clips are encoded one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from uwbench.base.hashing import sha256_file
from uwbench.encoders.base import Encoded, Encoder, ModelFolder, ModelSpec
from uwbench.encoders.checkpoint import read_json
from uwbench.encoders.pretrained import PretrainedEncoder, describe, load_extractor, load_pretrained, pick
from uwbench.errors import EncoderError, UsageError

if TYPE_CHECKING:
    import torch

_PROBES_S = (2, 4)


def open_automodel(folder: ModelFolder, spec: ModelSpec) -> Encoder:
    """Return an encoder whose facts were measured; raise UsageError where its code needs `--trust-remote-code`."""
    kind = str(folder.config.get("model_type"))
    preprocessor = read_json(folder.path / "preprocessor_config.json") or {}
    code = "auto_map" in folder.config or "auto_map" in preprocessor
    if code and not spec.trust_remote_code:
        remedy = "read the Python files beside its config.json, then pass --trust-remote-code"
        raise UsageError(
            f"is a {kind} model, which runs code from its own repository", where=folder.name, remedy=remedy
        )
    rate = int(preprocessor.get("sampling_rate") or folder.config.get("sampling_rate") or 16_000)
    runner = _Runner(folder, rate, code=code)
    model = runner.build()
    counts, states = [], ()
    for seconds in _PROBES_S:
        states, last = runner.states(model, runner.noise(seconds))
        counts.append(last.shape[1])
    if counts[1] <= counts[0]:
        what = f"gives {counts[0]} frames for 2 s and {counts[1]} for 4 s, so that its valid frames cannot be told"
        raise EncoderError(what, where=folder.name, remedy="wrap it: docs/adding-an-encoder.md")
    info = describe(
        folder,
        kind,
        sample_rate=rate,
        dim=last.shape[2],
        layers=tuple(str(index) for index in range(len(states))),
        hop_s=(_PROBES_S[1] - _PROBES_S[0]) / (counts[1] - counts[0]),
        context_s=None,
        min_s=0.1,
        batching="single",
    )
    identity = dict(info.identity)
    if code:
        identity["code"] = [sha256_file(file) for file in sorted(folder.path.glob("*.py"))]
    return PretrainedEncoder(
        replace(info, identity=identity, parameters=sum(p.numel() for p in model.parameters())), lambda: model, runner
    )


class _Runner:
    def __init__(self, folder: ModelFolder, rate: int, *, code: bool) -> None:
        self._folder, self._rate, self._code = folder, rate, code
        self._extract: Any = None

    def build(self) -> Any:
        from transformers import AutoModel

        if (self._folder.path / "preprocessor_config.json").is_file():
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
            inputs = dict(self._extract(waveform[0].cpu().numpy(), sampling_rate=self._rate, return_tensors="pt"))
        device = next(model.parameters()).device
        inputs = {
            name: value.to(device, model.dtype if value.is_floating_point() else None) for name, value in inputs.items()
        }
        taken = inspect.signature(model.forward).parameters.values()
        asked = {p.name for p in taken} >= {"output_hidden_states"} or any(p.kind == p.VAR_KEYWORD for p in taken)
        with torch.inference_mode():
            output = model(**inputs, **({"output_hidden_states": True} if asked else {}))
        last, states = getattr(output, "last_hidden_state", None), getattr(output, "hidden_states", None)
        if last is None and isinstance(states, torch.Tensor):
            last, states = states, None  # Dasheng calls its output so
        if last is None or last.ndim != 3:
            what, remedy = "gives no frames as last_hidden_state", "wrap it: docs/adding-an-encoder.md"
            raise EncoderError(what, where=self._folder.name, remedy=remedy)
        # Layers of another rate or width than the output's (SEW, Swin) cannot stand beside it.
        alike = states is not None and all(state.shape == last.shape for state in states)
        return (states if alike and states else (last,)), last

    def __call__(self, model: Any, waveforms: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]) -> Encoded:
        import torch

        states, last = self.states(model, waveforms)
        return Encoded(pick(states, last, layers), torch.full_like(lengths, last.shape[1]))
