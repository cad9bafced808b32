"""Parse untrusted JSON."""

from __future__ import annotations

import json
from typing import Any


def parse_json(text: str | bytes, *, constants: bool = True) -> Any:
    """Return the value of a JSON text.

    Raises ValueError if it is not JSON, is nested too deeply, or holds text that is not Unicode: JSON can escape
    half of a surrogate pair, which can be neither written to a file nor printed. Without `constants`, NaN and
    infinities are refused too.
    """
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text))
    try:
        value = json.loads(text, parse_constant=None if constants else _refuse)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"holds half of a surrogate pair, {error.object[error.start]!r}") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return value


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is not a JSON value")
