"""The folders of a run: those given, else of the environment, else defaults."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from uwbench.errors import UsageError
from uwbench.options import Folders

ResultFolders = str | Path | Sequence[str | Path] | None


def folders(
    cache: str | Path | None = None, data: str | Path | None = None, results: str | Path | None = None
) -> Folders:
    """Return the folders of a run: those given, else UWBENCH_CACHE, UWBENCH_DATA and UWBENCH_RESULTS, else defaults.

    The defaults are ./embeddings_cache and ./results if they exist, else folders in the user's cache directory; ./data
    if it exists, else no data.
    """
    return Folders(
        cache=_folder(cache, "UWBENCH_CACHE", "embeddings_cache") or user_folder("embeddings"),
        data=_folder(data, "UWBENCH_DATA", "data"),
        results=_folder(results, "UWBENCH_RESULTS", "results") or user_folder("results"),
    )


def existing_folders(cache: str | Path | None, data: str | Path | None, results: str | Path | None) -> Folders:
    """Return the folders of a run; raise UsageError if the one for datasets was given and is not there."""
    if data is not None and not Path(data).is_dir():
        raise UsageError("is no folder", where=f"--data {data}")
    return folders(cache, data, results)


def result_folders(results: ResultFolders) -> list[Path]:
    """Return the folders with results; a verified bundle is replaced by the folder of its results.

    Bundles are looked up in the first folder, or in the default one if there is none.
    """
    from uwbench.results.verified import merged_folder

    if results is None:
        return [folders().results]
    places = [Path(results)] if isinstance(results, str | Path) else [Path(folder) for folder in results]
    for place in places[1:]:
        if not place.exists():
            raise UsageError("is no folder of results and no bundle", where=place)
    home = next((place for place in places if not place.is_file()), folders().results)
    return [merged_folder(place, home) if place.is_file() else place for place in places]


def _folder(folder: str | Path | None, variable: str, default: str) -> Path | None:
    if folder is not None:
        return Path(folder).expanduser()
    if os.environ.get(variable):
        return Path(os.environ[variable]).expanduser()
    return Path(default) if Path(default).is_dir() else None


def user_folder(name: str) -> Path:
    """Return a folder in the user's cache directory."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("uwbench")) / name
