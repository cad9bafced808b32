"""What a run may be asked, and the folders it works in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Folders:
    """Where things are: the embeddings cache, the datasets, the results."""

    cache: Path
    data: Path | None
    results: Path


@dataclass(frozen=True, slots=True)
class Options:
    """What a run may be asked, beyond its models and tasks. Times in seconds."""

    protocol: str = "uwbench-1"
    methods: tuple[str, ...] = ("mlp", "knn")
    device: str = "auto"
    dtype: Literal["fp32", "bf16"] = "fp32"
    layers: str = "last"
    poolings: tuple[str, ...] = ("mean", "mean-all")
    batch_seconds: float | None = None  # None: chosen for the device
    workers: int | None = None  # decoding threads; None: chosen for the machine
    seed: int = 0
    limit: int | None = None  # clips a split or fold
    force: bool = False
    allow_missing: int = 0
    engine: Literal["local", "ray"] = "local"  # who extracts: this process, or the workers of a Ray cluster
    part: tuple[int, int] | None = None  # this machine's share of the parts: (index from 1, count)
    text_encoder: str | None = None  # retrieval: what turns captions into vectors
    label: str | None = None
    group: str | None = None
    name: str | None = None
    kind: str | None = None
    domain: str = "sound"
    allow_outside: bool = False
    argv: tuple[str, ...] = ()

    def own_data(self) -> dict[str, Any]:
        """Return the options that shape a task made from a manifest or folder."""
        names = ("label", "group", "name", "kind", "domain", "allow_outside")
        return {name: getattr(self, name) for name in names}
