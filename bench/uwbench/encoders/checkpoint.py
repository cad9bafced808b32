"""Checkpoint folders: find or download them, identify them by content, read their tensors.

Nothing here imports torch until tensors are read, so a run whose embeddings are all cached costs one hash.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
_VARIANTS = ["model.*.safetensors", "model*-of-*.safetensors", "pytorch_model.*.bin", "pytorch_model*-of-*.bin"]
# What torch.compile, FSDP and activation checkpointing put into the names of tensors, and where checkpoints nest them.
_WRAPPERS = re.compile(r"\b(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_OTHER_WEIGHTS = {".safetensors", ".bin", ".ckpt", ".pt", ".pth", ".h5", ".msgpack", ".onnx"}
_ADAPTER = ("adapter_config", "adapter_model")
_ADAPTER_TENSOR = re.compile(r"\b(?:lora_[A-Za-z]|ia3_l|hada_w|vera_lambda|oft_r|base_layer\.)")
_CHUNK = 1 << 24  # bytes that are hashed at a time
_NESTED = ("state_dict", "model_state_dict", "model", "module")


def open_folder(path: Path, *, name: str, revision: str | None = None) -> ModelFolder:
    """Return the checkpoint in `path`; raise InputError if it is not one, EncoderError if it is a PEFT adapter."""
    _refuse_adapter(path, (file.name for file in sorted(path.glob("adapter_*")) if file.stem in _ADAPTER))
    config = read_json(path / "config.json")
    if config is None:
        remedy = "a model folder holds config.json and model.safetensors, as save_pretrained writes them"
        raise InputError("has no config.json", where=path, remedy=remedy)
    return ModelFolder(path, config, revision, name)


def _refuse_adapter(path: Path, names: Iterable[str]) -> None:
    """Raise EncoderError if there is any of `names`, which are files or tensors of a PEFT adapter."""
    for name in names:
        remedy = "merge it into its base (merge_and_unload, then save_pretrained), or remove it"
        raise EncoderError(f"holds a PEFT adapter ({name}), which is not applied", where=path, remedy=remedy)


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
        for weights in (_SAFETENSORS, _PICKLES, _VARIANTS):
            path = fetch([*texts, *weights])
            if any(file for pattern in weights for file in path.glob(pattern)):
                break
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


def extractor_settings(folder: ModelFolder) -> Mapping[str, Any] | None:
    """Return the settings of the feature extractor that AutoFeatureExtractor would load, or None if there is none.

    One nested in processor_config.json, as transformers 5 writes it, comes before preprocessor_config.json.
    """
    processor = read_json(folder.path / "processor_config.json")
    nested = processor if isinstance(processor, dict) else {}
    settings = nested.get("feature_extractor", nested.get("audio_processor"))
    if settings is None:
        settings = read_json(folder.path / "preprocessor_config.json")
    if settings is not None and not isinstance(settings, dict):
        raise InputError("holds a feature extractor that is no JSON object", where=folder.path)
    return settings


def weight_files(folder: ModelFolder) -> list[Path]:
    """Return the weight files, sharded or whole: safetensors, or pickles if there are none, or the only variant (fp16).

    As in transformers, a whole file comes before shards. Raises EncoderError if one of them is missing.
    """
    files = _weights(folder)[0]
    _require(files, folder)
    return files


def _require(files: Iterable[Path], folder: ModelFolder) -> None:
    """Raise EncoderError if one of `files` is missing."""
    for file in files:
        if not file.is_file():
            raise EncoderError(f"lacks the weights file {file.name}", where=folder.path, remedy=_AGAIN)


def _weights(folder: ModelFolder) -> tuple[list[Path], Path | None]:
    """Return the weight files, which may be missing, and the index that lists them, if one does."""
    path = folder.path
    for variant in ("", ".*"):
        for stem, suffix in (("model", "safetensors"), ("pytorch_model", "bin")):
            whole = [file for file in sorted(path.glob(f"{stem}{variant}.{suffix}")) if "-of-" not in file.name]
            indices = sorted(path.glob(f"{stem}.{suffix}.index{variant}.json"))
            sets: list[tuple[list[Path], Path | None]] = [([file], None) for file in whole]
            sets += [(sorted(set(_listed(index).values())), index) for index in indices]
            if variant and len(sets) > 1:
                what = f"holds its weights in several variants ({', '.join(file.name for file in [*whole, *indices])})"
                raise EncoderError(what, where=path, remedy="keep one of them")
            if sets:
                return sets[0]
    others = [file.name for file in sorted(path.iterdir()) if file.suffix in _OTHER_WEIGHTS]
    what = f"holds no weights that can be read (but {', '.join(others[:3])})" if others else "holds no weights"
    raise EncoderError(what, where=path, remedy="put model.safetensors there, as save_pretrained writes it")


def _listed(path: Path) -> dict[str, Path]:
    """Return the file of each tensor in an index; raise InputError if there are none or they lie outside its folder."""
    index = read_json(path)
    listed = index.get("weight_map") if isinstance(index, dict) else None
    names = {str(tensor): str(file) for tensor, file in listed.items()} if isinstance(listed, dict) else {}
    if not names or any(Path(name).name != name for name in names.values()):
        raise InputError("lists no files of its folder under weight_map", where=path, remedy=_AGAIN)
    return {tensor: path.parent / file for tensor, file in names.items()}


def identity_of(folder: ModelFolder, files: Sequence[Path] | None = None) -> dict[str, Any]:
    """Return what identifies a checkpoint: its configuration, its feature extractor's, and the weights' contents.

    `files` are the weight files to read, if not all of them. File names do not count.
    """
    return {
        "config": digest(_cleaned(folder.config)),
        "weights": [sha256_file(file) for file in files or weight_files(folder)],
        **extractor_identity(folder),
    }


def extractor_identity(folder: ModelFolder) -> dict[str, str]:
    """Return what identifies a checkpoint's feature extractor."""
    identity: dict[str, str] = {}
    texts = {
        "preprocessor_config.json": extractor_settings(folder),  # wherever they lie: the settings alone count
        "feature_extractor_config.json": read_json(folder.path / "feature_extractor_config.json"),
    }
    for name, content in texts.items():
        if content is not None:
            identity[name] = sha256_bytes(json.dumps(_cleaned(content), sort_keys=True).encode())
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
    prefix, places = _under(folder, prefixes)
    tensors: dict[str, torch.Tensor] = {}
    for file in dict.fromkeys(file for file, _ in places.values()):
        stored = {name: place[1] for name, place in places.items() if place[0] == file}
        values = _read(file, list(stored.values()))
        tensors.update(zip((name.removeprefix(prefix) for name in stored), values, strict=True))
    return tensors


