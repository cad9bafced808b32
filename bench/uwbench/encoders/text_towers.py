"""The text towers of CLAP and PE-Audio.

A tower reads its own tensors when a text is embedded for the first time; clips are encoded without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from uwbench.base.hashing import digest, sha256_file
from uwbench.encoders.base import JOINT, Encoder, Head, ModelFolder, TextTower
from uwbench.encoders.checkpoint import hash_of_tensors, one_line, read_tensors, stored_tensors
from uwbench.encoders.pretrained import load_pretrained
from uwbench.encoders.tower import Tower, load_tower
from uwbench.errors import EncoderError

if TYPE_CHECKING:
    import torch

_BATCH = 64  # texts in one forward pass
# Files that a tokenizer is made of, under every name that transformers reads.
_TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
)
HEAD_EPS = 1e-6  # of PE-Audio's heads (PeAudioContrastiveHead in transformers)


def text_tower_of(encoder: Encoder) -> TextTower:
    """Return an encoder's text tower; raise EncoderError, with the reason, if it has none that can be used."""
    offer: Callable[[], TextTower | None] | None = getattr(encoder, "text_tower", None)
    tower = offer() if callable(offer) else None
    if tower is None:
        raise EncoderError("embeds no texts", where=encoder.info.name)
    return tower


def clap_texts(folder: ModelFolder) -> Callable[[], TextTower] | None:
    """Return the function that opens the text tower of a whole CLAP model; None if the folder is its audio tower alone.

    As `ClapModel.get_audio_features` does, its head maps the mean over all frames, those of repetitions too.
    """
    if "text_config" not in folder.config:
        return None

    def build() -> Any:
        from transformers import ClapConfig, ClapTextModelWithProjection

        config: Any = ClapConfig.from_pretrained(folder.path).text_config
        return load_pretrained(ClapTextModelWithProjection, folder, config=config)

    def forward(model: Any, tokens: Any) -> torch.Tensor:
        return model(**tokens).text_embeds

    def head() -> Head:
        activation = folder.config.get("projection_hidden_act", "relu")
        if activation != "relu":
            what = f"projects by the activation {activation!r}, of which nothing is known"
            raise EncoderError(what, where=folder.path / "config.json", remedy="leave zero-shot out")
        tensors = _arrays(folder, f"{_lead(folder, 'audio_projection.')}audio_projection.")
        return Head(
            tuple(tensors[f"linear{number}.weight"] for number in (1, 2)),
            tuple(tensors[f"linear{number}.bias"] for number in (1, 2)),
        )

    def open_tower() -> TextTower:
        identity = {"texts": 1, "tokenizer": _tokenizer_identity(folder)}
        return TextTower(_Embedder(folder, build, forward), head, identity, "last", pooling="mean-all")

    return open_tower


def pe_audio_texts(folder: ModelFolder) -> Callable[[], TextTower]:
    """Return the function that opens PE-Audio's text tower.

    Its head maps the layer `joint`, which is normalised already: the head's own scale and shift are in its weights.
    """
    lead = _lead(folder, "text_audio_head.")

    def build() -> Any:
        import torch

        settings = folder.config["text_config"]
        tower = Tower(folder, "modernbert.ModernBertModel", f"{lead}text_model.", ("text_config",), settings)
        tensors = read_tensors(folder, [f"{lead}text_audio_head."])
        head = torch.nn.Sequential(
            torch.nn.LayerNorm(len(tensors["layer_norm.weight"]), eps=HEAD_EPS),
            torch.nn.Linear(*reversed(tensors["proj.weight"].shape), bias=False),
        )
        names = {"layer_norm.weight": "0.weight", "layer_norm.bias": "0.bias", "proj.weight": "1.weight"}
        head.load_state_dict({names[name]: tensor.float() for name, tensor in tensors.items()})
        return torch.nn.ModuleDict({"text": load_tower(tower), "head": head})

    def forward(model: Any, tokens: Any) -> torch.Tensor:
        return model["head"](model["text"](**tokens).last_hidden_state[:, 0])

    def head() -> Head:
        tensors = _arrays(folder, f"{lead}audio_head.")
        matrix, scale, shift = (tensors[name] for name in ("proj.weight", "layer_norm.weight", "layer_norm.bias"))
        return Head((matrix * scale,), (matrix @ shift,))

    def open_tower() -> TextTower:
        kind = folder.config.get("text_config", {}).get("model_type", "modernbert")
        if kind != "modernbert":
            what = f"has a text tower of type {kind!r}; only modernbert is known"
            raise EncoderError(what, where=folder.path / "config.json", remedy="leave zero-shot out")
        parts = ("text_model.", "text_audio_head.", "audio_head.")
        identity = {
            "texts": 1,
            "tokenizer": _tokenizer_identity(folder),
            "config": digest(dict(folder.config["text_config"])),
            "weights": [hash_of_tensors(folder, f"{lead}{part}") for part in parts],
        }
        return TextTower(_Embedder(folder, build, forward), head, identity, JOINT)

    return open_tower


