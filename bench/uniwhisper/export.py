"""Write an encoder folder that uwbench loads: weights, configuration, feature extractor and list of training data."""

from __future__ import annotations

import ast
import importlib.resources
import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uwbench.api import EncoderError, InputError, UsageError
from uwbench.base.hashing import sha256_file
from uwbench.base.json_text import parse_json
from uwbench.base.yaml_text import read_yaml_file

if TYPE_CHECKING:
    import torch
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

_USES = ("train", "test", "all")
_SHARED = "uniwhisper.wrappers.frames"


class Peer(StrEnum):
    """A program that loads an export."""

    hf = "hf"
    xares = "xares"
    xares_llm = "xares-llm"
    hear = "hear"
    mteb = "mteb"


# The wrapper's file in the folder; transformers loads the folder as it is.
WRAPPERS = {
    Peer.xares: "xares_encoder.py",
    Peer.xares_llm: "xares_llm_encoder.py",
    Peer.hear: "uniwhisper_hear.py",
    Peer.mteb: "mteb_encoder.py",
}


def export_encoder(
    checkpoint: Path,
    output: Path,
    *,
    base: Path | None = None,
    alpha: float = 1.0,
    training_data: Path | None = None,
    ema: bool = False,
) -> Path:
    """Write the encoder of a training checkpoint or a Whisper folder to `output`, and return `output`.

    With `base`, the weights are `(1 - alpha) * base + alpha * checkpoint` (WiSE-FT, Wortsman et al. 2022), which
    gives back speech that training took. `training_data` is a YAML list of `{dataset, split, licence}`, the basis of
    the board's contamination flags; without it the list that the training run recorded is taken, and where there is
    none the export says that it is unknown. With `ema` the averaged weights of the run are exported. Raises UsageError
    or InputError for what cannot be, and never overwrites a folder that holds something.
    """
    if not 0 <= alpha <= 1:
        raise UsageError(f"{alpha} is not between 0 and 1", where="--alpha")
    if alpha != 1 and base is None:
        raise UsageError("needs the weights to interpolate with", where="--alpha", remedy="give --base FOLDER")
    if output.exists() and any(output.iterdir()):
        raise UsageError("is not empty", where=output, remedy="export into a new folder")
    trained = checkpoint / ("encoder-ema" if ema else "encoder")
    if ema and not trained.is_dir():
        raise UsageError("has no averaged weights", where=checkpoint, remedy="train with run.ema")
    source, recorded = (trained, _card(trained)) if (trained / "config.json").is_file() else (checkpoint, {})
    data = recorded.get("training_data") if training_data is None else read_training_data(training_data)
    encoder = _load(source)
    if base is not None:
        _interpolate(encoder, _load(base), alpha, base)
    write_encoder(encoder, output)
    card = {
        **recorded,
        "alpha": alpha,
        "checkpoint": _hashes(source),
        "base": None if base is None else _hashes(base),
        "training_data": data,
    }
    (output / "uniwhisper.json").write_text(json.dumps(card, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return output


def read_training_data(path: Path) -> list[dict[str, Any]]:
    """Read a list of training data; raise InputError naming a malformed entry."""
    entries = read_yaml_file(path)
    if not isinstance(entries, list) or not entries:
        raise InputError("is no list of {dataset, split, licence}", where=path)
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict) or set(entry) != {"dataset", "split", "licence"}:
            raise InputError(f"entry {number} has not exactly the fields dataset, split, licence", where=path)
        if entry["split"] not in _USES:
            raise InputError(f"entry {number}: split {entry['split']!r} is not one of {', '.join(_USES)}", where=path)
    return entries


def _load(folder: Path) -> WhisperEncoder:
    import torch
    from transformers import AutoConfig, WhisperModel
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    if not (folder / "config.json").is_file():
        remedy = "name a checkpoint of a run (its folder step-...) or a folder of Whisper weights"
        raise UsageError("is no checkpoint folder (no config.json)", where=folder, remedy=remedy)
    try:  # by default, transformers asks on the terminal whether to run a folder's code
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, LookupError) as error:
        raise EncoderError(f"is not of Whisper's shape ({' '.join(str(error).split())})", where=folder) from error
    if config.model_type != "whisper":
        raise EncoderError(f"holds a {config.model_type} model, not a Whisper", where=folder)
    if (config.architectures or [""])[0] == "WhisperEncoder":
        return WhisperEncoder.from_pretrained(folder, dtype=torch.float32)
    return WhisperModel.from_pretrained(folder, dtype=torch.float32).encoder


def _interpolate(encoder: WhisperEncoder, base: WhisperEncoder, alpha: float, where: Path) -> None:
    import torch

    origin = base.state_dict()
    if {name: value.shape for name, value in origin.items()} != {n: v.shape for n, v in encoder.state_dict().items()}:
        raise EncoderError("has another shape than the checkpoint", where=where)
    with torch.no_grad():
        for name, value in encoder.state_dict().items():
            if value.is_floating_point():
                value.lerp_(origin[name], 1 - alpha)


def write_encoder(encoder: WhisperEncoder, output: Path, *, weights: dict[str, torch.Tensor] | None = None) -> None:
    """Write an encoder and its feature extractor as a loadable folder; `weights` replace the encoder's own."""
    from transformers import WhisperFeatureExtractor

    output.mkdir(parents=True, exist_ok=True)
    encoder.save_pretrained(output, state_dict=weights)
    WhisperFeatureExtractor(feature_size=encoder.config.num_mel_bins).save_pretrained(output)


def write_wrapper(peer: Peer, folder: Path) -> Path:
    """Write the file by which `peer` loads the encoder of `folder`, and return it; for `hf`, the folder itself.

    The file needs torch, transformers and the peer alone: what wrappers share is copied into it.
    """
    if peer not in WRAPPERS:
        return folder
    files = importlib.resources.files("uniwhisper.wrappers")
    source, shared = ((files / name).read_text(encoding="utf-8") for name in (WRAPPERS[peer], "frames.py"))
    lines, tree = source.splitlines(), ast.parse(source)
    (place,) = (node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == _SHARED)
    # After the docstring and the import from __future__, which a file may have once and first.
    start = ast.parse(shared).body[1].end_lineno or 0
    copied = [*lines[: place.lineno - 1], *shared.splitlines()[start:], *lines[place.end_lineno or 0 :]]
    path = folder / WRAPPERS[peer]
    path.write_text("\n".join(copied) + "\n", encoding="utf-8")
    return path


def _card(folder: Path) -> dict[str, Any]:
    try:
        return parse_json((folder / "uniwhisper.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read ({error})", where=folder / "uniwhisper.json") from error


def _hashes(folder: Path) -> list[str]:
    return sorted(sha256_file(path) for path in folder.glob("*.safetensors"))