@contextmanager
def as_transformers_reads(folder: ModelFolder, lead: str = "") -> Iterator[Path]:
    """Yield a folder that `from_pretrained` reads: this one, or a temporary one if its weights need other names.

    They do if a wrapper's prefix is in their names, if they are nested in a checkpoint, if they are a variant, or if
    `lead` is to be taken off every name.
    """
    files, stored = weight_files(folder), stored_tensors(folder)
    nested = any(file.suffix == ".bin" and _tensors_in(_unpickled(file), file)[1] for file in files)
    variant = not any(re.fullmatch(r"(pytorch_)?model(-\d+-of-\d+)?\.\w+", file.name) for file in files)
    if not (lead or nested or variant or any(name != place[1] for name, place in stored.items())):
        yield folder.path
        return
    from safetensors.torch import save_file

    with tempfile.TemporaryDirectory(prefix="uwbench-") as place:
        for file in folder.path.iterdir():
            if file.is_file() and (file.suffix == ".py" or (file.suffix == ".json" and ".index" not in file.name)):
                Path(place, file.name).write_bytes(file.read_bytes())
        tensors = {name.removeprefix(lead): value.clone() for name, value in read_tensors(folder, [""]).items()}
        save_file(tensors, Path(place, "model.safetensors"), metadata={"format": "pt"})
        yield Path(place)


def files_under(folder: ModelFolder, prefixes: Sequence[str]) -> list[Path]:
    """Return the weight files that `read_tensors` reads; of a large model, the shards that hold its encoder."""
    return sorted({file for file, _ in _under(folder, prefixes)[1].values()})


def hash_of_tensors(folder: ModelFolder, prefix: str) -> str:
    """Return the hex sha256 of the tensors under `prefix`: names without it, types, shapes and bytes, by name.

    Only their bytes are read, so it is the same for every sharding and whatever lies beside them. Pickles, which cannot
    be read in part, are hashed as whole files.
    """
    places = _under(folder, [prefix])[1]
    total, headers = hashlib.sha256(), {}
    for name, (file, stored) in sorted(places.items()):
        if file.suffix != ".safetensors":
            return digest([sha256_file(path) for path in files_under(folder, [prefix])])
        if file not in headers:
            headers[file] = _header(file)
        entry = headers[file][stored]
        total.update(json.dumps([name.removeprefix(prefix), entry["dtype"], entry["shape"]]).encode())
        with file.open("rb") as opened:
            base = 8 + int.from_bytes(opened.read(8), "little")
            start, end = entry["data_offsets"]
            opened.seek(base + start)
            for offset in range(start, end, _CHUNK):
                total.update(opened.read(min(_CHUNK, end - offset)))
    return total.hexdigest()


