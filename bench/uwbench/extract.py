"""Turn clips into embeddings: decode ahead of the device, forward, pool on the device, write parts.

Batching, padding, masking, chunking and pooling happen here and nowhere else. Workers decode the next batches while the
device encodes this one; a part is written when its last batch is done, so an interruption loses one part at most.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from uwbench.audio import chunks, decode, samples_in
from uwbench.clip import AudioFile, Clip, read_bytes
from uwbench.encoders.base import Encoder, EncoderInfo
from uwbench.errors import AudioError, EncoderError
from uwbench.fingerprint import sha256_bytes, sha256_file
from uwbench.plan import RESAMPLER, Plan, PlannedPart
from uwbench.pool import Pooled, merge, pool_frames
from uwbench.store import PooledRows

if TYPE_CHECKING:
    import torch

_WHOLE_FILE = 256 << 20  # bytes; larger files are decoded from disk instead of from memory
_AHEAD = 3  # batches decoded ahead of the device


@dataclass(frozen=True, slots=True)
class Settings:
    """How to extract; none of it changes an embedding beyond float noise."""

    device: str
    batch_seconds: float
    workers: int


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
    """A part under way: what its clips gave so far."""

    part: PlannedPart
    claim: ExitStack
    left: int  # batches still to come
    keys: list[bytes] = field(default_factory=list)
    vectors: list[dict[str, np.ndarray]] = field(default_factory=list)
    frames: list[np.ndarray] = field(default_factory=list)
    counts: list[tuple[int, int]] = field(default_factory=list)


def extract(plan: Plan, encoder: Encoder, settings: Settings, progress: Callable[[int, float], None]) -> Extraction:
    """Encode what `plan` asks for with a loaded encoder; call `progress(clips, audio seconds)` after each batch.

    Clips that cannot be decoded are left out and returned; an encoder that breaks its contract raises EncoderError.
    What was written before an error or an interruption stays and counts at the next start.
    """
    return _Extractor(plan, encoder, settings, progress).run()


class _Extractor:
    def __init__(
        self, plan: Plan, encoder: Encoder, settings: Settings, progress: Callable[[int, float], None]
    ) -> None:
        self.plan, self.encoder, self.settings, self.progress = plan, encoder, settings, progress
        self.info = encoder.info
        self.store = plan.store
        self.name = plan.task.card.name
        self.layers = [self.info.layers.index(layer) for layer in self.store.record.layers]
        self.forward = Forward(encoder, self.layers, self.store.record.poolings, settings, frames=plan.frames)
        self.unreadable: list[AudioError] = []
        self.encoded = self.chunked = 0
        self.audio_s = 0.0

    def run(self) -> Extraction:
        started = time.perf_counter()
        self.store.create()
        pool = ThreadPoolExecutor(self.settings.workers, thread_name_prefix="decode")
        busy: list[PlannedPart] = []
        try:
            self._work(pool, self._claimed(self.plan.parts, busy, wait=False))
            self._work(pool, self._claimed(busy, [], wait=True))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        seconds = time.perf_counter() - started
        return Extraction(self.encoded, self.audio_s, seconds, self.chunked, tuple(self.unreadable))

    def _claimed(self, parts: Sequence[PlannedPart], busy: list[PlannedPart], *, wait: bool) -> Iterator[_Open]:
        """Yield the parts that are this process's to do; those that another works on go to `busy`."""
        for part in parts:
            with ExitStack() as stack:
                if not stack.enter_context(self.store.claim(self.name, part.name, wait=wait)):
                    busy.append(part)
                elif not self._is_done(part):
                    yield _Open(part, stack.pop_all(), 0)

    def _is_done(self, part: PlannedPart) -> bool:
        """Whether another process wrote the part since the plan was made."""
        manifest = self.store.manifest(self.name)
        done = {entry.name for entry in manifest.parts} if manifest else set()
        return self.plan.reason != "--force" and f"pooled-{part.name}.arrow" in done

    def _work(self, pool: ThreadPoolExecutor, parts: Iterator[_Open]) -> None:
        """Keep a few batches decoding while the oldest is encoded."""
        waiting: deque[tuple[_Open, list[tuple[int, Future[np.ndarray]]]]] = deque()
        under_way: list[_Open] = []
        batches = self._batches(parts, under_way)
        try:
            while True:
                while len(waiting) < _AHEAD and (following := next(batches, None)) is not None:
                    part, rows = following
                    waiting.append((part, [(row, pool.submit(self._decode, row)) for row in rows]))
                if not waiting:
                    return
                part, futures = waiting.popleft()
                self._encode(part, futures)
                part.left -= 1
                if part.left == 0:
                    self._write(part)
                    part.claim.close()
                    under_way.remove(part)
        finally:
            for part in under_way:
                part.claim.close()

    def _batches(self, parts: Iterator[_Open], under_way: list[_Open]) -> Iterator[tuple[_Open, list[int]]]:
        durations = self.plan.task.table.durations_s
        for part in parts:
            under_way.append(part)
            batches = list(cut_batches(part.part.rows, durations, self.info, self.settings.batch_seconds))
            part.left = len(batches)
            for rows in batches:
                yield part, rows

    def _decode(self, row: int) -> np.ndarray:
        return decode_clip(self.plan.task.clips[row], self.plan.task.hashes[row], self.info.sample_rate)

    def _encode(self, part: _Open, futures: Sequence[tuple[int, Future[np.ndarray]]]) -> None:
        rows, windows, owners = [], [], []
        limit = None if self.info.context_s is None else samples_in(self.info.context_s, self.info.sample_rate)
        seconds = 0.0
        for row, future in futures:
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
            self.chunked += len(pieces) > 1
        encoded = self.forward(windows, [self.plan.task.clips[rows[owner]].id for owner in owners])
        for index, row in enumerate(rows):
            mine = [window for window, owner in zip(encoded, owners, strict=True) if owner == index]
            part.keys.append(self.plan.task.table.keys[row])
            part.vectors.append(merge([window.pooled for window in mine]))
            part.counts.append((sum(window.pooled.frames for window in mine), len(mine)))
            if self.plan.frames:
                part.frames.append(np.concatenate([w.frames for w in mine if w.frames is not None]))
        self.encoded += len(rows)
        self.audio_s += seconds
        self.progress(len(futures), seconds)

    def _write(self, part: _Open) -> None:
        if not part.keys:
            return
        poolings = self.store.record.poolings
        vectors = {name: np.stack([clip[name] for clip in part.vectors]) for name in poolings}
        counts = np.array(part.counts, np.int32)
        rows = PooledRows(part.keys, vectors, counts[:, 0], counts[:, 1])
        frames = part.frames if self.plan.frames else None
        self.store.write_part(self.name, part.part.name, self.plan.table_name, rows, frames)


