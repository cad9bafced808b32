"""Checkpoints for exact resuming: written atomically, loaded strictly, the last few kept.

`step-0000100/` holds `model.safetensors` (fp32: encoder.*, adapter.*, lm.*), `optimizer.pt`, `trainer.json` and
`encoder/`, the folder that uwbench loads, with averaged weights also `encoder-ema/`. No random state is kept: nothing
in a step draws from a generator. Beside the last checkpoints stands `best/`, the encoder of the best look so far.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from uniwhisper.config import Config, leaves, parse_config
from uniwhisper.export import write_encoder
from uniwhisper.model.model import own_state
from uwbench.api import InputError
from uwbench.base.hashing import sha256_file

_PREFIX = "step-"
_MONITOR = ("monitor_every", "monitor_clips", "monitor_mini", "monitor_speech")
_FREE = {f"run.{name}" for name in ("workers", "save_every", "keep", "log_every", *_MONITOR)}
_BEST = "best"


@dataclass(frozen=True, slots=True)
class Progress:
    """A run's progress: steps completed, steps skipped for non-finite gradients, seconds of audio used.

    `data_digest` identifies rows and mixture: a run resumes only on the same data.
    """

    step: int = 0
    skipped: int = 0
    audio_s: float = 0.0
    training_data: list[dict[str, Any]] | None = field(default=None)
    data_digest: str | None = None


def save(
    output: Path,
    progress: Progress,
    config: Config,
    model_state: dict[str, torch.Tensor],
    optimiser_state: dict[str, Any],
    encoder: Any,
    averaged: dict[str, torch.Tensor] | None = None,
) -> Path:
    """Write a checkpoint atomically and return its folder.

    `model_state` has tied tensors once; `averaged` is the state of the encoder of averaged weights.
    """
    from safetensors.torch import save_file

    folder = output / f"{_PREFIX}{progress.step:07d}"
    partial = output / f".{folder.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    weights = {name: value.detach().cpu().contiguous() for name, value in model_state.items()}
    save_file(weights, partial / "model.safetensors")
    torch.save(optimiser_state, partial / "optimizer.pt")
    for name, state in (("encoder", encoder_state(weights)), ("encoder-ema", averaged)):
        if state is not None:
            write_encoder(encoder, partial / name, weights=state)
    card = {**_encoder_card(progress, config), "checkpoint": [sha256_file(partial / "model.safetensors")]}
    for path in partial.glob("encoder*"):
        _write_json(path / "uniwhisper.json", {**card, "ema": config.run.ema if path.name == "encoder-ema" else None})
    trainer = {"progress": asdict(progress), "config": config.model_dump(mode="json")}
    _write_json(partial / "trainer.json", trainer)
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)
    for old in checkpoints(output)[: -config.run.keep]:
        shutil.rmtree(old)
    return folder


def save_best(
    output: Path, progress: Progress, config: Config, encoder: Any, weights: dict[str, torch.Tensor], score: float
) -> Path:
    """Write the encoder of the best look so far as `best/`, in place of the one before."""
    folder, partial = output / _BEST, output / f".{_BEST}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    write_encoder(encoder, partial, weights={name: value.cpu().contiguous() for name, value in weights.items()})
    card = {
        **_encoder_card(progress, config),
        "checkpoint": [sha256_file(partial / "model.safetensors")],
        "best": {"mean_knn": score, "step": progress.step},
    }
    _write_json(partial / "uniwhisper.json", card)
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)
    return folder


def best_score(output: Path) -> float | None:
    """Return the score of `best/`, or None if there is none."""
    path = output / _BEST / "uniwhisper.json"
    if not path.is_file():
        return None
    try:
        return float(json.loads(path.read_text(encoding="utf-8"))["best"]["mean_knn"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"is no record of the best encoder ({error})", where=path, remedy="remove its folder"
        ) from error


def forget_best(output: Path) -> None:
    """Remove `best/`, which a run that starts anew did not make."""
    shutil.rmtree(output / _BEST, ignore_errors=True)


def _encoder_card(progress: Progress, config: Config) -> dict[str, Any]:
    return {
        "alpha": 1.0,
        "base": None,
        "training_data": progress.training_data,
        "pad30_prob": config.data.pad30_prob,
        "stack": config.adapter.stack,
        "step": progress.step,
    }


def checkpoints(output: Path) -> list[Path]:
    """Return the complete checkpoints of a run, oldest first."""
    return sorted(path for path in output.glob(f"{_PREFIX}*") if (path / "trainer.json").is_file())


def read_progress(folder: Path, config: Config | None = None) -> Progress:
    """Return a checkpoint's progress; with `config`, raise InputError naming any difference from its configuration."""
    record = read_record(folder)
    if config is not None and (changed := _differences(record, config, folder)):
        raise InputError(
            f"is of another configuration: {'; '.join(changed)}",
            where=folder,
            remedy="give the same one or another --output folder",
        )
    try:
        return Progress(**record["progress"])
    except TypeError as error:
        raise InputError(f"is no checkpoint of this version ({error})", where=folder) from error


def read_record(folder: Path) -> dict[str, Any]:
    """Read `trainer.json`; raise InputError if that fails."""
    try:
        record = json.loads((folder / "trainer.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"is no checkpoint ({error})", where=folder) from error
    if not isinstance(record, dict) or not {"progress", "config"} <= set(record):
        raise InputError("is no checkpoint: trainer.json is not of its form", where=folder)
    return record


def load_weights(model: nn.Module, folder: Path) -> None:
    """Fill a model from a checkpoint; raise InputError if a tensor is missing, unknown or of another shape."""
    state = _load_tensors(folder / "model.safetensors")
    expected = own_state(model)
    if {k: v.shape for k, v in state.items()} != {k: v.shape for k, v in expected.items()}:
        different = sorted(set(state) ^ set(expected)) or [k for k in expected if expected[k].shape != state[k].shape]
        raise InputError(f"does not fit the model: {', '.join(different[:5])}", where=folder)
    model.load_state_dict(state, strict=False)  # checked above; tied tensors are stored once


def load_optimiser(folder: Path) -> dict[str, Any]:
    """Return the optimiser's state of a checkpoint."""
    path = folder / "optimizer.pt"
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise _damaged(path, error) from error


def encoder_state(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the encoder's part of a model's state under the encoder's own names."""
    prefix = "encoder."
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def load_average(folder: Path) -> dict[str, torch.Tensor] | None:
    """Return a checkpoint's averaged encoder, or None."""
    path = folder / "encoder-ema" / "model.safetensors"
    return _load_tensors(path) if path.is_file() else None


def _load_tensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> InputError:
    first = (str(error) or type(error).__name__).splitlines()[0]
    remedy = "remove its step's folder: the run then goes on from the checkpoint before it"
    return InputError(f"cannot be read ({first})", where=path, remedy=remedy)


def _differences(record: dict[str, Any], config: Config, folder: Path) -> list[str]:
    """Return the differences of a checkpoint's configuration that a run's result depends on.

    Not in the workers, nor in how often a run saves, logs or looks. A key that is newer than the checkpoint had its
    default's effect then.
    """
    before, now = leaves(parse_config(record["config"], where=str(folder / "trainer.json"))), leaves(config)
    return [
        f"{key} was {json.dumps(before.get(key))} and is {json.dumps(now.get(key))}"
        for key in {**before, **now}
        if before.get(key) != now.get(key) and key not in _FREE and not key.startswith("hardware.")
    ]


def _write_json(path: Path, values: dict[str, Any]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(values, indent=2, sort_keys=True) + "\n")
        file.flush()
        os.fsync(file.fileno())
