"""Encoders with an environment of their own: `FILE.py:Class`, `hear:MODULE` or a folder in another interpreter.

The interpreter needs numpy and the model's packages, and not uwbench. What its worker says is checked before it counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from uwbench.base.hashing import sha256_file
from uwbench.base.schema import Closed, first_fault
from uwbench.encoders.base import Batching, Encoded, EncoderInfo, ModelSpec, TextTower
from uwbench.encoders.own_code import local_sources, training_data_in, weights_identity
from uwbench.encoders.own_texts import own_joint_layer
from uwbench.encoders.worker_process import WorkerProcess, describe_isolation
from uwbench.errors import EncoderError, UsageError

if TYPE_CHECKING:
    import torch

_Count = Annotated[int, Field(strict=True, gt=0, lt=1 << 24)]
_Positive = Annotated[float, Field(gt=0)]
_Seconds = Annotated[float, Field(ge=0)]
_IGNORED = ("pip", "setuptools", "wheel")  # packages that no model runs


class WorkerInfo(Closed):
    """The facts that a worker states about its model."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    family: Annotated[str, Field(min_length=1, max_length=100)]
    sample_rate: _Count
    dim: _Count
    layers: Annotated[tuple[str, ...], Field(min_length=1, max_length=10_000)]
    hop_s: _Seconds
    context_s: _Positive | None
    min_s: _Seconds
    forward_s: _Seconds
    batching: Batching
    context: str | None
    parameters: int | None
    revision: str | None
    licence: str | None
    training_data: Any
    first_token: bool


class _Opened(Closed):
    info: WorkerInfo
    python: str
    packages: dict[str, str]
    code: dict[str, str] | None
    texts: bool


@dataclass(frozen=True, slots=True)
class _Place:
    """The model as its worker finds it, its identity on this side, and the paths that the worker may not write to."""

    kind: str
    place: str
    name: str
    identity: dict[str, Any]
    paths: tuple[Path, ...]


def open_isolated(spec: ModelSpec, wrapper: str | None = None) -> IsolatedEncoder:
    """Return the encoder that `spec` names, or `wrapper` (`FILE.py:Class`) if given, in the interpreter `spec.python`.

    Raises UsageError if there is no such interpreter or model, EncoderError with the worker's last lines if it fails.
    """
    return IsolatedEncoder(spec, _place(spec if wrapper is None else replace(spec, name=wrapper)))


def _place(spec: ModelSpec) -> _Place:
    weights = [] if spec.weights is None else [Path(spec.weights).expanduser()]
    paths = tuple(path for path in weights if path.exists())
    identity = {"weights": weights_identity(spec.weights), "context": spec.context, "revision": spec.revision}
    if spec.name.startswith("hear:"):
        return _Place("hear", spec.name.removeprefix("hear:"), spec.name, {"kind": "hear", **identity}, paths)
    if ".py:" in spec.name:
        file, _, name = spec.name.rpartition(":")
        path = Path(file).expanduser().resolve()
        if not path.is_file():
            raise UsageError("there is no such file", where=f"-m {spec.name}")
        sources = local_sources(path)
        hashes = {module: sha256_file(source) for module, source in sorted(sources.items())}
        identity |= {"kind": "file", "class": name, "sources": hashes}
        return _Place("file", str(path), name, identity, (*paths, *sources.values()))
    path = Path(spec.name).expanduser()
    if path.is_dir():
        from uwbench.encoders.checkpoint import identity_of, open_folder

        folder = open_folder(path, name=path.resolve().name)
        code = [sha256_file(file) for file in sorted(path.glob("*.py"))]
        identity |= {"kind": "folder", "code": code, **identity_of(folder)}
        return _Place("folder", str(path.resolve()), folder.name, identity, (*paths, path))
    remedy = "name FILE.py:Class, hear:MODULE or a folder, or drop --python"
    raise UsageError("does not run in another interpreter", where=f"-m {spec.name}", remedy=remedy)