def decode_clip(clip: Clip, sha256: str, rate: int) -> np.ndarray:
    """Return a clip's samples at `rate` Hz; raise AudioError where its bytes are not those that were hashed."""
    audio = clip.audio
    if isinstance(audio, AudioFile) and audio.path.stat().st_size > _WHOLE_FILE:
        data, found = None, sha256_file(audio.path)
    else:
        data = read_bytes(audio)
        found = sha256_bytes(data)
    if found != sha256:
        raise AudioError("changed while the run went on", where=str(audio), remedy="run again")
    return decode(audio, rate, start_s=clip.start_s, end_s=clip.end_s, resampler=RESAMPLER, data=data)


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


@dataclass(frozen=True, slots=True)
class Window:
    """One encoded window: its pooled statistics and, for frame tasks, its valid frames, float16 `(frames, dim)`."""

    pooled: Pooled
    frames: np.ndarray | None


class Forward:
    """Windows of samples to pooled statistics, in batches the device can hold.

    A batch that runs out of memory is halved and tried again, down to one window; the size that worked is kept for
    windows of that length.
    """

    def __init__(
        self, encoder: Encoder, layers: Sequence[int], poolings: Sequence[str], settings: Settings, *, frames: bool
    ) -> None:
        self.encoder, self.layers, self.poolings, self.settings, self.frames = (
            encoder,
            layers,
            poolings,
            settings,
            frames,
        )
        self.info = encoder.info
        self.fits: dict[int, int] = {}  # seconds of the longest window, rounded up -> windows that fit

    def __call__(self, windows: Sequence[np.ndarray], names: Sequence[str]) -> list[Window]:
        """Encode all windows, in order; `names` says which clip each belongs to, for errors."""
        done: dict[int, Window] = {}
        for group in self._groups(windows):
            for index, window in zip(group, self._fit(windows, names, group), strict=True):
                done[index] = window
        return [done[index] for index in range(len(windows))]

    def _groups(self, windows: Sequence[np.ndarray]) -> Iterator[list[int]]:
        """Split into forwards that may share a batch and stay under the budget."""
        order = list(range(len(windows)))
        if self.info.batching == "single":
            yield from ([index] for index in order)
            return
        group: list[int] = []
        longest = 0.0
        for index in sorted(order, key=lambda i: len(windows[i])):
            length = max(self.info.forward_s, self.info.min_s, len(windows[index]) / self.info.sample_rate)
            apart = self.info.batching == "equal-length" and group and len(windows[group[0]]) != len(windows[index])
            if group and (apart or (len(group) + 1) * max(length, longest) > self.settings.batch_seconds):
                yield group
                group, longest = [], 0.0
            group.append(index)
            longest = max(longest, length)
        if group:
            yield group

    def _fit(self, windows: Sequence[np.ndarray], names: Sequence[str], group: list[int]) -> list[Window]:
        import torch

        bucket = -int(-max(len(windows[index]) for index in group) // self.info.sample_rate)
        fits = min(self.fits.get(bucket, len(group)), len(group))
        if fits < len(group):
            return self._halves(windows, names, group, fits)
        try:
            return self._run([windows[index] for index in group], [names[index] for index in group])
        except (torch.OutOfMemoryError, MemoryError) as error:
            if len(group) == 1:
                remedy = "use --context trimmed, --dtype bf16, a larger device, or --device cpu"
                raise EncoderError("does not fit into memory alone", where=names[group[0]], remedy=remedy) from error
            fits = len(group) // 2
        if self.settings.device.startswith("cuda"):
            torch.cuda.empty_cache()
        self.fits[bucket] = fits
        return self._halves(windows, names, group, fits)

    def _halves(self, windows: Sequence[np.ndarray], names: Sequence[str], group: list[int], fits: int) -> list[Window]:
        pieces = [group[i : i + fits] for i in range(0, len(group), fits)]
        return [window for piece in pieces for window in self._fit(windows, names, piece)]

    def _run(self, windows: list[np.ndarray], names: list[str]) -> list[Window]:
        import torch

        rate, cuda = self.info.sample_rate, self.settings.device.startswith("cuda")
        counts = [len(window) for window in windows]
        width = max(*counts, samples_in(self.info.min_s, rate))
        waveforms = torch.zeros((len(windows), width), pin_memory=cuda)
        for row, window in enumerate(windows):
            waveforms[row, : len(window)] = torch.from_numpy(window)
        with torch.inference_mode():
            lengths = torch.tensor(counts)
            if cuda:
                waveforms = waveforms.to(self.settings.device, non_blocking=True)
                lengths = lengths.to(self.settings.device, non_blocking=True)
            try:
                encoded = self.encoder.encode(waveforms, lengths, self.layers)
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, ValueError, TypeError, LookupError) as error:
                what = f"{self.info.name} failed on a batch of {len(windows)}: {type(error).__name__}: {error}"
                raise EncoderError(what, where=names[0]) from error
            check_contract(
                encoded.frames, encoded.valid, (len(windows), len(self.layers), self.info.dim), self.info.name
            )
            everything = torch.full_like(encoded.valid, encoded.frames.shape[2])
            emitted = everything if self.info.forward_s else encoded.valid
            pooled = pool_frames(encoded.frames, encoded.valid, emitted, self.poolings)
            kept: list[np.ndarray | None] = [None] * len(windows)
            if self.frames:
                kept = [encoded.frames[i, -1, :n].half().cpu().numpy() for i, n in enumerate(encoded.valid.tolist())]
        for name, one, frames in zip(names, pooled, kept, strict=True):
            if not (np.isfinite(one.mean_all).all() and (frames is None or np.isfinite(frames).all())):
                remedy = f"try --dtype fp32; the clip decodes, so the fault is in {self.info.name}"
                raise EncoderError("the encoder gave NaN or infinite values", where=name, remedy=remedy)
        return [Window(one, frames) for one, frames in zip(pooled, kept, strict=True)]


def check_contract(frames: torch.Tensor, valid: torch.Tensor, shape: tuple[int, int, int], name: str) -> None:
    """Raise EncoderError where an encoder's answer has not the shape or the counts that it promised."""
    batch, layers, dim = shape
    if frames.ndim != 4 or frames.shape[0] != batch or frames.shape[1] != layers or frames.shape[3] != dim:
        wanted = f"({batch}, {layers}, frames, {dim})"
        raise EncoderError(f"gave frames of shape {tuple(frames.shape)} where {wanted} was due", where=name)
    if valid.shape != (batch,) or int(valid.min()) < 1 or int(valid.max()) > frames.shape[2]:
        raise EncoderError(f"gave {valid.tolist()} valid frames of {frames.shape[2]}", where=name)


def settings_for(device: str, batch_seconds: float | None, workers: int | None) -> Settings:
    """Return settings for a device: batches that fill it, and decoding threads that keep up without fighting it."""
    cores = os.cpu_count() or 1
    if device.startswith("cuda"):
        return Settings(device, batch_seconds or 960.0, workers or min(16, cores))
    return Settings(device, batch_seconds or 120.0, workers or max(1, min(4, cores // 2)))
