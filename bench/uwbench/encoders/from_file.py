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
from uwbench.encoders.base import Encoded, Encoder, EncoderInfo, ModelSpec
from uwbench.encoders.checkpoint import torch_dtype
from uwbench.errors import EncoderError, UsageError

if TYPE_CHECKING:
    import torch

# Exceptions that user code may raise while it is imported or its class is built.
_USER_ERRORS = (
    ArithmeticError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
_XARES_FIELDS = ("sampling_rate", "output_dim", "hop_size_in_ms")


def open_file(spec: ModelSpec) -> Encoder:
    """Return the encoder `FILE.py:Class`; the class takes the ModelSpec or nothing.

    Raises UsageError if file or class is missing, EncoderError if the class follows neither contract.
    """
    file, _, name = spec.name.rpartition(":")
    path = Path(file).expanduser()
    if not path.is_file():
        raise UsageError("there is no such file", where=f"-m {spec.name}")
    encoder_class = getattr(_module(path), name, None)
    if not isinstance(encoder_class, type):
        raise UsageError(f"defines no class {name!r}", where=path)
    parameters = inspect.signature(encoder_class).parameters.values()
    takes_spec = any(p.default is p.empty and p.kind < p.VAR_POSITIONAL for p in parameters)
    with names_the_line(path):
        encoder: Any = encoder_class(spec) if takes_spec else encoder_class()
    source = {"source": sha256_file(path)}
    if isinstance(getattr(encoder, "info", None), EncoderInfo):
        return _WithSource(encoder, replace(encoder.info, identity={**encoder.info.identity, **source}))
    if all(hasattr(encoder, field) for field in _XARES_FIELDS) and callable(encoder):
        return XaresEncoder(encoder, name, source)
    what = f"{name} has neither `info: EncoderInfo` with load and encode, nor X-ARES's {', '.join(_XARES_FIELDS)}"
    raise EncoderError(what, where=path, remedy="see docs/adding-an-encoder.md")


class _WithSource:
    """A user's encoder whose identity includes its source file."""

    def __init__(self, inner: Encoder, info: EncoderInfo) -> None:
        self._inner = inner
        self.info = info

    def load(self, device: str, dtype: str) -> None:
        self._inner.load(device, dtype)

    def encode(self, waveforms: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]) -> Encoded:
        return self._inner.encode(waveforms, lengths, layers)


class XaresEncoder:
    """A class in X-ARES's form: called with `(batch, samples)`, returns `(batch, frames, dim)`.

    It does not know lengths, so clips are encoded one at a time and all frames count. Its hop is the one it declares;
    `uwbench models check` measures it.
    """

    def __init__(self, model: Any, name: str, source: dict[str, str]) -> None:
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
            identity={"family": "x-ares", "version": 1, "weights": hash_weights(model), **source},
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


def hash_weights(model: Any) -> str | None:
    """Return the sha256 of a module's tensors in the order of their names, or None if `model` is no module."""
    import hashlib

    import torch

    if not isinstance(model, torch.nn.Module):
        return None
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _module(path: Path) -> Any:
    """Import a file under a unique module name, with its folder on the path while it is imported."""
    import_spec = importlib.util.spec_from_file_location(f"uwbench_own_{sha256_file(path)[:16]}", path)
    if import_spec is None or import_spec.loader is None:
        raise UsageError("is not a Python file", where=path)
    module = importlib.util.module_from_spec(import_spec)
    sys.modules[import_spec.name] = module  # dataclasses and pickles look their module up
    sys.path.insert(0, str(path.resolve().parent))
    try:
        with names_the_line(path):
            import_spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.resolve().parent))
    return module


@contextmanager
def names_the_line(path: Path) -> Iterator[None]:
    """Turn an exception of user code into a UsageError that names the line of its file."""
    try:
        yield
    except SyntaxError as error:
        raise UsageError(f"cannot be imported ({error.msg})", where=f"{path}:{error.lineno}") from error
    except _USER_ERRORS as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = ":".join([str(path), *map(str, lines[-1:])])
        raise UsageError(f"fails with {type(error).__name__}: {' '.join(str(error).split())}", where=where) from error
