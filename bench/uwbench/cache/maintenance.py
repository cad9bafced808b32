"""Maintenance of the cache: list its content, check every byte, remove what nothing refers to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from uwbench.audio.corruption import Corruption
from uwbench.base.sharing import access_problem
from uwbench.cache.clip_table import read_table
from uwbench.cache.records import Part
from uwbench.cache.store import Damage, EncoderStore, corruption_of_part, open_encoders
from uwbench.errors import StoreError


@dataclass(frozen=True, slots=True)
class Holding:
    """One task of one encoder in the cache."""

    encoder: str
    fingerprint: str
    task: str
    clips: int  # clean ones
    bytes: int  # with those of corrupted clips
    layers: int
    poolings: tuple[str, ...]
    segments: int = 0  # clips with a segment pyramid


def holdings(root: Path) -> tuple[list[Holding], list[str]]:
    """Return the content of the cache, and one error line for each record that cannot be read."""
    stores, problems = open_encoders(root)
    problems.extend(_access(root))
    content = []
    for store in stores:
        for task in store.tasks():
            try:
                manifest = store.manifest(task)
            except StoreError as error:
                problems.append(str(error))
                continue
            parts = manifest.parts if manifest else ()
            content.append(
                Holding(
                    encoder=store.record.name,
                    fingerprint=store.record.fingerprint,
                    task=task,
                    clips=_clean_clips(store, task, parts),
                    bytes=sum(part.all_bytes for part in parts),
                    layers=len(store.record.layers),
                    poolings=store.record.poolings,
                    segments=sum(part.rows for part in parts if part.segments is not None),
                )
            )
    return content, problems


def _clean_clips(store: EncoderStore, task: str, parts: Sequence[Part]) -> int:
    """Return the number of clean clips in parts; with segments, most have vectors in a part without them too."""
    clean = [part for part in parts if corruption_of_part(part.name) is None]
    if len({part.segments is None for part in clean}) < 2:
        return sum(part.rows for part in clean)
    return len({key for part in clean for key in store.part_keys(task, part)})


def verify(root: Path) -> tuple[int, list[Damage], list[str]]:
    """Check every part; return how many were checked, the damaged ones, and an error line per unreadable record."""
    stores, problems = open_encoders(root)
    problems.extend(_access(root))
    checked, damaged = 0, []
    for store in stores:
        for task in store.tasks():
            try:
                manifest = store.manifest(task)
                checked += len(manifest.parts) if manifest else 0
                damaged.extend(damage for _, damage in store.damaged(task))
            except StoreError as error:
                problems.append(str(error))
    return checked, damaged, problems


@dataclass(frozen=True, slots=True)
class Pruned:
    """A file that pruning removes."""

    path: Path
    bytes: int
    why: str


def prune(root: Path, *, dry_run: bool) -> list[Pruned]:
    """Remove what nothing refers to: leftover temporary files, unused clip tables, parts without a clip in use.

    No extraction may run on the cache meanwhile. With `dry_run`, return what would be removed.
    """
    stores, problems = open_encoders(root)
    problems.extend(_access(root))
    if problems:
        raise StoreError(problems[0], remedy="run uwbench cache verify and fix what it reports before pruning")
    pruned: list[Pruned] = []
    for path in _unnamed(root, stores):
        pruned.append(Pruned(path, path.stat().st_size, "no manifest names it"))
        if not dry_run:
            path.unlink()
    clean = _keys_in_use(root, stores)
    in_use: dict[Corruption | None, set[bytes]] = {None: clean}
    for store in stores:
        for task in store.tasks():
            manifest = store.manifest(task)
            for part in manifest.parts if manifest else ():
                corruption = corruption_of_part(part.name)
                if corruption is not None and corruption not in in_use:
                    in_use[corruption] = set(map(corruption.key, clean))
                if in_use[corruption].isdisjoint(store.part_keys(task, part)):
                    path = store.folder / task / part.name
                    pruned.append(Pruned(path, part.all_bytes, "its clips are in no task any longer"))
                    if not dry_run:
                        store.drop_part(task, part)
    return pruned


def _unnamed(root: Path, stores: list[EncoderStore]) -> list[Path]:
    """Return the files that no manifest names."""
    unnamed: list[Path] = []
    tables = set()
    for store in stores:
        unnamed.extend(sorted(store.folder.glob(".*.tmp")))
        for task in store.tasks():
            manifest = store.manifest(task)
            parts = manifest.parts if manifest else ()
            tables.add(manifest.table if manifest else "")
            named = {"manifest.json", *(name for part in parts for name in part.files())}
            unnamed.extend(path for path in sorted((store.folder / task).iterdir()) if path.name not in named)
    for path in sorted((root / "clips").glob("*.parquet")):
        if not path.name.endswith(".scan.parquet") and path.stem not in tables:
            unnamed.append(path)
    return unnamed + sorted((root / "clips").glob(".*.tmp"))


def _keys_in_use(root: Path, stores: list[EncoderStore]) -> set[bytes]:
    names = {manifest.table for store in stores for task in store.tasks() if (manifest := store.manifest(task))}
    return {key for name in names for key in read_table(root, name).keys}


def _access(root: Path) -> list[str]:
    problem = access_problem(root)
    return [] if problem is None else [f"{root}: {'; '.join(problem)}"]
