"""Look after the cache: list what it holds, check every byte, remove what nothing refers to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from uwbench.cache.clip_table import read_table
from uwbench.cache.store import Damage, EncoderStore, open_encoders
from uwbench.errors import StoreError


@dataclass(frozen=True, slots=True)
class Holding:
    """One task of one encoder in the cache."""

    encoder: str
    fingerprint: str
    task: str
    clips: int
    bytes: int
    layers: int
    poolings: tuple[str, ...]


def holdings(root: Path) -> tuple[list[Holding], list[str]]:
    """Return what the cache holds, and an error line for whatever cannot be read."""
    stores, problems = open_encoders(root)
    found = []
    for store in stores:
        for task in store.tasks():
            try:
                manifest = store.manifest(task)
            except StoreError as error:
                problems.append(str(error))
                continue
            parts = manifest.parts if manifest else ()
            found.append(
                Holding(
                    encoder=store.record.name,
                    fingerprint=store.record.fingerprint,
                    task=task,
                    clips=sum(part.rows for part in parts),
                    bytes=sum(part.bytes + part.frames_bytes for part in parts),
                    layers=len(store.record.layers),
                    poolings=store.record.poolings,
                )
            )
    return found, problems


def verify(root: Path) -> tuple[int, list[Damage], list[str]]:
    """Check every part against its checksum; return how many were checked, the damaged ones, and unreadable records."""
    stores, problems = open_encoders(root)
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
    """Something that pruning removes."""

    path: Path
    bytes: int
    why: str


def prune(root: Path, *, dry_run: bool) -> list[Pruned]:
    """Remove what nothing refers to: writers' leftovers, clip tables out of use, parts none of whose clips is in use.

    Nothing may be extracting into the cache meanwhile. With `dry_run`, only say what would go.
    """
    stores, problems = open_encoders(root)
    if problems:
        raise StoreError(problems[0], remedy="run uwbench cache verify, and mend what it finds before pruning")
    found: list[Pruned] = []
    for path in _unnamed(root, stores):
        found.append(Pruned(path, path.stat().st_size, "no manifest names it"))
        if not dry_run:
            path.unlink()
    wanted = _keys_in_use(root, stores)
    for store in stores:
        for task in store.tasks():
            manifest = store.manifest(task)
            for part in manifest.parts if manifest else ():
                if wanted.isdisjoint(store.part_keys(task, part)):
                    size = part.bytes + part.frames_bytes
                    found.append(Pruned(store.folder / task / part.name, size, "its clips are in no task any more"))
                    if not dry_run:
                        store.drop_part(task, part)
    return found


def _unnamed(root: Path, stores: list[EncoderStore]) -> list[Path]:
    found: list[Path] = []
    tables = set()
    for store in stores:
        found.extend(sorted(store.folder.glob(".*.tmp")))
        for task in store.tasks():
            manifest = store.manifest(task)
            parts = manifest.parts if manifest else ()
            tables.add(manifest.table if manifest else "")
            named = {"manifest.json", *(part.name for part in parts), *(part.frames for part in parts if part.frames)}
            found.extend(path for path in sorted((store.folder / task).iterdir()) if path.name not in named)
    for path in sorted((root / "clips").glob("*.parquet")):
        if not path.name.endswith(".scan.parquet") and path.stem not in tables:
            found.append(path)
    return found + sorted((root / "clips").glob(".*.tmp"))


def _keys_in_use(root: Path, stores: list[EncoderStore]) -> set[bytes]:
    names = {manifest.table for store in stores for task in store.tasks() if (manifest := store.manifest(task))}
    return {key for name in names for key in read_table(root, name).keys}
