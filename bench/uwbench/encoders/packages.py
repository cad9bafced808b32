"""Models of packages: a name of the catalogue, run by one of our wrappers in an interpreter that has the package.

They run with `--python` alone: their packages ask for versions of their own, and their checkpoints may hold programs.
"""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

from uwbench.encoders.base import CatalogueEntry, Encoder, ModelSpec
from uwbench.encoders.catalogue import CATALOGUE, hub_page
from uwbench.errors import EncoderError, UsageError

WRAPPERS = Path(__file__).with_name("wrappers")


def packaged(name: str) -> CatalogueEntry | None:
    """Return the catalogue's entry of a model that a package runs, or that needs a wrapper which is not here."""
    return next((entry for entry in CATALOGUE if entry.name == name and (entry.wrapper or entry.needs)), None)


def open_packaged(entry: CatalogueEntry, spec: ModelSpec) -> Encoder:
    """Return the encoder of a packaged model.

    Raises UsageError without `--python`, weights or a wrapper, EncoderError if the interpreter lacks the package.
    """
    from uwbench.encoders.isolated import open_isolated

    where = f"-m {entry.name}"
    if entry.needs is not None:
        page = "" if entry.hub_id is None else f", published at {hub_page(entry.hub_id)}"
        remedy = f"write one (docs/adding-an-encoder.md) around {entry.code}{page}: {entry.needs}"
        raise UsageError("does not run by its name, as no wrapper for it is here", where=where, remedy=remedy)
    if spec.python is None:
        weights = "" if entry.weights is None else f" --weights PATH, {entry.weights}"
        remedy = f"python -m venv env; env/bin/pip install {_words(entry)}; then --python env/bin/python{weights}"
        raise UsageError("runs in an environment of its own, which has its package", where=where, remedy=remedy)
    if entry.weights is not None and spec.weights is None:
        raise UsageError("needs its weights", where=where, remedy=f"--weights PATH, {entry.weights}")
    if entry.weights is None and spec.weights is not None:
        raise UsageError("has its weights in its package", where=where, remedy="drop --weights")
    if spec.weights is not None and not Path(spec.weights).expanduser().exists():
        raise UsageError(f"there is no {spec.weights}", where=f"{where} --weights", remedy=entry.weights)
    try:
        encoder = open_isolated(spec, f"{WRAPPERS / str(entry.wrapper)}")
    except EncoderError as error:
        if "No module named" not in str(error):
            raise
        remedy = f"{spec.python} -m pip install {_words(entry)}"
        raise EncoderError("its package is not complete in that interpreter", where=where, remedy=remedy) from error
    licence = None if entry.licence == "unknown" else entry.licence
    encoder.info = replace(encoder.info, name=entry.name, licence=licence)
    return encoder


def _words(entry: CatalogueEntry) -> str:
    """Return what pip installs, as a shell takes it."""
    return shlex.join(str(entry.package).split())