def has_pe_audio_heads(folder: ModelFolder) -> bool:
    """Return True if a folder holds PE-Audio with its text tower, and not its audio encoder alone."""
    return "text_config" in folder.config and any("text_audio_head." in name for name in stored_tensors(folder))


class _Embedder:
    """A tokenizer with a transformer after it, which are loaded in float32 when the first text is embedded."""

    def __init__(self, folder: ModelFolder, build: Callable[[], Any], forward: Callable[[Any, Any], torch.Tensor]):
        self._folder, self._build, self._forward = folder, build, forward
        self._loaded: tuple[Any, Any] | None = None

    def __call__(self, texts: Sequence[str], device: str) -> np.ndarray:
        import torch

        if self._loaded is None:
            self._loaded = _tokenizer(self._folder), self._build().eval()
        tokenizer, model = self._loaded[0], self._loaded[1].to(device)
        order = np.argsort([len(text) for text in texts], kind="stable")  # texts of like length share a batch
        parts = []
        for start in range(0, len(order), _BATCH):
            batch = [texts[row] for row in order[start : start + _BATCH]]
            tokens = tokenizer(
                batch, padding=True, truncation=True, max_length=_longest(tokenizer), return_tensors="pt"
            )
            inputs = {name: tokens[name].to(device) for name in ("input_ids", "attention_mask")}
            with torch.inference_mode():
                parts.append(self._forward(model, inputs).cpu().numpy())
        vectors = np.concatenate(parts)
        return vectors[np.argsort(order)]


def _longest(tokenizer: Any) -> int:
    """Return how many tokens a text may have; a tokenizer without a limit gets one that all towers here can take."""
    return min(int(tokenizer.model_max_length), 512)


def _tokenizer(folder: ModelFolder) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder.path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises anything
        what = f"has no tokenizer that can be loaded ({one_line(error)})"
        raise EncoderError(what, where=folder.path, remedy="copy its files from the model's page") from error


def _tokenizer_identity(folder: ModelFolder) -> dict[str, str]:
    files = [folder.path / name for name in _TOKENIZER if (folder.path / name).is_file()]
    if not any(file.name in ("tokenizer.json", "vocab.json", "vocab.txt") for file in files):
        remedy = "copy tokenizer.json and tokenizer_config.json from the model's page"
        raise EncoderError("embeds no texts, as its folder has no tokenizer", where=folder.path, remedy=remedy)
    return {file.name: sha256_file(file) for file in files}


def _lead(folder: ModelFolder, part: str) -> str:
    """Return what comes before `part` in the names of a checkpoint's tensors."""
    names = [name for name in stored_tensors(folder) if part in name]
    return names[0].partition(part)[0] if names else ""


def _arrays(folder: ModelFolder, prefix: str) -> dict[str, np.ndarray]:
    return {name: tensor.float().numpy() for name, tensor in read_tensors(folder, [prefix]).items()}
