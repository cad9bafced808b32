"""uwbench measures how good a frozen audio encoder is. The public functions are those of `uwbench.api`."""

from __future__ import annotations

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    # `import uwbench` loads nothing; a public name loads what it needs when it is first used.
    if not name.startswith("_"):
        import importlib

        # Not `from uwbench import api`, which would call this function for `api` without end.
        api = importlib.import_module("uwbench.api")
        if name in api.__all__:
            return getattr(api, name)
    raise AttributeError(f"module 'uwbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    from uwbench import api

    return sorted([*api.__all__, "__version__"])
