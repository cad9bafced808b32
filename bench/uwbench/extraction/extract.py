"""Turn clips into embeddings: decode ahead of the device, forward, pool on the device, write parts.

Batching, padding, masking, chunking and pooling happen here, in `forward` and in `pool`, and nowhere else. Workers
decode the next batches while the device encodes this one; a part is written when its last batch is done, so an
interruption loses one part at most.

Memory is bounded by the batch, whatever the length of the data or of a clip: a clip that takes minutes and is cut into
windows is decoded window by window, frames wait on disk for their part. An encoder without a longest context is given
a clip whole, and needs the memory that it takes.
"""

from __future__ import annotations

import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from uwbench.audio.clip import AudioFile, Clip, read_bytes
from uwbench.audio.decode import chunks, decode, decode_windows, samples_in
from uwbench.audio.scan import WHOLE_FILE, sha256_of
from uwbench.base.hashing import sha256_bytes
from uwbench.cache.frames import Spill
from uwbench.cache.parts import PooledRows
from uwbench.cache.records import Part
from uwbench.encoders.base import Encoder, EncoderInfo
from uwbench.errors import AudioError
from uwbench.extraction.forward import Forward, Settings, Window
from uwbench.extraction.identity import RESAMPLER
from uwbench.extraction.plan import Plan, PlannedPart
from uwbench.extraction.pooling import STATISTICS, Pooled, merge, moved

_AHEAD = 3  # batches decoded ahead of the device
_LONG_S = 300.0  # a clip of more seconds is decoded window by window


@dataclass(frozen=True, slots=True)
class Extraction:
    """What came of a plan."""

    encoded: int
    audio_s: float
    seconds: float
    chunked: int
    unreadable: tuple[AudioError, ...]


