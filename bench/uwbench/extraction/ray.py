"""Extraction on many machines: Ray workers write the parts, this process enters them in the manifest.

A worker holds the encoder and does one part at a time: it gets the paths of the part's clips, decodes, encodes and
writes the part into the cache, which all machines see under one path, and returns the part's manifest entry. A part
exists once it is entered; that of a lost worker goes to another, which writes the same bytes in its place. So the cache
ends up as one process alone would leave it.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from uwbench.audio.clip import AudioFile, AudioMember, Clip
from uwbench.base.hashing import digest
from uwbench.cache.records import Part
from uwbench.cache.store import EncoderStore
from uwbench.encoders.base import Encoder, ModelSpec
from uwbench.encoders.resolve import open_encoder
from uwbench.errors import AudioError, EncoderError, UsageError
from uwbench.extraction.extract import Extraction, extract
from uwbench.extraction.forward import Settings
from uwbench.extraction.plan import Plan, PlannedPart
from uwbench.extraction.task import Task

_LOST = 3  # workers lost in a row without a part written; after more, the work itself is at fault


@dataclass(frozen=True, slots=True)
class _Job:
    """Setup of every worker: the encoder, and the folder that relative paths start from."""

    spec: ModelSpec
    settings: Settings
    dtype: str
    threads: int
    folder: str


@dataclass(frozen=True, slots=True)
class _Written:
    """The outcome of a worker: the manifest entries of the parts it wrote, none if it could read no clip."""

    parts: tuple[Part, ...]
    extraction: Extraction


class _Worker:
    """An encoder in a process of its own, which reads the weights once."""

    def __init__(self, job: _Job) -> None:
        import torch

        if Path(job.folder).is_dir():
            os.chdir(job.folder)
        torch.set_num_threads(job.threads)  # as in the driver: sums split otherwise may round differently
        self.job = job
        self.encoder: Encoder = open_encoder(job.spec)
        self.encoder.load(job.settings.device, job.dtype)

    def ready(self) -> None:
        """Return once the weights are read."""

    def work(self, plan: Plan) -> _Written:
        """Write the parts of a plan."""
        record = plan.store.record
        if digest(dict(self.encoder.info.identity)) != digest(record.identity["encoder"]):
            what = "has other weights or another version on a worker than where the run was started"
            raise EncoderError(what, where=record.name, remedy="use the same files and packages on all machines")
        parts: list[Part] = []
        extraction = extract(plan, self.encoder, self.job.settings, lambda *_: None, enter=parts.append)
        return _Written(tuple(parts), extraction)


def extract_on_ray(
    plan: Plan, spec: ModelSpec, settings: Settings, dtype: str, progress: Callable[[Sequence[int]], None]
) -> Extraction:
    """Extract on the Ray cluster at RAY_ADDRESS, on one that is running, or on this machine.

    Each worker takes one GPU if `settings.device` is CUDA, else one of Ray's CPUs. Raise UsageError if Ray is not
    installed; errors of the encoder pass through.
    """
    try:
        import ray
    except ImportError as error:
        raise UsageError("needs Ray", where="--engine ray", remedy="pip install 'uwbench[ray]'") from error
    import torch

    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    started = time.perf_counter()
    plan.store.create()
    job = _Job(spec, settings, dtype, torch.get_num_threads(), str(Path.cwd()))
    extraction = _Driver(plan, job, progress, ray).run()
    return replace(extraction, seconds=time.perf_counter() - started)


class _Driver:
    """Hands out parts, one at a time per worker and the longest first, until all are entered."""

    def __init__(self, plan: Plan, job: _Job, progress: Callable[[Sequence[int]], None], ray: Any) -> None:
        self.plan, self.job, self.progress, self.ray = plan, job, progress, ray
        self.remaining = deque(reversed(plan.parts))  # ordered by length: the last parts take longest
        self.busy: dict[Any, tuple[Any, PlannedPart | None]] = {}  # call -> worker and its part (None: setting up)
        self.lost = 0
        self.extractions: list[Extraction] = []

    def run(self) -> Extraction:
        cuda = self.job.settings.device.startswith("cuda")
        kind = self.ray.remote(num_cpus=0 if cuda else 1, num_gpus=1 if cuda else 0)(_Worker)
        try:
            for _ in range(min(self._places("GPU" if cuda else "CPU"), len(self.plan.parts))):
                self._hire(kind)
            while self.remaining or any(part is not None for _, part in self.busy.values()):
                self.ray.wait(list(self.busy), num_returns=1)
                finished, _ = self.ray.wait(list(self.busy), num_returns=len(self.busy), timeout=0)
                self._take_all(finished, kind)
        finally:
            for worker, _ in self.busy.values():
                self.ray.kill(worker)
        unreadable = tuple(error for extraction in self.extractions for error in extraction.unreadable)
        return Extraction(
            encoded=sum(extraction.encoded for extraction in self.extractions),
            audio_s=sum(extraction.audio_s for extraction in self.extractions),
            seconds=0.0,
            chunked=sum(extraction.chunked for extraction in self.extractions),
            unreadable=tuple(sorted(unreadable, key=str)),
        )

    def _places(self, resource: str) -> int:
        count = int(self.ray.cluster_resources().get(resource, 0))
        if count == 0:
            raise UsageError(f"the Ray cluster has no {resource}", where="--engine ray", remedy="try --device cpu")
        return count

    def _hire(self, kind: Any) -> None:
        worker = kind.remote(self.job)
        self.busy[worker.ready.remote()] = (worker, None)

    def _take_all(self, calls: Sequence[Any], kind: Any) -> None:
        """Collect the results of some calls and enter their parts in one write of the manifest."""
        results: list[tuple[_Written, PlannedPart]] = []
        try:
            for call in calls:
                results.extend(self._take(call, kind))
        finally:
            if results:
                parts = [part for written, _ in results for part in written.parts]
                self.plan.store.enter(self.plan.task.card.name, self.plan.table_name, parts)
        for written, part in results:
            self.extractions.append(written.extraction)
            self.progress(part.rows)

    def _take(self, call: Any, kind: Any) -> list[tuple[_Written, PlannedPart]]:
        """Return what a worker wrote, if anything, and give it its next part; a lost worker's part is queued again."""
        worker, part = self.busy.pop(call)
        try:
            written: _Written | None = self.ray.get(call)
        except self.ray.exceptions.RayTaskError as error:
            raise _cause(error) from error
        except self.ray.exceptions.RayActorError as error:
            self.lost += 1
            if self.lost > _LOST:
                what = f"{self.lost} Ray workers were lost without writing a part ({type(error).__name__})"
                raise EncoderError(what, where=self.plan.store.record.name, remedy="see Ray's logs") from error
            if part is not None:
                self.remaining.append(part)
            self._hire(kind)  # waits for a free place while the others go on
            return []
        if written is not None:
            self.lost = 0
        if self.remaining:
            following = self.remaining.popleft()
            self.busy[worker.work.remote(part_of(self.plan, following))] = (worker, following)
        else:
            self.ray.kill(worker)
        return [] if written is None or part is None else [(written, part)]


def part_of(plan: Plan, part: PlannedPart) -> Plan:
    """Return the plan of one part, with its clips alone, by absolute paths."""
    rows = list(part.rows)
    task = Task(
        plan.task.table.keep(rows),
        tuple(_absolute(plan.task.clips[row]) for row in rows),
        tuple(plan.task.hashes[row] for row in rows),
        (),
        plan.task.corruption,
    )
    alone = (PlannedPart(part.name, tuple(range(len(rows)))),)
    store = EncoderStore(plan.store.root.absolute(), plan.store.record)
    return replace(plan, task=task, store=store, parts=alone)


def _absolute(clip: Clip) -> Clip:
    if isinstance(clip.audio, AudioFile | AudioMember):
        return replace(clip, audio=replace(clip.audio, path=clip.audio.path.absolute()))
    return clip


def _cause(error: Any) -> Exception:
    """Return the error that a worker raised."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, EncoderError | AudioError | UsageError) else error
