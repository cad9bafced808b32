"""Extraction: decode clips ahead of the device, encode and pool them in batches, write parts.

A part is written when its last batch is done, so an interruption loses one part at most. Memory is bounded by the
batch, whatever the amount of data or the length of a clip: a clip of several minutes is decoded window by window, and
frames wait on disk until their part is complete. Only an encoder without a longest context gets each clip whole.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from uwbench.cache.clip_notes import remember_silent
from uwbench.cache.records import Part
from uwbench.cache.segments import SEGMENTS
from uwbench.encoders.base import Encoder
from uwbench.errors import AudioError
from uwbench.extraction.batching import cut_batches
from uwbench.extraction.encode import LongClip, OpenPart, ShortBatch, Work
from uwbench.extraction.forward import Forward, Settings
from uwbench.extraction.plan import Plan, PlannedPart

_AHEAD = 3  # batches decoded ahead of the device
_LONG_S = 300.0  # a clip of more seconds is decoded window by window


@dataclass(frozen=True, slots=True)
class Extraction:
    """The outcome of an extraction."""

    encoded: int
    audio_s: float
    seconds: float
    chunked: int
    unreadable: tuple[AudioError, ...]


def extract(
    plan: Plan,
    encoder: Encoder,
    settings: Settings,
    progress: Callable[[Sequence[int]], None],
    *,
    enter: Callable[[Part], None] | None = None,
) -> Extraction:
    """Encode what `plan` asks for with a loaded encoder; call `progress` with each batch's rows of the clip table.

    `enter` gets each part once it is on disk and makes it count; by default it is entered in the manifest. Clips that
    cannot be decoded are left out and returned; an encoder that breaks its contract raises EncoderError. Parts written
    before an error or an interruption are kept and need no work at the next start.
    """
    started = time.perf_counter()
    plan.store.create()
    pool = ThreadPoolExecutor(settings.workers, thread_name_prefix="decode")
    layers = [encoder.info.layers.index(layer) for layer in plan.store.record.layers]
    forward = Forward(
        encoder,
        layers,
        plan.store.record.poolings,
        settings,
        needs_frames=plan.needs_frames,
        needs_segments=plan.needs_segments,
    )
    work = Work(plan, forward, pool)
    extractor = _Extractor(work, settings, progress, enter or _enter_in(plan))
    busy: list[PlannedPart] = []
    try:
        extractor.run(extractor.claimed(plan.parts, busy, wait=False))
        extractor.run(extractor.claimed(busy, [], wait=True))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    remember_silent(plan.store.root, work.silent)
    seconds = time.perf_counter() - started
    return Extraction(work.encoded, work.audio_s, seconds, work.chunked, tuple(work.unreadable))


def _enter_in(plan: Plan) -> Callable[[Part], None]:
    return lambda part: plan.store.enter(plan.task.card.name, plan.table_name, [part])


class _Extractor:
    """Fills parts batch by batch and writes them."""

    def __init__(
        self,
        work: Work,
        settings: Settings,
        progress: Callable[[Sequence[int]], None],
        enter: Callable[[Part], None],
    ) -> None:
        self.work, self.settings, self.progress, self.enter = work, settings, progress, enter
        self.plan, self.store, self.info = work.plan, work.plan.store, work.forward.info
        self.name = self.plan.task.card.name

    def claimed(self, parts: Sequence[PlannedPart], busy: list[PlannedPart], *, wait: bool) -> Iterator[OpenPart]:
        """Yield the parts that this process claimed; those that another works on go to `busy`."""
        for part in parts:
            with ExitStack() as stack:
                if not stack.enter_context(self.store.claim(self.name, part.name, wait=wait)):
                    busy.append(part)
                elif not self._is_written(part):
                    yield self._open(part, stack.pop_all())

    def _open(self, part: PlannedPart, claim: ExitStack) -> OpenPart:
        shape = (len(part.rows), len(self.store.record.layers), self.info.dim)
        vectors = {name: np.empty(shape, np.float32) for name in self.store.record.poolings}
        spill = None
        if self.plan.needs_frames:
            spill = self.store.spill(self.name, part.name)
            claim.callback(spill.close)
        segments = None
        if self.plan.needs_segments:
            segments = np.empty((*shape[:2], SEGMENTS, shape[2]), np.float32)
        return OpenPart(part, claim, vectors, spill, segments)

    def _is_written(self, part: PlannedPart) -> bool:
        """Return True if another process wrote the part since the plan was made."""
        manifest = self.store.manifest(self.name)
        names = {entry.name for entry in manifest.parts} if manifest else set()
        return self.plan.reason != "--force" and f"pooled-{part.name}.arrow" in names

    def run(self, parts: Iterator[OpenPart]) -> None:
        """Decode some batches ahead of the one that is encoded; on CUDA, launch one before collecting the last."""
        waiting: deque[ShortBatch | LongClip] = deque()
        running: deque[ShortBatch | LongClip] = deque()
        open_parts: list[OpenPart] = []
        batches = self._batches(parts, open_parts)
        try:
            while True:
                while len(waiting) < _AHEAD and (following := next(batches, None)) is not None:
                    waiting.append(following)
                behind = 0
                if waiting:
                    batch = waiting.popleft()
                    batch.launch()
                    running.append(batch)
                    behind = self.work.forward.behind if isinstance(batch, ShortBatch) else 0
                while running and (len(running) > behind or not waiting):
                    self._collect(running.popleft(), open_parts)
                if not (waiting or running):
                    return
        finally:
            for part in open_parts:
                part.claim.close()

    def _batches(self, parts: Iterator[OpenPart], open_parts: list[OpenPart]) -> Iterator[ShortBatch | LongClip]:
        durations, context_s = self.plan.task.table.durations_s, self.info.context_s
        batch_s = self.settings.batch_seconds
        for part in parts:
            open_parts.append(part)
            batches = list(cut_batches(part.planned.rows, durations, self.info, batch_s))
            part.batches_left = len(batches)
            for rows in batches:
                if context_s is not None and len(rows) == 1 and durations[rows[0]] > max(_LONG_S, context_s):
                    yield LongClip(self.work, part, rows[0], context_s, batch_s)
                else:
                    yield ShortBatch(self.work, part, rows)

    def _collect(self, batch: ShortBatch | LongClip, open_parts: list[OpenPart]) -> None:
        """Finish a batch, and write its part if it was the last one."""
        batch.collect()
        self.progress(batch.rows)
        part = batch.part
        part.batches_left -= 1
        if part.batches_left == 0:
            if part.keys:
                self.enter(self.store.write_part(self.name, part.planned.name, part.rows(), part.spill))
            part.claim.close()
            open_parts.remove(part)


def settings_for(device: str, batch_seconds: float | None, workers: int | None) -> Settings:
    """Return settings for a device: batches that fill it, and decoding threads that keep up without competing with it.

    On the CPU, decoding takes a tenth of the forward pass's time or less: two threads keep ahead of it (1.10 times the
    bare forward pass of Whisper tiny.en on trimmed clips and two cores, against 1.19 with one), and then sleep.
    """
    cores = os.cpu_count() or 1
    if device.startswith("cuda"):
        return Settings(device, batch_seconds or 960.0, workers or min(16, cores))
    return Settings(device, batch_seconds or 120.0, workers or max(min(2, cores), cores // 4))
