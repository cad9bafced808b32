"""Batches of short clips and single long clips, from decoding to the rows of their part.

Decoding starts when a batch is made, the encoder when it is launched; collecting it waits for the answer.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from uwbench.audio.clip import AudioArray, AudioFile, Clip, read_bytes
from uwbench.audio.corrupt import corrupt
from uwbench.audio.corruption import Corruption
from uwbench.audio.decode import chunks, decode, decode_windows, read_header, samples_in
from uwbench.audio.scan import WHOLE_FILE, sha256_of
from uwbench.base.hashing import clip_key, sha256_bytes
from uwbench.cache.frames import Spill
from uwbench.cache.parts import PooledRows
from uwbench.errors import AudioError
from uwbench.extraction.forward import Forward, Window
from uwbench.extraction.plan import Plan, PlannedPart
from uwbench.extraction.pooling import STATISTICS, Pooled, copied, merge
from uwbench.extraction.segments import Place, Pyramid
from uwbench.sources.check import SILENT_PEAK


@dataclass(slots=True)
class OpenPart:
    """A part being filled: the first `len(keys)` rows of each of `vectors`, `(rows, layers, dim)`, are set.

    So are those of `segments`, `(rows, layers, SEGMENTS, dim)`, if they are wanted.
    """

    planned: PlannedPart
    claim: ExitStack
    vectors: dict[str, np.ndarray]
    spill: Spill | None
    segments: np.ndarray | None = None
    batches_left: int = 0
    keys: list[bytes] = field(default_factory=list)
    counts: list[tuple[int, int]] = field(default_factory=list)  # frames and chunks

    def add_frames(self, window: Window) -> None:
        """Add a window's frames to the current clip."""
        if self.spill is not None and window.frames is not None:
            self.spill.append(window.frames)

    def add_clip(self, key: bytes, pooled: Sequence[Pooled], pyramid: Pyramid) -> None:
        """Add the row of a clip whose windows are complete; the pyramid has their leaves if segments are wanted."""
        merged = merge(pooled)
        for name, vector in merged.items():
            if name in self.vectors:
                self.vectors[name][len(self.keys)] = vector
        if self.segments is not None:
            self.segments[len(self.keys)] = pyramid.vectors(merged["mean"])
        self.keys.append(key)
        self.counts.append((sum(window.n_frames for window in pooled), len(pooled)))
        if self.spill is not None:
            self.spill.end_clip()

    def rows(self) -> PooledRows:
        """Return the rows so far."""
        counts = np.array(self.counts, np.int32)
        vectors = {name: values[: len(self.keys)] for name, values in self.vectors.items()}
        segments = None if self.segments is None else self.segments[: len(self.keys)]
        return PooledRows(self.keys, vectors, counts[:, 0], counts[:, 1], segments)


@dataclass(slots=True)
class Work:
    """What all batches of an extraction share, and the tally of what was encoded."""

    plan: Plan
    forward: Forward
    pool: ThreadPoolExecutor
    unreadable: list[AudioError] = field(default_factory=list)
    silent: set[bytes] = field(default_factory=set)  # keys
    encoded: int = 0
    chunked: int = 0
    audio_s: float = 0.0

    @property
    def context(self) -> int | None:
        """The encoder's longest context, in samples."""
        info = self.forward.info
        return None if info.context_s is None else samples_in(info.context_s, info.sample_rate)

    def note_silence(self, row: int, peak: float) -> None:
        """Note a clip whose largest sample is `peak` if that is silence."""
        if peak < SILENT_PEAK:
            self.silent.add(self.plan.task.table.keys[row])

    def add(self, part: OpenPart, row: int, pooled: Sequence[Pooled], pyramid: Pyramid) -> None:
        """Add a clip to its part."""
        part.add_clip(self.plan.task.table.keys[row], pooled, pyramid)
        self.encoded += 1
        self.chunked += len(pooled) > 1


class ShortBatch:
    """Clips of one part that are decoded whole and encoded together."""

    def __init__(self, work: Work, part: OpenPart, rows: Sequence[int]) -> None:
        self.work, self.part, self.rows = work, part, rows
        self._decoded: list[tuple[int, Future[np.ndarray]]] = [
            (row, work.pool.submit(self._decode, row)) for row in rows
        ]
        self._readable: list[int] = []  # the rows whose clips could be decoded
        self._owners: list[int] = []  # for each window, the index into `_readable`
        self._places: list[Place] = []  # of each window
        self._finish: Callable[[], list[Window]] = list
        self._audio_s = 0.0

    def _decode(self, row: int) -> np.ndarray:
        task = self.work.plan.task
        rate = self.work.forward.info.sample_rate
        return decode_clip(task.clips[row], task.hashes[row], rate, corruption=task.corruption)

    def launch(self) -> None:
        """Start the encoder on the clips; on the CPU, this encodes them."""
        work, windows = self.work, []
        for row, future in self._decoded:
            try:
                samples = future.result()
            except AudioError as error:
                work.unreadable.append(error)
                continue
            work.note_silence(row, float(np.abs(samples).max(initial=0.0)))
            pieces = chunks(samples, work.context)
            windows.extend(pieces)
            starts = itertools.accumulate(map(len, pieces), initial=0)
            self._places.extend(Place(start, len(samples)) for start, _ in zip(starts, pieces, strict=False))
            self._owners.extend([len(self._readable)] * len(pieces))
            self._readable.append(row)
            self._audio_s += len(samples) / work.forward.info.sample_rate
        self._decoded = []
        names = [work.plan.task.clips[self._readable[owner]].id for owner in self._owners]
        self._finish = work.forward.start(windows, names, self._places)

    def collect(self) -> None:
        """Wait for the encoder and add the clips to their part."""
        windows_of: list[list[Window]] = [[] for _ in self._readable]
        for owner, window in zip(self._owners, self._finish(), strict=True):
            windows_of[owner].append(window)
        for row, windows in zip(self._readable, windows_of, strict=True):
            pyramid = Pyramid()
            for window in windows:
                _add_leaves(pyramid, window.pooled)
                self.part.add_frames(window)
            self.work.add(self.part, row, [window.pooled for window in windows], pyramid)
        self.work.audio_s += self._audio_s


