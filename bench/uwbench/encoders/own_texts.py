"""The text tower of an encoder that the user wrote: its method `encode_text`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from uwbench.encoders.base import JOINT, EncoderInfo, TextTower
from uwbench.errors import EncoderError


def own_text_tower(
    inner: Any, info: EncoderInfo, load: Callable[[str], None], running: Callable[[str], AbstractContextManager[None]]
) -> TextTower | None:
    """Return the text tower of an encoder that the user wrote, None if it defines no `encode_text`.

    `encode_text` takes a list of `n` texts and returns `(n, info.dim)`, a tensor or an array. `load(device)` loads the
    encoder unless it is loaded; `running(step)` is the context in which its code runs.
    """
    encode_text = getattr(inner, "encode_text", None)
    if not callable(encode_text):
        return None

    def embed(texts: Sequence[str], device: str) -> np.ndarray:
        import torch

        load(device)
        with torch.inference_mode(), running("encode_text"):
            return checked_texts(encode_text(list(texts)), len(texts), info)

    return TextTower(embed, lambda: None, {"own": 1}, own_joint_layer(info))


def own_joint_layer(info: EncoderInfo) -> str:
    """Return the layer in which the user's clips meet their texts: `joint` if there is one, else the last."""
    return JOINT if JOINT in info.layers else info.layers[-1]


def checked_texts(vectors: Any, count: int, info: EncoderInfo) -> np.ndarray:
    """Return what `encode_text` gave for `count` texts, as float32; raise EncoderError if it breaks the contract."""
    import torch

    if isinstance(vectors, torch.Tensor):
        vectors = vectors.detach().cpu().float().numpy()
    expected = f"({count}, {info.dim}), as wide as a clip's vector"
    if not isinstance(vectors, np.ndarray):
        what = f"encode_text returns a {type(vectors).__name__}; the contract is an array or a tensor {expected}"
    elif vectors.shape != (count, info.dim) or vectors.dtype.kind != "f":
        what = (
            f"encode_text returns {vectors.dtype} {vectors.shape} for {count} texts; the contract is floats {expected}"
        )
    elif not np.isfinite(vectors).all():
        what = "encode_text returns NaN or infinite values"
    else:
        return np.asarray(vectors, np.float32)
    raise EncoderError(what, where=info.name, remedy="see docs/adding-an-encoder.md")
