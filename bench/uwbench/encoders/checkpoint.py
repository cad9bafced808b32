"""Checkpoint folders: find or download them, identify them by content, read their tensors.

Nothing here imports torch until tensors are read, so a run whose embeddings are all cached costs one hash.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uwbench.base.hashing import digest, sha256_bytes, sha256_file
from uwbench.base.json_text import parse_json
from uwbench.encoders.base import ModelFolder
from uwbench.errors import EncoderError, InputError

if TYPE_CHECKING:
    import torch

# Written by the tool that saved the checkpoint; they do not affect the model.
_IGNORED = frozenset({"_name_or_path", "transformers_version"})
_TEXTS = ["*.json", "*.md"]
_SAFETENSORS = ["model.safetensors", "model-*-of-*.safetensors"]
_AGAIN = "fetch the folder again"
_PICKLES = ["pytorch_model.bin", "pytorch_model-*-of-*.bin"]


def open_folder(path: Path, *, name: str, revision: str | None = None) -> ModelFolder:
    """Return the checkpoint in `path`; raise InputError if it is not one."""
    config = read_json(path / "config.json")
    if config is None:
        remedy = "a model folder holds config.json and model.safetensors, as save_pretrained writes them"
        raise InputError("has no config.json", where=path, remedy=remedy)
    return ModelFolder(path, config, revision, name)


def download(hub_id: str, revision: str | None, *, code: bool = False, name: str | None = None) -> ModelFolder:
    """Return the checkpoint `hub_id` of the Hugging Face Hub, from the local cache if it is there.

    Python files are fetched only with `code`. Raises EncoderError if it is not cached and cannot be downloaded.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    def fetch(patterns: list[str]) -> Path:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=patterns))

    texts = [*_TEXTS, "*.py"] if code else _TEXTS
    try:
        path = fetch([*texts, *_SAFETENSORS])
        if not list(path.glob("*.safetensors")):
            path = fetch([*texts, *_PICKLES])
    except (OfflineModeIsEnabled, LocalEntryNotFoundError) as error:
        remedy = f"download it on a machine with a network (hf download {hub_id}) and pass the folder"
        raise EncoderError(
            "is not in the local cache, and the hub cannot be reached", where=hub_id, remedy=remedy
        ) from error
    except (HfHubHTTPError, HFValidationError) as error:
        reason = " ".join(str(error).split()[:40])
        remedy = "check the id and --revision; a gated model needs `hf auth login`"
        raise EncoderError(f"cannot be downloaded from the hub ({reason})", where=hub_id, remedy=remedy) from error
    return open_folder(path, name=name or hub_id, revision=path.name)


def read_json(path: Path) -> Any:
    """Return the parsed file, or None if there is no file; raise InputError if it is not JSON."""
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        raise InputError(f"cannot be read as JSON ({error})", where=path) from error


def weight_files(folder: ModelFolder) -> list[Path]:
    """Return the weight files, sharded or whole: safetensors, or pickles if there are none."""
    for stem, suffix in (("model", "safetensors"), ("pytorch_model", "bin")):
        index = read_json(folder.path / f"{stem}.{suffix}.index.json")
        whole = folder.path / f"{stem}.{suffix}"
        if index is not None:
            files = [folder.path / name for name in _listed(folder.path / f"{stem}.{suffix}.index.json", index)]
            missing = [file.name for file in files if not file.is_file()]
            if missing:
                raise EncoderError(f"lacks the weights file {missing[0]}", where=folder.path, remedy=_AGAIN)
            return files
        if whole.is_file():
            return [whole]
    remedy = "put model.safetensors there, as save_pretrained writes it"
    raise EncoderError("holds no weights", where=folder.path, remedy=remedy)


def _listed(path: Path, index: Any) -> list[str]:
    """Return the file names that an index lists; raise InputError if it lists none or points outside its folder."""
    names = index.get("weight_map") if isinstance(index, dict) else None
    files = sorted({str(name) for name in names.values()}) if isinstance(names, dict) else []
    if not files or any(Path(name).name != name for name in files):
        raise InputError("lists no files of its folder under weight_map", where=path, remedy=_AGAIN)
    return files


def identity_of(folder: ModelFolder, *texts: str, files: Sequence[Path] | None = None) -> dict[str, Any]:
    """Return what identifies a checkpoint: its configuration and the contents of its weights and of `texts`.

    `files` are the weight files to read, if not all of them. File names do not count.
    """
    identity: dict[str, Any] = {
        "config": digest(_cleaned(folder.config)),
        "weights": [sha256_file(file) for file in files or weight_files(folder)],
    }
    for text in texts:
        content = read_json(folder.path / text)
        if content is not None:
            identity[text] = sha256_bytes(json.dumps(_cleaned(content), sort_keys=True).encode())
    return identity