@dataclass(slots=True)
class _Open:
    """A part under way: what its clips gave so far, `done` rows of `vectors` by pooling, `(rows, layers, dim)`."""

    part: PlannedPart
    claim: ExitStack
    vectors: dict[str, np.ndarray]
    spill: Spill | None
    left: int = 0  # batches still to come
    done: int = 0
    keys: list[bytes] = field(default_factory=list)
    counts: list[tuple[int, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Clips of one part that are encoded together: decoded ones, or one long clip that comes window by window."""

    part: _Open
    decoded: list[tuple[int, Future[np.ndarray]]]
    long: int | None = None  # its row
    first: Future[list[np.ndarray]] | None = None  # its first windows
    rest: Iterator[np.ndarray] | None = None  # where the others come from


@dataclass(frozen=True, slots=True)
class _Running:
    """A batch that the device works on: the rows whose windows were launched, and what waits for them."""

    batch: _Batch
    rows: list[int]
    owners: list[int]  # of each window, the index into `rows`
    seconds: float
    finish: Callable[[], list[Window]]


def extract(
    plan: Plan,
    encoder: Encoder,
    settings: Settings,
    progress: Callable[[int, float], None],
    *,
    written: Callable[[Part], None] | None = None,
) -> Extraction:
    """Encode what `plan` asks for with a loaded encoder; call `progress(clips, audio seconds)` after each batch.

    With `written`, parts are handed to it once they are on disk, and whoever gets them enters them in the manifest.

    Clips that cannot be decoded are left out and returned; an encoder that breaks its contract raises EncoderError.
    What was written before an error or an interruption stays and counts at the next start.
    """
    return _Extractor(plan, encoder, settings, progress, written).run()


class _Extractor:
    def __init__(
        self,
        plan: Plan,
        encoder: Encoder,
        settings: Settings,
        progress: Callable[[int, float], None],
        written: Callable[[Part], None] | None,
    ) -> None:
        self.plan, self.encoder, self.settings, self.progress = plan, encoder, settings, progress
        self.written = written
        self.info = encoder.info
        self.store = plan.store
        self.name = plan.task.card.name
        self.layers = [self.info.layers.index(layer) for layer in self.store.record.layers]
        self.forward = Forward(
            encoder, self.layers, self.store.record.poolings, settings, needs_frames=plan.needs_frames
        )
        self.unreadable: list[AudioError] = []
        self.encoded = self.chunked = 0
        self.audio_s = 0.0

    def run(self) -> Extraction:
        started = time.perf_counter()
        self.store.create()
        self.pool = ThreadPoolExecutor(self.settings.workers, thread_name_prefix="decode")
        busy: list[PlannedPart] = []
        try:
            self._work(self._claimed(self.plan.parts, busy, wait=False))
            self._work(self._claimed(busy, [], wait=True))
        finally:
            self.pool.shutdown(wait=False, cancel_futures=True)
        seconds = time.perf_counter() - started
        return Extraction(self.encoded, self.audio_s, seconds, self.chunked, tuple(self.unreadable))

    def _claimed(self, parts: Sequence[PlannedPart], busy: list[PlannedPart], *, wait: bool) -> Iterator[_Open]:
        """Yield the parts that are this process's to do; those that another works on go to `busy`."""
        for part in parts:
            with ExitStack() as stack:
                if not stack.enter_context(self.store.claim(self.name, part.name, wait=wait)):
                    busy.append(part)
                elif not self._is_done(part):
                    yield self._opened(part, stack.pop_all())

    def _opened(self, part: PlannedPart, claim: ExitStack) -> _Open:
        shape = (len(part.rows), len(self.layers), self.info.dim)
        vectors = {name: np.empty(shape, np.float32) for name in self.store.record.poolings}
        spill = None
        if self.plan.needs_frames:
            spill = self.store.spill(self.name, part.name)
            claim.callback(spill.close)
        return _Open(part, claim, vectors, spill)

    def _is_done(self, part: PlannedPart) -> bool:
        """Whether another process wrote the part since the plan was made."""
        manifest = self.store.manifest(self.name)
        done = {entry.name for entry in manifest.parts} if manifest else set()
        return self.plan.reason != "--force" and f"pooled-{part.name}.arrow" in done

    def _work(self, parts: Iterator[_Open]) -> None:
        """Keep a few batches decoding while the oldest is encoded; on CUDA, launch one while another is computed."""
        waiting: deque[_Batch] = deque()
        running: deque[_Running] = deque()
        under_way: list[_Open] = []
        batches = self._batches(parts, under_way)
        behind = 1 if self.forward.cuda else 0
        try:
            while True:
                while len(waiting) < _AHEAD and (following := next(batches, None)) is not None:
                    waiting.append(following)
                if waiting and waiting[0].long is None:
                    running.append(self._launch(waiting.popleft()))
                while running and (len(running) > behind or not waiting or waiting[0].long is not None):
                    self._close(self._collect(running.popleft()), under_way)
                if waiting and waiting[0].long is not None:
                    self._close(self._encode_long(waiting.popleft()), under_way)
                if not (waiting or running):
                    return
        finally:
            for part in under_way:
                part.claim.close()

    def _batches(self, parts: Iterator[_Open], under_way: list[_Open]) -> Iterator[_Batch]:
        durations = self.plan.task.table.durations_s
        for part in parts:
            under_way.append(part)
            batches = list(cut_batches(part.part.rows, durations, self.info, self.settings.batch_seconds))
            part.left = len(batches)
            for rows in batches:
                if len(rows) == 1 and self._comes_in_windows(durations[rows[0]]):
                    windows = self._windows_of(rows[0])
                    yield _Batch(part, [], rows[0], self.pool.submit(self._take, windows), windows)
                else:
                    yield _Batch(part, [(row, self.pool.submit(self._decode, row)) for row in rows])

    def _comes_in_windows(self, duration_s: float) -> bool:
        return self.info.context_s is not None and duration_s > max(_LONG_S, self.info.context_s)

    def _decode(self, row: int) -> np.ndarray:
        return decode_clip(self.plan.task.clips[row], self.plan.task.hashes[row], self.info.sample_rate)

    def _windows_of(self, row: int) -> Iterator[np.ndarray]:
        assert self.info.context_s is not None
        clip, window = self.plan.task.clips[row], samples_in(self.info.context_s, self.info.sample_rate)
        yield from windows_of_clip(clip, self.plan.task.hashes[row], self.info.sample_rate, window)

    def _take(self, windows: Iterator[np.ndarray]) -> list[np.ndarray]:
        """Return the next windows, as many as a forward takes."""
        assert self.info.context_s is not None
        length = max(self.info.context_s, self.info.forward_s)
        return list(itertools.islice(windows, max(1, int(self.settings.batch_seconds / length))))

    def _launch(self, batch: _Batch) -> _Running:
        rows, windows, owners = [], [], []
        limit = None if self.info.context_s is None else samples_in(self.info.context_s, self.info.sample_rate)
        seconds = 0.0
        for row, future in batch.decoded:
            try:
                samples = future.result()
            except AudioError as error:
                self.unreadable.append(error)
                continue
            pieces = chunks(samples, limit)
            windows.extend(pieces)
            owners.extend([len(rows)] * len(pieces))
            rows.append(row)
            seconds += len(samples) / self.info.sample_rate
        names = [self.plan.task.clips[rows[owner]].id for owner in owners]
        return _Running(batch, rows, owners, seconds, self.forward.start(windows, names))

    def _collect(self, running: _Running) -> _Batch:
        """Put the answer to a batch into its part."""
        batch, part = running.batch, running.batch.part
        mine: list[list[Window]] = [[] for _ in running.rows]
        for owner, window in zip(running.owners, running.finish(), strict=True):
            mine[owner].append(window)
        for row, windows in zip(running.rows, mine, strict=True):
            for window in windows:
                if part.spill is not None and window.frames is not None:
                    part.spill.append(window.frames)
            self._enter(part, row, [window.pooled for window in windows])
        self.audio_s += running.seconds
        self.progress(len(batch.decoded), running.seconds)
        return batch

    def _encode_long(self, batch: _Batch) -> _Batch:
        """Encode one clip whose windows are decoded as they are needed."""
        part, row, windows = batch.part, batch.long, batch.rest
        assert row is not None
        assert windows is not None
        assert batch.first is not None
        pooled: list[Pooled] = []
        samples, following = 0, batch.first
        assert self.info.context_s is not None
        expected = int(self.plan.task.table.durations_s[row] / self.info.context_s) + 2
        held = np.empty((expected, STATISTICS, len(self.layers), self.info.dim))
        try:
            while group := following.result():
                following = self.pool.submit(self._take, windows)
                for window in self.forward(group, [self.plan.task.clips[row].id] * len(group)):
                    at = len(pooled)  # a header may promise too little
                    pooled.append(moved(window.pooled, held[at]) if at < expected else window.pooled)
                    if part.spill is not None and window.frames is not None:
                        part.spill.append(window.frames)
                samples += sum(map(len, group))
        except AudioError as error:
            self.unreadable.append(error)
            if part.spill is not None:
                part.spill.drop_clip()
        else:
            self._enter(part, row, pooled)
            self.audio_s += samples / self.info.sample_rate
        self.progress(1, samples / self.info.sample_rate)
        return batch

    def _enter(self, part: _Open, row: int, pooled: Sequence[Pooled]) -> None:
        part.keys.append(self.plan.task.table.keys[row])
        for name, vector in merge(pooled).items():
            if name in part.vectors:
                part.vectors[name][part.done] = vector
        part.counts.append((sum(window.frames for window in pooled), len(pooled)))
        if part.spill is not None:
            part.spill.end_clip()
        part.done += 1
        self.encoded += 1
        self.chunked += len(pooled) > 1

    def _close(self, batch: _Batch, under_way: list[_Open]) -> None:
        """Write the part of a batch that was its last."""
        part = batch.part
        part.left -= 1
        if part.left == 0:
            self._write(part)
            part.claim.close()
            under_way.remove(part)

    def _write(self, part: _Open) -> None:
        if not part.keys:
            return
        vectors = {name: values[: part.done] for name, values in part.vectors.items()}
        counts = np.array(part.counts, np.int32)
        rows = PooledRows(part.keys, vectors, counts[:, 0], counts[:, 1])
        name, table = part.part.name, self.plan.table_name
        entry = self.store.write_part(self.name, name, rows, part.spill)
        if self.written is None:
            self.store.enter(self.name, table, [entry])
        else:
            self.written(entry)


def decode_clip(clip: Clip, sha256: str, rate: int) -> np.ndarray:
    """Return a clip's samples at `rate` Hz; raise AudioError where its bytes are not those that were hashed."""
    audio, data = clip.audio, None
    if not isinstance(audio, AudioFile) or _size(audio) <= WHOLE_FILE:
        data = read_bytes(audio)
    _require_same(sha256_of(audio) if data is None else sha256_bytes(data), sha256, clip)
    return decode(audio, rate, start_s=clip.start_s, end_s=clip.end_s, resampler=RESAMPLER, data=data)


def windows_of_clip(clip: Clip, sha256: str, rate: int, window: int) -> Iterator[np.ndarray]:
    """Yield a clip's samples at `rate` Hz, `window` at a time and fewer at the end, without holding them.

    Raises AudioError, before the first window, where its bytes are not those that were hashed.
    """
    _require_same(sha256_of(clip.audio), sha256, clip)
    yield from decode_windows(clip.audio, rate, window, start_s=clip.start_s, end_s=clip.end_s, resampler=RESAMPLER)


def _size(audio: AudioFile) -> int:
    try:
        return audio.path.stat().st_size
    except OSError as error:
        raise AudioError(f"cannot be read ({error.strerror or error})", where=str(audio)) from error


def _require_same(found: str, sha256: str, clip: Clip) -> None:
    if found != sha256:
        raise AudioError("changed while the run went on", where=str(clip.audio), remedy="run again")


def cut_batches(
    rows: Sequence[int], durations_s: Sequence[float], info: EncoderInfo, budget_s: float
) -> Iterator[list[int]]:
    """Cut rows, ordered by length, into batches whose forward costs at most `budget_s` seconds of audio, padding
    counted.

    A clip that costs more than the budget is a batch of its own; its chunks share the budget in turn.
    """
    batch: list[int] = []
    windows, longest = 0, 0.0
    for row in rows:
        duration = durations_s[row]
        count = 1 if info.context_s is None else max(1, -int(-duration // info.context_s))
        length = max(info.forward_s, info.min_s, min(duration, info.context_s or duration))
        if batch and (windows + count) * max(longest, length) > budget_s:
            yield batch
            batch, windows, longest = [], 0, 0.0
        batch.append(row)
        windows, longest = windows + count, max(longest, length)
    if batch:
        yield batch


def settings_for(device: str, batch_seconds: float | None, workers: int | None) -> Settings:
    """Return settings for a device: batches that fill it, and decoding threads that keep up without fighting it.

    On the CPU, decoding takes a tenth of the forward's time or less: two threads keep ahead of it (1.10 times the bare
    forward of Whisper tiny.en on trimmed clips and two cores, against 1.19 with one), and sleep once they are.
    """
    cores = os.cpu_count() or 1
    if device.startswith("cuda"):
        return Settings(device, batch_seconds or 960.0, workers or min(16, cores))
    return Settings(device, batch_seconds or 120.0, workers or max(min(2, cores), cores // 4))
