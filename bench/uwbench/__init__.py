"""uwbench measures how good a frozen audio encoder is.

The names below are what a notebook needs; all public functions are in `uwbench.api`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uwbench.api import (
        Embeddings,
        Encoded,
        Encoder,
        EncoderInfo,
        ExtractOptions,
        ModelSpec,
        ProbeOptions,
        Results,
        TaskSpec,
        UwbenchError,
        bundle,
        check_data,
        check_encoder,
        compare,
        crossings,
        evaluate,
        extract,
        leaderboard,
        load_embeddings,
        load_encoder,
        load_task,
        probe,
        reproduce,
        verify,
    )

__version__ = "0.1.0"

__all__ = [
    "Embeddings",
    "Encoded",
    "Encoder",
    "EncoderInfo",
    "ExtractOptions",
    "ModelSpec",
    "ProbeOptions",
    "Results",
    "TaskSpec",
    "UwbenchError",
    "bundle",
    "check_data",
    "check_encoder",
    "compare",
    "crossings",
    "evaluate",
    "extract",
    "leaderboard",
    "load_embeddings",
    "load_encoder",
    "load_task",
    "probe",
    "reproduce",
    "verify",
]


def __getattr__(name: str) -> object:
    # `import uwbench` loads nothing; a public name loads what it needs when it is first used.
    if name in __all__:
        import uwbench.api

        return getattr(uwbench.api, name)
    raise AttributeError(f"module 'uwbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
