"""The public functions of uwbench: what the command line does, for programs.

    from pathlib import Path
    from uwbench import api

    report = api.run([api.ModelSpec("logmel")], [], folders=api.folders(), suite="mini")
    board = api.leaderboard(Path("results"), suite="mini")

Everything heavy is imported when a function needs it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uwbench.audio.clip import Audio, AudioArray, AudioBytes, AudioFile, AudioMember, Clip, Event, Labels, read_bytes
from uwbench.base.atomic import write_atomically, write_in_place
from uwbench.base.hashing import clip_key, digest, sha256_bytes, sha256_file
from uwbench.base.json_text import parse_json
from uwbench.base.registry import suggestion
from uwbench.base.yaml_text import parse_yaml, read_yaml_file
from uwbench.encoders.base import Encoded, Encoder, EncoderInfo, ModelSpec
from uwbench.errors import (
    AudioError,
    DataError,
    EncoderError,
    FetchError,
    InputError,
    ProbeError,
    StoreError,
    UsageError,
    UwbenchError,
)
from uwbench.options import Folders, Options
from uwbench.pipeline import Report, Reporter, probe_cached, run

if TYPE_CHECKING:
    import numpy as np

    from uwbench.cards.card import Kind
    from uwbench.probes.reproduce import Reproduction
    from uwbench.report.board import Board
    from uwbench.report.compare import Comparison
    from uwbench.results.averages import Method
    from uwbench.sources.dataset import Dataset


def folders(cache: Path | None = None, data: Path | None = None, results: Path | None = None) -> Folders:
    """Return where things are: what is given, else UWBENCH_CACHE, UWBENCH_DATA and UWBENCH_RESULTS, else the defaults.

    The defaults are ./embeddings_cache and ./results where they exist, else the user's cache directory; ./data where it
    exists, else no data.
    """
    return Folders(
        cache=_folder(cache, "UWBENCH_CACHE", "embeddings_cache") or _user_folder("embeddings"),
        data=_folder(data, "UWBENCH_DATA", "data"),
        results=_folder(results, "UWBENCH_RESULTS", "results") or _user_folder("results"),
    )


def extract(
    models: Sequence[ModelSpec],
    tasks: Sequence[str],
    *,
    folders: Folders,
    options: Options | None = None,
    suite: str | None = None,
    reporter: Reporter | None = None,
) -> Report:
    """Put the embeddings of every task under every model into the cache; what is there is not computed again."""
    return run(models, tasks, folders, options or Options(), suite=suite, probe=False, reporter=reporter)


def probe(
    tasks: Sequence[str],
    models: Sequence[str] = (),
    *,
    folders: Folders,
    options: Options | None = None,
    suite: str | None = None,
    reporter: Reporter | None = None,
) -> Report:
    """Score tasks from the cache; needs neither audio nor encoder. Without `models`, every model in the cache."""
    return probe_cached(tasks, models, folders, options or Options(), suite=suite, reporter=reporter)


def leaderboard(results: Path, *, suite: str | None = None, protocol: str = "uwbench-1") -> Board:
    """Collect the results under a folder into a board; render it with `uwbench.report`."""
    from uwbench.cards.find import find_suite
    from uwbench.report.board import build_board

    return build_board(results, suite=find_suite(suite) if suite else None, protocol=protocol)


def compare(
    results: Path,
    first: str,
    second: str,
    *,
    method: Method = "mlp",
    tasks: Sequence[str] = (),
    protocol: str = "uwbench-1",
) -> Comparison:
    """Compare two models of a results folder, by label, name or fingerprint, on the same clips.

    `tasks` are those averaged over; without them, the tasks at hand. Raises UsageError where the models share none.
    """
    from uwbench.report.board import build_board, suite_of
    from uwbench.report.compare import compare_models

    suite = suite_of(tasks) if tasks else None
    return compare_models(build_board(results, suite=suite, protocol=protocol), first, second, method)


def reproduce(result: Path, *, folders: Folders, options: Options | None = None) -> Reproduction:
    """Score a result again from the cache and say equal, or what differs."""
    from uwbench.probes.reproduce import reproduce

    return reproduce(result, folders, options or Options())


def open_task(task: str, *, data: Path | None = None, **options: Any) -> Dataset:
    """Open a task's clips: a card's name, a card file, a manifest or a folder (see `uwbench.sources.resolve`)."""
    from uwbench.sources.resolve import open_task

    return open_task(task, data=data, **options)


def find_manifest(source: str) -> Path | None:
    """Return the manifest that `source` names or that lies in the folder it names; None where there is none."""
    from uwbench.sources.table import MANIFEST_NAMES, MANIFEST_SUFFIXES

    path = Path(source)
    if path.suffix.lower() in MANIFEST_SUFFIXES:
        return path
    return next((path / name for name in MANIFEST_NAMES if (path / name).is_file()), None)


def read_manifest(
    path: Path, label: str, *, kind: Kind = "single-label", group: str | None = None, gaps: bool = False
) -> tuple[Clip, ...]:
    """Return the clips a manifest lists with the labels of one column, whichever splits there are.

    `open_task` makes a task of a manifest and so asks for test clips; this does not. With `gaps`, an empty label is
    `()`. Raises InputError naming file, line and column.
    """
    from uwbench.sources.table import Columns, read_manifest

    return read_manifest(path, Columns(label, group, kind, gaps=gaps)).clips


def decode(audio: Audio, rate: int, *, start_s: float | None = None, end_s: float | None = None) -> np.ndarray:
    """Return audio as float32 `(samples,)`, mono, at `rate` Hz (see `uwbench.audio.decode.decode`)."""
    from uwbench.audio.decode import decode

    return decode(audio, rate, start_s=start_s, end_s=end_s)


def _folder(given: Path | None, variable: str, default: str) -> Path | None:
    if given is not None:
        return given
    if os.environ.get(variable):
        return Path(os.environ[variable])
    return Path(default) if Path(default).is_dir() else None


def _user_folder(name: str) -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("uwbench")) / name


__all__ = [
    "Audio",
    "AudioArray",
    "AudioBytes",
    "AudioError",
    "AudioFile",
    "AudioMember",
    "Clip",
    "DataError",
    "Encoded",
    "Encoder",
    "EncoderError",
    "EncoderInfo",
    "Event",
    "FetchError",
    "Folders",
    "InputError",
    "Labels",
    "ModelSpec",
    "Options",
    "ProbeError",
    "Report",
    "Reporter",
    "StoreError",
    "UsageError",
    "UwbenchError",
    "clip_key",
    "compare",
    "decode",
    "digest",
    "extract",
    "find_manifest",
    "folders",
    "leaderboard",
    "open_task",
    "parse_json",
    "parse_yaml",
    "probe",
    "read_bytes",
    "read_manifest",
    "read_yaml_file",
    "reproduce",
    "run",
    "sha256_bytes",
    "sha256_file",
    "suggestion",
    "write_atomically",
    "write_in_place",
]
