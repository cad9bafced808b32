"""Identity of encoders written as Python code: their source files, what they were built with, and their state.

An encoder's file can import modules beside it, read weights and take arguments; all of that changes its embeddings.
Code can still hide a change (an environment variable, a file it opens, randomness). So such an encoder is marked
`runs_own_code`, and extraction encodes a cached clip again before it uses cached vectors.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import inspect
import json
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from uwbench.base.hashing import sha256_bytes, sha256_file
from uwbench.encoders.base import Encoded, Encoder, EncoderInfo, ModelSpec, TextTower
from uwbench.encoders.own_texts import own_text_tower
from uwbench.errors import EncoderError, UsageError, UwbenchError

if TYPE_CHECKING:
    import torch


def local_sources(path: Path) -> dict[str, Path]:
    """Return a Python file and the modules beside it that it imports, directly or not, by their module names.

    Imports are read from the source, inside functions too. The file itself is listed under its stem.
    """
    return _reached({path.stem: path.resolve()}, path.resolve().parent, package=None)


def package_sources(module: str, path: Path) -> dict[str, Path]:
    """Return the file of an installed module and those of its own top-level package that it imports, by name."""
    top = module.partition(".")[0]
    depth = module.count(".") + (path.name == "__init__.py")
    return _reached({module: path.resolve()}, path.resolve().parents[depth], package=top)


def _reached(start: dict[str, Path], root: Path, *, package: str | None) -> dict[str, Path]:
    sources: dict[str, Path] = {}
    waiting = list(start.items())
    while waiting:
        name, file = waiting.pop()
        if name in sources:
            continue
        sources[name] = file
        for imported in _imported_names(file, package=name if file.name == "__init__.py" else name.rpartition(".")[0]):
            if package is None or imported.partition(".")[0] == package:
                waiting.extend(_files_of(imported, root))
    return sources


def _imported_names(file: Path, *, package: str) -> Iterator[str]:
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return  # the import itself names the line
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - (node.level - 1)] if node.level else []
            module = ".".join([*parents, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def _files_of(name: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """Return the files in `folder` that importing the module `name` runs: its packages and itself."""
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        place = folder.joinpath(*parts[:count])
        for file in (place / "__init__.py", place.with_suffix(".py")):
            if parts[0] and file.is_file():
                yield ".".join(parts[:count]), file


@contextmanager
def importing_from(folder: Path, modules: dict[str, Any], sources: Mapping[str, Path]) -> Iterator[None]:
    """Run user code with its folder on the path and its own sibling modules in `sys.modules`.

    `modules` keeps the siblings between calls. If two encoders' folders both have a `helper.py`, each gets its own.
    """
    siblings = {name for name in sources if not _is_installed(sys.modules.get(name))}
    displaced = {name: sys.modules.pop(name) for name in siblings if name in sys.modules}
    sys.modules.update(modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        modules.update({name: sys.modules.pop(name) for name in siblings if name in sys.modules})
        sys.modules.update(displaced)


def _is_installed(module: Any) -> bool:
    """Return whether a loaded module is part of Python or an installed package, which a sibling never replaces."""
    if module is None:
        return False
    file = getattr(module, "__file__", None)
    return file is None or "site-packages" in Path(file).parts or module.__name__ in sys.stdlib_module_names


def code_identity(sources: Mapping[str, Path], name: str, encoder: Any, spec: ModelSpec) -> dict[str, Any]:
    """Return what identifies an encoder of the class `name` from a file: code, arguments, info and tensors."""
    info = getattr(encoder, "info", None)
    return {
        "class": name,
        "sources": {module: sha256_file(file) for module, file in sorted(sources.items())},
        "weights": weights_identity(spec.weights),
        "context": spec.context,
        "revision": spec.revision,
        "info": _plain(asdict(info)) if isinstance(info, EncoderInfo) else None,
        "tensors": state_sha256(encoder),
    }


def weights_identity(weights: str | None) -> Any:
    """Return the content hash of a weights file or folder, or the text itself if it is neither."""
    if weights is None:
        return None
    path = Path(weights).expanduser()
    if path.is_file():
        return sha256_file(path)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return {str(file.relative_to(path)): sha256_file(file) for file in files}
    return weights


def training_data_in(stated: Any, where: str) -> tuple[dict[str, Any], ...] | None:
    """Return the training data that own code or a model card states, names or `{dataset, split}`; None if it does not.

    Raises EncoderError for another form, from which no contamination flag could follow.
    """
    if stated is None:
        return None
    items = [{"dataset": item} if isinstance(item, str) else item for item in _listed(stated)]
    for item in items:
        known = (
            isinstance(item, dict) and bool(item.get("dataset")) and isinstance(item.get("sources", []), list | tuple)
        )
        if not known or not all(isinstance(item.get(key, ""), str) for key in ("dataset", "split")):
            what = f"training_data holds {str(item)[:80]!r}"
            remedy = 'list names or {"dataset": NAME, "split": SPLIT}'
            raise EncoderError(what, where=where, remedy=remedy)
    return tuple(items)


def _listed(stated: Any) -> list[Any]:
    return list(stated) if isinstance(stated, list | tuple) else [stated]


class AdoptedEncoder:
    """A copy of an encoder made in a program or notebook, under an identity that holds its source and state.

    Loading changes the copy alone, so the object that the caller holds keeps its identity.
    """

    def __init__(self, encoder: Encoder) -> None:
        info = getattr(encoder, "info", None)
        if not isinstance(info, EncoderInfo):
            what = f"{type(encoder).__name__} is no encoder: it has no `info: EncoderInfo`"
            raise UsageError(what, remedy="see docs/adding-an-encoder.md")
        self._inner = copy.copy(encoder)
        for key, value in vars(encoder).items():
            if isinstance(value, list | dict | set):  # filled in place by some encoders
                vars(self._inner)[key] = copy.copy(value)
        identity = {**info.identity, "code": instance_identity(encoder)}
        self.info = replace(info, identity=identity, runs_own_code=True)
        self._loaded = False

    def load(self, device: str, dtype: str) -> None:
        with fails_as_one_line(self.info.name, "load"):
            self._inner.load(device, dtype)
        self._loaded = True

    def text_tower(self) -> TextTower | None:
        """Return the text tower of an object that defines `encode_text`."""
        return own_text_tower(
            self._inner, self.info, self._load_once, lambda step: fails_as_one_line(self.info.name, step)
        )

    def _load_once(self, device: str) -> None:
        if not self._loaded:
            self.load(device, "fp32")

    def encode(self, waveforms: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]) -> Encoded:
        with fails_as_one_line(self.info.name, "encode"):
            return checked(self._inner.encode(waveforms, lengths, layers), len(layers), self.info)


@contextmanager
def fails_as_one_line(name: str, step: str) -> Iterator[None]:
    """Turn any exception of user code into an EncoderError; running out of memory passes, as batches shrink for it."""
    try:
        yield
    except (UwbenchError, MemoryError):
        raise
    except Exception as error:  # user code may raise anything
        text = " ".join(str(error).split())
        if "memory" in text.lower() or "STATUS_ALLOC_FAILED" in text:
            raise
        line = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{step} fails with {type(error).__name__}: {text[:300]} ({Path(line.filename).name}:{line.lineno})"
        raise EncoderError(what, where=name, remedy="run: uwbench models check, once it is repaired") from error


def checked(encoded: Any, n_layers: int, info: EncoderInfo) -> Encoded:
    """Return the output of `encode` if it follows the contract; raise EncoderError that names the part at fault."""
    import torch

    if not isinstance(encoded, Encoded):
        what = f"encode returns a {type(encoded).__name__}; the contract is Encoded(frames, valid)"
    elif not isinstance(encoded.frames, torch.Tensor):
        what = f"encode returns frames as {type(encoded.frames).__name__}; the contract is a torch.Tensor"
    elif encoded.frames.ndim != 4:
        shape = tuple(encoded.frames.shape)
        what = f"encode returns frames of shape {shape}; the contract is (batch, layers, frames, dim)"
    elif encoded.frames.shape[1] != n_layers or encoded.frames.shape[3] != info.dim:
        shape = tuple(encoded.frames.shape)
        what = f"encode returns frames of shape {shape} for {n_layers} layers of {info.dim} values"
    elif not isinstance(encoded.valid, torch.Tensor):
        what = f"encode returns valid as {type(encoded.valid).__name__}; the contract is an int64 torch.Tensor (batch,)"
    elif encoded.valid.shape != encoded.frames.shape[:1] or encoded.valid.is_floating_point():
        form = f"shape {tuple(encoded.valid.shape)} and type {encoded.valid.dtype}"
        what = f"encode returns valid of {form}; the contract is int64 (batch,)"
    else:
        return encoded
    raise EncoderError(what, where=info.name, remedy="see docs/adding-an-encoder.md")


def adopt(encoder: Encoder) -> Encoder:
    """Return an encoder object with an identity of its own code; encoders of uwbench have one already."""
    return encoder if type(encoder).__module__.partition(".")[0] == "uwbench" else AdoptedEncoder(encoder)


def instance_identity(encoder: Any) -> dict[str, Any]:
    """Return the identity of an encoder object built in a program or notebook: its classes' source and its state.

    Raises EncoderError, naming the attribute, if the source or the state cannot be read.
    """
    kind = type(encoder)
    sources = {}
    for base in kind.__mro__:
        if base is object or base.__module__.partition(".")[0] in {"torch", "typing", "abc", "uwbench"}:
            continue
        try:
            sources[base.__qualname__] = sha256_bytes(_class_source(base).encode())
        except (OSError, TypeError) as error:
            remedy = "define the class in a file or a notebook cell, or pass -m FILE.py:Class"
            raise EncoderError(
                f"{base.__qualname__} has no source to identify it by", where="models", remedy=remedy
            ) from error
    return {"class": kind.__qualname__, "sources": sources, "state": state_sha256(encoder, strict=True)}


def _class_source(kind: type) -> str:
    """Return a class's source; raise OSError or TypeError if there is none.

    A class in a notebook has no file, but its methods know the cell, which Python keeps for tracebacks.
    """
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        for method in map(inspect.unwrap, filter(inspect.isfunction, vars(kind).values())):
            cell, line = "".join(inspect.findsource(method)[0]), method.__code__.co_firstlineno
            classes = (node for node in ast.walk(ast.parse(cell)) if isinstance(node, ast.ClassDef))
            for node in classes:
                if node.name == kind.__name__ and node.lineno <= line <= (node.end_lineno or line):
                    return ast.get_source_segment(cell, node) or cell
        raise


def state_sha256(encoder: Any, *, strict: bool = False) -> str:
    """Return the sha256 of an object's state: its plain values, arrays, tensors and modules, by attribute name.

    With `strict`, an attribute of any other type is an EncoderError; otherwise it is left out.
    """
    total = hashlib.sha256()
    _add(total, encoder, "", strict=strict, inside=())
    return total.hexdigest()


def _add(total: Any, value: Any, name: str, *, strict: bool, inside: tuple[int, ...]) -> None:
    """Hash one value under its name, with everything that it contains."""
    if id(value) in inside or isinstance(value, EncoderInfo):  # info is hashed by itself
        return
    torch = sys.modules.get("torch")
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | Path | np.generic | type):
        total.update(f"{name}={value!r}".encode())
    elif isinstance(value, np.ndarray) and value.dtype != object:
        total.update(f"{name}:{value.dtype}{value.shape}".encode() + np.ascontiguousarray(value).tobytes())
    elif torch is not None and isinstance(value, torch.Tensor):
        tensor: Any = value
        raw = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        total.update(f"{name}:{tensor.dtype}{tuple(tensor.shape)}".encode() + raw)
    elif torch is not None and isinstance(value, torch.dtype | torch.device):
        total.update(f"{name}={value}".encode())
    elif inspect.ismodule(value):
        total.update(f"{name}={value.__name__} {getattr(value, '__version__', '')}".encode())
    elif inspect.isfunction(value) or inspect.ismethod(value):
        _add_code(total, value.__code__, name)
        for index, cell in enumerate(value.__closure__ or ()):
            _add(total, cell.cell_contents, f"{name}.closure[{index}]", strict=strict, inside=(*inside, id(value)))
    else:
        parts = _parts(value, torch, top=not inside, strict=strict)
        if parts is None and strict:
            what = f"attribute {name.lstrip('.')} is a {type(value).__name__}, which cannot be hashed"
            remedy = "keep plain values, arrays, tensors or torch modules, or pass -m FILE.py:Class"
            raise EncoderError(what, where="models", remedy=remedy)
        total.update(f"{name}:{type(value).__qualname__}".encode())
        for key, item in parts or ():
            _add(total, item, f"{name}{key}", strict=strict, inside=(*inside, id(value)))


def _parts(value: Any, torch: Any, *, top: bool, strict: bool) -> list[tuple[str, Any]] | None:
    """Return what a container or object holds, by name and in a fixed order; None if it cannot be looked into."""
    if isinstance(value, Mapping):
        return [(f"[{key!r}]", value[key]) for key in sorted(value, key=repr)]
    if isinstance(value, list | tuple):
        return [(f"[{index}]", item) for index, item in enumerate(value)]
    if isinstance(value, set | frozenset):
        return [("", item) for item in sorted(value, key=repr)]
    if torch is not None and isinstance(value, torch.nn.Module):
        tensors = [(f".{key}", tensor) for key, tensor in sorted(value.state_dict().items())]
        settings = {key: item for key, item in vars(value).items() if not key.startswith("_") and key != "training"}
        return [("=", str(value)), *tensors, *((f".{key}", item) for key, item in sorted(settings.items()))]
    ours = type(value).__module__.partition(".")[0] not in sys.stdlib_module_names
    if hasattr(value, "__dict__") and (top or is_dataclass(value) or (strict and ours)):
        return [(f".{key}", item) for key, item in sorted(vars(value).items())]
    return None


def _add_code(total: Any, code: Any, name: str) -> None:
    total.update(f"{name}:{code.co_names}".encode() + code.co_code)
    for constant in code.co_consts:
        if inspect.iscode(constant):
            _add_code(total, constant, name)
        else:
            total.update(repr(constant).encode())


def _plain(value: Any) -> Any:
    """Return a value as JSON holds it; what JSON has no form for becomes its text."""
    return json.loads(json.dumps(value, default=repr, sort_keys=True))
