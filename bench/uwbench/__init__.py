"""uwbench measures how good a frozen audio encoder is. The public functions are in `uwbench.api`."""

from __future__ import annotations

__version__ = "0.1.0"

_API = ("extract", "folders", "leaderboard", "probe", "reproduce", "run")


def __getattr__(name: str) -> object:
    # Loaded when asked for: `import uwbench` must cost nothing.
    if name in _API:
        from uwbench import api

        return getattr(api, name)
    raise AttributeError(f"module 'uwbench' has no attribute {name!r}")