class IsolatedEncoder:
    """An encoder whose worker is started again if it died; one that hung is not."""

    def __init__(self, spec: ModelSpec, place: _Place) -> None:
        assert spec.python is not None
        self._spec, self._place, self._python = spec, place, spec.python
        self._loaded: tuple[str, str] | None = None
        self._worker, opened = self._start()
        self._embeds_texts = opened.texts
        info = opened.info.model_dump(exclude={"training_data"})
        packages = {name: version for name, version in sorted(opened.packages.items()) if name not in _IGNORED}
        self.info = EncoderInfo(
            **info,
            host_inputs=("waveforms", "lengths"),
            training_data=training_data_in(opened.info.training_data, place.name),
            notes=describe_isolation(place.name, self._worker.isolation),
            runs_own_code=True,
            identity={
                "worker": 1,
                **place.identity,
                "info": opened.info.model_dump(mode="json", exclude={"name", "training_data", "licence"}),
                "code": place.identity.get("code", opened.code),
                "python": opened.python,
                "packages": packages,
            },
        )

    def load(self, device: str, dtype: str) -> None:
        """Let the worker put the model on `device`, which its own packages must support."""
        self._loaded = (device, dtype)
        self._running().ask("load", device=device, dtype=dtype)

    def encode(self, waveforms: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]) -> Encoded:
        """Return the worker's frames, on the CPU, once their shape and counts are checked."""
        import torch

        worker = self._running()
        worker.send_samples(waveforms.numpy(), lengths.numpy())
        reply = worker.ask("encode", shape=list(waveforms.shape), layers=list(layers))
        shape, valid = self._checked(worker, reply, tuple(waveforms.shape), len(layers))
        return Encoded(torch.from_numpy(worker.read_frames(shape)), torch.from_numpy(valid))

    def text_tower(self) -> TextTower | None:
        """Return the text tower of a class that defines `encode_text`, which runs in the worker."""
        if not self._embeds_texts:
            return None
        return TextTower(self._embed, lambda: None, {"own": 1}, own_joint_layer(self.info))

    def _embed(self, texts: Sequence[str], device: str) -> np.ndarray:
        if self._loaded is None:
            self.load(device, "fp32")
        worker = self._running()
        shape = worker.ask("encode_text", texts=list(texts)).get("shape")
        expected = [len(texts), self.info.dim]
        if shape != expected:
            what = f"says that the vectors of {len(texts)} texts have the shape {shape!s:.80} instead of {expected}"
            raise worker.broken(what)
        vectors = worker.read_frames((len(texts), self.info.dim))
        if not np.isfinite(vectors).all():
            raise EncoderError("encode_text returns NaN or infinite values", where=self.info.name)
        return vectors

    def _checked(
        self, worker: WorkerProcess, reply: dict[str, Any], waveforms: tuple[int, ...], layers: int
    ) -> tuple[tuple[int, ...], np.ndarray]:
        batch, samples = waveforms
        try:
            shape = TypeAdapter(tuple[int, int, int, int]).validate_python(reply.get("shape"), strict=False)
            valid = TypeAdapter(list[int]).validate_python(reply.get("valid"), strict=True)
        except ValidationError:
            raise worker.broken(f"says that its frames have the shape {str(reply.get('shape'))[:80]}") from None
        if shape[:2] != (batch, layers) or shape[3] != self.info.dim or not 1 <= shape[2] <= samples:
            expected = f"({batch}, {layers}, frames, {self.info.dim}) from {samples} samples"
            raise worker.broken(f"says that its frames have the shape {shape} instead of {expected}")
        if len(valid) != batch or not all(1 <= count <= shape[2] for count in valid):
            raise worker.broken(f"says that {str(valid)[:80]} of {shape[2]} frames are valid, for {batch} clips")
        return shape, np.array(valid, np.int64)

    def _running(self) -> WorkerProcess:
        if not self._worker.alive:
            if self._worker.hung:
                raise EncoderError("its worker hung before and is not started again", where=self.info.name)
            self._worker, _ = self._start()
            if self._loaded is not None:
                device, dtype = self._loaded
                self._worker.ask("load", device=device, dtype=dtype)
        return self._worker

    def _start(self) -> tuple[WorkerProcess, _Opened]:
        place, spec = self._place, self._spec
        worker = WorkerProcess(f"-m {spec.name}", self._python, place.paths, spec.timeout_s)
        weights = None if spec.weights is None else str(Path(spec.weights).expanduser().resolve())
        if weights is not None and not Path(weights).exists():
            weights = spec.weights
        fields = asdict(replace(spec, weights=weights))
        reply = worker.ask("open", kind=place.kind, place=place.place, name=place.name, spec=fields)
        try:
            return worker, _Opened.model_validate(reply)
        except ValidationError as error:
            field, what = first_fault(error)
            raise worker.broken(f"states facts that cannot be: {field}: {what}") from None
