"""Encoders from a Python file: a class that follows our contract, or one written for X-ARES."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uwbench.base.hashing import sha256_file
from uwbench.encoders.base import Encoded, Encoder, EncoderInfo, ModelSpec, TextTower
from uwbench.encoders.checkpoint import torch_dtype
from uwbench.encoders.own_code import (
    checked,
    code_identity,
    fails_as_one_line,
    importing_from,
    local_sources,
    training_data_in,
)
from uwbench.encoders.own_texts import own_text_tower
from uwbench.errors import EncoderError, UsageError, UwbenchError

if TYPE_CHECKING:
    import torch

_XARES_FIELDS = ("sampling_rate", "output_dim", "hop_size_in_ms")


def open_file(spec: ModelSpec) -> Encoder:
    """Return the encoder `FILE.py:Class`; the class takes the ModelSpec or nothing.

    Raises UsageError if file or class is missing, EncoderError if the class follows neither contract.
    """
    file, _, name = spec.name.rpartition(":")
    path = Path(file).expanduser()
    if not path.is_file():
        raise UsageError("there is no such file", where=f"-m {spec.name}")
    sources, modules = local_sources(path), {}
    with importing_from(path.resolve().parent, modules, sources), names_the_line(path):
        encoder_class = getattr(_imported(path), name, None)
        if not isinstance(encoder_class, type):
            raise UsageError(f"defines no class {name!r}", where=path)
        parameters = inspect.signature(encoder_class).parameters.values()
        takes_spec = any(p.default is p.empty and p.kind < p.VAR_POSITIONAL for p in parameters)
        encoder: Any = encoder_class(spec) if takes_spec else encoder_class()
    code = {"code": code_identity(sources, name, encoder, spec)}
    if isinstance(getattr(encoder, "info", None), EncoderInfo):
        stated = encoder.info.training_data
        trained_on = training_data_in(getattr(encoder, "training_data", None) if stated is None else stated, name)
        identity = {**encoder.info.identity, **code}
        info = replace(encoder.info, identity=identity, training_data=trained_on, runs_own_code=True)
        return _FromFile(encoder, info, path, sources, modules)
    if all(hasattr(encoder, field) for field in _XARES_FIELDS) and callable(encoder):
        xares = XaresEncoder(encoder, name, code)
        return _FromFile(xares, xares.info, path, sources, modules)
    what = f"{name} has neither `info: EncoderInfo` with load and encode, nor X-ARES's {', '.join(_XARES_FIELDS)}"
    raise EncoderError(what, where=path, remedy="see docs/adding-an-encoder.md")


class _FromFile:
    """A user's encoder whose identity includes its code, and whose code finds the modules beside it."""

    def __init__(
        self, inner: Encoder, info: EncoderInfo, path: Path, sources: dict[str, Path], modules: dict[str, Any]
    ) -> None:
        self._inner, self._path, self._sources, self._modules = inner, path, sources, modules
        self.info = info
        self._loaded = False

    def load(self, device: str, dtype: str) -> None:
        with self._running("load"):
            self._inner.load(device, dtype)
            self._loaded = True

    def text_tower(self) -> TextTower | None:
        """Return the text tower of a class that defines `encode_text`."""
        return own_text_tower(self._inner, self.info, self._load_once, self._running)

    def _load_once(self, device: str) -> None:
        if not self._loaded:
            self.load(device, "fp32")

    def encode(self, waveforms: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]) -> Encoded:
        with self._running("encode"):
            return checked(self._inner.encode(waveforms, lengths, layers), len(layers), self.info)

    @contextmanager
    def _running(self, step: str) -> Iterator[None]:
        folder = self._path.resolve().parent
        with importing_from(folder, self._modules, self._sources), fails_as_one_line(self.info.name, step):
            yield


class XaresEncoder:
    """A class in X-ARES's form: called with `(batch, samples)`, returns `(batch, frames, dim)`.

    It does not know lengths, so clips are encoded one at a time and all frames count. Its hop is the one it declares;
    `uwbench models check` measures it.
    """

    def __init__(self, model: Any, name: str, code: dict[str, Any]) -> None:
        self._model = model
        self.info = EncoderInfo(
            name=name,
            family="x-ares",
            sample_rate=int(model.sampling_rate),
            dim=int(model.output_dim),
            layers=("last",),
            hop_s=float(model.hop_size_in_ms) / 1000,
            context_s=None,
            batching="single",
            training_data=training_data_in(getattr(model, "training_data", None), name),
            identity={"family": "x-ares", "version": 1, **code},
            runs_own_code=True,
        )

    def load(self, device: str, dtype: str) -> None:
        """Move the model, which its constructor loaded, to `device`; float32 only, as in X-ARES."""
        import torch

        if torch_dtype(dtype) != torch.float32:
            raise EncoderError("runs in fp32 only", where=self.info.name, remedy="drop --dtype")
        if isinstance(self._model, torch.nn.Module):
            self._model.to(device).eval()

    def encode(self, waveforms: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]) -> Encoded:
        """Return all frames of one clip."""
        import torch

        frames = self._model(waveforms)
        valid = torch.full_like(lengths, frames.shape[1])
        return Encoded(frames.unsqueeze(1).expand(-1, len(layers), -1, -1), valid)


def _imported(path: Path) -> Any:
    """Import a file under a unique module name."""
    import_spec = importlib.util.spec_from_file_location(f"uwbench_own_{sha256_file(path)[:16]}", path)
    if import_spec is None or import_spec.loader is None:
        raise UsageError("is not a Python file", where=path)
    module = importlib.util.module_from_spec(import_spec)
    sys.modules[import_spec.name] = module  # dataclasses and pickles look their module up
    import_spec.loader.exec_module(module)
    return module


@contextmanager
def names_the_line(path: Path) -> Iterator[None]:
    """Turn an exception of user code into a UsageError that names the line of its file."""
    try:
        yield
    except SyntaxError as error:
        raise UsageError(f"cannot be imported ({error.msg})", where=f"{path}:{error.lineno}") from error
    except UwbenchError:
        raise
    except Exception as error:  # user code may raise anything
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = ":".join([str(path), *map(str, lines[-1:])])
        raise UsageError(f"fails with {type(error).__name__}: {' '.join(str(error).split())}", where=where) from error
