"""Windows of samples through the encoder and its pooling, in batches that the device can hold.

On CUDA nothing here waits for the device until an answer is asked for: waveforms go over pinned memory on a stream of
their own, answers come back the same way, and what the host must read (counts, whether all is finite) it reads from the
copies. So the next batch is launched while this one is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from uwbench.audio.decode import samples_in
from uwbench.encoders.base import Encoder
from uwbench.errors import EncoderError
from uwbench.extraction.batching import group_windows
from uwbench.extraction.pooling import Pooled, as_pooled, reduce_frames

if TYPE_CHECKING:
    import torch


_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "STATUS_ALLOC_FAILED")


@dataclass(frozen=True, slots=True)
class Settings:
    """How to extract; none of it changes an embedding beyond float noise."""

    device: str
    batch_seconds: float
    workers: int


@dataclass(frozen=True, slots=True)
class Window:
    """One encoded window: its pooled statistics and, for frame tasks, its valid frames, float16 `(frames, dim)`."""

    pooled: Pooled
    frames: np.ndarray | None


@dataclass(frozen=True, slots=True)
class _Launched:
    """A forward on its way: where its answer will be once `arrived` returns."""

    group: list[int]
    names: list[str]
    reduced: Mapping[str, torch.Tensor]
    valid: torch.Tensor
    emitted: torch.Tensor
    frames: torch.Tensor | None
    given: int  # frames of the longest window
    arrived: Callable[[], None]


class Forward:
    """Windows of samples to pooled statistics, in batches the device can hold.

    A batch that runs out of memory is halved and tried again, down to one clip and then one window of it; the size that
    worked is kept for windows of that length.
    """

    def __init__(
        self,
        encoder: Encoder,
        layers: Sequence[int],
        poolings: Sequence[str],
        settings: Settings,
        *,
        needs_frames: bool,
    ) -> None:
        self.encoder, self.layers, self.poolings, self.settings = encoder, layers, poolings, settings
        self.needs_frames = needs_frames
        self.info = encoder.info
        self.cuda = settings.device.startswith("cuda")
        self.fits: dict[int, int] = {}  # seconds of the longest window, rounded up -> windows that fit
        self._copies: Any = None  # the stream that waveforms are copied on

    def __call__(self, windows: Sequence[np.ndarray], names: Sequence[str]) -> list[Window]:
        """Encode all windows, in order; `names` says which clip each belongs to, for errors."""
        return self.start(windows, names)()

    def start(self, windows: Sequence[np.ndarray], names: Sequence[str]) -> Callable[[], list[Window]]:
        """Launch what `__call__` does, and return the function that waits for it. On the CPU it is done at once."""
        launched = [
            one
            for group in group_windows(windows, self.info, self.settings.batch_seconds)
            for one in self._fit(windows, names, group)
        ]

        def finish() -> list[Window]:
            done: dict[int, Window] = {}
            for one in launched:
                done.update(zip(one.group, self._windows(one), strict=True))
            return [done[index] for index in range(len(windows))]

        return finish

    def _fit(self, windows: Sequence[np.ndarray], names: Sequence[str], group: list[int]) -> list[_Launched]:
        bucket = -int(-max(len(windows[index]) for index in group) // self.info.sample_rate)
        fits = min(self.fits.get(bucket, len(group)), len(group))
        if fits < len(group):
            return self._halves(windows, names, group, fits)
        try:
            return [self._launch([windows[index] for index in group], [names[index] for index in group], group)]
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if len(group) == 1:
                remedy = "use --context trimmed, --dtype bf16, a larger device, or --device cpu"
                raise EncoderError("does not fit into memory alone", where=names[group[0]], remedy=remedy) from error
            fits = len(group) // 2
        if self.cuda:
            import torch

            torch.cuda.empty_cache()
        self.fits[bucket] = fits
        return self._halves(windows, names, group, fits)

    def _halves(
        self, windows: Sequence[np.ndarray], names: Sequence[str], group: list[int], fits: int
    ) -> list[_Launched]:
        pieces = [group[i : i + fits] for i in range(0, len(group), fits)]
        return [one for piece in pieces for one in self._fit(windows, names, piece)]

    def _launch(self, windows: list[np.ndarray], names: list[str], group: list[int]) -> _Launched:
        import torch

        with torch.inference_mode():
            waveforms, lengths = self._upload(windows)
            try:
                encoded = self.encoder.encode(waveforms, lengths, self.layers)
            except (RuntimeError, ValueError, TypeError, LookupError) as error:
                if out_of_memory(error):
                    raise
                what = f"{self.info.name} failed on a batch of {len(windows)}: {type(error).__name__}: {error}"
                raise EncoderError(what, where=names[0]) from error
            frames, valid = encoded.frames, encoded.valid
            check_shape(frames, valid, (len(windows), len(self.layers), self.info.dim), self.info.name)
            emitted = torch.full_like(valid, frames.shape[2]) if self.info.forward_s else valid
            reduced = reduce_frames(frames, valid, emitted, self.poolings)
            kept = frames[:, -1].half() if self.needs_frames else None
            given = frames.shape[2]
            if not self.cuda:
                return _Launched(group, names, reduced, valid, emitted, kept, given, lambda: None)
            answer = {name: self._download(tensor) for name, tensor in reduced.items()}
            valid, emitted = self._download(valid), self._download(emitted)
            kept = None if kept is None else self._download(kept)
            arrived = torch.cuda.Event()
            arrived.record(torch.cuda.current_stream(self.settings.device))
            return _Launched(group, names, answer, valid, emitted, kept, given, arrived.synchronize)

    def _upload(self, windows: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the windows zero-padded to one length, and their lengths, on the device or on their way there."""
        import torch

        rate = self.info.sample_rate
        counts = [len(window) for window in windows]
        width = max(*counts, samples_in(self.info.min_s, rate))
        waveforms = torch.zeros((len(windows), width), pin_memory=self.cuda)
        for row, window in enumerate(windows):
            waveforms[row, : len(window)] = torch.from_numpy(window)
        lengths = torch.tensor(counts, pin_memory=self.cuda)
        if not self.cuda:
            return waveforms.to(self.settings.device), lengths.to(self.settings.device)
        if self._copies is None:
            self._copies = torch.cuda.Stream(self.settings.device)
        with torch.cuda.stream(self._copies):
            moved = [part.to(self.settings.device, non_blocking=True) for part in (waveforms, lengths)]
        current = torch.cuda.current_stream(self.settings.device)
        current.wait_stream(self._copies)
        for part in moved:
            part.record_stream(current)
        return moved[0], moved[1]

    def _download(self, tensor: torch.Tensor) -> torch.Tensor:
        import torch

        there = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        return there.copy_(tensor, non_blocking=True)

    def _windows(self, one: _Launched) -> list[Window]:
        """Wait for a forward and return its windows; raise EncoderError where the encoder broke its contract."""
        try:
            one.arrived()
        except RuntimeError as error:
            raise EncoderError(f"{self.info.name} failed on the device: {error}", where=one.names[0]) from error
        check_counts(one.valid, one.given, self.info.name)
        pooled = as_pooled(one.reduced, one.valid, one.emitted)
        frames: list[np.ndarray | None] = [None] * len(pooled)
        if one.frames is not None:
            kept = one.frames.cpu().numpy()
            frames = [kept[index, :count].copy() for index, count in enumerate(one.valid.tolist())]
        for name, statistics, values in zip(one.names, pooled, frames, strict=True):
            if not (np.isfinite(statistics.mean_all).all() and (values is None or np.isfinite(values).all())):
                remedy = f"try --dtype fp32; the clip decodes, so the fault is in {self.info.name}"
                raise EncoderError("the encoder gave NaN or infinite values", where=name, remedy=remedy)
        return [Window(statistics, values) for statistics, values in zip(pooled, frames, strict=True)]


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that a device, or the machine, has not the memory that was asked for.

    On the CPU, and from the libraries beneath CUDA's products and convolutions, torch raises a plain RuntimeError.
    """
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY)


def check_shape(frames: torch.Tensor, valid: torch.Tensor, shape: tuple[int, int, int], name: str) -> None:
    """Raise EncoderError where an encoder's answer has not the shape that it promised."""
    batch, layers, dim = shape
    if frames.ndim != 4 or frames.shape[0] != batch or frames.shape[1] != layers or frames.shape[3] != dim:
        wanted = f"({batch}, {layers}, frames, {dim})"
        raise EncoderError(f"gave frames of shape {tuple(frames.shape)} where {wanted} was due", where=name)
    if valid.shape != (batch,):
        raise EncoderError(f"gave {tuple(valid.shape)} counts of valid frames for {batch} clips", where=name)


def check_counts(valid: torch.Tensor, given: int, name: str) -> None:
    """Raise EncoderError where an encoder calls more frames valid than it gave, or none."""
    if int(valid.min()) < 1 or int(valid.max()) > given:
        raise EncoderError(f"gave {valid.tolist()} valid frames of {given}", where=name)
