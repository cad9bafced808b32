"""Hashes that identify clips, encoders, cards and data.

They are made from content alone: class names, file names, model names and time stamps never enter one.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

SHORT = 8  # characters of a fingerprint shown in paths


def sha256_bytes(data: bytes) -> str:
    """Return the hex sha256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the hex sha256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """Return the hex sha256 of a value as canonical JSON: sorted keys, no spaces, no NaN."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return sha256_bytes(text.encode())


def clip_key(audio_sha256: str, start_s: float | None, end_s: float | None, decoder: str = "") -> bytes:
    """Return the 32-byte key of a clip: a hash of its audio's content and of the stretch that is used, in seconds.

    `decoder` is what decodes the audio and its version, if that is not libsndfile.
    """
    return bytes.fromhex(digest([audio_sha256, start_s, end_s, *([decoder] if decoder else [])]))
