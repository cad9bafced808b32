"""Encoders from a file: a class with our contract, or one written for X-ARES."""

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

# What a user's own code may raise while it is imported or its class made.
_OF_USERS = (
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
_XARES = ("sampling_rate", "output_dim", "hop_size_in_ms")


def open_file(spec: ModelSpec) -> Encoder:
    """Return the encoder `FILE.py:Class`; the class takes the ModelSpec or nothing.

    Raises UsageError where file or class is missing, EncoderError where the class keeps neither contract.
    """
    file, _, name = spec.name.rpartition(":")
    path = Path(file).expanduser()
    if not path.is_file():
        raise UsageError("there is no such file", where=f"-m {spec.name}")
    kind = getattr(_module(path), name, None)
    if not isinstance(kind, type):
        raise UsageError(f"defines no class {name!r}", where=path)
    wanted = [
        p for p in inspect.signature(kind).parameters.values() if p.default is p.empty and p.kind < p.VAR_POSITIONAL
    ]
    with names_the_line(path):
        made: Any = kind(spec) if wanted else kind()
    source = {"source": sha256_file(path)}
    if isinstance(getattr(made, "info", None), EncoderInfo):
        return _Adopted(made, replace(made.info, identity={**made.info.identity, **source}))
    if all(hasattr(made, field) for field in _XARES) and callable(made):
        return XaresEncoder(made, name, source)
    what = f"{name} has neither `info: EncoderInfo` with load and encode, nor X-ARES's {', '.join(_XARES)}"
    raise EncoderError(what, where=path, remedy="see docs/adding-an-encoder.md")


class _Adopted:
    """A user's encoder under an identity that holds its source."""

    def __init__(self, inner: Encoder, info: EncoderInfo) -> None:
        self._inner = inner
        self.info = info

    def load(self, device: str, dtype: str) -> None:
        self._inner.load(device, dtype)

    def encode(self, waveforms: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]) -> Encoded:
        return self._inner.encode(waveforms, lengths, layers)


class XaresEncoder:
    """A class in X-ARES's form: called with `(batch, samples)`, returns `(batch, frames, dim)`.

    It knows no lengths, so clips go one by one and all its frames count. Its hop is the one it declares; `uwbench
    models check` says whether that is true.
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
        """Move the model, which its constructor loaded, to `device`; float32 alone, as X-ARES runs it."""
        import torch

        if torch_dtype(dtype) != torch.float32:
            raise EncoderError("runs in fp32 alone", where=self.info.name, remedy="drop --dtype")
        if isinstance(self._model, torch.nn.Module):
            self._model.to(device).eval()

    def encode(self, waveforms: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]) -> Encoded:
        """Return all frames of one clip."""
        import torch

        frames = self._model(waveforms)
        valid = torch.full_like(lengths, frames.shape[1])
        return Encoded(frames.unsqueeze(1).expand(-1, len(layers), -1, -1), valid)


def hash_weights(model: Any) -> str | None:
    """Return the sha256 of a module's tensors in the order of their names; None for what is no module."""
    import hashlib

    import torch

    if not isinstance(model, torch.nn.Module):
        return None
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _module(path: Path) -> Any:
    """Import a file under a name of its own, its folder on the path meanwhile as if it had been run."""
    made = importlib.util.spec_from_file_location(f"uwbench_own_{sha256_file(path)[:16]}", path)
    if made is None or made.loader is None:
        raise UsageError("is not a Python file", where=path)
    module = importlib.util.module_from_spec(made)
    sys.modules[made.name] = module  # dataclasses and pickles look their module up
    sys.path.insert(0, str(path.resolve().parent))
    try:
        with names_the_line(path):
            made.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.resolve().parent))
    return module


@contextmanager
def names_the_line(path: Path) -> Iterator[None]:
    """Turn what code that is not ours raises while it is loaded into a UsageError with the line of its file."""
    try:
        yield
    except SyntaxError as error:
        raise UsageError(f"cannot be imported ({error.msg})", where=f"{path}:{error.lineno}") from error
    except _OF_USERS as error:
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = ":".join([str(path), *(str(frame.lineno) for frame in own[-1:])])
        raise UsageError(f"stops with {type(error).__name__}: {' '.join(str(error).split())}", where=where) from error