class LongClip:
    """One clip of several minutes, decoded window by window while it is encoded, so that it is never held whole."""

    def __init__(self, work: Work, part: OpenPart, row: int, context_s: float, batch_s: float) -> None:
        self.work, self.part, self.rows, self._row = work, part, (row,), row
        self._expected = int(work.plan.task.table.durations_s[row] / context_s) + 2  # windows
        self._at_once = max(1, int(batch_s / max(context_s, work.forward.info.forward_s)))
        self._windows = windows_of_clip(
            work.plan.task.clips[row],
            work.plan.task.hashes[row],
            work.forward.info.sample_rate,
            samples_in(context_s, work.forward.info.sample_rate),
            corruption=work.plan.task.corruption,
        )
        self._next: Future[list[np.ndarray]] = work.pool.submit(self._take)

    def _take(self) -> list[np.ndarray]:
        """Return the next windows, as many as one forward pass takes."""
        return list(itertools.islice(self._windows, self._at_once))

    def launch(self) -> None:
        """Do nothing: `collect` launches the windows, one forward pass after the other."""

    def collect(self) -> None:
        """Encode the clip and add it to its part."""
        work, forward = self.work, self.work.forward
        name, samples, peak = work.plan.task.clips[self._row].id, 0, 0.0
        length = samples_in(work.plan.task.table.durations_s[self._row], forward.info.sample_rate)
        pooled: list[Pooled] = []
        pyramid = Pyramid()
        buffer = np.empty((self._expected, STATISTICS, len(forward.layers), forward.info.dim))
        running: deque[Callable[[], list[Window]]] = deque()

        def add(windows: list[Window]) -> None:
            for window in windows:
                _add_leaves(pyramid, window.pooled)
                at = len(pooled)  # a header may promise too few windows
                pooled.append(copied(window.pooled, buffer[at]) if at < len(buffer) else window.pooled)
                self.part.add_frames(window)

        try:
            while group := self._next.result():
                self._next = work.pool.submit(self._take)
                ends = list(itertools.accumulate(map(len, group), initial=samples))
                places = [Place(start, length) for start in ends[:-1]]
                running.append(forward.start(group, [name] * len(group), places))
                samples = ends[-1]
                peak = max(peak, *(float(np.abs(piece).max(initial=0.0)) for piece in group))
                if len(running) > forward.behind:
                    add(running.popleft()())
            for finish in running:
                add(finish())
        except AudioError as error:
            work.unreadable.append(error)
            if self.part.spill is not None:
                self.part.spill.drop_clip()
        else:
            work.add(self.part, self._row, pooled, pyramid)
            work.note_silence(self._row, peak)
            work.audio_s += samples / forward.info.sample_rate


def _add_leaves(pyramid: Pyramid, window: Pooled) -> None:
    if window.leaves is not None and window.leaf_frames is not None:
        pyramid.add(window.leaves, window.leaf_frames)


def decode_clip(clip: Clip, sha256: str, rate: int, *, corruption: Corruption | None = None) -> np.ndarray:
    """Return a clip's samples at `rate` Hz, corrupted at the rate that the clip has, if at all.

    Raise AudioError if its bytes are not those that were hashed.
    """
    audio, data = clip.audio, None
    if not isinstance(audio, AudioFile) or _size(audio) <= WHOLE_FILE:
        data = read_bytes(audio)
    _require_same(sha256_of(audio) if data is None else sha256_bytes(data), sha256, clip)
    if corruption is None:
        return decode(audio, rate, start_s=clip.start_s, end_s=clip.end_s, data=data)
    clip_rate = read_header(audio, data).rate
    samples = decode(audio, clip_rate, start_s=clip.start_s, end_s=clip.end_s, data=data)
    samples = corrupt(samples, clip_rate, corruption, clip_key(sha256, clip.start_s, clip.end_s))
    return decode(AudioArray(samples, clip_rate, str(audio)), rate)


def windows_of_clip(
    clip: Clip, sha256: str, rate: int, window: int, *, corruption: Corruption | None = None
) -> Iterator[np.ndarray]:
    """Yield a clip's samples at `rate` Hz in windows of `window` samples, the last one shorter, without holding all.

    A corruption takes the clip whole: a room's reverberation and a clip's level reach from one window into the next.
    Raise AudioError, before the first window, if its bytes are not those that were hashed.
    """
    if corruption is not None:
        yield from chunks(decode_clip(clip, sha256, rate, corruption=corruption), window)
        return
    _require_same(sha256_of(clip.audio), sha256, clip)
    yield from decode_windows(clip.audio, rate, window, start_s=clip.start_s, end_s=clip.end_s)


def _size(audio: AudioFile) -> int:
    try:
        return audio.path.stat().st_size
    except OSError as error:
        raise AudioError(f"cannot be read ({error.strerror or error})", where=str(audio)) from error


def _require_same(actual: str, expected: str, clip: Clip) -> None:
    if actual != expected:
        raise AudioError("changed while the run went on", where=str(clip.audio), remedy="run again")
