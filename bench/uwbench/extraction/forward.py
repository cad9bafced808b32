"""The forward pass: windows of samples through the encoder and its pooling, in batches that fit the device.

On CUDA, nothing here waits for the device until a result is asked for: waveforms are copied from pinned memory on a
stream of their own, results come back the same way, and the host reads counts and checks for NaN in the copies. So the
next batch is launched while this one is computed. What an encoder reads on the CPU (`EncoderInfo.host_inputs`) stays
there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from uwbench.audio.decode import samples_in
from uwbench.base.device import send
from uwbench.encoders.base import Encoder
from uwbench.errors import EncoderError
from uwbench.extraction.batching import group_windows
from uwbench.extraction.pooling import Pooled, as_pooled, reduce_frames
from uwbench.extraction.segments import Cuts, Place, cuts_of

if TYPE_CHECKING:
    import torch


_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "STATUS_ALLOC_FAILED")


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of an extraction; none of them changes an embedding beyond float noise."""

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
    """A launched forward pass: its results are there once `wait` returns."""

    group: list[int]
    names: list[str]
    reduced: Mapping[str, torch.Tensor]
    cuts: Cuts | None
    valid: torch.Tensor
    frames: torch.Tensor | None
    n_frames: int  # of the longest window
    wait: Callable[[], None]


