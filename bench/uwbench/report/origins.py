"""Where results on the board are from: bundles, and several results of one revision that disagree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from uwbench.base.hashing import SHORT
from uwbench.results.record import Result
from uwbench.results.verified import read_verified

Key = tuple[str, str]  # a model's key on the board, and a task


def bundles_of(folders: Sequence[Path]) -> dict[Path, str]:
    """Return the name and short hash of the bundle that each folder of results is from, for those from bundles."""
    records = {folder: read_verified(folder) for folder in folders}
    return {folder: f"{record.name} {record.sha256[:SHORT]}" for folder, record in records.items() if record}


def disagreements(
    selected: Mapping[Key, tuple[Path, Result]],
    every: Sequence[tuple[Path, Result]],
    labels: Mapping[str, str],
    bundles: Mapping[Path, str],
) -> dict[Key, tuple[str, ...]]:
    """Return a sentence for each other score of the same revision that is not the score on the board.

    A revision is an encoder's fingerprint, or a name with the hub's revision; only scores of one task on the same data
    under the same protocol are compared.
    """
    sentences: dict[Key, list[str]] = {}
    of_task: dict[str, list[tuple[Path, Result]]] = {}
    for path, result in every:
        of_task.setdefault(result.task.name, []).append((path, result))
    rows = {str(path): key for key, (path, _) in selected.items()}
    for key, (path, result) in selected.items():
        for other_path, other in of_task[key[1]]:
            if other_path == path or not _one_revision(result, other) or not _comparable(result, other):
                continue
            row = rows.get(str(other_path))
            if row is None and other.model.fingerprint != result.model.fingerprint:
                continue  # an older result of another row
            differing = [
                f"{method} {other.scores[method].main_score:.4f}, not {score.main_score:.4f}"
                for method, score in result.scores.items()
                if method in other.scores and other.scores[method].main_score != score.main_score
            ]
            if differing:
                bundle = bundles.get(other_path.parents[3])
                what = f"the row {labels[row[0]]}" if row is not None else f"a result of {other.run.started}"
                where = f" (bundle {bundle})" if bundle else ""
                sentences.setdefault(key, []).append(
                    f"disagrees with {what}{where} of the same revision: {'; '.join(differing)}"
                )
    return {key: tuple(of_key) for key, of_key in sentences.items()}


def _one_revision(first: Result, second: Result) -> bool:
    models = first.model, second.model
    if models[0].fingerprint == models[1].fingerprint:
        return True
    names = [(model.name, model.revision, model.context) for model in models]
    return models[0].revision is not None and names[0] == names[1]


def _comparable(first: Result, second: Result) -> bool:
    return (
        second.status in ("ok", "partial")
        and first.protocol == second.protocol
        and (first.task.name, first.task.version) == (second.task.name, second.task.version)
        and (first.task.data_sha256, first.task.metric) == (second.task.data_sha256, second.task.metric)
    )