def training_data_of(folder: ModelFolder) -> tuple[dict[str, Any], ...] | None:
    """Return the list of data the model was trained on, from `training_data.json` or that key of `uniwhisper.json`.

    Returns None if it is unknown.
    """
    for file in ("training_data.json", "uniwhisper.json"):
        content = read_json(folder.path / file)
        listed = content.get("training_data") if isinstance(content, dict) else content
        if listed is None:
            continue
        if not (isinstance(listed, list) and all(isinstance(item, dict) for item in listed)):
            raise InputError("training_data must be a list of objects, one per dataset", where=folder.path / file)
        return tuple(listed)
    return None


def read_tensors(folder: ModelFolder, prefixes: Sequence[str]) -> dict[str, torch.Tensor]:
    """Return the tensors under the first of `prefixes` that the checkpoint has, without the prefix, on the CPU.

    Only these are read. The prefix "" takes everything. Raises EncoderError if no prefix occurs.
    """
    prefix, file_of = _under(folder, prefixes)
    tensors: dict[str, torch.Tensor] = {}
    for file in dict.fromkeys(file_of.values()):
        names = [name for name, holder in file_of.items() if holder == file]
        tensors.update(zip((name.removeprefix(prefix) for name in names), _read(file, names), strict=True))
    return tensors


def files_under(folder: ModelFolder, prefixes: Sequence[str]) -> list[Path]:
    """Return the weight files that `read_tensors` reads; of a large model, the shards that hold its encoder."""
    return sorted(set(_under(folder, prefixes)[1].values()))


def _under(folder: ModelFolder, prefixes: Sequence[str]) -> tuple[str, dict[str, Path]]:
    """Return the first of `prefixes` that occurs, and the file of each tensor under it."""
    file_of = {name: file for file in weight_files(folder) for name in _names(file)}
    for prefix in prefixes:
        matching = {name: file for name, file in file_of.items() if name.startswith(prefix)}
        if matching:
            return prefix, matching
    expected = " or ".join(f"{prefix}*" for prefix in prefixes)
    raise EncoderError(f"the weights hold no {expected}", where=folder.path)


def fill(module: torch.nn.Module, tensors: Mapping[str, torch.Tensor], folder: ModelFolder) -> None:
    """Load `tensors` into a module built on the meta device; raise EncoderError if names or shapes do not fit."""
    try:
        module.load_state_dict(dict(tensors), strict=True, assign=True)
    except RuntimeError as error:
        raise EncoderError(f"the weights do not fit config.json ({error})", where=folder.path) from error


def count_parameters(folder: ModelFolder, prefixes: Sequence[str]) -> int | None:
    """Return the number of values under the first of `prefixes` that occurs, read from safetensors headers alone.

    Returns None for pickles, which have no header.
    """
    sizes: dict[str, int] = {}
    for file in weight_files(folder):
        if file.suffix != ".safetensors":
            return None
        sizes.update({name: math.prod(entry["shape"]) for name, entry in _header(file).items()})
    for prefix in prefixes:
        matching = [size for name, size in sizes.items() if name.startswith(prefix)]
        if matching:
            return sum(matching)
    return None


def _header(file: Path) -> dict[str, Any]:
    """Return the tensors that a safetensors file declares; raise EncoderError if it is truncated or damaged.

    Format: https://huggingface.co/docs/safetensors (eight bytes of length, JSON, then the data its offsets span).
    """
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            header = parse_json(opened.read(length))
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        ends = 8 + length + max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
    except (OSError, ValueError, AttributeError, TypeError, LookupError, OverflowError, MemoryError) as error:
        raise EncoderError("is no complete safetensors file", where=file, remedy=_AGAIN) from error
    size = file.stat().st_size
    if size != ends:
        raise EncoderError(f"has {size:,} bytes, but its header says {ends:,}", where=file, remedy=_AGAIN)
    return tensors


def torch_dtype(name: str) -> torch.dtype:
    """Return the torch dtype of `fp32` or `bf16`; raise EncoderError for anything else."""
    import torch

    types = {"fp32": torch.float32, "bf16": torch.bfloat16}
    if name not in types:
        raise EncoderError(f"unknown precision {name!r}", where="--dtype", remedy=f"use {' or '.join(types)}")
    return types[name]


def _cleaned(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in _IGNORED}


def _names(file: Path) -> list[str]:
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(file, framework="np") as stored:
                return list(stored.keys())
        except (SafetensorError, OSError) as error:
            raise EncoderError(f"is damaged ({error})", where=file, remedy=_AGAIN) from error
    return list(_unpickled(file))


def _read(file: Path, names: Sequence[str]) -> list[torch.Tensor]:
    if file.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(file, framework="pt") as stored:
            return [stored.get_tensor(name) for name in names]
    content = _unpickled(file)
    return [content[name] for name in names]


def _unpickled(file: Path) -> dict[str, torch.Tensor]:
    import pickle
    import zipfile

    import torch

    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:
        remedy = "convert it to safetensors"
        raise EncoderError("holds more than tensors, so it is not loaded", where=file, remedy=remedy) from error
    except (EOFError, RuntimeError, OSError, ValueError, LookupError) as error:
        raise EncoderError(f"is damaged ({' '.join(str(error).split())})", where=file, remedy=_AGAIN) from error