class Forward:
    """Encodes and pools windows of samples, in batches that fit the device.

    A batch that runs out of memory is halved and tried again, down to one clip and then one window of it; the size that
    worked is remembered for windows of that length.
    """

    def __init__(
        self,
        encoder: Encoder,
        layers: Sequence[int],
        poolings: Sequence[str],
        settings: Settings,
        *,
        needs_frames: bool,
        needs_segments: bool = False,
    ) -> None:
        self.encoder, self.layers, self.poolings, self.settings = encoder, layers, poolings, settings
        self.needs_frames, self.needs_segments = needs_frames, needs_segments
        self.info = encoder.info
        self.cuda = settings.device.startswith("cuda")
        self.behind = int(self.cuda)  # forward passes to launch before the results of one are asked for
        self.fits: dict[int, int] = {}  # seconds of the longest window, rounded up -> windows that fit
        self._copies: Any = None  # the stream that waveforms are copied on
        self._bf16_on_cpu = settings.device == "cpu" and _has_bf16_weights(encoder)

    def __call__(self, windows: Sequence[np.ndarray], names: Sequence[str]) -> list[Window]:
        """Encode all windows, in order; `names` gives the clip of each, for errors."""
        return self.start(windows, names)()

    def start(
        self, windows: Sequence[np.ndarray], names: Sequence[str], places: Sequence[Place] | None = None
    ) -> Callable[[], list[Window]]:
        """Launch the windows and return the function that waits for their results; the CPU encodes them at once.

        `places` says where in its clip each window lies, for segments; by default each is a clip.
        """
        places = places or [Place(0, len(window)) for window in windows]
        groups = group_windows(windows, self.info, self.settings.batch_seconds)
        passes = [launched for group in groups for launched in self._fit(windows, names, places, group)]

        def finish() -> list[Window]:
            results: dict[int, Window] = {}
            for launched in passes:
                results.update(zip(launched.group, self._windows(launched), strict=True))
            return [results[index] for index in range(len(windows))]

        return finish

    def _fit(
        self, windows: Sequence[np.ndarray], names: Sequence[str], places: Sequence[Place], group: list[int]
    ) -> list[_Launched]:
        bucket = -int(-max(len(windows[index]) for index in group) // self.info.sample_rate)
        fits = min(self.fits.get(bucket, len(group)), len(group))
        if fits < len(group):
            return self._halves(windows, names, places, group, fits)
        try:
            return [self._launch(windows, names, places, group)]
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if len(group) == 1:
                remedy = "use --context trimmed, --dtype bf16, a larger device, or --device cpu"
                raise EncoderError(
                    "does not fit in memory, even alone", where=names[group[0]], remedy=remedy
                ) from error
            fits = len(group) // 2
        if self.cuda:
            import torch

            torch.cuda.empty_cache()
        self.fits[bucket] = fits
        return self._halves(windows, names, places, group, fits)

    def _halves(
        self,
        windows: Sequence[np.ndarray],
        names: Sequence[str],
        places: Sequence[Place],
        group: list[int],
        fits: int,
    ) -> list[_Launched]:
        pieces = [group[i : i + fits] for i in range(0, len(group), fits)]
        return [launched for piece in pieces for launched in self._fit(windows, names, places, piece)]

    def _launch(
        self,
        all_windows: Sequence[np.ndarray],
        all_names: Sequence[str],
        all_places: Sequence[Place],
        group: list[int],
    ) -> _Launched:
        """Launch the windows of a group, by index."""
        import torch

        windows, names = [all_windows[index] for index in group], [all_names[index] for index in group]
        places = [all_places[index] for index in group]
        with torch.inference_mode():
            waveforms, lengths = self._upload(windows)
            try:
                with _exact_convolutions(without_onednn=self._bf16_on_cpu):
                    encoded = self.encoder.encode(waveforms, lengths, self.layers)
            except (RuntimeError, ValueError, TypeError, LookupError) as error:
                if out_of_memory(error):
                    raise
                what = f"{self.info.name} failed on a batch of {len(windows)}: {type(error).__name__}: {error}"
                raise EncoderError(what, where=names[0]) from error
            frames, valid = encoded.frames, encoded.valid
            check_shape(frames, valid, (len(windows), len(self.layers), self.info.dim), self.info.name)
            inside = send(valid, frames.device)
            emitted = torch.full_like(inside, frames.shape[2]) if self.info.forward_s else inside
            cuts = cuts_of(list(map(len, windows)), places) if self.needs_segments else None
            on_device = None if cuts is None else Cuts(*(send(part, frames.device) for part in cuts))
            reduced = reduce_frames(frames, inside, emitted, self.poolings, on_device)
            last = frames[:, -1].half() if self.needs_frames else None
            n_frames = frames.shape[2]
            if not self.cuda:
                return _Launched(group, names, reduced, cuts, valid, last, n_frames, lambda: None)
            reduced = {name: self._download(tensor) for name, tensor in reduced.items()}
            valid = self._download(valid)
            last = None if last is None else self._download(last)
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(self.settings.device))
            return _Launched(group, names, reduced, cuts, valid, last, n_frames, event.synchronize)

    def _upload(self, windows: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the windows, zero-padded to one length, and their lengths, each where the encoder takes it.

        A copy to the device may still run.
        """
        import torch

        rate = self.info.sample_rate
        counts = [len(window) for window in windows]
        width = max(*counts, samples_in(self.info.min_s, rate))
        on_host, device = self.info.host_inputs, self.settings.device
        waveforms = torch.zeros((len(windows), width), pin_memory=self.cuda and "waveforms" not in on_host)
        for row, window in enumerate(windows):
            waveforms[row, : len(window)] = torch.from_numpy(window)
        lengths = torch.tensor(counts)
        if self.cuda and self._copies is None:
            self._copies = torch.cuda.Stream(device)
        with torch.cuda.stream(self._copies):  # does nothing for None
            placed = (
                waveforms if "waveforms" in on_host else send(waveforms, device),
                lengths if "lengths" in on_host else send(lengths, device),
            )
        if self.cuda:
            current = torch.cuda.current_stream(device)
            current.wait_stream(self._copies)
            for tensor in placed:
                if tensor.is_cuda:
                    tensor.record_stream(current)
        return placed

    def _download(self, tensor: torch.Tensor) -> torch.Tensor:
        import torch

        if not tensor.is_cuda:
            return tensor
        copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        return copy.copy_(tensor, non_blocking=True)

    def _windows(self, launched: _Launched) -> list[Window]:
        """Wait for a forward pass and return its windows; raise EncoderError if the encoder broke its contract."""
        import torch

        try:
            launched.wait()
        except RuntimeError as error:
            raise EncoderError(f"{self.info.name} failed on the device: {error}", where=launched.names[0]) from error
        check_counts(launched.valid, launched.n_frames, self.info.name)
        valid = launched.valid
        emitted = torch.full_like(valid, launched.n_frames) if self.info.forward_s else valid
        pooled = as_pooled(launched.reduced, valid, emitted, launched.cuts)
        frames: list[np.ndarray | None] = [None] * len(pooled)
        if launched.frames is not None:
            padded = launched.frames.cpu().numpy()
            frames = [padded[index, :count].copy() for index, count in enumerate(valid.tolist())]
        for name, statistics, values in zip(launched.names, pooled, frames, strict=True):
            if not (np.isfinite(statistics.mean_all).all() and (values is None or np.isfinite(values).all())):
                remedy = f"try --dtype fp32; the clip decodes, so the fault is in {self.info.name}"
                raise EncoderError("the encoder returned NaN or infinite values", where=name, remedy=remedy)
        return [Window(statistics, values) for statistics, values in zip(pooled, frames, strict=True)]


@contextmanager
def _exact_convolutions(*, without_onednn: bool) -> Iterator[None]:
    """Keep cuDNN from rounding the inputs of float32 convolutions to TF32's ten bits, which torch allows by default.

    `without_onednn` keeps bf16 on the CPU from oneDNN: on processors with AMX, its convolutions of few channels per
    group are wrong by more than their values (torch 2.13).
    """
    import torch

    cudnn = torch.backends.cudnn
    onednn: Any = torch.backends.mkldnn  # whose properties no type says
    before = cudnn.allow_tf32, onednn.enabled
    cudnn.allow_tf32, onednn.enabled = False, onednn.enabled and not without_onednn
    try:
        yield
    finally:
        cudnn.allow_tf32, onednn.enabled = before


def _has_bf16_weights(encoder: Encoder) -> bool:
    """Return whether a torch module of a loaded encoder has weights in bf16."""
    import torch

    modules = [value for value in getattr(encoder, "__dict__", {}).values() if isinstance(value, torch.nn.Module)]
    return any(weight.dtype is torch.bfloat16 for module in modules for weight in module.parameters())


def out_of_memory(error: BaseException) -> bool:
    """Return True for an error that says that the device or the machine ran out of memory.

    On the CPU, and from the libraries beneath CUDA's products and convolutions, torch raises a plain RuntimeError.
    """
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY)


def check_shape(frames: torch.Tensor, valid: torch.Tensor, shape: tuple[int, int, int], name: str) -> None:
    """Raise EncoderError if an encoder's output does not have the shape that it promised."""
    batch, layers, dim = shape
    if frames.ndim != 4 or frames.shape[0] != batch or frames.shape[1] != layers or frames.shape[3] != dim:
        expected = f"({batch}, {layers}, frames, {dim})"
        raise EncoderError(f"returned frames of shape {tuple(frames.shape)} instead of {expected}", where=name)
    if valid.shape != (batch,):
        raise EncoderError(f"returned {tuple(valid.shape)} counts of valid frames for {batch} clips", where=name)


def check_counts(valid: torch.Tensor, n_frames: int, name: str) -> None:
    """Raise EncoderError if an encoder counts more frames as valid than it returned, or none."""
    if int(valid.min()) < 1 or int(valid.max()) > n_frames:
        raise EncoderError(f"returned {valid.tolist()} valid frames of {n_frames}", where=name)