def stored_tensors(folder: ModelFolder) -> dict[str, tuple[Path, str]]:
    """Return the file of each tensor and its name there, by its name without the prefixes of wrappers.

    Those of a shard that is missing are taken from the index: a folder needs the shards that hold its encoder alone.
    Raises EncoderError if some are of an adapter that was not merged: as the rest fit, it would be left out in silence.
    """
    files, index = _weights(folder)
    if index is None:
        _require(files, folder)
    places = [(file, name) for file in files if file.is_file() for name in _names(file)]
    if index is not None and not all(file.is_file() for file in files):
        places += [(file, name) for name, file in _listed(index).items() if not file.is_file()]
    _refuse_adapter(folder.path, (name for _, name in places if _ADAPTER_TENSOR.search(name)))
    return dict(zip(_unwrapped(name for _, name in places), places, strict=True))


def _unwrapped(names: Iterable[str]) -> list[str]:
    """Return the names of tensors without the prefixes that torch.compile, FSDP and data parallelism add."""
    cleaned = [_WRAPPERS.sub("", name) for name in names]
    while cleaned and all(name.startswith("module.") for name in cleaned):
        cleaned = [name.removeprefix("module.") for name in cleaned]
    return cleaned


def _under(folder: ModelFolder, prefixes: Sequence[str]) -> tuple[str, dict[str, tuple[Path, str]]]:
    """Return the first of `prefixes` that occurs, and the file and stored name of each tensor under it."""
    stored = stored_tensors(folder)
    for prefix in prefixes:
        matching = {name: place for name, place in stored.items() if name.startswith(prefix)}
        if matching:
            _require({file for file, _ in matching.values()}, folder)
            return prefix, matching
    expected = " or ".join(f"{prefix}*" for prefix in prefixes)
    raise EncoderError(f"the weights hold no {expected}", where=folder.path)


def fill(module: torch.nn.Module, tensors: Mapping[str, torch.Tensor], folder: ModelFolder) -> None:
    """Load `tensors` into a module built on the meta device; raise EncoderError if names or shapes do not fit."""
    expected = module.state_dict()
    faults = {
        "lack": [name for name in expected if name not in tensors],
        "hold in another shape": [n for n in expected if n in tensors and tensors[n].shape != expected[n].shape],
        "also hold": [name for name in tensors if name not in expected],
    }
    problems = [f"{what} {names[0]} ({len(names):,} in all)" for what, names in faults.items() if names]
    if problems:
        raise EncoderError(f"the weights do not fit config.json: they {', '.join(problems)}", where=folder.path)
    module.load_state_dict(dict(tensors), strict=True, assign=True)


def count_parameters(folder: ModelFolder, prefixes: Sequence[str]) -> int | None:
    """Return the number of values under the first of `prefixes` that occurs, read from safetensors headers alone.

    Returns None for pickles, which have no header.
    """
    if any(file.suffix != ".safetensors" for file in _weights(folder)[0]):
        return None
    stored = stored_tensors(folder)
    for prefix in prefixes:
        places = [place for name, place in stored.items() if name.startswith(prefix)]
        if places:
            files = {file for file, _ in places}
            _require(files, folder)
            headers = {file: _header(file) for file in files}
            return sum(math.prod(headers[file][name]["shape"]) for file, name in places)
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
            raise EncoderError(f"is damaged ({one_line(error)})", where=file, remedy=_AGAIN) from error
    return list(_tensors_in(_unpickled(file), file)[0])


def _read(file: Path, names: Sequence[str]) -> list[torch.Tensor]:
    if file.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(file, framework="pt") as stored:
            return [stored.get_tensor(name) for name in names]
    content, _ = _tensors_in(_unpickled(file), file)
    return [content[name] for name in names]


def _tensors_in(content: Any, file: Path) -> tuple[dict[str, torch.Tensor], str]:
    """Return the tensors of an unpickled checkpoint by name, and the key that they are nested under ("" if none)."""
    import torch

    for key in ("", *_NESTED):
        tensors = content.get(key) if key and isinstance(content, dict) else content
        if isinstance(tensors, dict) and tensors and all(isinstance(value, torch.Tensor) for value in tensors.values()):
            return tensors, key
    keys = ", ".join(map(str, list(content)[:5])) if isinstance(content, dict) else type(content).__name__
    what = f"holds no dictionary of tensors by itself or under {', '.join(_NESTED)} ({keys[:100]})"
    raise EncoderError(what, where=file, remedy="save model.state_dict() alone")


def one_line(error: Exception) -> str:
    """Return an error's text on one line, cut to a readable length."""
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else f"{text[:200]} ..."


def _unpickled(file: Path) -> Any:
    import pickle
    import zipfile

    import torch

    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:
        remedy = "convert it to safetensors"
        raise EncoderError("holds more than tensors, so it is not loaded", where=file, remedy=remedy) from error
    except (EOFError, RuntimeError, OSError, ValueError, LookupError) as error:
        raise EncoderError(f"is damaged ({one_line(error)})", where=file, remedy=_AGAIN) from error
